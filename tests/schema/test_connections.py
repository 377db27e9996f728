"""Connections: pages, filters, orders and invalid arguments (https://relay.dev/graphql/connections.htm)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings

from backend.projects.access import SYSTEM
from backend.projects.models import Project, Task
from backend.projects.services.task import create_task, delete_task
from tests.factories import CommentFactory, ProjectFactory, SummaryReportFactory, TaskFactory, UserFactory
from tests.schema.cases import ABSENT_IDS, OpenCase

PAGE_INFO = "pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"
PAGE = f"{{ edges {{ cursor node {{ id }} }} nodes {{ id }} {PAGE_INFO} }}"
MARCH = datetime(2027, 3, 1, tzinfo=UTC)


def ids(rows: Any) -> list[str]:
    return [str(row.pk) for row in rows]


class ListCase(OpenCase):
    """A listing is a selection, with `*` in place of the arguments."""

    def page(self, listing: str, arguments: str) -> Any:
        """One page. Checks that `edges`, `nodes` and `pageInfo` agree, and `pageInfo` alone too."""
        page = self._connection(listing, arguments)
        info = page["pageInfo"]
        alone = self._connection(listing.replace(PAGE, f"{{ {PAGE_INFO} }}"), arguments)
        self.assertEqual(alone, {"pageInfo": info})
        self.assertEqual(page["nodes"], [edge["node"] for edge in page["edges"]])
        cursors = [edge["cursor"] for edge in page["edges"]] or [None]
        self.assertEqual((info["startCursor"], info["endCursor"]), (cursors[0], cursors[-1]))
        return page

    def _connection(self, listing: str, arguments: str) -> Any:
        data: Any = self.data(f"{{ {listing.replace('*', arguments)} }}")
        while "pageInfo" not in data:
            [data] = data.values()
        return data

    def forward(self, listing: str, arguments: str = "") -> Iterator[tuple[list[str], bool, bool]]:
        """Pages of two from the start, each as ids, hasPreviousPage, hasNextPage."""
        return self._walk(listing, f"first: 2 {arguments}", "after", "hasNextPage", "endCursor")

    def backward(self, listing: str, arguments: str = "") -> Iterator[tuple[list[str], bool, bool]]:
        """Pages of two from the end."""
        return self._walk(listing, f"last: 2 {arguments}", "before", "hasPreviousPage", "startCursor")

    def _walk(self, listing: str, size: str, side: str, more: str, edge: str) -> Iterator[Any]:
        arguments = size
        while True:
            page = self.page(listing, arguments)
            info = page["pageInfo"]
            yield [node["id"] for node in page["nodes"]], info["hasPreviousPage"], info["hasNextPage"]
            if not info[more]:
                return
            arguments = f'{size} {side}: "{info[edge]}"'

    def assert_refused(self, listing: str, arguments: str, argument: str) -> None:
        with self.subTest(listing, arguments=arguments):
            result = self.gql(f"{{ {listing.replace('*', arguments)} }}")
            [error] = result["errors"]
            self.assertEqual(error["extensions"], {"code": "BAD_USER_INPUT", "argument": argument})


class PageTests(ListCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.projects = [ProjectFactory() for _ in range(5)][::-1]
        cls.project = cls.projects[0]
        cls.tasks = [TaskFactory(project=cls.project) for _ in range(5)][::-1]
        cls.task = cls.tasks[0]
        cls.comments = [CommentFactory(task=cls.task) for _ in range(5)][::-1]
        cls.reports = [SummaryReportFactory(project=cls.project, date=date(2027, 3, n)) for n in range(1, 6)][::-1]
        cls.lists = {
            f"projects(*) {PAGE}": ids(cls.projects),
            f"tasks(*) {PAGE}": ids(cls.tasks),
            f"reports(*) {PAGE}": ids(cls.reports),
            f"project(id: {cls.project.pk}) {{ tasks(*) {PAGE} }}": ids(cls.tasks),
            f"task(id: {cls.task.pk}) {{ comments(*) {PAGE} }}": ids(cls.comments),
        }

    def test_a_list_walked_forward_shows_each_row_once_newest_first(self) -> None:
        for listing, rows in self.lists.items():
            with self.subTest(listing):
                pages = [(rows[:2], False, True), (rows[2:4], True, True), (rows[4:], True, False)]
                self.assertEqual(list(self.forward(listing)), pages)

    def test_a_list_walked_backward_shows_each_row_once_in_the_same_order(self) -> None:
        for listing, rows in self.lists.items():
            with self.subTest(listing):
                pages = [(rows[3:], True, False), (rows[1:3], True, True), (rows[:1], False, True)]
                self.assertEqual(list(self.backward(listing)), pages)

    def test_a_page_may_be_bounded_by_two_cursors(self) -> None:
        for listing, rows in self.lists.items():
            cursors = [edge["cursor"] for edge in self.page(listing, "first: 5")["edges"]]
            between = f'after: "{cursors[0]}" before: "{cursors[4]}"'
            for size, expected in [("", rows[1:4]), ("first: 2", rows[1:3]), ("last: 2", rows[2:4])]:
                with self.subTest(listing, size=size):
                    page = self.page(listing, f"{between} {size}")
                    self.assertEqual([node["id"] for node in page["nodes"]], expected)
                    info = page["pageInfo"]
                    self.assertEqual((info["hasNextPage"], info["hasPreviousPage"]), (True, True))

    def test_a_page_with_the_whole_list_has_no_neighbours(self) -> None:
        for listing, rows in self.lists.items():
            for size in ("first: 5", "last: 5", "first: 6", "first: null, after: null"):
                with self.subTest(listing, size=size):
                    page = self.page(listing, size)
                    self.assertEqual([node["id"] for node in page["nodes"]], rows)
                    info = page["pageInfo"]
                    self.assertEqual((info["hasNextPage"], info["hasPreviousPage"]), (False, False))

    def test_rows_created_or_deleted_between_two_pages_shift_no_page(self) -> None:
        pages = self.forward(f"tasks(*) {PAGE}")
        rows = ids(self.tasks)
        self.assertEqual(next(pages)[0], rows[:2])
        with self.committed():
            delete_task(actor=SYSTEM, task_id=self.tasks[1].pk)
            create_task(actor=SYSTEM, project_id=self.project.pk, changes={"title": "New", "due_date": MARCH})
        self.assertEqual([page[0] for page in pages], [rows[2:4], rows[4:]])

    def test_an_empty_list_has_neither_rows_nor_cursors(self) -> None:
        listing = f"project(id: {ProjectFactory().pk}) {{ tasks(*) {PAGE} }}"
        info = {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None}
        self.assertEqual(self.page(listing, "first: 2"), {"edges": [], "nodes": [], "pageInfo": info})

    def test_a_page_has_50_rows_by_default_and_100_at_most(self) -> None:
        many = [Task(project=self.project, title="Many", due_date=MARCH) for _ in range(100)]
        Task.objects.bulk_create(many)
        for listing in (f"tasks(*) {PAGE}", f"project(id: {self.project.pk}) {{ tasks(*) {PAGE} }}"):
            for size, expected in [("first: null", 50), ("first: 100", 100), ("last: 100", 100)]:
                with self.subTest(listing, size=size):
                    self.assertEqual(len(self.page(listing, size)["nodes"]), expected)

    def test_the_total_count_is_of_all_pages_and_follows_the_filter(self) -> None:
        TaskFactory(status="completed")
        document = """query ($project: ID!, $task: ID!) {
          projects(first: 1) { totalCount }
          tasks(first: 1) { totalCount }
          completed: tasks(filter: {status: COMPLETED}) { totalCount }
          reports(first: 1) { totalCount }
          ofNone: reports(projectId: "nine") { totalCount }
          project(id: $project) {
            tasks(first: 1) { totalCount }
            completed: tasks(filter: {status: COMPLETED}) { totalCount }
          }
          task(id: $task) { comments(first: 1) { totalCount } }
        }"""
        self.assertEqual(
            self.data(document, project=self.project.pk, task=self.task.pk),
            {
                "projects": {"totalCount": 6},
                "tasks": {"totalCount": 6},
                "completed": {"totalCount": 1},
                "reports": {"totalCount": 5},
                "ofNone": {"totalCount": 0},
                "project": {"tasks": {"totalCount": 5}, "completed": {"totalCount": 0}},
                "task": {"comments": {"totalCount": 5}},
            },
        )

    def test_a_list_may_be_selected_twice_under_aliases(self) -> None:
        rows = ids(self.tasks)
        document = """query ($id: ID!) {
          a: tasks(first: 1) { nodes { id } } b: tasks(last: 2) { edges { node { id } } }
          project(id: $id) { c: tasks(first: 2) { nodes { id } } d: tasks(last: 1) { edges { node { id } } } }
        }"""
        self.assertEqual(
            self.data(document, id=self.project.pk),
            {
                "a": {"nodes": [{"id": rows[0]}]},
                "b": {"edges": [{"node": {"id": rows[3]}}, {"node": {"id": rows[4]}}]},
                "project": {
                    "c": {"nodes": [{"id": rows[0]}, {"id": rows[1]}]},
                    "d": {"edges": [{"node": {"id": rows[4]}}]},
                },
            },
        )

    def test_a_page_size_below_1_or_over_the_maximum_is_refused(self) -> None:
        for listing in self.lists:
            for size in (0, -1, 101, 2**31 - 1):
                for argument in ("first", "last"):
                    self.assert_refused(listing, f"{argument}: {size}", argument)

    def test_a_page_with_first_and_last_is_refused(self) -> None:
        for listing in self.lists:
            self.assert_refused(listing, "first: 1, last: 1", "last")

    def test_a_page_size_of_another_type_is_not_executed(self) -> None:
        for size in ("5", 1.5, True, 2**31, []):
            with self.subTest(size):
                code = self.request_error_code(
                    "query ($first: Int) { tasks(first: $first) { totalCount } }", first=size
                )
                self.assertEqual(code, "GRAPHQL_VALIDATION_FAILED")

    def test_a_cursor_of_another_list_filter_or_order_is_refused(self) -> None:
        tasks = f"tasks(*) {PAGE}"
        origins = [(listing, "first: 1") for listing in self.lists] + [
            (tasks, "filter: {status: PENDING}"),
            (tasks, f"filter: {{projectId: {self.project.pk}}}"),
            (tasks, "order: {field: ID}"),
            (tasks, "order: {field: DUE_DATE, direction: DESC}"),
        ]
        for origin, arguments in origins:
            cursor = self.page(origin, arguments)["pageInfo"]["startCursor"]
            for listing in self.lists:
                if (listing, "first: 1") != (origin, arguments):
                    self.assert_refused(listing, f'after: "{cursor}"', "after")
                    self.assert_refused(listing, f'last: 1, before: "{cursor}"', "before")

    def test_the_page_info_of_nested_lists_reads_no_more_than_their_keys(self) -> None:
        document = """{ projects { nodes {
          tasks(order: {field: DUE_DATE}) { pageInfo { endCursor } } members { pageInfo { endCursor } }
        } } task(id: %d) { comments { pageInfo { endCursor } } } }"""
        with CaptureQueriesContext(connection) as queries:
            self.data(document % self.task.pk)
        nested = [query["sql"] for query in queries if "ARRAY(" in query["sql"]]
        self.assertEqual(len(nested), 3)
        for sql in nested:
            self.assertNotRegex(sql, "description|content|role|username")

    def test_a_cursor_of_a_nested_list_is_valid_for_every_parent(self) -> None:
        for project in self.projects[1:3]:
            TaskFactory(project=project)
        document = """query ($after: String) {
          projects(first: 3) { nodes { tasks(first: 1, after: $after) { nodes { id } pageInfo { endCursor } } } }
        }"""
        newest = self.data(document)["projects"]["nodes"][1]["tasks"]["pageInfo"]["endCursor"]
        self.assertEqual(
            [project["tasks"]["nodes"] for project in self.data(document, after=newest)["projects"]["nodes"]],
            [[{"id": str(self.task.pk)}], [], []],
        )

    def test_a_broken_cursor_is_refused(self) -> None:
        listing, by_date = f"tasks(*) {PAGE}", "order: {field: DUE_DATE}"
        [digest, _, pk] = parts(self.page(listing, "first: 1")["pageInfo"]["endCursor"])
        [dated, *_] = parts(self.page(listing, f"{by_date} first: 1")["pageInfo"]["endCursor"])
        deep = base64.b64encode(b"[" * 10_000).decode()
        for arguments, cursors in [
            ("", ["", "x", "5", "é", "====", r"\u0000", "AAAA", deep]),
            ("", map(page_cursor, ([], {}, 5, None, [digest], [digest, pk, pk, pk], ["x", pk, pk]))),
            ("", map(page_cursor, ([digest, pk, str(pk)], [digest, pk, True], [digest, pk, None], [digest, pk, 1.5]))),
            (
                "",
                map(
                    page_cursor, ([digest, None, pk], [digest, 1.5, pk], [digest, pk, pk - 1], [digest, float(pk), pk])
                ),
            ),
            ("", [page_cursor([digest, pk, pk]) + "A" * 200, page_cursor([digest, pk, pk, "x" * 10_000])]),
            (by_date, map(page_cursor, ([dated, "tomorrow", pk], [dated, 5, pk], [dated, None, pk]))),
            ("", map(page_cursor, ([digest, big, big] for big in (2**31, 2**63 - 1, 2**63, 2**64 - 1)))),
            (by_date, map(page_cursor, ([dated, "2026-01-01T00:00:00Z", big] for big in (2**31, 2**63, 2**64 - 1)))),
            (by_date, map(page_cursor, ([dated, 1.5, pk], [dated, "10000-01-01T00:00:00Z", pk], [dated, [], pk]))),
            (
                by_date,
                map(page_cursor, ([dated, day, pk] for day in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59-12"))),
            ),
        ]:
            for cursor in cursors:
                self.assert_refused(listing, f'{arguments} after: "{cursor}"', "after")
        surrogate = self.field_error("query ($after: String) { tasks(after: $after) { totalCount } }", after="\ud800")
        self.assertEqual(surrogate, {"code": "BAD_USER_INPUT", "argument": "after"})

    def test_a_cursor_of_a_row_that_never_existed_is_valid(self) -> None:
        listing = f"tasks(*) {PAGE}"
        [digest, *_] = parts(self.page(listing, "first: 1")["pageInfo"]["endCursor"])
        for pk, expected in [
            (0, []),
            (-5, []),
            (2**31 - 1, ids(self.tasks)),
        ]:
            with self.subTest(pk):
                page = self.page(listing, f'after: "{page_cursor([digest, pk, pk])}"')
                self.assertEqual([node["id"] for node in page["nodes"]], expected)


def parts(cursor: str) -> list[Any]:
    parts: list[Any] = orjson.loads(base64.urlsafe_b64decode(cursor + "=="))
    return parts


def page_cursor(parts: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


class TaskListTests(ListCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory()
        cls.garden, cls.kitchen = ProjectFactory(name="Garden"), ProjectFactory(name="Kitchen")
        cls.weed = TaskFactory(
            project=cls.garden, title="Weed the beds", due_date=MARCH + timedelta(days=2), assignee=cls.ada
        )
        cls.water = TaskFactory(
            project=cls.garden,
            title="Water",
            description="50% of the tomatoes_and all of THE LEEKS",
            status="in_progress",
            due_date=MARCH,
        )
        cls.bake = TaskFactory(
            project=cls.kitchen, title="Bake", status="completed", due_date=MARCH + timedelta(days=1)
        )

    def titles(self, filter: dict[str, Any] | None = None, order: dict[str, Any] | None = None) -> list[str]:
        """The first words of the titles. Checks that the nested lists contain the same tasks."""
        document = """query ($filter: TaskFilter, $order: TaskOrder) {
          tasks(filter: $filter, order: $order) { nodes { title } totalCount }
          projects(first: 2) { nodes { tasks(filter: $filter, order: $order) { nodes { title } totalCount } } }
        }"""
        data = self.data(document, filter=filter, order=order)
        nested = [project["tasks"] for project in data["projects"]["nodes"]]
        titles = [task["title"] for task in data["tasks"]["nodes"]]
        self.assertEqual(data["tasks"]["totalCount"], len(titles))
        self.assertCountEqual([task["title"] for tasks in nested for task in tasks["nodes"]], titles)
        self.assertEqual(sum(tasks["totalCount"] for tasks in nested), len(titles))
        return [title.split()[0] for title in titles]

    @override_settings(COST_MODE="measure")
    def test_counts_of_several_filters_are_those_of_each(self) -> None:
        filters: list[dict[str, Any]] = [
            {"status": "PENDING"},
            {"status": "COMPLETED", "dueAfter": MARCH.isoformat()},
            {"assigneeId": self.ada.pk, "dueBefore": MARCH.isoformat()},
            {"projectId": self.kitchen.pk},
            {"projectId": "nine"},
            {"search": "the"},
            {"search": "the", "status": "PENDING"},
        ]
        for chosen in ([*filters, {}, {}], filters, filters[2:4], filters[3:6], filters[5:]):
            variables = {f"f{place}": values for place, values in enumerate(chosen)}
            declared = " ".join(f"${name}: TaskFilter" for name in variables)
            counts = " ".join(f"{name}: tasks(filter: ${name}) {{ totalCount }}" for name in variables)
            data = self.data(
                f"query ({declared}) {{ {counts} projects(first: 2) {{ nodes {{ {counts} }} }} }}", **variables
            )
            for name, values in variables.items():
                with self.subTest(values, of=len(chosen)):
                    expected = len(self.titles(values))
                    self.assertEqual(data[name]["totalCount"], expected)
                    nested = [project[name]["totalCount"] for project in data["projects"]["nodes"]]
                    self.assertEqual(sum(nested), expected)

    def test_each_filter_selects_the_matching_tasks(self) -> None:
        everything = ["Bake", "Water", "Weed"]
        names = ("projectId", "status", "assigneeId", "dueAfter", "dueBefore", "search")
        for values, expected in [
            (None, everything),
            ({}, everything),
            (dict.fromkeys(names), everything),
            ({"projectId": self.garden.pk}, ["Water", "Weed"]),
            ({"status": "PENDING"}, ["Weed"]),
            ({"status": "IN_PROGRESS"}, ["Water"]),
            ({"assigneeId": self.ada.pk}, ["Weed"]),
            ({"projectId": self.garden.pk, "status": "COMPLETED"}, []),
        ]:
            with self.subTest(values):
                self.assertEqual(self.titles(values), expected)

    def test_due_after_includes_its_bound_and_due_before_does_not(self) -> None:
        for values, expected in [
            ({"dueAfter": "2027-03-02T00:00:00Z"}, ["Bake", "Weed"]),
            ({"dueAfter": "2027-03-02T00:00:00.000001Z"}, ["Weed"]),
            ({"dueBefore": "2027-03-02T00:00:00Z"}, ["Water"]),
            ({"dueBefore": "2027-03-02T00:00:00.000001Z"}, ["Bake", "Water"]),
            ({"dueAfter": "2027-03-02", "dueBefore": "2027-03-03"}, ["Bake"]),
            ({"dueBefore": "2027-03-02T01:30:00+02:00"}, ["Water"]),
            ({"dueAfter": "9999-12-31T23:59:59Z"}, []),
            ({"dueBefore": "0001-01-01T00:00:00Z"}, []),
        ]:
            with self.subTest(values):
                self.assertEqual(self.titles(values), expected)

    def test_search_finds_a_substring_of_title_or_description_in_any_case(self) -> None:
        for text, expected in [
            ("wee", ["Weed"]),
            ("THE BEDS", ["Weed"]),
            ("the leeks", ["Water"]),
            ("tomatoes", ["Water"]),
            ("the", ["Water", "Weed"]),
            ("of the", ["Water"]),
            ("potatoes", []),
        ]:
            with self.subTest(text):
                self.assertEqual(self.titles({"search": text}), expected)

    def test_search_has_no_wildcards(self) -> None:
        for text, expected in [
            ("50%", ["Water"]),
            ("es_and", ["Water"]),
            ("W%d", []),
            ("W__d", []),
            ("%%%", []),
            ("___", []),
            (r"\\\ ", []),
            ("' OR", []),
            (".*d", []),
        ]:
            with self.subTest(text):
                self.assertEqual(self.titles({"search": text}), expected)

    def test_a_search_text_that_is_too_short_or_cannot_be_stored_is_refused(self) -> None:
        document = "query ($text: String) {{ {}(filter: {{search: $text}}) {{ totalCount }} }}"
        for field in ("tasks", "projects"):
            for text in ("", "ab", "\x00abc", "abc\ud800"):
                with self.subTest(field, text=text):
                    refusal = self.field_error(document.format(field), text=text)
                    self.assertEqual(refusal, {"code": "BAD_USER_INPUT", "argument": "search"})
        nested = f"project(id: {self.garden.pk}) {{ tasks(*) {PAGE} }}"
        self.assert_refused(nested, 'filter: {search: "ab"}', "search")

    def test_an_absent_project_or_assignee_has_no_tasks(self) -> None:
        for absent in ABSENT_IDS:
            for values in ({"projectId": absent}, {"assigneeId": absent}):
                with self.subTest(values):
                    self.assertEqual(self.titles(values), [])

    def test_a_filter_or_order_of_another_shape_is_not_executed(self) -> None:
        document = "query ($by: TaskFilter, $in: TaskOrder) { tasks(filter: $by, order: $in) { totalCount } }"
        for variables in (
            {"by": []},
            {"by": "x"},
            {"by": {"colour": "red"}},
            {"by": {"status": "DONE"}},
            {"by": {"status": "pending"}},
            {"by": {"dueAfter": "tomorrow"}},
            {"by": {"dueBefore": 5}},
            {"by": {"search": 5}},
            {"in": {}},
            {"in": {"field": "TITLE"}},
            {"in": {"field": None}},
            {"in": {"field": "ID", "direction": "UP"}},
            {"in": {"field": "ID", "direction": None}},
        ):
            with self.subTest(variables):
                self.assertEqual(self.request_error_code(document, **variables), "GRAPHQL_VALIDATION_FAILED")

    def test_every_order_is_ascending_or_descending(self) -> None:
        long_ago, far_ahead = MARCH - timedelta(days=9999), MARCH + timedelta(days=9999)
        Task.objects.filter(pk=self.water.pk).update(created_at=long_ago, updated_at=far_ahead)
        for field, expected in [
            ("ID", ["Weed", "Water", "Bake"]),
            ("DUE_DATE", ["Water", "Bake", "Weed"]),
            ("CREATED_AT", ["Water", "Weed", "Bake"]),
            ("UPDATED_AT", ["Weed", "Bake", "Water"]),
        ]:
            with self.subTest(field):
                self.assertEqual(self.titles(order={"field": field}), expected)
                self.assertEqual(self.titles(order={"field": field, "direction": "ASC"}), expected)
                self.assertEqual(self.titles(order={"field": field, "direction": "DESC"}), expected[::-1])

    def test_pages_of_tasks_due_at_the_same_moment_skip_and_repeat_nothing(self) -> None:
        tied = [TaskFactory(project=self.garden, due_date=MARCH) for _ in range(4)]
        by_date = ids([self.water, *tied, self.weed])
        for direction, expected in [("ASC", by_date), ("DESC", by_date[::-1])]:
            order = f"order: {{field: DUE_DATE, direction: {direction}}}"
            for listing, arguments in [
                (f"project(id: {self.garden.pk}) {{ tasks(*) {PAGE} }}", order),
                (f"tasks(*) {PAGE}", f"{order} filter: {{projectId: {self.garden.pk}}}"),
            ]:
                with self.subTest(direction, listing=listing):
                    forward = [page[0] for page in self.forward(listing, arguments)]
                    self.assertEqual(forward, [expected[:2], expected[2:4], expected[4:]])
                    backward = [page[0] for page in self.backward(listing, arguments)]
                    self.assertEqual(backward, [expected[4:], expected[2:4], expected[:2]])


class ProjectListTests(ListCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.garden = ProjectFactory(name="Garden", description="Behind the house, 100% green")
        cls.kitchen = ProjectFactory(name="Kitchen", description="In the House")

    def names(self, **variables: Any) -> list[str]:
        document = """query ($filter: ProjectFilter, $order: ProjectOrder) {
          projects(filter: $filter, order: $order) { nodes { name } totalCount }
        }"""
        connection = self.data(document, **variables)["projects"]
        names = [project["name"] for project in connection["nodes"]]
        self.assertEqual(connection["totalCount"], len(names))
        return names

    def test_search_finds_a_substring_of_name_or_description(self) -> None:
        for text, expected in [
            ("gard", ["Garden"]),
            ("house", ["Kitchen", "Garden"]),
            ("100%", ["Garden"]),
            ("G%n", []),
            ("K_t", []),
            ("cellar", []),
        ]:
            with self.subTest(text):
                self.assertEqual(self.names(filter={"search": text}), expected)

    def test_every_order_is_ascending_or_descending(self) -> None:
        Project.objects.filter(pk=self.garden.pk).update(updated_at=MARCH + timedelta(days=9999))
        for field, expected in [
            ("ID", ["Garden", "Kitchen"]),
            ("CREATED_AT", ["Garden", "Kitchen"]),
            ("UPDATED_AT", ["Kitchen", "Garden"]),
        ]:
            with self.subTest(field):
                self.assertEqual(self.names(order={"field": field}), expected)
                self.assertEqual(self.names(order={"field": field, "direction": "DESC"}), expected[::-1])


class ReportListTests(OpenCase):
    def test_reports_are_filtered_by_project(self) -> None:
        garden = ProjectFactory()
        mine = [SummaryReportFactory(project=garden, date=date(2027, 3, day)) for day in (1, 2)]
        SummaryReportFactory()
        document = "query ($id: ID) { reports(projectId: $id) { nodes { id } totalCount } }"
        for project_id, expected in [(garden.pk, ids(mine[::-1])), *((absent, []) for absent in ABSENT_IDS)]:
            with self.subTest(ascii(project_id)):
                connection = self.data(document, id=project_id)["reports"]
                self.assertEqual([report["id"] for report in connection["nodes"]], expected)
                self.assertEqual(connection["totalCount"], len(expected))
