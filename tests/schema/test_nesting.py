"""The SQL queries of lists: a fixed number for nested lists, none for a repeated list.

`test_walk` checks that no list costs more queries for more rows. This module checks the exact numbers of some lists.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.cache import cache
from django.test.utils import override_settings

from backend.projects.access import SYSTEM, viewer_for
from backend.projects.models import Project, Role
from backend.projects.services.membership import add_member, remove_member
from backend.projects.services.project import create_project, update_project
from backend.projects.services.task import create_task
from backend.projects.services.user import save_user
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.rows import MARCH, create_rows
from tests.schema.cases import ClosedCase, OpenCase

# Documents, and their queries with an empty cache: two for a cached list (position and rows), one for the nested pages
# of all parents, one for the nested counts of all parents.
NESTED = {
    "nodes": (
        4,
        "{ projects(first: 100) { nodes { tasks(first: 100) { nodes { comments(first: 9) { nodes { id } } } } } } }",
    ),
    "edges": (
        4,
        """{ projects(first: 100) { edges { node {
          tasks(first: 100) { edges { node { comments(first: 9) { edges { node { id } } } } } }
        } } } }""",
    ),
    "no first": (4, "{ projects { nodes { tasks { nodes { comments { nodes { id } } } } } } }"),
    "last": (4, "{ projects(last: 60) { nodes { tasks(last: 9) { nodes { comments(last: 2) { nodes { id } } } } } } }"),
    "everything of a page": (
        6,
        """{ projects { nodes { tasks {
          nodes { id } edges { cursor node { id } } pageInfo { hasNextPage endCursor } totalCount
          again: nodes { comments { nodes { id } pageInfo { startCursor } edges { cursor } totalCount } }
        } } } }""",
    ),
    "the same page under two aliases": (
        4,
        """{ projects { nodes {
          a: tasks(first: 5) { nodes { comments { nodes { id } } } } b: tasks(first: 5) { edges { node { id } } }
        } } }""",
    ),
    "two pages under two aliases": (
        5,
        """{ projects { nodes {
          a: tasks(first: 5) { nodes { comments { nodes { id } } } }
          b: tasks(last: 3) { edges { node { comments { edges { node { id } } } } } }
        } } }""",
    ),
    "filtered and ordered": (
        4,
        """{ projects { nodes {
          tasks(filter: {status: PENDING}, order: {field: DUE_DATE}) { nodes { comments { nodes { id } } } }
        } } }""",
    ),
    "counts alone": (3, "{ projects { nodes { tasks { totalCount } } } }"),
    "counts of two filters": (
        3,
        """{ projects { nodes {
          all: tasks { totalCount } completed: tasks(filter: {status: COMPLETED}) { totalCount }
        } } }""",
    ),
    "counts of three lists": (
        1,
        """{
          all: tasks { totalCount } pending: tasks(filter: {status: PENDING}) { totalCount }
          due: tasks(filter: {dueAfter: "2027-03-01T00:00:00Z"}) { totalCount }
        }""",
    ),
    "page infos alone": (
        5,
        """{ projects { nodes {
          tasks(order: {field: DUE_DATE}) { pageInfo { endCursor } again: pageInfo { hasNextPage } }
          members { pageInfo { endCursor } } other: tasks { nodes { id } pageInfo { endCursor } }
        } } }""",
    ),
    "counts of counts": (4, "{ projects { nodes { tasks { nodes { comments { totalCount } } } } } }"),
    "upwards": (
        7,
        """{ tasks(first: 100) { nodes {
          project { name } assignee { name } comments { nodes { task { project { name } } } }
        } } }""",
    ),
    "members": (4, "{ projects { nodes { members { nodes { role user { name } } totalCount } } } }"),
    "members of both ends": (
        4,
        """{ projects { edges { node {
          newest: members(first: 2) { edges { cursor node { user { id } } } }
          oldest: members(last: 2) { nodes { role } pageInfo { hasPreviousPage } }
        } } } }""",
    ),
    "counts of members alone": (3, "{ projects { nodes { members { totalCount } } } }"),
    "members beside tasks": (
        6,
        """{ tasks { nodes { project {
          members(first: 5) { nodes { role } } tasks { nodes { assignee { name } } }
        } } } }""",
    ),
    "fragments": (
        4,
        """{ projects { nodes { ...P } } }
        fragment P on Project { tasks { ...Q } }
        fragment Q on TaskConnection { nodes { comments { nodes { id } } } }""",
    ),
}


@override_settings(COST_MODE="measure")
class NestingTests(OpenCase):
    def assert_query_counts(self, size: int) -> None:
        create_rows(size)
        for name, (queries, document) in NESTED.items():
            cache.delete_pattern("*")
            with self.subTest(name), self.assertNumQueries(queries):
                self.data(document)

    def test_nesting_one_row_costs_a_fixed_number_of_queries(self) -> None:
        self.assert_query_counts(1)

    def test_nesting_twenty_rows_costs_as_many_queries_as_one(self) -> None:
        self.assert_query_counts(20)

    def test_objects_of_twenty_events_cost_as_many_queries_as_those_of_one(self) -> None:
        project = create_project(actor=SYSTEM, name="Garden")
        document = """query ($after: Cursor) { events(after: $after) { nodes {
          ... on TaskCreated { task { project { name } assignee { name } comments { totalCount } } }
        } } }"""
        for count in (1, 20):
            after = self.data("{ cursor }")["cursor"]
            for _ in range(count):
                create_task(actor=SYSTEM, project_id=project.pk, changes={"title": "Weed", "due_date": MARCH})
            with self.subTest(count), self.assertNumQueries(5):
                self.assertEqual(len(self.data(document, after=after)["events"]["nodes"]), count)


@override_settings(COST_MODE="measure")
class MemberNestingTests(ClosedCase):
    def test_twenty_projects_of_a_member_cost_as_many_queries_as_one(self) -> None:
        reader = UserFactory()
        self.client.force_login(reader)
        document = """{ projects { nodes {
          members { totalCount nodes { role user { name } } } tasks { nodes { assignee { name } } }
        } } }"""
        for count in (1, 20):
            create_rows(count)
            for project in Project.objects.exclude(members=reader):
                MembershipFactory(project=project, user=reader)
            cache.delete_pattern("*")
            # The session, its user, the position, the visible projects (before and after), and five lists.
            with self.subTest(count), self.assertNumQueries(10):
                self.data(document)


class CachedListTests(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory(name="Garden")
        cls.task = TaskFactory(project=cls.project, title="Weed", due_date=MARCH + timedelta(days=1))
        cls.lists = [
            "{ projects { nodes { name } } }",
            "{ tasks { nodes { title } } }",
            f"{{ tasks(filter: {{projectId: {cls.project.pk}}}) {{ nodes {{ title }} }} }}",
        ]

    def read(self) -> list[list[str]]:
        """The names or titles of each list. Reads twice, and checks that the second time runs no SQL."""
        results = [self.data(document) for document in self.lists]
        with self.assertNumQueries(0):
            self.assertEqual([self.data(document) for document in self.lists], results)
        return [[next(iter(node.values())) for node in listed["nodes"]] for [listed] in map(dict.values, results)]

    def test_a_repeated_list_runs_no_sql(self) -> None:
        self.assertEqual(self.read(), [["Garden"], ["Weed"], ["Weed"]])

    def test_every_page_filter_and_order_is_cached_separately(self) -> None:
        TaskFactory(project=self.project, title="Mow", status="completed", due_date=MARCH)
        for arguments, titles in [
            ("first: 1", ["Mow"]),
            ("first: 2", ["Mow", "Weed"]),
            ("last: 1", ["Weed"]),
            ("filter: {status: COMPLETED}", ["Mow"]),
            ('filter: {search: "wee"}', ["Weed"]),
            ("order: {field: ID}", ["Weed", "Mow"]),
            ("order: {field: DUE_DATE, direction: DESC}", ["Weed", "Mow"]),
        ]:
            for _ in range(2):
                with self.subTest(arguments):
                    data = self.data(f"{{ tasks({arguments}) {{ nodes {{ title }} }} }}")
                    self.assertEqual([task["title"] for task in data["tasks"]["nodes"]], titles)

    def test_lists_are_fresh_after_each_kind_of_write(self) -> None:
        task = {"projectId": self.project.pk, "title": "Mow", "dueDate": "2027-03-01T00:00:00Z"}
        self.read()
        for name, values, projects, tasks in [
            ("createTask", task, ["Garden"], ["Mow", "Weed"]),
            ("updateTask", {"id": self.task.pk, "title": "Rake"}, ["Garden"], ["Mow", "Rake"]),
            ("deleteTask", {"id": self.task.pk}, ["Garden"], ["Mow"]),
            ("updateProject", {"id": self.project.pk, "name": "Park"}, ["Park"], ["Mow"]),
            ("createProject", {"name": "Kitchen"}, ["Kitchen", "Park"], ["Mow"]),
            ("deleteProject", {"id": self.project.pk}, ["Kitchen"], []),
        ]:
            with self.subTest(name):
                with self.committed():
                    self.change(name, **values)
                self.assertEqual(self.read(), [projects, tasks, tasks])

    def test_a_refused_write_leaves_the_lists_as_they_were(self) -> None:
        before = self.read()
        with self.committed():
            self.messages("updateTask", id=self.task.pk, title="")
        with self.assertNumQueries(0):
            self.assertEqual(
                [self.data(document) for document in self.lists][1], {"tasks": {"nodes": [{"title": "Weed"}]}}
            )
        self.assertEqual(self.read(), before)

    def test_a_count_is_never_stale(self) -> None:
        document = "{ tasks { totalCount nodes { title } } }"
        self.data(document)
        TaskFactory(project=self.project)
        with self.assertNumQueries(1):
            self.assertEqual(self.data(document)["tasks"]["totalCount"], 2)


class MemberListTests(ClosedCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory()
        cls.garden = MembershipFactory(user=cls.ada, project__name="Garden").project
        cls.kitchen = ProjectFactory(name="Kitchen")

    def setUp(self) -> None:
        self.client.force_login(self.ada)

    def names(self) -> list[str]:
        """The names of the projects. Reads twice, and checks that the second time queries only the session and user."""
        document = "{ projects { nodes { name } } }"
        result: Any = self.data(document)
        with self.assertNumQueries(2):
            self.assertEqual(self.data(document), result)
        return [project["name"] for project in result["projects"]["nodes"]]

    def test_a_list_is_fresh_after_each_change_of_visibility(self) -> None:
        self.assertEqual(self.names(), ["Garden"])
        with self.committed():
            add_member(actor=SYSTEM, project_id=self.kitchen.pk, username=self.ada.username, role=Role.VIEWER)
        self.assertEqual(self.names(), ["Kitchen", "Garden"])
        with self.committed():
            update_project(actor=SYSTEM, project_id=self.kitchen.pk, changes={"name": "Cellar"})
        self.assertEqual(self.names(), ["Cellar", "Garden"])
        with self.committed():
            create_project(actor=viewer_for(self.ada), name="Attic")
        self.assertEqual(self.names(), ["Attic", "Cellar", "Garden"])
        with self.committed():
            remove_member(actor=SYSTEM, project_id=self.kitchen.pk, user_id=self.ada.pk)
        self.assertEqual(self.names(), ["Attic", "Garden"])
        self.ada.is_staff = True
        with self.committed():
            save_user(actor=SYSTEM, user=self.ada)
        self.assertEqual(self.names(), ["Attic", "Cellar", "Garden"])
        self.ada.is_staff = False
        with self.committed():
            save_user(actor=SYSTEM, user=self.ada)
        self.assertEqual(self.names(), ["Attic", "Garden"])

    def test_an_invisible_change_leaves_a_list_cached(self) -> None:
        self.assertEqual(self.names(), ["Garden"])
        with self.committed():
            update_project(actor=SYSTEM, project_id=self.kitchen.pk, changes={"name": "Cellar"})
        with self.assertNumQueries(2):
            self.data("{ projects { nodes { name } } }")
