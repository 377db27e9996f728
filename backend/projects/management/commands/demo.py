import random
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime, timedelta
from itertools import cycle, islice
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection, transaction
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
# Hours from now until a task is due: some are late, some due soon, some later.
DUE_HOURS = [-50, 3, 30, 72, 9, 168, 20, 100, 400, 700, 250]
STATUSES = [Status.PENDING, Status.IN_PROGRESS, Status.COMPLETED, Status.PENDING]
REMARKS = ["Looks good to me.", "Can we have this a day earlier?", "I have put my notes into the description.", "Done?"]

# A load of this many tasks or more creates them in batches and without history.
MANY = 10_000
BATCH = 250
# In a large load, the shares of the three projects. The rest goes to hundreds of projects, few of which are large.
LARGE_SHARES = [0.3, 0.2, 0.1]
OTHER_PROJECTS = 400
THINGS = ["report", "contract", "drawing", "shelf", "budget", "poster", "server", "garden", "invoice", "manual"]
# Words to search for, by frequency: one task in 2 contains the first, one in 10 the next, and so on.
WORDS = {2: "together", 10: "drawings", 100: "permission", 1_000: "scaffolding", 10_000: "chandelier"}
# Seconds between two lines of progress where the output is not a terminal.
PROGRESS_EVERY_S = 15.0


class Command(BaseCommand):
    help = "Load demo data: three projects with members, tasks and comments. Does nothing if there is a project."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--tasks", type=int, help="number of tasks (default: 60); with this option, they are added to existing data"
        )

    def handle(self, *, tasks: int | None, **options: Any) -> None:
        """Load the data through the services, so that the journal records it like any other change.

        The default data is loaded in one transaction. Further tasks are committed change by change, and large loads
        batch by batch, since a transaction that holds the journal's lock blocks all other writers.
        """
        if tasks is None and Project.objects.exists():
            self.stdout.write("There are projects already, so no demo data is loaded.")
            return
        if tasks is not None and tasks >= MANY:
            self._load_many(tasks)
            return
        with transaction.atomic() if tasks is None else nullcontext():
            self._load(tasks)

    def _load(self, tasks: int | None) -> None:
        people = [_person(*names) for names in PEOPLE]
        shares = [len(range(index, tasks or 60, len(PROJECTS))) for index in range(len(PROJECTS))]
        for index, (name, share) in enumerate(zip(PROJECTS, shares, strict=True)):
            members = people[index:] + people[:index]
            project_id = _project(name, *members)
            owner, editor, _ = map(access.viewer_for, members)
            for done, title in enumerate(_titles(name, share), start=1):
                _task(done, title, project_id, owner=owner, editor=editor)
                if done % 500 == 0 or done == share:
                    self.stdout.write(f"  {name}: {done} of {share} tasks")
            services.report.generate(project_id, timezone.now().astimezone(zone()).date())
        self.stdout.write(f"Demo data loaded: {len(PROJECTS)} projects, {sum(shares)} tasks.")

    def _load_many(self, tasks: int) -> None:
        """Create each task with its event. Every load is the same, except for the dates."""
        people = [_person(*names) for names in PEOPLE]
        rng = random.Random(tasks)  # noqa: S311
        batches: list[tuple[int, Viewer, list[int]]] = []
        for index, (name, share) in enumerate(_sizes(tasks)):
            members = people[index % 3 :] + people[: index % 3]
            project_id = _project(name, *members)
            assignees = [member.pk for member in members[:2]]
            actor = access.viewer_for(members[0])
            batches += [(min(BATCH, share - done), actor, [project_id, *assignees]) for done in range(0, share, BATCH)]
        rng.shuffle(batches)
        progress = Progress(self, tasks)
        now = timezone.now()
        with connection.cursor() as cursor:
            # Adding many words to the search index at once takes a third of the time.
            cursor.execute("SET gin_pending_list_limit = '64MB'; SET work_mem = '256MB'")
            try:
                for size, actor, (project_id, *assignees) in batches:
                    new_tasks = [_random_task(rng, progress.done + n, assignees, now) for n in range(size)]
                    services.task.create_tasks(actor=actor, project_id=project_id, new_tasks=new_tasks)
                    progress.advance(size)
            finally:
                cursor.execute("RESET gin_pending_list_limit; RESET work_mem")
            # Autovacuum would do this too late: until then, PostgreSQL plans as if the tables were empty.
            cursor.execute("ANALYZE projects_task, projects_project, projects_event")
        self.stdout.write(f"Demo data loaded: {len(LARGE_SHARES) + OTHER_PROJECTS} projects, {tasks} tasks.")


class Progress:
    """Shows the progress of a load: one line that is updated on a terminal, else a new line at intervals."""

    def __init__(self, command: BaseCommand, total: int) -> None:
        self._command = command
        self._total = total
        self.done = 0
        self._started = self._written_at = time.monotonic()
        self._is_terminal = command.stdout.isatty()

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        is_done = self.done >= self._total
        if not is_done and now - self._written_at < (0.2 if self._is_terminal else PROGRESS_EVERY_S):
            return
        self._written_at = now
        rate = self.done / max(now - self._started, 1e-9)
        text = f"{self.done:,} of {self._total:,} tasks, {rate:,.0f}/s, {(self._total - self.done) / rate:.0f} s to go"
        if self._is_terminal:
            bar = "#" * round(30 * self.done / self._total)
            self._command.stdout.write(f"\r[{bar:30}] {text:60}", ending="\n" if is_done else "")
            self._command.stdout.flush()
        else:
            self._command.stdout.write(f"  {text}")


def _sizes(tasks: int) -> Iterator[tuple[str, int]]:
    """Yield the names of projects with their numbers of tasks, which add up to `tasks`."""
    remaining = tasks
    for name, share in zip(PROJECTS, LARGE_SHARES, strict=True):
        remaining -= int(tasks * share)
        yield name, int(tasks * share)
    parts = [1 / (10 + number) for number in range(OTHER_PROJECTS)]
    ends = [round(remaining * sum(parts[: number + 1]) / sum(parts)) for number in range(OTHER_PROJECTS)]
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        yield f"{WORK[number % len(WORK)]} the {THINGS[number % len(THINGS)]}s, part {number + 1}", end - start


def _random_task(rng: random.Random, number: int, assignees: list[int], now: datetime) -> TaskChanges:
    thing = THINGS[int(rng.random() ** 2 * len(THINGS))]
    words = [word for every, word in WORDS.items() if number % every == every // 2]
    return {
        "title": f"{rng.choice(WORK)} the {thing} {number % 997}",
        "description": " ".join(["What was agreed is in the minutes.", *words, REMARKS[number % len(REMARKS)]]),
        "status": rng.choices(Status.values, [5, 2, 3])[0],
        "assignee_id": rng.choice([*assignees, None]),
        "due_date": now + timedelta(minutes=rng.randint(-300_000, 300_000)),
    }


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
        services.membership.add_member(actor=access.SYSTEM, project_id=project.pk, username=member.username, role=role)
    return project.pk


def _titles(project: str, count: int) -> Iterator[str]:
    kind, names = PROJECTS[project]
    # 9 and 7 have no common divisor, so titles repeat after 63.
    pairs = zip(cycle(WORK), cycle(names), strict=False)
    return (f"{work} the {name} {kind}" for work, name in islice(pairs, count))


def _task(number: int, title: str, project_id: int, *, owner: Viewer, editor: Viewer) -> None:
    """Create a task with some history: a change of status, and comments for some tasks."""
    due_date = timezone.now() + timedelta(hours=DUE_HOURS[number % len(DUE_HOURS)])
    assignee_id = [owner.user_id, editor.user_id, None][number % 3]
    changes: TaskChanges = {"title": title, "due_date": due_date, "assignee_id": assignee_id}
    task = services.task.create_task(actor=owner, project_id=project_id, changes=changes)
    services.task.update_task(actor=editor, task_id=task.pk, changes={"status": STATUSES[number % len(STATUSES)]})
    for index in range(max(0, number % 5 - 2)):
        author = [editor, owner][index % 2]
        services.comment.add_comment(actor=author, task_id=task.pk, content=REMARKS[(number + index) % len(REMARKS)])
