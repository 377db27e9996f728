"""The callers and their data: a project with a member in each role, and two projects of another user."""

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
    Invitation,
    Membership,
    Project,
    Role,
    SummaryReport,
    Task,
    Token,
    User,
)
from tests.access.table import TOKENS
from tests.factories import InvitationFactory, ProjectFactory, TokenFactory, UserFactory

PASSWORD = "correct horse battery"
# The number of members of `World.sample`.
MEMBERS = 5
# An id that no row has.
ABSENT = 999_999

_words = count(1)
# Shared by all clients: each new handler searches for every static file.
_handler = Client().handler


def client_with(headers: dict[str, str]) -> Client:
    client = Client(headers=headers)
    client.handler = _handler
    return client


@dataclass(frozen=True)
class SampleProject:
    """A project with one object of each model and an event of every kind; a deleted project with the same members."""

    members: dict[str, User]
    project: Project
    deleted_project: int
    task: Task
    deleted_task: int
    comment: Comment
    report: SummaryReport

    @classmethod
    def of(cls, name: str, members: dict[str, User], *, due: datetime, status: str) -> SampleProject:
        """Create the objects. A key of `members` ends with the role: a "second owner" is an owner."""
        actor = viewer_for(members["owner"])
        deleted_project = services.project.create_project(actor=actor, name=name).pk
        project = services.project.create_project(actor=actor, name=name)
        for name_of_member, user in members.items():
            for project_id in (deleted_project, project.pk) if name_of_member != "owner" else ():
                invitation = services.invitation.invite_member(
                    actor=actor, project_id=project_id, username=user.username, role=Role(name_of_member.split()[-1])
                )
                services.invitation.accept_invitation(actor=viewer_for(user), invitation_id=invitation.pk)
        services.project.delete_project(actor=actor, project_id=deleted_project)
        assignee = members.get("editor", members["owner"])
        changes: Any = {"title": name, "due_date": due, "status": status, "assignee_id": assignee.pk}
        task, deleted_task = (
            services.task.create_task(actor=actor, project_id=project.pk, changes=changes).pk for _ in range(2)
        )
        services.task.delete_task(actor=actor, task_id=deleted_task)
        sample = cls(
            members,
            project,
            deleted_project,
            services.task.update_task(actor=actor, task_id=task, changes={"description": name}),
            deleted_task,
            services.comment.add_comment(actor=actor, task_id=task, content=name),
            services.report.generate(project.pk, date(2024, 3, 1)),
        )
        sample.change(name)
        return sample

    def change(self, text: str) -> None:
        """Change the project; its members receive the event."""
        changes: Any = {"description": f"{self.project.name} {text}"}
        owner = viewer_for(self.members["owner"])
        services.project.update_project(actor=owner, project_id=self.project.pk, changes=changes)


class World:
    """The kinds of callers are the columns of the table and `superuser`."""

    @transaction.atomic
    def __init__(self) -> None:
        password = make_password(PASSWORD)
        flags = {"staff": {"is_staff": True}, "superuser": {"is_staff": True, "is_superuser": True}}
        self.users = {
            kind: UserFactory(password=password, **flags.get(kind, {}))
            for kind in ("non-member", "viewer", "editor", "owner", "staff", "superuser")
        }
        self.sessions = {kind: session_of(user) for kind, user in self.users.items()}
        self.secrets = {kind: new_token() for kind in TOKENS}
        for kind, scope in TOKENS.items():
            TokenFactory(user=self.users["owner"], scope=scope, secret=self.secrets[kind])
        self.newcomer = UserFactory(username="newcomer", password=password)
        self.member, self.guest = UserFactory(), UserFactory()
        self.shed = ProjectFactory(name="Shed")
        self.members = {role: self.users[role] for role in ("owner", "editor", "viewer")}
        self.members |= {"second owner": UserFactory(), "second editor": self.member}
        cook = {"owner": self.users["non-member"]}
        self.other_samples = [
            SampleProject.of(f"Kitchen {n}", cook, due=datetime(2027, 3, 1, tzinfo=UTC), status="pending")
            for n in (1, 2)
        ]
        self.renew()
        # A listener that wrongly receives an event of another project receives it before the last one of its own.
        for sample in (*self.other_samples, self.sample):
            sample.change("at last")

    @transaction.atomic
    def renew(self) -> None:
        """Create a new project for the tests to change, and new invitations and tokens."""
        self.sample = SampleProject.of(
            "Garden", self.members, due=datetime(2031, 3, 1, tzinfo=UTC), status="in_progress"
        )
        everyone = (*self.users.values(), self.newcomer)
        Invitation.objects.all().delete()
        self.invitation = InvitationFactory(
            project=self.sample.project, user=self.guest, invited_by=self.users["owner"]
        )
        self.shed.memberships.all().delete()
        self.invitations = {user.pk: InvitationFactory(project=self.shed, user=user) for user in everyone}
        self.tokens = {user.pk: TokenFactory(user=user) for user in everyone}

    def user(self, kind: str) -> User | None:
        return self.users["owner"] if kind in TOKENS else self.users.get(kind)

    def credentials(self, kind: str) -> dict[str, str]:
        """Return the header that authenticates a caller of this kind."""
        if kind in TOKENS:
            return {"authorization": f"Bearer {self.secrets[kind]}"}
        return {"cookie": f"sessionid={self.sessions[kind]}"} if kind in self.sessions else {}

    def names(self, kind: str) -> dict[str, Any]:
        """Return the values for the placeholders of a request: ids, and a `word` that is new each time."""
        user = self.user(kind)
        return {
            "project": self.sample.project.pk,
            "deleted_project": self.sample.deleted_project,
            "task": self.sample.task.pk,
            "deleted_task": self.sample.deleted_task,
            "comment": self.sample.comment.pk,
            "report": self.sample.report.pk,
            "owner": self.users["owner"].pk,
            "editor": self.users["editor"].pk,
            "member": self.member.pk,
            "newcomer": self.newcomer.pk,
            "guest": self.guest.pk,
            "shed": self.shed.pk,
            "invitation": self.invitation.pk,
            "own_invitation": self.invitations[user.pk].pk if user else ABSENT,
            "self": user.pk if user else ABSENT,
            "own_token": self.tokens[user.pk].pk if user else ABSENT,
            "others_token": self.tokens[self.newcomer.pk].pk,
            "word": f"word{next(_words)}",
            # An anonymous comment has to name its author.
            "author_in_graphql": "" if user else ', author: "Guest"',
            "author_in_json": "" if user else ', "author": "Guest"',
        }

    # -- expected results --
    def rows(self, noun: str, kind: str) -> dict[str, list[int]]:
        """Return the ids of the rows of this noun: the caller's `own`, and `all`."""
        user = self.user(kind)
        own_samples = [sample for sample in (*self.other_samples, self.sample) if user in sample.members.values()]
        own_projects = [pk for sample in own_samples for pk in (sample.project.pk, sample.deleted_project)]
        rows: dict[str, tuple[QuerySet[Model], Q]] = {
            "project": (Project.objects.all(), Q(pk__in=own_projects)),
            "task": (Task.objects.all(), Q(project__in=own_projects)),
            "report": (SummaryReport.objects.all(), Q(project__in=own_projects)),
            "event": (Event.objects.exclude(kind="access.changed"), Q(project_id__in=own_projects)),
            "invitation": (Invitation.objects.all(), Q(user=user)),
            "token": (Token.objects.all(), Q(user=user)),
            "audit entry": (AuditEntry.objects.all(), Q(pk=None)),
        }
        everything, own = rows[noun]
        return {
            "own": sorted(everything.filter(own).values_list("pk", flat=True)),
            "all": sorted(everything.values_list("pk", flat=True)),
        }

    def positions(self, kind: str, word: str, **filters: int) -> list[int]:
        """Return the positions of the events that the caller receives; with `yes`, those of the project."""
        if word == "yes":
            events = Event.objects.filter(project_id=self.sample.project.pk, **filters).exclude(kind="access.changed")
            return list(events.order_by("position").values_list("position", flat=True))
        return self.rows("event", kind)[word]

    def member_ids(self) -> set[int]:
        """Return the user ids of the members of the project."""
        return set(Membership.objects.filter(project=self.sample.project).values_list("user_id", flat=True))


def session_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    key: str = client.cookies["sessionid"].value
    return key
