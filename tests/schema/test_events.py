"""The query `events`: pages of the journal. Each event shows its object as it was at that moment."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from backend.projects.access import SYSTEM, viewer_for
from backend.projects.models import Event, Role
from backend.projects.rows import iso
from backend.projects.services.comment import add_comment
from backend.projects.services.membership import add_member
from backend.projects.services.project import create_project, delete_project, update_project
from backend.projects.services.report import generate
from backend.projects.services.task import create_task, delete_task, update_task
from tests.factories import ProjectFactory, TaskFactory, UserFactory
from tests.schema.cases import ABSENT_IDS, OpenCase

MARCH = datetime(2027, 3, 1, 9, 30, tzinfo=UTC)

KINDS = """query ($after: Cursor, $project: ID, $first: Int) {
  events(after: $after, projectId: $project, first: $first) { nodes { kind cursor projectId } cursor hasMore }
}"""


class EventTypeTests(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory(first_name="Ada", last_name="Lovelace", is_staff=True)
        cls.actor = viewer_for(cls.ada)

    def last(self, fields: str) -> Any:
        """The newest event."""
        before = str(Event.head() - 1)
        document = f"query ($after: Cursor) {{ events(after: $after) {{ nodes {{ __typename kind {fields} }} }} }}"
        [event] = self.data(document, after=before)["events"]["nodes"]
        return event

    def test_an_event_shows_its_position_moment_actor_and_project(self) -> None:
        project = create_project(actor=self.actor, name="Garden")
        row = Event.objects.latest("position")
        self.assertEqual(
            self.last("cursor at actor { id name } projectId"),
            {
                "__typename": "ProjectCreated",
                "kind": "PROJECT_CREATED",
                "cursor": str(row.position),
                "at": iso(row.at),
                "actor": {"id": str(self.ada.pk), "name": "Ada Lovelace"},
                "projectId": str(project.pk),
            },
        )

    def test_an_event_of_an_anonymous_user_has_no_actor(self) -> None:
        create_project(actor=SYSTEM, name="Garden")
        self.assertIsNone(self.last("actor { name }")["actor"])

    def test_events_of_projects_show_the_project_as_it_was(self) -> None:
        project = create_project(actor=SYSTEM, name="Garden")
        shown = "... on {} {{ project {{ id name version }} {} }}"
        as_it_was = {"id": str(project.pk), "name": "Garden", "version": 1}
        created = self.last(shown.format("ProjectCreated", ""))
        self.assertEqual(created, {"__typename": "ProjectCreated", "kind": "PROJECT_CREATED", "project": as_it_was})
        update_project(actor=SYSTEM, project_id=project.pk, changes={"name": "Park", "description": "Green"})
        as_it_was |= {"name": "Park", "version": 2}
        self.assertEqual(
            self.last(shown.format("ProjectUpdated", "changes")),
            {
                "__typename": "ProjectUpdated",
                "kind": "PROJECT_UPDATED",
                "project": as_it_was,
                "changes": ["name", "description"],
            },
        )
        delete_project(actor=SYSTEM, project_id=project.pk)
        deleted = self.last(shown.format("ProjectDeleted", ""))
        self.assertEqual(deleted, {"__typename": "ProjectDeleted", "kind": "PROJECT_DELETED", "project": as_it_was})

    def test_events_of_tasks_show_the_task_as_it_was_and_changes_by_graphql_names(self) -> None:
        project = ProjectFactory()
        add_member(actor=SYSTEM, project_id=project.pk, username=self.ada.username, role=Role.EDITOR)
        task = create_task(actor=SYSTEM, project_id=project.pk, changes={"title": "Weed", "due_date": MARCH})
        shown = "... on {} {{ task {{ id title dueDate project {{ id }} assignee {{ name }} }} {} }}"
        as_it_was = {
            "id": str(task.pk),
            "title": "Weed",
            "dueDate": iso(MARCH),
            "project": {"id": str(project.pk)},
            "assignee": None,
        }
        created = self.last(shown.format("TaskCreated", ""))
        self.assertEqual(created, {"__typename": "TaskCreated", "kind": "TASK_CREATED", "task": as_it_was})
        later = datetime(2027, 4, 1, tzinfo=UTC)
        update_task(actor=SYSTEM, task_id=task.pk, changes={"due_date": later, "assignee_id": self.ada.pk})
        as_it_was |= {"dueDate": iso(later), "assignee": {"name": "Ada Lovelace"}}
        self.assertEqual(
            self.last(shown.format("TaskUpdated", "changes")),
            {
                "__typename": "TaskUpdated",
                "kind": "TASK_UPDATED",
                "task": as_it_was,
                "changes": ["dueDate", "assignee"],
            },
        )
        delete_task(actor=SYSTEM, task_id=task.pk)
        deleted = self.last(shown.format("TaskDeleted", ""))
        self.assertEqual(deleted, {"__typename": "TaskDeleted", "kind": "TASK_DELETED", "task": as_it_was})

    def test_a_comment_is_shown_with_its_task(self) -> None:
        task = TaskFactory()
        comment = add_comment(actor=SYSTEM, task_id=task.pk, content="Done?", author="Bob")
        self.assertEqual(
            self.last("... on TaskCommented { comment { id author content task { id } } }"),
            {
                "__typename": "TaskCommented",
                "kind": "TASK_COMMENTED",
                "comment": {
                    "id": str(comment.pk),
                    "author": "Bob",
                    "content": "Done?",
                    "task": {"id": str(task.pk)},
                },
            },
        )

    def test_a_report_is_shown_with_its_figures(self) -> None:
        project = ProjectFactory()
        report = generate(project.pk, date(2024, 3, 1))
        self.assertEqual(
            self.last("... on ReportGenerated { report { id date figures project { id } } }"),
            {
                "__typename": "ReportGenerated",
                "kind": "REPORT_GENERATED",
                "report": {
                    "id": str(report.pk),
                    "date": "2024-03-01",
                    "figures": report.figures,
                    "project": {"id": str(project.pk)},
                },
            },
        )

    def test_objects_that_an_event_refers_to_may_have_been_deleted(self) -> None:
        project = create_project(actor=SYSTEM, name="Garden")
        task = create_task(actor=SYSTEM, project_id=project.pk, changes={"title": "Weed", "due_date": MARCH})
        add_comment(actor=SYSTEM, task_id=task.pk, content="Done?", author="Bob")
        generate(project.pk, date(2024, 3, 1))
        delete_project(actor=SYSTEM, project_id=project.pk)
        document = """{ events(after: "0") { nodes {
          ... on ProjectCreated { project { name tasks { totalCount nodes { id } } } }
          ... on TaskCreated { task { title project { id } comments { totalCount nodes { id } } } }
          ... on TaskCommented { comment { content task { id } } }
          ... on ReportGenerated { report { date project { id } } }
        } } }"""
        none = {"totalCount": 0, "nodes": []}
        self.assertEqual(
            self.data(document)["events"]["nodes"],
            [
                {"project": {"name": "Garden", "tasks": none}},
                {"task": {"title": "Weed", "project": None, "comments": none}},
                {"comment": {"content": "Done?", "task": None}},
                {"report": {"date": "2024-03-01", "project": None}},
                {},
            ],
        )


class EventPageTests(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.garden = create_project(actor=SYSTEM, name="Garden")
        cls.kitchen = create_project(actor=SYSTEM, name="Kitchen")
        for name in ("Park", "Wood", "Field"):
            update_project(actor=SYSTEM, project_id=cls.garden.pk, changes={"name": name})

    def page(self, **variables: Any) -> tuple[list[int], str, bool]:
        """Positions of the events, the page's cursor, and hasMore."""
        page = self.data(KINDS, **variables)["events"]
        return [int(event["cursor"]) for event in page["nodes"]], page["cursor"], page["hasMore"]

    def test_without_after_a_page_has_no_events_and_the_current_position(self) -> None:
        self.assertEqual(self.page(), ([], "5", False))
        self.assertEqual(self.page(first=1, project=self.garden.pk), ([], "5", False))

    def test_pages_are_oldest_first_until_the_end(self) -> None:
        self.assertEqual(self.page(after="0", first=2), ([1, 2], "2", True))
        self.assertEqual(self.page(after="2", first=2), ([3, 4], "4", True))
        self.assertEqual(self.page(after="4", first=2), ([5], "5", False))
        self.assertEqual(self.page(after="5", first=2), ([], "5", False))

    def test_a_page_that_ends_at_the_head_has_no_more(self) -> None:
        self.assertEqual(self.page(after="0", first=5), ([1, 2, 3, 4, 5], "5", False))
        self.assertEqual(self.page(after="0"), ([1, 2, 3, 4, 5], "5", False))

    def test_a_page_of_one_project_skips_the_events_of_others(self) -> None:
        self.assertEqual(self.page(after="0", project=self.garden.pk), ([1, 3, 4, 5], "5", False))
        self.assertEqual(self.page(after="0", project=self.garden.pk, first=1), ([1], "1", True))
        self.assertEqual(self.page(after="0", project=self.kitchen.pk), ([2], "5", False))
        for absent in ABSENT_IDS:
            with self.subTest(ascii(absent)):
                self.assertEqual(self.page(after="0", project=absent), ([], "5", False))

    def test_a_change_that_is_not_delivered_takes_a_position_too(self) -> None:
        add_member(actor=SYSTEM, project_id=self.garden.pk, username=UserFactory().username, role=Role.VIEWER)
        self.assertEqual(self.page(after="4"), ([5], "6", False))
        self.assertEqual(self.page(), ([], "6", False))

    def test_a_page_has_100_events_at_most(self) -> None:
        last = Event.objects.latest("position")
        Event.objects.bulk_create(
            Event(position=n, kind=last.kind, project_id=last.project_id, at=last.at, payload=last.payload)
            for n in range(6, 107)
        )
        self.assertEqual(self.page(after="5"), (list(range(6, 106)), "105", True))
        self.assertEqual(self.page(after="5", first=100), (list(range(6, 106)), "105", True))
        self.assertEqual(self.page(after="6"), (list(range(7, 107)), "106", False))

    def test_a_page_size_below_1_or_over_the_maximum_is_refused(self) -> None:
        for first in (0, -1, 101):
            with self.subTest(first):
                refusal = self.field_error(KINDS, after="0", first=first)
                self.assertEqual(refusal, {"code": "BAD_USER_INPUT", "argument": "first"})

    def test_a_position_not_yet_reached_is_refused_with_resync(self) -> None:
        for after in ("6", str(2**63 - 1)):
            with self.subTest(after):
                self.assertEqual(self.field_error(KINDS, after=after), {"code": "RESYNC", "oldest": "0"})

    def test_a_position_no_longer_retained_is_refused_with_the_oldest(self) -> None:
        Event.objects.filter(position__lte=3).delete()
        self.assertEqual(self.field_error(KINDS, after="2"), {"code": "CURSOR_EXPIRED", "oldest": "3"})
        self.assertEqual(self.page(after="3"), ([4, 5], "5", False))

    def test_an_invalid_cursor_is_not_executed(self) -> None:
        for after in ("", "x", "-1", "1.5", " 1", "1_0", "٣", str(2**63), "9" * 500, "1\x00", "\ud800", 1, True, []):
            with self.subTest(ascii(after)):
                self.assertEqual(self.request_error_code(KINDS, after=after), "GRAPHQL_VALIDATION_FAILED")
        for literal in ('"x"', "1", "-1", "TRUE", "[]"):
            with self.subTest(literal):
                document = f"{{ events(after: {literal}) {{ cursor }} }}"
                self.assertEqual(self.request_error_code(document), "GRAPHQL_VALIDATION_FAILED")
