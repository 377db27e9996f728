"""Who asks, and what there is to see: a project with somebody in each role, and two projects of others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import count
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.test import Client

from backend.projects import services
from backend.projects.access import viewer_for
from backend.projects.authentication import new_token
from backend.projects.models import (
    AuditEntry,
    Comment,
    Event,
    Membership,
    Project,
    Role,
    SummaryReport,
    Task,
    Token,
    User,
)
from tests.access.table import TOKENS
from tests.factories import TokenFactory, UserFactory

PASSWORD = "correct horse battery"
# Of the project that the table is about.
MEMBERS = 5
ABSENT = 999_999

_words = count(1)
# One for all clients: each would look for every static file there is.
_handler = Client().handler


def client_with(headers: dict[str, str]) -> Client:
    client = Client(headers=headers)
    client.handler = _handler
    return client


@dataclass(frozen=True)
class Place:
    """A project with one of everything, an event of every kind, and a project of the same members that is gone."""

    members: dict[str, User]
    project: Project
    gone: int
    task: Task
    deleted_task: int
    comment: Comment
    report: SummaryReport

    @classmethod
    def of(cls, name: str, members: dict[str, User], *, due: datetime, status: str) -> Place:
        """Each member is called by their role: a "second owner" is an owner."""
        actor = viewer_for(members["owner"])
        gone = services.project.create_project(actor=actor, name=name).pk
        project = services.project.create_project(actor=actor, name=name)
        for called, user in members.items():
            for project_id in (gone, project.pk) if called != "owner" else ():
                services.membership.add_member(
                    actor=actor, project_id=project_id, username=user.username, role=Role(called.split()[-1])
                )
        services.project.delete_project(actor=actor, project_id=gone)
        assignee = members.get("editor", members["owner"])
        given: Any = {"title": name, "due_date": due, "status": status, "assignee_id": assignee.pk}
        task, deleted = (
            services.task.create_task(actor=actor, project_id=project.pk, changes=given).pk for _ in range(2)
        )
        services.task.delete_task(actor=actor, task_id=deleted)
        place = cls(
            members,
            project,
            gone,
            services.task.update_task(actor=actor, task_id=task, changes={"description": name}),
            deleted,
            services.comment.add_comment(actor=actor, task_id=task, content=name),
            services.report.generate(project.pk, date(2024, 3, 1)),
        )
        place.change(name)
        return place

    def change(self, text: str) -> None:
        """Something that those who are in the project hear of."""
        changes: Any = {"description": f"{self.project.name} {text}"}
        owner = viewer_for(self.members["owner"])
        services.project.update_project(actor=owner, project_id=self.project.pk, changes=changes)


class World:
    """The kinds of people are the columns of the table, and a superuser."""

    @transaction.atomic
    def __init__(self) -> None:
        password = make_password(PASSWORD)
        flags = {"staff": {"is_staff": True}, "superuser": {"is_staff": True, "is_superuser": True}}
        self.users = {
            kind: UserFactory(password=password, **flags.get(kind, {}))
            for kind in ("no member", "viewer", "editor", "owner", "staff", "superuser")
        }
        self.sessions = {kind: session_of(user) for kind, user in self.users.items()}
        self.secrets = {kind: new_token() for kind in TOKENS}
        for kind, scope in TOKENS.items():
            TokenFactory(user=self.users["owner"], scope=scope, secret=self.secrets[kind])
        self.newcomer = UserFactory(username="newcomer", password=password)
        self.member = UserFactory()
        self.members = {called: self.users[called] for called in ("owner", "editor", "viewer")}
        self.members |= {"second owner": UserFactory(), "second editor": self.member}
        cook = {"owner": self.users["no member"]}
        self.elsewhere = [
            Place.of(f"Kitchen {n}", cook, due=datetime(2027, 3, 1, tzinfo=UTC), status="pending") for n in (1, 2)
        ]
        self.renew()
        # Whoever hears of what is not theirs does so before the last that is.
        for place in (*self.elsewhere, self.place):
            place.change("at last")

    @transaction.atomic
    def renew(self) -> None:
        """A project in which nothing was changed yet, and tokens that are there to be revoked."""
        self.place = Place.of("Garden", self.members, due=datetime(2031, 3, 1, tzinfo=UTC), status="in_progress")
        self.tokens = {user.pk: TokenFactory(user=user) for user in (*self.users.values(), self.newcomer)}

    def user(self, kind: str) -> User | None:
        return self.users["owner"] if kind in TOKENS else self.users.get(kind)

    def credentials(self, kind: str) -> dict[str, str]:
        """The header by which somebody of this kind is known."""
        if kind in TOKENS:
            return {"authorization": f"Bearer {self.secrets[kind]}"}
        return {"cookie": f"sessionid={self.sessions[kind]}"} if kind in self.sessions else {}

    def names(self, kind: str) -> dict[str, Any]:
        """What a request may name: ids, and a `word` that is new each time."""
        user = self.user(kind)
        return {
            "project": self.place.project.pk,
            "gone": self.place.gone,
            "task": self.place.task.pk,
            "deleted_task": self.place.deleted_task,
            "comment": self.place.comment.pk,
            "report": self.place.report.pk,
            "owner": self.users["owner"].pk,
            "editor": self.users["editor"].pk,
            "member": self.member.pk,
            "newcomer": self.newcomer.pk,
            "self": user.pk if user else ABSENT,
            "own_token": self.tokens[user.pk].pk if user else ABSENT,
            "others_token": self.tokens[self.newcomer.pk].pk,
            "word": f"word{next(_words)}",
            # A comment of nobody in particular has to say whose it is.
            "author_in_graphql": "" if user else ', author: "Guest"',
            "author_in_json": "" if user else ', "author": "Guest"',
        }

    # -- what they are to see --
    def rows(self, noun: str, kind: str) -> dict[str, list[int]]:
        """Ids of the rows of this noun, `own` and `all`."""
        user = self.user(kind)
        places = [place for place in (*self.elsewhere, self.place) if user in place.members.values()]
        projects = [pk for place in places for pk in (place.project.pk, place.gone)]
        rows: dict[str, tuple[QuerySet[Model], Q]] = {
            "project": (Project.objects.all(), Q(pk__in=projects)),
            "task": (Task.objects.all(), Q(project__in=projects)),
            "report": (SummaryReport.objects.all(), Q(project__in=projects)),
            "event": (Event.objects.exclude(kind="access.changed"), Q(project_id__in=projects)),
            "token": (Token.objects.all(), Q(user=user)),
            "audit entry": (AuditEntry.objects.all(), Q(pk=None)),
        }
        everything, own = rows[noun]
        return {
            "own": sorted(everything.filter(own).values_list("pk", flat=True)),
            "all": sorted(everything.values_list("pk", flat=True)),
        }

    def positions(self, kind: str, word: str, **narrowed: int) -> list[int]:
        """Of the events that are heard by whoever hears `own` or `all`, or with `yes` what happened in the project."""
        if word == "yes":
            events = Event.objects.filter(project_id=self.place.project.pk, **narrowed).exclude(kind="access.changed")
            return list(events.order_by("position").values_list("position", flat=True))
        return self.rows("event", kind)[word]

    def member_ids(self) -> set[int]:
        """Of who is in the project."""
        return set(Membership.objects.filter(project=self.place.project).values_list("user_id", flat=True))


def session_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    key: str = client.cookies["sessionid"].value
    return key
