"""`live` without a socket or a stream: catching up, going live, permissions, and the end of a listener."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.test import override_settings

from backend.projects import journal, live, notifier, services
from backend.projects.access import ANONYMOUS, SYSTEM, Viewer, viewer_for
from backend.projects.errors import NotSignedIn, ProjectNotFound, ResumeRefused, TaskNotFound
from backend.projects.events import ACCESS_CHANGED
from backend.projects.models import Event, Project, Role
from backend.projects.resolvers.event import list_events
from backend.projects.resolvers.page import Order, PageRequest
from backend.projects.resolvers.project import ProjectFilter, list_projects
from backend.projects.visibility import EventFilter
from tests.cases import CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory

rename = sync_to_async(services.project.update_project)
delete = sync_to_async(services.project.delete_project)
add_member = sync_to_async(services.membership.add_member)
remove_member = sync_to_async(services.membership.remove_member)


async def names(listener: live.Listener, count: int) -> list[str]:
    """The next events: the new name of a renamed project, the kind of any other event."""
    found = []
    for _ in range(count):
        event = await asyncio.wait_for(listener.next(), 10)
        assert event is not None
        found.append(event.data["object"]["name"] if event.kind == "project.updated" else event.kind)
    return found


class ListenerCase(CommittingCase):
    def setUp(self) -> None:
        self.project: Project = ProjectFactory()

    async def write(self, *new_names: str, project: Project | None = None) -> None:
        for name in new_names:
            await rename(actor=SYSTEM, project_id=(project or self.project).pk, changes={"name": name})

    async def write_quietly(self, *new_names: str) -> None:
        """`write` without a notification, and without bumping a tag."""

        def write() -> None:
            for name in new_names:
                services.project.update_project(actor=SYSTEM, project_id=self.project.pk, changes={"name": name})

        await sync_to_async(self.write_unannounced)(write)


def end_other_sessions() -> int:
    """End every other session of the database. Returns their number."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


class Sender:
    """A `try_send` that accepts events while it is open."""

    def __init__(self) -> None:
        self.is_open = True
        self.sent: list[str] = []

    def __call__(self, event: journal.JournalEvent) -> bool:
        if self.is_open:
            self.sent.append(event.data["object"]["name"])
        return self.is_open


class TrySendTests(ListenerCase):
    """An awaited listener offers its events to `try_send`, and queues for `next` what `try_send` does not accept."""

    async def awaited(
        self, listener: live.Listener, other: live.Listener, timeout_s: float | None = None
    ) -> asyncio.Task[Any]:
        """Make both listeners live, and return a task that awaits the next event of the first one."""
        await self.write("first")
        for each in (listener, other):
            self.assertEqual(await names(each, 1), ["first"])
        waiting = asyncio.create_task(listener.next(timeout_s))
        await asyncio.sleep(0)
        return waiting

    async def test_an_event_that_try_send_does_not_accept_is_returned_by_next_before_later_events(self) -> None:
        sender = Sender()
        async with live.listen(SYSTEM, try_send=sender) as listener, live.listen(SYSTEM) as other:
            waiting = await self.awaited(listener, other)
            await self.write("taken")
            self.assertEqual(await names(other, 1), ["taken"])
            self.assertEqual((sender.sent, listener.position), (["taken"], 2))
            sender.is_open = False
            await self.write("left")
            self.assertEqual((await waiting).data["object"]["name"], "left")
            sender.is_open = True
            await self.write("a", "b")  # while the listener is not awaited
            self.assertEqual(await names(other, 3), ["left", "a", "b"])
            self.assertEqual(await names(listener, 2), ["a", "b"])
            self.assertEqual(sender.sent, ["taken"])

    async def test_an_invisible_event_is_not_sent(self) -> None:
        sender = Sender()
        member = await sync_to_async(MembershipFactory)(project=self.project)
        elsewhere = await sync_to_async(ProjectFactory)()
        async with (
            live.listen(viewer_for(member.user), try_send=sender) as listener,
            live.listen(SYSTEM) as other,
        ):
            waiting = await self.awaited(listener, other)
            await self.write("hidden", project=elsewhere)
            await self.write("seen")
            self.assertEqual(await names(other, 2), ["hidden", "seen"])
            self.assertEqual(sender.sent, ["seen"])
            waiting.cancel()

    async def test_an_error_of_try_send_ends_its_listener_only(self) -> None:
        def fail(event: journal.JournalEvent) -> bool:
            raise ValueError("broken")

        async with live.listen(SYSTEM, try_send=fail) as listener, live.listen(SYSTEM) as other:
            waiting = await self.awaited(listener, other)
            await self.write("heard", "all the same")
            self.assertEqual(await names(other, 2), ["heard", "all the same"])
            with self.assertRaisesMessage(ValueError, "broken"):
                await waiting

    async def test_the_idle_time_starts_again_with_each_sent_event(self) -> None:
        sender = Sender()
        now = asyncio.get_running_loop().time
        async with live.listen(SYSTEM, try_send=sender) as listener, live.listen(SYSTEM) as other:
            waiting = await self.awaited(listener, other, 1.0)
            before = now()
            await self.write("taken")
            self.assertEqual(await names(other, 1), ["taken"])
            self.assertEqual(sender.sent, ["taken"])
            self.assertIsNone(await waiting)
            self.assertGreaterEqual(now() - before, 1.0)


class DeliveryTests(ListenerCase):
    async def test_a_new_listener_receives_later_events_in_order(self) -> None:
        await self.write("before")
        async with live.listen(SYSTEM) as listener:
            self.assertEqual(listener.start, 1)
            await self.write("a", "b", "c")
            self.assertEqual(await names(listener, 3), ["a", "b", "c"])
            self.assertEqual(listener.position, 4)

    async def test_a_listener_that_resumes_goes_live_without_gap_or_duplicate(self) -> None:
        expected = [f"name {number}" for number in range(30)]
        await self.write(*expected[:10])
        async with live.listen(SYSTEM, after=0) as listener:
            writing = asyncio.create_task(self.write(*expected[10:]))
            self.assertEqual(await names(listener, 30), expected)
            await writing
            await self.write("the last")
            self.assertEqual(await names(listener, 1), ["the last"])

    async def test_a_listener_catches_up_page_by_page(self) -> None:
        pages, live._PAGE = live._PAGE, 3
        self.addCleanup(setattr, live, "_PAGE", pages)
        expected = [f"name {number}" for number in range(10)]
        await self.write(*expected)
        async with live.listen(SYSTEM, after=2) as listener:
            self.assertEqual(await names(listener, 8), expected[2:])

    @override_settings(LIVE_QUEUE_BYTES=65_536, LIVE_QUEUE_EVENTS=1000)
    async def test_a_listener_with_too_many_bytes_in_its_queue_has_to_resync(self) -> None:
        await sync_to_async(Project.objects.update)(description="x" * 20_000)
        async with live.listen(SYSTEM) as slow, live.listen(SYSTEM) as quick:
            await self.write("first")
            for listener in (slow, quick):
                self.assertEqual(await names(listener, 1), ["first"])
            await self.write("1", "2", "3")
            self.assertEqual(await names(quick, 3), ["1", "2", "3"])
            self.assertEqual(await names(slow, 3), ["1", "2", "3"])
            await self.write("4", "5", "6", "7", "8")  # the fourth of them fills the queue
            self.assertEqual(await names(quick, 5), ["4", "5", "6", "7", "8"])
            with self.assertRaises(ResumeRefused) as refused:
                await names(slow, 1)
            self.assertEqual((refused.exception.code, refused.exception.oldest), ("RESYNC", 0))

    @override_settings(JOURNAL_PAGE_BYTES=65_536)
    async def test_a_listener_catches_up_and_goes_live_by_pages_of_bounded_bytes(self) -> None:
        await sync_to_async(Project.objects.update)(description="x" * 30_000)
        expected = [f"name {number}" for number in range(10)]
        await self.write(*expected)
        async with live.listen(SYSTEM, after=0) as listener:
            self.assertEqual(await names(listener, 3), expected[:3])
            self.assertLess(len(listener._queue), 3)
            self.assertEqual(await names(listener, 7), expected[3:])
            await self.write("live")
            self.assertEqual(await names(listener, 1), ["live"])
            self.assertTrue(listener.is_live)

    async def test_a_filtered_event_still_advances_the_position(self) -> None:
        other = await sync_to_async(ProjectFactory)()
        async with live.listen(SYSTEM, filter=EventFilter(project_id=other.pk)) as listener:
            await self.write("unheard")
            await self.write("heard", project=other)
            self.assertEqual(await names(listener, 1), ["heard"])
            self.assertEqual(listener.position, 2)

    @override_settings(LIVE_POLL_S=0.2)
    async def test_a_change_without_a_notification_is_received_at_the_next_poll(self) -> None:
        async with live.listen(SYSTEM) as listener:
            await self.write_quietly("quiet")
            self.assertEqual(await names(listener, 1), ["quiet"])

    async def test_the_reader_survives_the_end_of_its_database_session(self) -> None:
        async with live.listen(SYSTEM) as listener:
            await self.write("before")
            self.assertEqual(await names(listener, 1), ["before"])
            self.assertGreater(await sync_to_async(end_other_sessions)(), 0)
            await self.write("after")
            self.assertEqual(await names(listener, 1), ["after"])

    @override_settings(LIVE_POLL_S=60.0)
    async def test_a_listener_ahead_of_the_reader_ends_when_the_journal_is_set_back(self) -> None:
        async with live.listen(SYSTEM) as listener:
            await self.write_quietly("heard by the listener alone")
            await names(listener, 1)
            await sync_to_async(Event.objects.all().delete)()
            notifier.notify()
            with self.assertRaises(ResumeRefused) as refused:
                await names(listener, 1)
            self.assertEqual(refused.exception.code, "RESYNC")

    async def test_the_last_listener_leaves_nothing_behind(self) -> None:
        async with live.listen(SYSTEM), live.listen(SYSTEM) as listener:
            await self.write("a")
            await names(listener, 1)
        self.assertEqual(live._reader().listeners, set())
        self.assertEqual(asyncio.all_tasks() - {asyncio.current_task()}, await self.layer_tasks())

    async def layer_tasks(self) -> set[Any]:
        """The receiver of the channel layer, which lives as long as the event loop."""
        return {task for task in asyncio.all_tasks() if "_do_receiving" in repr(task.get_coro())}


class PermissionTests(ListenerCase):
    def setUp(self) -> None:
        super().setUp()
        self.membership = MembershipFactory(project=self.project, role=Role.OWNER)
        self.viewer = viewer_for(self.membership.user)
        self.other = ProjectFactory()

    @asynccontextmanager
    async def listening(self, viewer: Viewer | None = None, **options: Any) -> AsyncIterator[live.Listener]:
        async with live.listen(viewer or self.viewer, **options) as listener:
            yield listener

    async def test_a_member_receives_events_of_their_own_projects_only(self) -> None:
        async with self.listening() as listener:
            await self.write("unheard", project=self.other)
            await self.write("heard")
            self.assertEqual(await names(listener, 1), ["heard"])

    async def test_a_new_member_receives_later_events_and_earlier_ones_by_resuming(self) -> None:
        await self.write("before", project=self.other)
        async with self.listening() as listener:
            await add_member(
                actor=SYSTEM, project_id=self.other.pk, username=self.membership.user.username, role=Role.VIEWER
            )
            await self.write("after", project=self.other)
            self.assertEqual(await names(listener, 1), ["after"])
        async with self.listening(after=0) as listener:
            self.assertEqual(await names(listener, 2), ["before", "after"])

    async def test_a_removed_member_receives_no_more_events(self) -> None:
        await add_member(
            actor=SYSTEM, project_id=self.other.pk, username=self.membership.user.username, role=Role.VIEWER
        )
        async with self.listening() as catching_up, self.listening() as listener:
            self.assertIsNone(await listener.next(timeout_s=0))
            await remove_member(actor=SYSTEM, project_id=self.other.pk, user_id=self.viewer.user_id)
            await self.write("unheard", project=self.other)
            await self.write("heard")
            self.assertEqual(await names(listener, 1), ["heard"])
            self.assertEqual(await names(catching_up, 1), ["heard"])

    async def test_a_removed_member_does_not_receive_queued_events(self) -> None:
        await add_member(
            actor=SYSTEM, project_id=self.other.pk, username=self.membership.user.username, role=Role.VIEWER
        )
        async with self.listening() as listener:
            await self.write("waits", project=self.other)
            await self.write("first")
            await self.write("waits too", project=self.other)
            self.assertEqual(await names(listener, 1), ["waits"])
            await remove_member(actor=SYSTEM, project_id=self.other.pk, user_id=self.viewer.user_id)
            async with self.listening() as other:
                await self.write("last")
                self.assertEqual(await names(other, 1), ["last"])
            self.assertEqual(await names(listener, 2), ["first", "last"])

    async def test_events_before_the_deletion_of_a_project_are_received(self) -> None:
        """This is so even if one read returns them with the deletion and with a change of the listener's access."""

        @transaction.atomic
        def write() -> None:
            services.membership.add_member(
                actor=SYSTEM, project_id=self.other.pk, username=self.membership.user.username, role=Role.VIEWER
            )
            services.project.update_project(actor=SYSTEM, project_id=self.project.pk, changes={"name": "last words"})
            services.project.delete_project(actor=SYSTEM, project_id=self.project.pk)

        async with self.listening() as catching_up, self.listening() as listener:
            self.assertIsNone(await listener.next(timeout_s=0))
            await sync_to_async(write)()
            for each in (listener, catching_up):
                self.assertEqual(await names(each, 2), ["last words", "project.deleted"])

    async def test_the_creator_of_a_project_receives_its_events_from_the_creation_on(self) -> None:
        create = sync_to_async(services.project.create_project)
        async with self.listening() as listener:
            created = await create(actor=self.viewer, name="New")
            await self.write("renamed", project=created)
            self.assertEqual(await names(listener, 2), ["project.created", "renamed"])

    async def test_the_deletion_of_a_project_is_received_by_its_members_only(self) -> None:
        stranger = viewer_for(await sync_to_async(UserFactory)())
        async with self.listening() as member, self.listening(stranger) as other:
            await self.write("last words")
            await delete(actor=SYSTEM, project_id=self.project.pk)
            self.assertEqual(await names(member, 2), ["last words", "project.deleted"])
            self.assertIsNone(await other.next(timeout_s=0))
        async with self.listening(after=0, filter=EventFilter(project_id=self.project.pk)) as resumed:
            self.assertEqual(await names(resumed, 2), ["last words", "project.deleted"])

    async def test_the_listeners_of_a_deactivated_account_end(self) -> None:
        self.membership.user.is_active = False
        async with self.listening() as listener:
            await sync_to_async(services.user.save_user)(actor=SYSTEM, user=self.membership.user)
            with self.assertRaises(NotSignedIn):
                await asyncio.wait_for(listener.next(), 10)

    async def test_an_anonymous_user_cannot_listen(self) -> None:
        with self.assertRaises(NotSignedIn):
            async with self.listening(ANONYMOUS):
                self.fail("The listener has started.")

    async def test_a_filter_by_an_invisible_object_is_refused(self) -> None:
        task = await sync_to_async(TaskFactory)(project=self.other)
        for event_filter, error in (
            (EventFilter(project_id=self.other.pk), ProjectNotFound),
            (EventFilter(project_id=0), ProjectNotFound),
            (EventFilter(task_id=task.pk), TaskNotFound),
        ):
            with self.assertRaises(error):
                async with self.listening(filter=event_filter):
                    self.fail("The listener has started.")


class CacheTests(ListenerCase):
    """A client that reads a list after an event does not get an old one, even if the writer was killed."""

    def listed(self) -> list[str]:
        page = list_projects(SYSTEM, filter=ProjectFilter(), order=Order(), page=PageRequest(default_size=9))
        return [row.name for row in page.page.rows]

    async def test_a_reader_that_starts_bumps_the_tags_that_a_killed_writer_has_not_bumped(self) -> None:
        old = await sync_to_async(self.listed)()
        await self.write_quietly("new")
        self.assertEqual(await sync_to_async(self.listed)(), old)
        async with live.listen(SYSTEM):
            self.assertEqual(await sync_to_async(self.listed)(), ["new"])

    async def test_a_listener_that_catches_up_bumps_the_tags_of_what_it_reads(self) -> None:
        async with live.listen(SYSTEM) as listener:
            await sync_to_async(self.listed)()
            await self.write_quietly("new")
            self.assertEqual(await names(listener, 1), ["new"])
            self.assertEqual(await sync_to_async(self.listed)(), ["new"])

    async def test_a_page_of_events_bumps_their_tags(self) -> None:
        await sync_to_async(self.listed)()
        await self.write_quietly("new")
        page = await sync_to_async(list_events)(SYSTEM, after=0, filter=EventFilter())
        self.assertEqual([event.position for event in page.events], [1])
        self.assertEqual(await sync_to_async(self.listed)(), ["new"])


class EndingTests(ListenerCase):
    async def refusal(self, **options: Any) -> tuple[str, int]:
        with self.assertRaises(ResumeRefused) as refused:
            async with live.listen(SYSTEM, **options):
                self.fail("The listener has started.")
        return refused.exception.code, refused.exception.oldest

    async def test_a_position_not_yet_reached_is_refused(self) -> None:
        await self.write("a")
        self.assertEqual(await self.refusal(after=2), ("RESYNC", 0))

    async def test_a_position_no_longer_retained_is_refused(self) -> None:
        await self.write("a", "b", "c")
        await Event.objects.filter(position__lte=2).adelete()
        self.assertEqual(await self.refusal(after=1), ("CURSOR_EXPIRED", 2))
        async with live.listen(SYSTEM, after=2) as listener:
            self.assertEqual(await names(listener, 1), ["c"])

    @override_settings(LIVE_QUEUE_EVENTS=5)
    async def test_a_listener_that_falls_behind_ends_and_others_go_on(self) -> None:
        async with live.listen(SYSTEM) as slow, live.listen(SYSTEM) as quick:
            await asyncio.gather(slow.next(timeout_s=0), quick.next(timeout_s=0))
            for number in range(8):
                await self.write(f"name {number}")
                self.assertEqual(await names(quick, 1), [f"name {number}"])
            with self.assertRaises(ResumeRefused) as refused:
                await asyncio.wait_for(slow.next(), 10)
        self.assertEqual((refused.exception.code, refused.exception.oldest), ("RESYNC", 0))

    @override_settings(LIVE_POLL_S=0.2)
    async def test_a_journal_restored_to_an_earlier_position_ends_a_listener(self) -> None:
        await self.write("a", "b")
        async with live.listen(SYSTEM) as listener:
            await listener.next(timeout_s=0)
            await Event.objects.filter(position=2).adelete()
            with self.assertRaises(ResumeRefused):
                await asyncio.wait_for(listener.next(), 10)

    async def test_a_change_of_access_is_never_delivered(self) -> None:
        user = await sync_to_async(UserFactory)()
        async with live.listen(SYSTEM) as listener:
            await add_member(actor=SYSTEM, project_id=self.project.pk, username=user.username, role=Role.VIEWER)
            await self.write("heard")
            self.assertEqual(await names(listener, 1), ["heard"])
        self.assertEqual(await Event.objects.filter(kind=ACCESS_CHANGED).acount(), 1)
