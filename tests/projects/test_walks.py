"""Lists paged to the end while other users create, delete and update tasks in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.core.cache import cache
from django.db import transaction

from backend.projects.access import SYSTEM, Viewer, viewer_for
from backend.projects.models import Project, Task
from backend.projects.resolvers import task as tasks
from backend.projects.resolvers.page import Order, Page, PageRequest
from backend.projects.resolvers.task import TaskFilter, list_tasks
from backend.projects.rows import TaskRow
from backend.projects.services.task import create_task, delete_task, update_task
from tests.cases import Case
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
ORDERS = [
    Order(field, is_descending)
    for field in ("id", "due_date", "created_at", "updated_at")
    for is_descending in (True, False)
]
SEEDS = range(2)


class Writers:
    """Other users who write. `untouched` contains the ids of the tasks that they have not changed."""

    def __init__(self, case: Case, rng: random.Random, projects: list[Project]) -> None:
        self._case = case
        self._rng = rng
        self._projects = projects
        # The number of writes is bounded. Otherwise rows added at the end could make the paging endless.
        self._remaining = 20
        self.untouched = set(Task.objects.filter(project__in=projects).values_list("pk", flat=True))

    def write(self) -> None:
        """Make at most three changes to random tasks."""
        for _ in range(min(self._remaining, self._rng.randrange(4))):
            self._remaining -= 1
            with self._case.committed():
                self._rng.choice([self._create, self._create, self._delete, self._update])()

    def _create(self) -> None:
        due_date = NOON + timedelta(days=self._rng.randrange(5))
        project = self._rng.choice(self._projects)
        create_task(actor=SYSTEM, project_id=project.pk, changes={"title": "New", "due_date": due_date})

    def _delete(self) -> None:
        delete_task(actor=SYSTEM, task_id=self._any_task())

    def _update(self) -> None:
        due_date = NOON + timedelta(days=self._rng.randrange(5), seconds=self._rng.randrange(1, 99))
        update_task(actor=SYSTEM, task_id=self._any_task(), changes={"due_date": due_date})

    def _any_task(self) -> int:
        pk = self._rng.choice(list(Task.objects.filter(project__in=self._projects).values_list("pk", flat=True)))
        self.untouched.discard(pk)
        return pk


class WalkTests(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.projects = ProjectFactory.create_batch(3)
        member = MembershipFactory(project=cls.projects[0]).user
        MembershipFactory(project=cls.projects[1], user=member)
        # Five due dates for thirty tasks: most are tied.
        for number in range(30):
            TaskFactory(project=cls.projects[number % 3], due_date=NOON + timedelta(days=number * 7 % 5))
        cls.viewers = {"staff": (SYSTEM, cls.projects), "a member": (viewer_for(member), cls.projects[:2])}

    def pages(
        self, viewer: Viewer, order: Order, size: int, is_forward: bool, writers: Writers | None = None
    ) -> Iterator[Page[TaskRow]]:
        request = PageRequest(first=size) if is_forward else PageRequest(last=size)
        while True:
            page = list_tasks(viewer, filter=TaskFilter(), order=order, page=request).page
            yield page
            if not (page.has_next if is_forward else page.has_previous):
                return
            edge = page.page_cursor(page.rows[-1 if is_forward else 0])
            request = PageRequest(first=size, after=edge) if is_forward else PageRequest(last=size, before=edge)
            if writers is not None:
                writers.write()

    def start_again(self) -> None:
        """Restore the tasks of `setUpTestData`."""
        transaction.savepoint_rollback(self.savepoint)
        cache.delete_pattern("*")

    def setUp(self) -> None:
        self.savepoint = transaction.savepoint()

    def walks(self) -> Iterator[tuple[str, Viewer, list[Project], Order, bool]]:
        for name, (viewer, projects) in self.viewers.items():
            for order in ORDERS:
                for is_forward in (True, False):
                    yield name, viewer, projects, order, is_forward

    def test_every_untouched_task_is_listed_once_in_order_while_others_write(self) -> None:
        for seed in SEEDS:
            for name, viewer, projects, order, is_forward in self.walks():
                with self.subTest(name, seed=seed, order=order, is_forward=is_forward):
                    rng = random.Random(f"{seed} {order} {is_forward}")
                    self.start_again()
                    writers = Writers(self, rng, projects)
                    pages = list(self.pages(viewer, order, rng.randrange(1, 8), is_forward, writers))
                    rows = [row for page in (pages if is_forward else pages[::-1]) for row in page.rows]
                    ids = [row.id for row in rows]
                    self.assertLessEqual(writers.untouched, set(ids))
                    untouched = [pk for pk in ids if pk in writers.untouched]
                    self.assertEqual(len(untouched), len(writers.untouched))
                    # Timestamps have a fixed width, so their text sorts like the times.
                    keys = [(getattr(row, order.field), row.id) for row in rows]
                    self.assertEqual(keys, sorted(keys, reverse=order.is_descending))

    def test_has_previous_and_has_next_are_correct_on_every_page(self) -> None:
        for name, viewer, projects, order, is_forward in self.walks():
            for size in (3, 4, 10):
                with self.subTest(name, order=order, is_forward=is_forward, size=size):
                    expected = list(Task.objects.filter(project__in=projects).order_by(*order.columns))
                    pages = list(self.pages(viewer, order, size, is_forward))
                    self.assertEqual(len(pages), -(-len(expected) // size))
                    if not is_forward:
                        pages.reverse()
                    self.assertEqual([row.id for page in pages for row in page.rows], [task.pk for task in expected])
                    self.assertEqual([page.has_previous for page in pages], [False] + [True] * (len(pages) - 1))
                    self.assertEqual([page.has_next for page in pages], [True] * (len(pages) - 1) + [False])

    def test_the_pages_are_the_same_if_projects_are_read_separately(self) -> None:
        viewer, _ = self.viewers["a member"]
        expected = {order: [list(page.rows) for page in self.pages(viewer, order, 3, True)] for order in ORDERS}
        self.addCleanup(setattr, tasks, "MAX_SHARES", tasks.MAX_SHARES)
        self.addCleanup(setattr, tasks, "MAX_SORTED", tasks.MAX_SORTED)
        tasks.MAX_SHARES = 1
        for tasks.MAX_SORTED in (100, 1):
            with self.committed():
                create_task(actor=SYSTEM, project_id=self.projects[2].pk, changes={"title": "Unseen", "due_date": NOON})
            for order in ORDERS:
                with self.subTest(order, max_sorted=tasks.MAX_SORTED):
                    self.assertEqual([list(page.rows) for page in self.pages(viewer, order, 3, True)], expected[order])
