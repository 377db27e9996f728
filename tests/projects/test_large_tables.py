"""The query plans of lists of many tasks (docs/decisions/0007-large-tables.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import Any

from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from backend.projects.access import SYSTEM, Viewer, viewer_for
from backend.projects.models import Membership, Project, Role, Task, User
from backend.projects.resolvers import search
from backend.projects.resolvers import task as tasks
from backend.projects.resolvers.page import Order, PageRequest
from backend.projects.resolvers.project import ProjectFilter, count_projects, list_projects
from backend.projects.resolvers.task import (
    TaskFilter,
    count_tasks,
    count_tasks_of_projects,
    list_tasks,
    list_tasks_of_projects,
    tasks_listing,
)
from backend.projects.rows import TaskRow
from tests.cases import Case
from tests.factories import UserFactory

TASKS = 40_000
PROJECTS = 60
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
PAGE = PageRequest(first=100)
ALL, NEWEST_FIRST = TaskFilter(), Order()
ORDERS = [
    Order(field, is_descending)
    for field in ("id", "due_date", "created_at", "updated_at")
    for is_descending in (True, False)
]

# Half of the tasks belong to three projects, the others to all the rest. Every timestamp is spread over some 300 days,
# in an order of its own. The last ten projects have the word 'lexicon' in each task, and none of `viewers` as a member.
_FILL = """
INSERT INTO projects_task
       (project_id, title, description, status, assignee_id, due_date, version, created_at, updated_at)
SELECT (%(projects)s)[CASE n %% 6 WHEN 0 THEN 1 WHEN 1 THEN 2 WHEN 2 THEN 3 ELSE 4 + n * 7 %% (%(count)s - 3) END],
       'Task ' || n || CASE WHEN n %% 2 = 0 THEN ' common' ELSE '' END || CASE WHEN n = 77 THEN ' unique' ELSE '' END
       || CASE WHEN n %% 6 > 2 AND n * 7 %% (%(count)s - 3) >= 47 THEN ' lexicon' ELSE '' END,
       CASE WHEN n %% 1000 = 3 THEN 'A rare remark' ELSE '' END,
       (ARRAY['pending', 'in_progress', 'completed'])[1 + n * 11 %% 3], (%(people)s)[1 + n * 13 %% 20],
       %(noon)s + n * 7919 %% 40009 * interval '10 minutes', 1,
       %(noon)s + n * 6007 %% 40009 * interval '10 minutes', %(noon)s + n * 11003 %% 40009 * interval '10 minutes'
  FROM generate_series(1, %(tasks)s) AS n
"""


def count_per_project(
    viewer: Viewer, project_ids: list[int], *, filter: TaskFilter
) -> dict[int, dict[TaskFilter, int]]:
    return count_tasks_of_projects(viewer, project_ids, [filter])


class LargeCase(Case):
    projects: list[Project]
    people: list[User]
    viewers: dict[str, Viewer]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.projects = Project.objects.bulk_create(Project(name=f"Project {n}") for n in range(PROJECTS))
        cls.people = UserFactory.create_batch(20)
        large, small, many = cls.people[:3]
        memberships = {large: cls.projects[:3], small: cls.projects[2:50:20], many: cls.projects[:50]}
        Membership.objects.bulk_create(
            Membership(user=user, project=project, role=Role.EDITOR)
            for user, projects in memberships.items()
            for project in projects
        )
        parameters = {"projects": [project.pk for project in cls.projects], "people": [user.pk for user in cls.people]}
        with connection.cursor() as cursor:
            cursor.execute(_FILL, {**parameters, "count": PROJECTS, "noon": NOON, "tasks": TASKS})
            cursor.execute("ANALYZE projects_task, projects_project, projects_membership")
        cls.viewers = {
            "staff": SYSTEM,
            "a member of three large projects": viewer_for(large),
            "a member of three projects": viewer_for(small),
            "a member of many projects": viewer_for(many),
        }

    def plan(self, read: Callable[[], Any], model: type[Model] = Task) -> Plan:
        """Return the plan of the one statement that reads tasks, or rows of another model."""
        with CaptureQueriesContext(connection) as captured:
            read()
        [statement] = [query["sql"] for query in captured if f'FROM "{model._meta.db_table}"' in query["sql"]]
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}")
            [[found]] = cursor.fetchall()
        return Plan((json.loads(found) if isinstance(found, str) else found)[0]["Plan"], model)

    def plan_of_list(
        self, viewer: Viewer, filter: TaskFilter = ALL, order: Order = NEWEST_FIRST, page: PageRequest = PAGE
    ) -> Plan:
        return self.plan(lambda: list_tasks(viewer, filter=filter, order=order, page=page))


class Plan:
    """The plan of one statement, with the numbers of its execution."""

    def __init__(self, root: dict[str, Any], model: type[Model]) -> None:
        self._table = model._meta.db_table
        self.nodes = [node for node in _walk(root) if node["Actual Loops"]]
        self.buffers = root["Shared Hit Blocks"] + root["Shared Read Blocks"]

    @property
    def whole_scans(self) -> list[str]:
        scans = [node for node in self.nodes if node["Node Type"] == "Seq Scan"]
        return [node["Relation Name"] for node in scans if node["Relation Name"] == self._table]

    @property
    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def most_sorted(self) -> int:
        """Rows that went into the largest sort."""
        sorts = [node for node in self.nodes if node["Node Type"] in ("Sort", "Incremental Sort")]
        return max((_rows(node["Plans"][0]) for node in sorts), default=0)

    @property
    def rows_read(self) -> int:
        """Rows of tasks, or of the other model, that were read, including those filtered out."""
        scans = [node for node in self.nodes if node.get("Relation Name") == self._table]
        return sum(_rows(node) + node.get("Rows Removed by Filter", 0) * node["Actual Loops"] for node in scans)


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)


def _rows(node: dict[str, Any]) -> int:
    return round(node["Actual Rows"] * node["Actual Loops"])


class IndexTests(LargeCase):
    def assert_by_index(self, plan: Plan, rows: int = 101) -> None:
        self.assertEqual(plan.whole_scans, [])
        self.assertLessEqual(plan.most_sorted, rows)

    def viewers_except_many(self) -> Iterator[tuple[str, Viewer]]:
        for name, viewer in self.viewers.items():
            if "many" not in name:
                yield name, viewer

    def test_each_order_uses_an_index_in_both_directions(self) -> None:
        for name, viewer in self.viewers_except_many():
            for order in ORDERS:
                for page in (PAGE, PageRequest(last=100)):
                    with self.subTest(name, order=order, page=page):
                        plan = self.plan_of_list(viewer, order=order, page=page)
                        self.assert_by_index(plan)
                        # By id, PostgreSQL may read and filter all tasks: each large project has a sixth of them.
                        self.assertLessEqual(plan.rows_read, (7 if order.field == "id" else 3) * 101)

    def test_each_filter_uses_an_index(self) -> None:
        days = [NOON + timedelta(days=days) for days in (1, 30, 140, 250)]
        filters = {
            "project": TaskFilter(project_id=self.projects[2].pk),
            "a small project": TaskFilter(project_id=self.projects[22].pk),
            "status": TaskFilter(status="pending"),
            "assignee": TaskFilter(assignee_id=self.people[7].pk),
            **{f"after {day:%d.%m.}": TaskFilter(due_after=day) for day in days},
            **{f"before {day:%d.%m.}": TaskFilter(due_before=day) for day in days},
        }
        for name, viewer in self.viewers_except_many():
            for filter_name, task_filter in filters.items():
                with self.subTest(name, filter=filter_name):
                    plan = self.plan_of_list(viewer, task_filter)
                    # No index has both id and due date, so all 144 tasks that are due within a day are sorted.
                    self.assert_by_index(plan, 144 if filter_name == f"before {days[0]:%d.%m.}" else 101)

    def test_a_filter_by_due_date_in_order_of_due_date_reads_one_page(self) -> None:
        days = [NOON + timedelta(days=99), NOON + timedelta(days=200)]
        for name, viewer in self.viewers_except_many():
            for is_descending in (True, False):
                for task_filter in (TaskFilter(due_after=days[0]), TaskFilter(due_before=days[1])):
                    with self.subTest(name, filter=task_filter, is_descending=is_descending):
                        plan = self.plan_of_list(viewer, task_filter, Order("due_date", is_descending))
                        self.assert_by_index(plan)
                        self.assertLessEqual(plan.rows_read, 3 * 101)

    def test_a_list_of_a_member_of_many_projects_reads_at_most_a_page_of_each(self) -> None:
        viewer = self.viewers["a member of many projects"]
        for order in ORDERS:
            with self.subTest(order):
                plan = self.plan_of_list(viewer, order=order)
                self.assertEqual(plan.whole_scans, [])
                self.assertLessEqual(plan.rows_read, 2 * 50 * 101)

    def test_the_lists_of_many_projects_read_a_page_of_each(self) -> None:
        ids = [project.pk for project in self.projects]
        for order in ORDERS:
            with self.subTest(order):
                plan = self.plan(
                    lambda order=order: list_tasks_of_projects(
                        SYSTEM, ids, filter=TaskFilter(), order=order, page=PageRequest(first=9, default_size=50)
                    )
                )
                self.assertEqual(plan.whole_scans, [])
                # Each row counts twice: it is found in the index of its project, then read.
                self.assertLessEqual(plan.rows_read, 2 * 10 * PROJECTS)

    def test_a_page_far_down_reads_as_many_buffers_as_the_first(self) -> None:
        for name, viewer in self.viewers_except_many():
            for order in ORDERS:
                with self.subTest(name, order=order):
                    first = self.plan_of_list(viewer, order=order)
                    seen = Task.objects.filter(project__in=self.projects[:3])
                    row = TaskRow.of(seen.order_by(*order.columns)[seen.count() * 3 // 4])
                    cursor = tasks_listing(TaskFilter(), order).page_cursor(row)
                    deep = self.plan_of_list(viewer, order=order, page=PageRequest(first=100, after=cursor))
                    self.assertLessEqual(deep.buffers, 1.5 * first.buffers)


class PartsTests(LargeCase):
    """Every way of reading a list returns the same rows."""

    def list_ids(self, viewer: Viewer, order: Order, filter: TaskFilter) -> list[int]:
        page = list_tasks(viewer, filter=filter, order=order, page=PAGE).page
        return [row.id for row in page.rows]

    def test_a_list_contains_the_rows_that_the_viewer_sees(self) -> None:
        filters = {
            "all": ({}, TaskFilter()),
            "status": ({"status": "pending"}, TaskFilter(status="pending")),
            "assignee": ({"assignee": self.people[7]}, TaskFilter(assignee_id=self.people[7].pk)),
            "due": ({"due_date__lt": NOON + timedelta(days=9)}, TaskFilter(due_before=NOON + timedelta(days=9))),
        }
        for name, viewer in self.viewers.items():
            seen = Task.objects.all() if viewer.sees_all else Task.objects.filter(project__members=viewer.user_id)
            for filter_name, (conditions, task_filter) in filters.items():
                for order in ORDERS:
                    with self.subTest(name, filter=filter_name, order=order):
                        expected = seen.filter(**conditions).order_by(*order.columns).values_list("pk", flat=True)
                        self.assertEqual(self.list_ids(viewer, order, task_filter), list(expected[:100]))

    def test_the_list_is_the_same_if_the_member_has_too_many_projects_to_read_separately(self) -> None:
        viewer = self.viewers["a member of many projects"]
        expected = [self.list_ids(viewer, order, TaskFilter(status="pending")) for order in ORDERS]
        self.addCleanup(setattr, tasks, "MAX_SORTED", tasks.MAX_SORTED)
        tasks.MAX_SORTED = 30
        self.assertEqual(
            [self.list_ids(viewer, order, TaskFilter(status="pending", due_after=NOON)) for order in ORDERS], expected
        )


class SearchTests(LargeCase):
    """Every search strategy finds the same tasks as a scan. Each strategy is used for one of the words."""

    def setUp(self) -> None:
        for name, number in (("_PROBED", 2_000), ("_COMMON", 400)):
            self.addCleanup(setattr, search, name, getattr(search, name))
            setattr(search, name, number)

    def test_every_strategy_finds_the_newest_matches(self) -> None:
        for name, viewer in self.viewers.items():
            seen = Task.objects.all() if viewer.sees_all else Task.objects.filter(project__members=viewer.user_id)
            for text in ("common", "COMMON", "rare", "unique", "absent", "task 1", " 77 ", "a rare", "mark"):
                either = seen.filter(title__icontains=text) | seen.filter(description__icontains=text)
                newest = list(either.order_by("-pk").values("id", "due_date")[: search.MAX_MATCHES])
                for order in (Order(), Order("id", False), Order("due_date", True)):
                    with self.subTest(name, text=text, order=order):
                        task_filter = TaskFilter(search=text)
                        page = list_tasks(viewer, filter=task_filter, order=order, page=PAGE).page
                        expected = sorted(newest, key=itemgetter(order.field, "id"), reverse=order.is_descending)
                        self.assertEqual([row.id for row in page.rows], [row["id"] for row in expected[:100]])
                self.assertEqual(count_tasks(viewer, TaskFilter(search=text)), len(newest))

    def test_a_common_word_is_found_among_the_newest_tasks_and_a_rare_one_by_the_index(self) -> None:
        for text, is_by_index in (("common", False), ("unique", True), ("absent", True), ("rare", True)):
            with self.subTest(text=text):
                plan = self.plan_of_list(SYSTEM, TaskFilter(search=text))
                self.assertEqual("task_search" in plan.indexes, is_by_index)
                self.assertEqual(plan.whole_scans, [])
                self.assertLessEqual(plan.rows_read, 7 * search._PROBED)

    def test_a_member_finds_a_common_word_among_the_newest_tasks(self) -> None:
        for name, viewer in self.viewers.items():
            if not viewer.sees_all:
                with self.subTest(name):
                    plan = self.plan_of_list(viewer, TaskFilter(search="common"))
                    self.assertEqual(plan.whole_scans, [])
                    self.assertLessEqual(plan.rows_read, search._PROBED + 2 * PROJECTS + 101)

    def test_the_cost_of_a_search_does_not_depend_on_words_of_hidden_projects(self) -> None:
        """Neither word is in a visible task. The first is in each task of ten hidden projects."""
        by_date, page = Order("due_date", False), PageRequest(first=50)
        for name, viewer in self.viewers.items():
            if viewer.sees_all:
                continue
            seen = sorted(Project.objects.filter(members=viewer.user_id).values_list("pk", flat=True))
            hidden = self.projects[-1].pk
            reads: dict[str, Callable[..., Any]] = {
                "list": partial(self.search, viewer, NEWEST_FIRST, PAGE),
                "other order": partial(self.search, viewer, by_date, PAGE),
                "last page": partial(self.search, viewer, NEWEST_FIRST, PageRequest(last=100)),
                "of a project": partial(self.search, viewer, NEWEST_FIRST, PAGE, project_id=seen[0]),
                "of a hidden project": partial(self.search, viewer, NEWEST_FIRST, PAGE, project_id=hidden),
                "of an assignee": partial(self.search, viewer, NEWEST_FIRST, PAGE, assignee_id=self.people[7].pk),
                "count": partial(count_tasks, viewer),
                "count per project": partial(count_per_project, viewer, [*seen, hidden]),
                "list per project": partial(
                    list_tasks_of_projects, viewer, [*seen, hidden], order=NEWEST_FIRST, page=page
                ),
            }
            visible = Task.objects.filter(project__in=seen)
            for read_name, read in reads.items():
                with self.subTest(name, read=read_name):
                    plans = []
                    for text in ("lexicon", "lexicom"):
                        call = partial(read, filter=TaskFilter(search=text))
                        plans.append(self.plan(call))
                    hidden_word, no_word = plans
                    self.assertEqual(hidden_word.rows_read, no_word.rows_read)
                    self.assertEqual(hidden_word.buffers, no_word.buffers)
                    self.assertEqual(hidden_word.whole_scans, [])
                    self.assertNotIn("task_search", hidden_word.indexes)
                    if read_name != "of an assignee":
                        # The newest tasks are read twice. PostgreSQL rounds the number of rows of each project.
                        most = visible.count() + search._PROBED + 2 * len(seen)
                        self.assertLessEqual(hidden_word.rows_read, most)

    def test_the_cost_of_a_search_for_projects_does_not_depend_on_hidden_names(self) -> None:
        """The first word is in the names of 1,000 hidden projects, the second in none."""
        Project.objects.bulk_create(Project(name=f"{'Lexicon' * (n % 2)} {n}") for n in range(2_000))
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE projects_project")
        reads: dict[str, Callable[..., Any]] = {
            "list": partial(list_projects, order=NEWEST_FIRST, page=PAGE),
            "count": count_projects,
        }
        for name, viewer in self.viewers.items():
            if viewer.sees_all:
                continue
            seen = Project.objects.filter(members=viewer.user_id).count()
            for read_name, read in reads.items():
                with self.subTest(name, read=read_name):
                    hidden_word, no_word, own_word = (
                        self.plan(partial(read, viewer, filter=ProjectFilter(text)), Project)
                        for text in ("lexicon", "lexicom", "project")
                    )
                    self.assertEqual(hidden_word.rows_read, no_word.rows_read)
                    self.assertEqual(hidden_word.buffers, no_word.buffers)
                    self.assertLessEqual(own_word.rows_read, 4 * seen)

    def search(self, viewer: Viewer, order: Order, page: PageRequest, *, filter: TaskFilter, **fields: Any) -> Any:
        return list_tasks(viewer, filter=replace(filter, **fields), order=order, page=page)

    def test_a_search_for_words_that_are_never_adjacent_reads_few_rows(self) -> None:
        plan = self.plan_of_list(SYSTEM, TaskFilter(search="common task"))
        self.assertLessEqual(plan.rows_read, search._PROBED)
