"""The fields of `Query` that return one object, and `cursor`. `test_connections` tests lists."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

from backend.projects.access import SYSTEM
from backend.projects.models import Event, Project
from backend.projects.rows import iso
from backend.projects.services.project import create_project
from tests.factories import CommentFactory, ProjectFactory, SummaryReportFactory, TaskFactory, UserFactory
from tests.schema.cases import ABSENT_IDS, ClosedCase, OpenCase


class OneRowTests(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory(first_name="Ada", last_name="Lovelace")
        cls.project = ProjectFactory(name="Garden", description="Behind the house")
        cls.task = TaskFactory(
            project=cls.project,
            title="Weed",
            description="All of it",
            status="in_progress",
            due_date=datetime(2027, 3, 1, 9, 30, tzinfo=UTC),
            assignee=cls.ada,
        )
        cls.comment = CommentFactory(task=cls.task, author="Bob", content="Done?")
        cls.report = SummaryReportFactory(project=cls.project, date=date(2027, 3, 1), figures={"overdue": 3})

    def test_a_project_shows_its_fields_and_its_tasks(self) -> None:
        document = """query ($id: ID!) {
          project(id: $id) { id name description createdAt updatedAt version tasks { totalCount nodes { id } } }
        }"""
        self.assertEqual(
            self.data(document, id=self.project.pk)["project"],
            {
                "id": str(self.project.pk),
                "name": "Garden",
                "description": "Behind the house",
                "createdAt": iso(self.project.created_at),
                "updatedAt": iso(self.project.updated_at),
                "version": 1,
                "tasks": {"totalCount": 1, "nodes": [{"id": str(self.task.pk)}]},
            },
        )

    def test_a_task_shows_its_fields_and_related_objects(self) -> None:
        document = """query ($id: ID!) {
          task(id: $id) {
            id title description status dueDate createdAt updatedAt version
            project { id name } assignee { id name }
            comments { totalCount nodes { id author content createdAt task { id } } }
          }
        }"""
        self.assertEqual(
            self.data(document, id=self.task.pk)["task"],
            {
                "id": str(self.task.pk),
                "title": "Weed",
                "description": "All of it",
                "status": "IN_PROGRESS",
                "dueDate": "2027-03-01T09:30:00.000000Z",
                "createdAt": iso(self.task.created_at),
                "updatedAt": iso(self.task.updated_at),
                "version": 1,
                "project": {"id": str(self.project.pk), "name": "Garden"},
                "assignee": {"id": str(self.ada.pk), "name": "Ada Lovelace"},
                "comments": {
                    "totalCount": 1,
                    "nodes": [
                        {
                            "id": str(self.comment.pk),
                            "author": "Bob",
                            "content": "Done?",
                            "createdAt": iso(self.comment.created_at),
                            "task": {"id": str(self.task.pk)},
                        }
                    ],
                },
            },
        )

    def test_a_report_shows_its_figures(self) -> None:
        document = "query ($id: ID!) { report(id: $id) { id date generatedAt figures project { id } } }"
        self.assertEqual(
            self.data(document, id=self.report.pk)["report"],
            {
                "id": str(self.report.pk),
                "date": "2027-03-01",
                "generatedAt": iso(self.report.generated_at),
                "figures": {"overdue": 3},
                "project": {"id": str(self.project.pk)},
            },
        )

    def test_an_absent_row_is_null(self) -> None:
        for field in ("project", "task", "report"):
            for absent in ABSENT_IDS:
                with self.subTest(field, id=absent):
                    document = f"query ($id: ID!) {{ {field}(id: $id) {{ id }} }}"
                    self.assertEqual(self.data(document, id=absent), {field: None})

    def test_an_id_may_be_written_as_a_number(self) -> None:
        literal = f"{{ task(id: {self.task.pk}) {{ id }} }}"
        self.assertEqual(self.data(literal), {"task": {"id": str(self.task.pk)}})
        for number in (0, -1, 2**31, 2**63):
            with self.subTest(number):
                self.assertEqual(self.data(f"{{ task(id: {number}) {{ id }} }}"), {"task": None})

    def test_an_id_of_another_type_is_not_executed(self) -> None:
        for value in (None, 1.5, True, [], {}):
            with self.subTest(value):
                code = self.request_error_code("query ($id: ID!) { task(id: $id) { id } }", id=value)
                self.assertEqual(code, "GRAPHQL_VALIDATION_FAILED")


class ViewerTests(ClosedCase):
    def me(self) -> Any:
        return self.data("{ me { id name isStaff } }")["me"]

    def test_me_is_the_signed_in_user(self) -> None:
        for user, name, is_staff in [
            (UserFactory(first_name="Ada", last_name="Lovelace"), "Ada Lovelace", False),
            (UserFactory(username="root", is_staff=True), "root", True),
        ]:
            with self.subTest(name):
                self.client.force_login(user)
                self.assertEqual(self.me(), {"id": str(user.pk), "name": name, "isStaff": is_staff})

    def test_me_is_null_for_an_anonymous_user(self) -> None:
        with self.settings(ACCESS="open"):
            self.assertIsNone(self.me())


class CursorTests(OpenCase):
    def setUp(self) -> None:
        for name in ("Garden", "Kitchen"):
            create_project(actor=SYSTEM, name=name)

    def test_the_cursor_is_the_newest_position_in_digits(self) -> None:
        self.assertEqual(self.data("{ cursor }"), {"cursor": "2"})
        Event.objects.all().delete()
        self.assertEqual(self.data("{ cursor }"), {"cursor": "0"})

    def test_the_cursor_is_read_before_the_rows_wherever_it_is_selected(self) -> None:
        position, rows = f'MAX("{Event._meta.db_table}"."position")', f'FROM "{Project._meta.db_table}"'
        for document in (
            "{ cursor projects(last: 5) { nodes { name } } }",
            "{ projects(last: 6) { nodes { name } } cursor }",
            "{ projects(last: 7) { nodes { name } } position: cursor }",
            "{ projects(last: 8) { nodes { name } } ... { ... on Query { cursor } } }",
            """{ projects(last: 9) { nodes { name } } ...At }
            fragment At on Query { ...Again } fragment Again on Query { cursor }""",
        ):
            with self.subTest(document), CaptureQueriesContext(connection) as queries:
                self.assertIn("2", self.data(document).values())
                self.assertIn(position, queries[0]["sql"])
                self.assertIn(rows, queries[-1]["sql"])
