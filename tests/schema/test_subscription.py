"""The subscription `events`, over Channels, PostgreSQL and Redis.

Events arrive in order, so the next event that is received proves that no other event was sent before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from channels.db import database_sync_to_async
from django.test import override_settings

from backend.projects import notifier
from backend.projects.access import SYSTEM, viewer_for
from backend.projects.models import Event, Role, User
from backend.projects.rows import iso
from backend.projects.services.comment import add_comment
from backend.projects.services.membership import add_member, remove_member
from backend.projects.services.project import create_project, delete_project, update_project
from backend.projects.services.report import generate
from backend.projects.services.task import create_task, delete_task, update_task
from backend.projects.services.user import save_user
from tests.cases import CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.schema.cases import ABSENT_IDS
from tests.schema.sockets import TIMEOUT_S, GraphQLSocket, ready

MARCH = datetime(2027, 3, 1, 9, 30, tzinfo=UTC)

LISTEN = """subscription ($after: Cursor, $project: ID, $task: ID, $kinds: [EventKind!]) {
  events(after: $after, projectId: $project, taskId: $task, kinds: $kinds) { kind cursor }
}"""


async def write(service: Callable[..., Any], **arguments: Any) -> Any:
    """Call a service and commit."""
    return await database_sync_to_async(service)(**{"actor": SYSTEM, **arguments})


async def new_task(project: Any, title: str = "Weed") -> Any:
    return await write(create_task, project_id=project.pk, changes={"title": title, "due_date": MARCH})


async def rename(project: Any, name: str) -> None:
    await write(update_project, project_id=project.pk, changes={"name": name})


async def head() -> str:
    """The current position."""
    return str(await database_sync_to_async(Event.head)())


@override_settings(ACCESS="open")
class EventTests(CommittingCase):
    """The events of each kind of change."""

    def setUp(self) -> None:
        self.project = ProjectFactory(name="Garden")

    async def subscribe(self, socket: GraphQLSocket, fields: str) -> GraphQLSocket:
        """Subscribe to these fields of events after the current position."""
        document = f"subscription ($after: Cursor) {{ events(after: $after) {{ {fields} }} }}"
        await socket.subscribe(document, after=await head())
        return socket

    async def test_every_kind_of_change_is_received_in_order(self) -> None:
        async with ready() as socket:
            await self.subscribe(socket, "__typename kind cursor projectId")
            project = await write(create_project, name="Kitchen")
            await rename(project, "Cellar")
            task = await new_task(project)
            await write(update_task, task_id=task.pk, changes={"title": "Mow"})
            await write(add_comment, task_id=task.pk, content="Done?", author="Bob")
            await database_sync_to_async(generate)(project.pk, date(2024, 3, 1))
            await write(delete_task, task_id=task.pk)
            await write(delete_project, project_id=project.pk)
            for position, (typename, kind) in enumerate(
                [
                    ("ProjectCreated", "PROJECT_CREATED"),
                    ("ProjectUpdated", "PROJECT_UPDATED"),
                    ("TaskCreated", "TASK_CREATED"),
                    ("TaskUpdated", "TASK_UPDATED"),
                    ("TaskCommented", "TASK_COMMENTED"),
                    ("ReportGenerated", "REPORT_GENERATED"),
                    ("TaskDeleted", "TASK_DELETED"),
                    ("ProjectDeleted", "PROJECT_DELETED"),
                ],
                start=1,
            ):
                self.assertEqual(
                    await socket.next(),
                    {"__typename": typename, "kind": kind, "cursor": str(position), "projectId": str(project.pk)},
                )

    async def test_a_task_is_received_with_its_changes_by_graphql_names(self) -> None:
        task = await new_task(self.project)
        async with ready() as socket:
            await self.subscribe(
                socket, "... on TaskUpdated { changes task { title dueDate version project { name } } }"
            )
            changes = {"title": "Mow", "due_date": datetime(2027, 4, 1, tzinfo=UTC)}
            await write(update_task, task_id=task.pk, changes=changes)
            self.assertEqual(
                await socket.next(),
                {
                    "changes": ["title", "dueDate"],
                    "task": {
                        "title": "Mow",
                        "dueDate": "2027-04-01T00:00:00.000000Z",
                        "version": 2,
                        "project": {"name": "Garden"},
                    },
                },
            )

    async def test_a_deleted_task_is_received_as_it_was(self) -> None:
        task = await new_task(self.project)
        async with ready() as socket:
            await self.subscribe(socket, "... on TaskDeleted { task { id title comments { totalCount } } }")
            await write(delete_task, task_id=task.pk)
            self.assertEqual(
                await socket.next(),
                {"task": {"id": str(task.pk), "title": "Weed", "comments": {"totalCount": 0}}},
            )

    async def test_a_comment_is_received_with_its_task(self) -> None:
        task = await new_task(self.project)
        async with ready() as socket:
            await self.subscribe(socket, "... on TaskCommented { comment { author content task { title } } }")
            await write(add_comment, task_id=task.pk, content="Done?", author="Bob")
            self.assertEqual(
                await socket.next(),
                {"comment": {"author": "Bob", "content": "Done?", "task": {"title": "Weed"}}},
            )

    async def test_a_report_is_received_with_its_figures(self) -> None:
        async with ready() as socket:
            await self.subscribe(socket, "... on ReportGenerated { report { date figures project { name } } }")
            report = await database_sync_to_async(generate)(self.project.pk, date(2024, 3, 1))
            self.assertEqual(
                await socket.next(),
                {"report": {"date": "2024-03-01", "figures": report.figures, "project": {"name": "Garden"}}},
            )

    async def test_an_event_shows_the_actor_and_the_moment(self) -> None:
        ada = await database_sync_to_async(UserFactory)(first_name="Ada", last_name="Lovelace", is_staff=True)
        async with ready() as socket:
            await self.subscribe(socket, "at actor { id name }")
            changes = {"name": "Park"}
            await write(update_project, actor=viewer_for(ada), project_id=self.project.pk, changes=changes)
            row = await Event.objects.aget()
            self.assertEqual(
                await socket.next(), {"at": iso(row.at), "actor": {"id": str(ada.pk), "name": "Ada Lovelace"}}
            )

    async def test_related_objects_of_an_event_are_shown_in_their_current_state(self) -> None:
        task = await new_task(self.project)
        async with ready() as socket:
            await self.subscribe(socket, "... on TaskUpdated { task { title project { name } } }")
            for name in ("Park", "Wood"):
                await rename(self.project, name)
                await write(update_task, task_id=task.pk, changes={"title": name})
                self.assertEqual(await socket.next(), {})
                self.assertEqual(await socket.next(), {"task": {"title": name, "project": {"name": name}}})

    async def test_a_refused_change_is_not_received(self) -> None:
        async with ready() as socket:
            await self.subscribe(socket, "kind cursor")
            with self.assertRaisesMessage(Exception, "This field cannot be blank."):
                await new_task(self.project, title=" ")
            await rename(self.project, "Garden")
            await new_task(self.project)
            self.assertEqual(await socket.next(), {"kind": "TASK_CREATED", "cursor": "1"})


@override_settings(ACCESS="open")
class ListenTests(CommittingCase):
    """Start positions and filters of subscriptions."""

    def setUp(self) -> None:
        self.project, self.other = ProjectFactory(), ProjectFactory()

    async def test_without_after_a_subscription_starts_now(self) -> None:
        await rename(self.project, "Before")
        async with ready() as socket:
            await socket.subscribe("subscription { events { ... on ProjectUpdated { project { name } } } }")
            # The start of a listener is not observable, so changes are made until one is received.
            names = []
            async with asyncio.timeout(TIMEOUT_S):
                while socket.communicator.output_queue.empty():
                    names.append(f"Now {len(names)}")
                    await rename(self.project, names[-1])
            first = (await socket.next())["project"]["name"]
            self.assertIn(first, names)
            for name in names[names.index(first) + 1 :]:
                self.assertEqual(await socket.next(), {"project": {"name": name}})

    async def test_resuming_skips_and_repeats_nothing_while_others_write(self) -> None:
        for n in range(5):
            await rename(self.project, f"Before {n}")
        async with ready() as socket:
            writers = [
                database_sync_to_async(update_project, thread_sensitive=False)(
                    actor=SYSTEM, project_id=project.pk, changes={"name": f"Meanwhile {n}"}
                )
                for n in range(5)
                for project in (self.project, self.other)
            ]
            writing = asyncio.gather(*writers)
            await socket.subscribe(LISTEN, after="2")
            cursors = [int((await socket.next())["cursor"]) for _ in range(3 + 10)]
            await writing
            await new_task(self.project)
            cursors.append(int((await socket.next())["cursor"]))
        self.assertEqual(cursors, list(range(3, 17)))

    async def test_subscribing_after_the_cursor_of_a_query_misses_nothing(self) -> None:
        async with ready() as socket:
            result = await socket.answer("{ projects { totalCount } cursor }")
            await rename(self.project, "Between")
            await socket.subscribe(LISTEN, after=result["data"]["cursor"])
            self.assertEqual(await socket.next(), {"kind": "PROJECT_UPDATED", "cursor": "1"})

    async def test_a_subscription_may_be_filtered_by_project(self) -> None:
        async with ready() as socket:
            await socket.subscribe(LISTEN, after="0", project=self.project.pk)
            await rename(self.other, "Unheard")
            await new_task(self.project)
            await new_task(self.other)
            await rename(self.project, "Heard")
            self.assertEqual(await socket.next(), {"kind": "TASK_CREATED", "cursor": "2"})
            self.assertEqual(await socket.next(), {"kind": "PROJECT_UPDATED", "cursor": "4"})

    async def test_a_subscription_may_be_filtered_by_task(self) -> None:
        task, other = await new_task(self.project), await new_task(self.project)
        async with ready() as socket:
            await socket.subscribe(LISTEN, after="2", task=task.pk)
            for each in (other, task):
                await write(update_task, task_id=each.pk, changes={"title": "Mow"})
                await write(add_comment, task_id=each.pk, content="Done?", author="Bob")
            await rename(self.project, "Unheard")
            await write(delete_task, task_id=task.pk)
            self.assertEqual(await socket.next(), {"kind": "TASK_UPDATED", "cursor": "5"})
            self.assertEqual(await socket.next(), {"kind": "TASK_COMMENTED", "cursor": "6"})
            self.assertEqual(await socket.next(), {"kind": "TASK_DELETED", "cursor": "8"})

    async def test_a_subscription_may_be_filtered_by_kind(self) -> None:
        async with ready() as socket:
            await socket.subscribe(LISTEN, after="0", kinds=["TASK_DELETED", "PROJECT_UPDATED"])
            task = await new_task(self.project)
            await write(delete_task, task_id=task.pk)
            await write(create_project, name="Unheard")
            await rename(self.project, "Heard")
            self.assertEqual(await socket.next(), {"kind": "TASK_DELETED", "cursor": "2"})
            self.assertEqual(await socket.next(), {"kind": "PROJECT_UPDATED", "cursor": "4"})

    async def test_a_subscription_to_no_kind_receives_nothing(self) -> None:
        async with ready() as socket:
            await socket.subscribe(LISTEN, "none", after="0", kinds=[])
            await socket.subscribe(LISTEN, "all", after="0", kinds=None)
            await rename(self.project, "Heard")
            self.assertEqual(await socket.next("all"), {"kind": "PROJECT_UPDATED", "cursor": "1"})

    async def test_every_subscription_on_a_socket_receives_events_until_it_is_completed(self) -> None:
        async with ready() as socket:
            await socket.subscribe(LISTEN, "a", after="0")
            await socket.subscribe(LISTEN, "b", after="0", project=self.other.pk)
            await rename(self.project, "For a")
            self.assertEqual((await socket.next("a"))["cursor"], "1")
            await socket.send("complete", id="a")
            # The result shows that the server has processed `complete`.
            await socket.answer("{ cursor }")
            await rename(self.other, "For b")
            self.assertEqual((await socket.next("b"))["cursor"], "2")
            await socket.subscribe(LISTEN, "a", after="1")
            self.assertEqual((await socket.next("a"))["cursor"], "2")

    async def test_a_subscription_to_a_project_receives_its_deletion(self) -> None:
        async with ready() as socket:
            await socket.subscribe(LISTEN, "live", after="0", project=self.project.pk)
            await rename(self.project, "Heard")
            await write(delete_project, project_id=self.project.pk)
            for operation in ("live", "resumed"):
                with self.subTest(operation):
                    if operation == "resumed":
                        await socket.subscribe(LISTEN, operation, after="0", project=self.project.pk)
                    self.assertEqual(await socket.next(operation), {"kind": "PROJECT_UPDATED", "cursor": "1"})
                    self.assertEqual(await socket.next(operation), {"kind": "PROJECT_DELETED", "cursor": "2"})


@override_settings(ACCESS="open")
class RefusalTests(CommittingCase):
    """A subscription that cannot start or go on ends with `error`, and the socket stays open."""

    def setUp(self) -> None:
        self.project = ProjectFactory()
        self.task = TaskFactory(project=self.project)

    async def assert_stays_open(self, socket: GraphQLSocket) -> None:
        self.assertEqual(await socket.answer("{ __typename }"), {"data": {"__typename": "Query"}})

    async def assert_refused(self, extensions: dict[str, Any], **variables: Any) -> None:
        with self.subTest(**variables):
            async with ready() as socket:
                await socket.subscribe(LISTEN, **variables)
                self.assertEqual(await socket.error(), extensions)
                await self.assert_stays_open(socket)

    async def test_an_invalid_cursor_is_refused(self) -> None:
        for after in ("", "x", "-1", "1.5", str(2**63), "\x00", "\ud800", 0, True, []):
            await self.assert_refused({"code": "GRAPHQL_VALIDATION_FAILED"}, after=after)

    async def test_an_unknown_kind_is_refused(self) -> None:
        for kinds in (["NONE"], ["task.created"], ["ACCESS_CHANGED"], [None], [5], "TASK CREATED", {}):
            await self.assert_refused({"code": "GRAPHQL_VALIDATION_FAILED"}, kinds=kinds)

    async def test_a_position_not_yet_reached_is_refused_with_resync(self) -> None:
        await rename(self.project, "Park")
        for after in ("2", str(2**63 - 1)):
            await self.assert_refused({"code": "RESYNC", "oldest": "0"}, after=after)

    async def test_a_position_no_longer_retained_is_refused_with_the_oldest(self) -> None:
        for name in ("Park", "Wood", "Field"):
            await rename(self.project, name)
        await Event.objects.filter(position__lte=2).adelete()
        await self.assert_refused({"code": "CURSOR_EXPIRED", "oldest": "2"}, after="1")
        async with ready() as socket:
            await socket.subscribe(LISTEN, after="2")
            self.assertEqual((await socket.next())["cursor"], "3")

    async def test_an_absent_project_or_task_is_refused(self) -> None:
        for absent in ABSENT_IDS:
            await self.assert_refused({"code": "NOT_FOUND"}, project=absent)
            await self.assert_refused({"code": "NOT_FOUND"}, task=absent)

    async def test_a_journal_restored_to_an_earlier_position_ends_a_subscription(self) -> None:
        async with ready() as socket:
            await socket.subscribe(LISTEN, after="0")
            await rename(self.project, "Park")
            self.assertEqual((await socket.next())["cursor"], "1")
            await Event.objects.all().adelete()
            notifier.notify()
            self.assertEqual(await socket.error(), {"code": "RESYNC", "oldest": "0"})
            await self.assert_stays_open(socket)


@override_settings(ACCESS="closed")
class MemberTests(CommittingCase):
    def setUp(self) -> None:
        self.ada = UserFactory()
        self.mine = MembershipFactory(user=self.ada, role=Role.EDITOR).project
        self.other = MembershipFactory(role=Role.OWNER).project
        self.task, self.other_task = TaskFactory(project=self.mine), TaskFactory(project=self.other)
        self.session = self.session_of(self.ada)

    def session_of(self, user: User) -> str:
        self.client.force_login(user)
        session: str = self.client.cookies["sessionid"].value
        return session

    async def test_a_member_receives_the_events_of_their_projects(self) -> None:
        async with ready(session=self.session) as socket:
            await socket.subscribe(LISTEN, after="0")
            await rename(self.other, "Unheard")
            await rename(self.mine, "Heard")
            await new_task(self.other)
            await new_task(self.mine)
            self.assertEqual(await socket.next(), {"kind": "PROJECT_UPDATED", "cursor": "2"})
            self.assertEqual(await socket.next(), {"kind": "TASK_CREATED", "cursor": "4"})

    async def test_staff_receive_the_events_of_every_project(self) -> None:
        staff = await database_sync_to_async(UserFactory)(is_staff=True)
        session = await database_sync_to_async(self.session_of)(staff)
        async with ready(session=session) as socket:
            await socket.subscribe(LISTEN, after="0")
            for project in (self.other, self.mine):
                await rename(project, "Heard")
            self.assertEqual([(await socket.next())["cursor"] for _ in range(2)], ["1", "2"])

    async def test_an_invisible_project_or_task_is_refused_like_an_absent_one(self) -> None:
        async with ready(session=self.session) as socket:
            for variables in ({"project": self.other.pk}, {"task": self.other_task.pk}, {"project": 999999}):
                with self.subTest(variables):
                    await socket.subscribe(LISTEN, **variables)
                    self.assertEqual(await socket.error(), {"code": "NOT_FOUND"})

    async def test_a_removed_member_receives_no_more_events_of_that_project(self) -> None:
        third = await database_sync_to_async(MembershipFactory)(user=self.ada)
        async with ready(session=self.session) as socket:
            await socket.subscribe(LISTEN, after="0")
            await rename(self.mine, "Heard")
            self.assertEqual((await socket.next())["cursor"], "1")
            await write(remove_member, project_id=self.mine.pk, user_id=self.ada.pk)
            await rename(self.mine, "Unheard")
            await rename(third.project, "Heard")
            self.assertEqual((await socket.next())["cursor"], "4")

    async def test_a_new_member_receives_events_from_then_on(self) -> None:
        async with ready(session=self.session) as socket:
            await socket.subscribe(LISTEN, after="0")
            await rename(self.mine, "Heard")
            self.assertEqual((await socket.next())["cursor"], "1")
            await write(add_member, project_id=self.other.pk, username=self.ada.username, role=Role.VIEWER)
            await rename(self.other, "Heard")
            self.assertEqual((await socket.next())["cursor"], "3")

    async def test_the_creator_of_a_project_receives_its_creation(self) -> None:
        async with ready(session=self.session) as socket:
            await socket.subscribe(LISTEN, after="0")
            await socket.answer('mutation { createProject(input: {name: "Mine"}) { __typename } }', id="write")
            self.assertEqual(await socket.next(), {"kind": "PROJECT_CREATED", "cursor": "2"})

    async def test_the_deletion_of_a_project_is_received_by_its_members(self) -> None:
        async with ready(session=self.session) as socket:
            await socket.subscribe(LISTEN, after="0")
            await write(delete_project, project_id=self.other.pk)
            await write(delete_project, project_id=self.mine.pk)
            self.assertEqual(await socket.next(), {"kind": "PROJECT_DELETED", "cursor": "2"})

    async def change_account(self, **flags: bool) -> None:
        user = await User.objects.aget(pk=self.ada.pk)
        for name, value in flags.items():
            setattr(user, name, value)
        await write(save_user, user=user)

    async def test_a_deactivated_account_receives_no_more_events(self) -> None:
        async with ready(session=self.session) as socket:
            await socket.subscribe(LISTEN, after="0")
            await rename(self.mine, "Heard")
            self.assertEqual((await socket.next())["cursor"], "1")
            await self.change_account(is_active=False)
            self.assertEqual(await socket.close_code(after_messages=True), 4401)

    async def test_a_deactivated_account_sees_nothing_on_an_open_socket(self) -> None:
        async with ready(session=self.session) as socket:
            await User.objects.filter(pk=self.ada.pk).aupdate(is_active=False)
            await socket.subscribe("{ projects { totalCount } }")
            self.assertEqual(await socket.close_code(), 4401)

    async def test_a_former_staff_user_sees_no_other_projects_on_an_open_socket(self) -> None:
        await self.change_account(is_staff=True)
        async with ready(session=self.session) as socket:
            document = "{ projects { totalCount } }"
            self.assertEqual(await socket.answer(document), {"data": {"projects": {"totalCount": 2}}})
            await self.change_account(is_staff=False)
            self.assertEqual(await socket.answer(document), {"data": {"projects": {"totalCount": 1}}})
