from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from itertools import cycle, islice
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone

from backend.projects import access, services
from backend.projects.access import Viewer
from backend.projects.models import Project, Role, Status, User
from backend.projects.services.clock import zone
from backend.projects.services.task import TaskChanges

PEOPLE = [("ada", "Ada", "Lovelace"), ("grace", "Grace", "Hopper"), ("alan", "Alan", "Turing")]
PROJECTS = {
    "Website relaunch": ("page", ["home", "pricing", "team", "careers", "contact", "press", "imprint"]),
    "Mobile app": ("screen", ["sign-in", "inbox", "search", "settings", "profile", "offline", "upload"]),
    "Office move": ("room", ["kitchen", "library", "meeting", "server", "quiet", "reception", "workshop"]),
}
WORK = ["Sketch", "Plan", "Build", "Review", "Test", "Measure", "Announce", "Document", "Repair"]
# Hours from now: late, within the next day, within the week, later.
DUE_HOURS = [-50, 3, 30, 72, 9, 168, 20, 100, 400, 700, 250]
STATUSES = [Status.PENDING, Status.IN_PROGRESS, Status.COMPLETED, Status.PENDING]
REMARKS = ["Looks good to me.", "Can we have this a day earlier?", "I have put my notes into the description.", "Done?"]


class Command(BaseCommand):
    help = "Load demo data: three projects, their people, tasks and comments. Does nothing where there is a project."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--tasks", type=int, help="how many tasks to load (60); given, they are added to what is there"
        )

    def handle(self, *, tasks: int | None, **options: Any) -> None:
        """Through the services: the journal tells of it as of any other work.

        The little of a first start is loaded whole or not at all. More is added a change at a time, since nobody else
        may write while a transaction holds the journal.
        """
        if tasks is None and Project.objects.exists():
            self.stdout.write("There are projects already: no demo data loaded.")
            return
        with transaction.atomic() if tasks is None else nullcontext():
            self._load(tasks)

    def _load(self, tasks: int | None) -> None:
        people = [_person(*names) for names in PEOPLE]
        shares = [len(range(turn, tasks or 60, len(PROJECTS))) for turn in range(len(PROJECTS))]
        for turn, (name, share) in enumerate(zip(PROJECTS, shares, strict=True)):
            members = people[turn:] + people[:turn]
            project_id = _project(name, *members)
            owner, editor, _ = map(access.viewer_for, members)
            for done, title in enumerate(_titles(name, share), start=1):
                _task(done, title, project_id, owner=owner, editor=editor)
                if done % 500 == 0 or done == share:
                    self.stdout.write(f"  {name}: {done} of {share} tasks")
            services.report.generate(project_id, timezone.now().astimezone(zone()).date())
        self.stdout.write(f"Demo data loaded: {len(PROJECTS)} projects, {sum(shares)} tasks.")


def _person(username: str, first_name: str, last_name: str) -> User:
    user = User.objects.filter(username=username).first()
    if user is None:
        user = User(username=username, first_name=first_name, last_name=last_name, email=f"{username}@example.org")
        user.set_unusable_password()
        services.user.save_user(actor=access.SYSTEM, user=user)
    return user


def _project(name: str, owner: User, editor: User, viewer: User) -> int:
    description = f"Everything that the {name.lower()} takes."
    actor = access.viewer_for(owner)
    project = services.project.create_project(actor=actor, name=name, description=description)
    for member, role in [(editor, Role.EDITOR), (viewer, Role.VIEWER)]:
        services.membership.add_member(actor=actor, project_id=project.pk, username=member.username, role=role)
    return project.pk


def _titles(project: str, count: int) -> Iterator[str]:
    kind, names = PROJECTS[project]
    # 9 and 7 have no common divisor: 63 titles before the first one comes again.
    pairs = zip(cycle(WORK), cycle(names), strict=False)
    return (f"{work} the {name} {kind}" for work, name in islice(pairs, count))


def _task(number: int, title: str, project_id: int, *, owner: Viewer, editor: Viewer) -> None:
    """A task with a little history: made, perhaps taken up or done, perhaps talked about."""
    due_date = timezone.now() + timedelta(hours=DUE_HOURS[number % len(DUE_HOURS)])
    assignee_id = [owner.user_id, editor.user_id, None][number % 3]
    changes: TaskChanges = {"title": title, "due_date": due_date, "assignee_id": assignee_id}
    task = services.task.create_task(actor=owner, project_id=project_id, changes=changes)
    services.task.update_task(actor=editor, task_id=task.pk, changes={"status": STATUSES[number % len(STATUSES)]})
    for turn in range(max(0, number % 5 - 2)):
        author = [editor, owner][turn % 2]
        services.comment.add_comment(actor=author, task_id=task.pk, content=REMARKS[(number + turn) % len(REMARKS)])
