import threading
from datetime import UTC, datetime

import orjson
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from backend.projects import journal, services
from backend.projects.access import SYSTEM, viewer_for
from backend.projects.cache.versions import bump, is_current, project_tag, versions_at
from backend.projects.errors import BadArgument, ResumeRefused
from backend.projects.events import AccessChanged, ProjectDeleted, ProjectUpdated
from backend.projects.journal import Retained
from backend.projects.models import Event, Project, Role
from backend.projects.rows import ProjectRow
from backend.projects.visibility import EventFilter, EventVisibility
from tests.cases import Case, CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory


def updated(project: Project) -> ProjectUpdated:
    return ProjectUpdated(ProjectRow.of(project), changes=["name"])


class AppendTests(Case):
    def test_positions_start_at_1_and_have_no_holes(self) -> None:
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
        (event,) = journal.read_after(0, limit=10)
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
        found = journal.read_after(1, limit=10)
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

    def test_a_payload_that_is_not_json_is_refused_at_the_caller(self) -> None:
        with self.assertRaises(TypeError):
            journal.append(ProjectUpdated(ProjectRow.of(ProjectFactory()), changes=[object()]), actor=SYSTEM)  # type: ignore[list-item]
        self.assertEqual(Event.objects.count(), 0)


class AppendOutsideTests(CommittingCase):
    def test_append_outside_a_transaction_is_refused(self) -> None:
        project = ProjectFactory()
        with self.assertRaises(RuntimeError):
            journal.append(updated(project), actor=SYSTEM)
        self.assertEqual(Event.objects.count(), 0)

    def test_positions_follow_commits(self) -> None:
        """A later writer waits for the earlier one's commit: a reader that has read up to N has missed nothing."""
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
            seen.append([event.position for event in journal.read_after(0, limit=10)])
            connection.close()

        slow = threading.Thread(target=slow_writer)
        slow.start()
        self.assertTrue(appended.wait(10))
        quick = threading.Thread(target=quick_writer)
        quick.start()
        self.wait_for_lock()
        self.assertEqual(journal.read_after(0, limit=10), [])
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
        self.assertEqual([event.position for event in journal.read_after(2, limit=2)], [3, 4])
        self.assertEqual([event.position for event in journal.read_after(4, limit=2)], [5])
        self.assertEqual(journal.read_after(5, limit=2), [])

    def test_reading_bumps_no_tags_and_bump_tags_does(self) -> None:
        project = ProjectFactory()
        tag = project_tag(project.pk)
        bump({tag: 0})  # so that its version is known
        self.write_unannounced(lambda: journal.append(updated(project), actor=SYSTEM))
        before = versions_at([tag], Event.head())
        assert before is not None

        events = journal.read_after(0, limit=10)
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

    def test_only_positions_that_miss_no_event_may_be_resumed(self) -> None:
        retained = Retained(oldest=2, head=5)
        for position in (2, 5):
            journal.check_resumable(position, retained)
        for position, code in ((1, "CURSOR_EXPIRED"), (6, "RESYNC")):
            with self.assertRaises(ResumeRefused) as refused:
                journal.check_resumable(position, retained)
            self.assertEqual((refused.exception.code, refused.exception.oldest), (code, 2))


class VisibilityTests(Case):
    def test_a_member_sees_the_events_of_their_projects_alone(self) -> None:
        membership = MembershipFactory(role=Role.VIEWER)
        other = ProjectFactory()
        for project in (membership.project, other):
            journal.append(updated(project), actor=SYSTEM)
        viewer = viewer_for(membership.user)
        shown = [
            event.project_id
            for event in journal.read_after(0, limit=9)
            if EventVisibility.since(viewer, 0).shows(event)
        ]
        self.assertEqual(shown, [membership.project_id])

    def test_a_deletion_is_shown_to_those_who_could_see_the_project(self) -> None:
        membership, stranger = MembershipFactory(role=Role.OWNER), UserFactory()
        viewer = viewer_for(membership.user)
        services.project.delete_project(actor=viewer, project_id=membership.project_id)
        (event,) = journal.read_after(0, limit=9)
        self.assertTrue(EventVisibility.since(viewer, 0).shows(event))
        self.assertFalse(EventVisibility.since(viewer_for(stranger), 0).shows(event))
        self.assertTrue(EventVisibility.since(viewer_for(UserFactory(is_staff=True)), 0).shows(event))
        self.assertEqual(EventVisibility.since(viewer, 0).project_ids, {membership.project_id})
        self.assertEqual(EventVisibility.since(viewer, 1).project_ids, frozenset())
        self.assertEqual(EventVisibility.since(viewer_for(stranger), 0).project_ids, frozenset())


class EventFilterTests(Case):
    def test_a_filter_passes_events_that_match_all_its_conditions(self) -> None:
        task = TaskFactory()
        services.task.update_task(actor=SYSTEM, task_id=task.pk, changes={"title": "New"})
        (event,) = journal.read_after(0, limit=9)
        kinds = frozenset({"task.updated"})
        self.assertTrue(EventFilter().passes(event))
        self.assertTrue(EventFilter(task.project_id, task.pk, kinds).passes(event))
        self.assertFalse(EventFilter(project_id=task.project_id + 1).passes(event))
        self.assertFalse(EventFilter(task_id=task.pk + 1).passes(event))
        self.assertFalse(EventFilter(kinds=frozenset({"task.deleted"})).passes(event))
        self.assertFalse(EventFilter(kinds=frozenset()).passes(event))

    def test_a_change_of_access_is_not_delivered(self) -> None:
        journal.append(AccessChanged([1], of_project=7), actor=SYSTEM)
        (event,) = journal.read_after(0, limit=9)
        self.assertFalse(EventFilter().passes(event))

    def test_a_kind_that_is_never_delivered_is_refused(self) -> None:
        with self.assertRaises(BadArgument) as refused:
            EventFilter(kinds=frozenset({"access.changed"}))
        self.assertEqual(refused.exception.argument, "kinds")
