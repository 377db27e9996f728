import threading
from datetime import UTC, datetime
from typing import Any

import orjson
from django.conf import settings
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import resolve

from backend.projects import journal, services
from backend.projects.access import SYSTEM, viewer_for
from backend.projects.cache.versions import bump, is_current, project_tag, versions_at
from backend.projects.errors import BadArgument, ResumeRefused
from backend.projects.events import (
    AccessChanged,
    Payload,
    ProjectCreated,
    ProjectDeleted,
    ProjectUpdated,
    TaskCommented,
    TaskCreated,
    TaskDeleted,
    TaskUpdated,
)
from backend.projects.journal import JournalEvent, Retained
from backend.projects.models import Event, Project, Role
from backend.projects.rows import CommentRow, ProjectRow, TaskRow
from backend.projects.visibility import EventFilter, EventVisibility
from tests.cases import Case, CommittingCase
from tests.factories import CommentFactory, MembershipFactory, ProjectFactory, TaskFactory, UserFactory


def updated(project: Project) -> ProjectUpdated:
    return ProjectUpdated(ProjectRow.of(project), changes=["name"])


class AppendTests(Case):
    def test_positions_start_at_1_and_have_no_gaps(self) -> None:
        project = ProjectFactory()
        first = journal.append(updated(project), actor=SYSTEM)
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            journal.append(updated(project), actor=SYSTEM)
            raise ZeroDivisionError
        second = journal.append(updated(project), actor=SYSTEM)
        self.assertEqual((first, second), (1, 2))

    def test_an_event_contains_the_change_the_project_and_the_actor(self) -> None:
        user = UserFactory(first_name="Ada", last_name="Lovelace")
        project = ProjectFactory(name="Engine")
        before = datetime.now(UTC)
        journal.append(updated(project), actor=viewer_for(user))
        (event,) = journal.read_after(0, limit=10).events
        frame = orjson.loads(event.frame)
        self.assertLessEqual(before, datetime.fromisoformat(frame.pop("at")))
        self.assertEqual(
            frame,
            {
                "type": "project.updated",
                "cursor": "1",
                "actor": {"id": user.pk, "name": "Ada Lovelace"},
                "project": project.pk,
                "object": ProjectRow.of(project).as_json(),
                "changes": ["name"],
            },
        )

    def test_one_append_costs_one_query(self) -> None:
        project = ProjectFactory()
        with self.assertNumQueries(1):
            journal.append(updated(project), actor=SYSTEM)

    def test_many_events_take_one_query_and_consecutive_positions(self) -> None:
        projects = ProjectFactory.create_batch(3)
        journal.append(updated(projects[0]), actor=SYSTEM)
        events = [*map(updated, projects), ProjectDeleted(ProjectRow.of(projects[0]), [5, 7]), AccessChanged([5])]
        with self.assertNumQueries(1):
            last = journal.append_all(events, actor=SYSTEM)
        found = journal.read_after(1, limit=10).events
        self.assertEqual((last, [event.position for event in found]), (6, [2, 3, 4, 5, 6]))
        self.assertEqual([event.kind for event in found], [event.kind for event in events])
        self.assertEqual([event.data for event in found], [event.data for event in events])
        self.assertEqual([event.audience for event in found], [None, None, None, [5, 7], None])
        self.assertEqual(found[-1].project_id, None)

    def test_large_events_are_split_over_statements_of_bounded_size(self) -> None:
        project = ProjectFactory(description="x" * 1_000_000)
        with self.committed() as callbacks, CaptureQueriesContext(connection) as captured:
            last = journal.append_all((updated(project) for _ in range(10)), actor=SYSTEM)
        self.assertEqual((last, len(callbacks)), (10, 1))
        self.assertEqual(list(Event.objects.order_by("position").values_list("position", flat=True)), [*range(1, 11)])
        inserts = [query["sql"] for query in captured.captured_queries if "INSERT" in query["sql"]]
        self.assertEqual(len(inserts), 3)
        self.assertLess(max(map(len, inserts)), 6_000_000)

    def test_a_payload_that_is_not_json_is_refused(self) -> None:
        with self.assertRaises(TypeError):
            journal.append(ProjectUpdated(ProjectRow.of(ProjectFactory()), changes=[object()]), actor=SYSTEM)  # type: ignore[list-item]
        self.assertEqual(Event.objects.count(), 0)


class CommitTests(CommittingCase):
    def test_append_outside_a_transaction_is_refused(self) -> None:
        project = ProjectFactory()
        with self.assertRaises(RuntimeError):
            journal.append(updated(project), actor=SYSTEM)
        self.assertEqual(Event.objects.count(), 0)

    def test_positions_follow_commits(self) -> None:
        """A writer waits for the commit of the writer before it, so a reader of all events up to N has missed none."""
        project = ProjectFactory()
        appended, may_commit = threading.Event(), threading.Event()
        seen: list[list[int]] = []

        def slow_writer() -> None:
            with transaction.atomic():
                journal.append(updated(project), actor=SYSTEM)
                appended.set()
                may_commit.wait(10)
            connection.close()

        def quick_writer() -> None:
            with transaction.atomic():
                journal.append(updated(project), actor=SYSTEM)
            seen.append([event.position for event in journal.read_after(0, limit=10).events])
            connection.close()

        slow = threading.Thread(target=slow_writer)
        slow.start()
        self.assertTrue(appended.wait(10))
        quick = threading.Thread(target=quick_writer)
        quick.start()
        self.wait_for_lock()
        self.assertEqual(journal.read_after(0, limit=10).events, [])
        may_commit.set()
        slow.join(10)
        quick.join(10)
        self.assertEqual(seen, [[1, 2]])

    def wait_for_lock(self) -> None:
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with connection.cursor() as cursor:
            for _ in range(2000):
                cursor.execute(waiting)
                if cursor.fetchone()[0]:
                    return
                cursor.execute("SELECT pg_sleep(0.005)")
        self.fail("The second writer did not wait for the first.")


class ReadTests(Case):
    def test_read_after_returns_the_next_events_in_order(self) -> None:
        project = services.project.create_project(actor=SYSTEM, name="One")
        for number in range(4):
            services.project.update_project(actor=SYSTEM, project_id=project.pk, changes={"name": f"Name {number}"})
        self.assertEqual([event.position for event in journal.read_after(2, limit=2).events], [3, 4])
        self.assertEqual([event.position for event in journal.read_after(4, limit=2).events], [5])
        self.assertEqual(journal.read_after(5, limit=2).events, [])

    @override_settings(JOURNAL_PAGE_BYTES=250_000)
    def test_a_page_ends_with_the_event_that_reaches_its_size_limit(self) -> None:
        project = ProjectFactory(description="é" * 50_000)
        for _ in range(5):
            journal.append(updated(project), actor=SYSTEM)
        sizes = [len(payload.encode()) for payload in Event.objects.values_list("payload", flat=True)]
        self.assertTrue(all(100_000 < size < 101_000 for size in sizes), sizes)
        read = []
        position, has_more = 0, True
        while has_more:
            page = journal.read_after(position, limit=100)
            self.assertEqual([event.size for event in page.events], sizes[: len(page.events)])
            read.append([event.position for event in page.events])
            position, has_more = page.events[-1].position, page.has_more
        self.assertEqual(read, [[1, 2, 3], [4, 5]])

    @override_settings(JOURNAL_PAGE_BYTES=250_000)
    def test_an_event_larger_than_a_page_ends_its_page(self) -> None:
        for size in (10, 1_000_000, 10):
            journal.append(updated(ProjectFactory(description="x" * size)), actor=SYSTEM)
        first, last = journal.read_after(0, limit=100), journal.read_after(2, limit=100)
        self.assertEqual([event.position for event in first.events], [1, 2])
        self.assertEqual([event.position for event in last.events], [3])
        self.assertEqual((first.has_more, last.has_more), (True, False))

    def test_has_more_is_true_if_the_limit_ends_the_page(self) -> None:
        project = ProjectFactory()
        for _ in range(3):
            journal.append(updated(project), actor=SYSTEM)
        self.assertEqual([journal.read_after(0, limit=limit).has_more for limit in (2, 4)], [True, False])

    def test_reading_bumps_no_tags_but_bump_tags_does(self) -> None:
        project = ProjectFactory()
        tag = project_tag(project.pk)
        bump({tag: 0})  # so that its version is known
        self.write_unannounced(lambda: journal.append(updated(project), actor=SYSTEM))
        before = versions_at([tag], Event.head())
        assert before is not None

        events = journal.read_after(0, limit=10).events
        self.assertTrue(is_current(before))

        journal.bump_tags(events)
        self.assertFalse(is_current(before))

    def test_retained_names_the_oldest_position_to_resume_from(self) -> None:
        self.assertEqual(journal.retained(), Retained(oldest=0, head=0))
        project = ProjectFactory()
        for _ in range(3):
            journal.append(updated(project), actor=SYSTEM)
        self.assertEqual(journal.retained(), Retained(oldest=0, head=3))
        Event.objects.filter(position__lte=2).delete()
        self.assertEqual(journal.retained(), Retained(oldest=2, head=3))

    def test_a_position_can_be_resumed_only_if_no_event_is_missed(self) -> None:
        retained = Retained(oldest=2, head=5)
        for position in (2, 5):
            journal.check_resumable(position, retained)
        for position, code in ((1, "CURSOR_EXPIRED"), (6, "RESYNC")):
            with self.assertRaises(ResumeRefused) as refused:
                journal.check_resumable(position, retained)
            self.assertEqual((refused.exception.code, refused.exception.oldest), (code, 2))


class TruncationTests(Case):
    """Events over `EVENT_BYTES`."""

    def read(self, event: Payload) -> JournalEvent:
        journal.append(event, actor=SYSTEM)
        [found] = journal.read_after(Event.head() - 1, limit=1).events
        frame = orjson.loads(found.frame)
        self.assertEqual(found.size, len(found.payload.encode()))
        self.assertLess(len(found.frame.encode()), settings.EVENT_BYTES)
        self.assertEqual({key: frame[key] for key in found.data}, found.data)
        return found

    def test_a_large_event_has_the_beginning_of_its_text_and_the_url_of_its_object(self) -> None:
        text = "Weed the beds. " * 70_000
        project = ProjectFactory(description=text)
        task = TaskFactory(project=project, description=text)
        long_comment, comment = CommentFactory(task=task, content=text), CommentFactory(task=task)
        short_task = TaskFactory()
        project_row, task_row = ProjectRow.of(project), TaskRow.of(task)
        project_url, task_url = f"/projects/{project.pk}/", f"/tasks/{task.pk}/"
        for event, url, cut in (
            (TaskCreated(task_row), task_url, {"task"}),
            (TaskUpdated(task_row, changes=["title"]), task_url, {"task"}),
            (TaskDeleted(task_row), None, {"task"}),
            (TaskCommented(task_row, CommentRow.of(comment)), task_url, {"task"}),
            (TaskCommented(task_row, CommentRow.of(long_comment)), f"{task_url}comments/", {"task", "comment"}),
            (
                TaskCommented(TaskRow.of(short_task), CommentRow.of(long_comment)),
                f"/tasks/{short_task.pk}/comments/",
                {"comment"},
            ),
            (ProjectCreated(project_row), project_url, {"object"}),
            (ProjectUpdated(project_row, changes=["name"]), project_url, {"object"}),
            (ProjectDeleted(project_row, [5]), None, {"object"}),
        ):
            with self.subTest(kind=event.kind, cut=cut):
                found = self.read(event)
                self.assertTrue(found.is_truncated)
                expected: dict[str, Any] = {**event.data, "truncated": True, "url": url}
                for key in cut:
                    name = "content" if key == "comment" else "description"
                    expected[key] = {**expected[key], name: text[:1000]}
                self.assertEqual(found.data, expected)
        self.assertEqual(resolve(project_url).view_name, "rest:project")
        self.assertEqual(resolve(task_url).view_name, "rest:task")
        self.assertEqual(resolve(f"{task_url}comments/").view_name, "rest:comments")

    def test_events_with_texts_of_the_maximum_length_are_not_truncated(self) -> None:
        task = TaskFactory(description="é" * 65_536)
        for event in (
            TaskUpdated(TaskRow.of(task), changes=["title"]),
            TaskCommented(TaskRow.of(task), CommentRow.of(CommentFactory(task=task, content="é" * 16_384))),
        ):
            found = self.read(event)
            self.assertEqual((found.is_truncated, found.data), (False, event.data))

    def test_an_event_without_a_long_text_is_never_truncated(self) -> None:
        users = list(range(100_000))
        journal.append(AccessChanged(users), actor=SYSTEM)
        [found] = journal.read_after(0, limit=1).events
        self.assertEqual((found.is_truncated, found.data["users"]), (False, users))

    def test_the_journal_stores_the_whole_event(self) -> None:
        project = ProjectFactory(description="x" * 1_000_000)
        journal.append(updated(project), actor=SYSTEM)
        self.assertEqual(orjson.loads(Event.objects.get().payload)["object"]["description"], project.description)


class VisibilityTests(Case):
    def test_a_member_sees_only_the_events_of_their_projects(self) -> None:
        membership = MembershipFactory(role=Role.VIEWER)
        other = ProjectFactory()
        for project in (membership.project, other):
            journal.append(updated(project), actor=SYSTEM)
        viewer = viewer_for(membership.user)
        shown = [
            event.project_id
            for event in journal.read_after(0, limit=9).events
            if EventVisibility.since(viewer, 0).shows(event)
        ]
        self.assertEqual(shown, [membership.project_id])

    def test_a_deletion_is_shown_to_those_who_could_see_the_project(self) -> None:
        membership, stranger = MembershipFactory(role=Role.OWNER), UserFactory()
        viewer = viewer_for(membership.user)
        services.project.delete_project(actor=viewer, project_id=membership.project_id)
        (event,) = journal.read_after(0, limit=9).events
        self.assertTrue(EventVisibility.since(viewer, 0).shows(event))
        self.assertFalse(EventVisibility.since(viewer_for(stranger), 0).shows(event))
        self.assertTrue(EventVisibility.since(viewer_for(UserFactory(is_staff=True)), 0).shows(event))
        self.assertEqual(EventVisibility.since(viewer, 0).project_ids, {membership.project_id})
        self.assertEqual(EventVisibility.since(viewer, 1).project_ids, frozenset())
        self.assertEqual(EventVisibility.since(viewer_for(stranger), 0).project_ids, frozenset())

    def test_deleted_projects_are_found_by_an_index(self) -> None:
        """Without one every page of events after an old position would read the journal to its end."""
        project = ProjectFactory()
        for _ in range(20):
            journal.append_all([updated(project)] * 100, actor=SYSTEM)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE projects_event")
        with CaptureQueriesContext(connection) as queries:
            EventVisibility.since(viewer_for(UserFactory()), 0)
        [statement] = [query["sql"] for query in queries if "audience" in query["sql"]]
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {statement}")
            plan = "\n".join(line for [line] in cursor.fetchall())
        self.assertIn("event_of_deletion", plan)


class EventFilterTests(Case):
    def test_a_filter_passes_events_that_match_all_its_conditions(self) -> None:
        task = TaskFactory()
        services.task.update_task(actor=SYSTEM, task_id=task.pk, changes={"title": "New"})
        (event,) = journal.read_after(0, limit=9).events
        kinds = frozenset({"task.updated"})
        self.assertTrue(EventFilter().passes(event))
        self.assertTrue(EventFilter(task.project_id, task.pk, kinds).passes(event))
        self.assertFalse(EventFilter(project_id=task.project_id + 1).passes(event))
        self.assertFalse(EventFilter(task_id=task.pk + 1).passes(event))
        self.assertFalse(EventFilter(kinds=frozenset({"task.deleted"})).passes(event))
        self.assertFalse(EventFilter(kinds=frozenset()).passes(event))

    def test_a_change_of_access_is_not_delivered(self) -> None:
        journal.append(AccessChanged([1], of_project=7), actor=SYSTEM)
        (event,) = journal.read_after(0, limit=9).events
        self.assertFalse(EventFilter().passes(event))

    def test_a_kind_that_is_never_delivered_is_refused(self) -> None:
        with self.assertRaises(BadArgument) as refused:
            EventFilter(kinds=frozenset({"access.changed"}))
        self.assertEqual(refused.exception.argument, "kinds")
