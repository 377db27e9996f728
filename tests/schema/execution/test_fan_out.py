"""Shared execution of events: the payloads equal those of separate executions, at the cost of one execution."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import date, datetime
from typing import Any

from channels.db import database_sync_to_async
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.test import override_settings
from graphql import parse
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext as Executor

from backend.projects import journal, threads
from backend.projects.access import SYSTEM
from backend.projects.models import Membership, User
from backend.projects.services.comment import add_comment
from backend.projects.services.membership import add_member
from backend.projects.services.project import create_project, delete_project, update_project
from backend.projects.services.report import generate
from backend.projects.services.task import create_task, delete_task, update_task
from schema.context import Context, run_in_thread
from schema.execution.fan_out import subscriber
from schema.schema import schema
from tests.cases import CommittingCase, token_of
from tests.factories import CommentFactory, MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.schema.sockets import GraphQLSocket, ready

FRAGMENTS = """
fragment Head on Event { __typename kind cursor at projectId actor { id name __typename } }
fragment Of on Task { id title description status dueDate createdAt updatedAt version }
fragment All on Event {
  ...Head
  ... on TaskCreated { task { ...Of } }
  ... on TaskUpdated { task { ...Of } changes }
  ... on TaskDeleted { task { ...Of } }
  ... on TaskCommented { task { ...Of } comment { id author content createdAt } }
  ... on ProjectCreated { project { id name description createdAt updatedAt version } }
  ... on ProjectUpdated { project { id name version } changes }
  ... on ProjectDeleted { project { name } }
  ... on ReportGenerated { report { id date generatedAt figures } }
}
"""
DOCUMENTS = [
    "subscription { events { cursor } }",
    "subscription { mine: events { a: cursor b: cursor on: kind } }",
    "subscription { events { ... on TaskUpdated { task { title } } } }",
    "subscription { events { ... on TaskUpdated { task { title } } ... on TaskUpdated { task { title id } } } }",
    "subscription { events { ...Head } } fragment Head on Event { kind ... on TaskCreated { task { t: title } } }",
    f"subscription {{ events {{ ...All }} }} {FRAGMENTS}",
    "subscription ($is: Boolean!) { events { cursor @skip(if: $is) kind @include(if: $is) } }",
    "subscription ($is: Boolean!) { events { kind ... @include(if: $is) { at } ... @skip(if: $is) { projectId } } }",
    "subscription ($after: Cursor) { events(after: $after, kinds: [TASK_UPDATED]) { __typename } }",
    "subscription { events { ... on TaskCommented { comment { task { title project { name } } } } } }",
    "subscription { events { ... on TaskUpdated { task { comments(first: 1000) { totalCount } } } } }",
    "subscription ($n: Int) { events { ... on TaskUpdated { task { comments(first: $n) { nodes { content } } } } } }",
    "subscription { events { ... on TaskUpdated { task { assignee { name } project { members { totalCount } } } } } }",
]


@override_settings(ACCESS="open")
class EqualTests(CommittingCase):
    def test_a_payload_equals_the_result_of_execution(self) -> None:
        project = create_project(actor=SYSTEM, name="Garden")
        update_project(actor=SYSTEM, project_id=project.pk, changes={"name": "Park"})
        changes = {"title": 'Weed "it"', "due_date": datetime.fromisoformat("2030-01-01T00:00:00Z")}
        task = create_task(actor=SYSTEM, project_id=project.pk, changes=changes)
        update_task(actor=SYSTEM, task_id=task.pk, changes={"title": "Mähen ✂", "status": "completed"})
        add_comment(actor=SYSTEM, task_id=task.pk, content="Done?", author="Bob")
        generate(project.pk, date(2024, 3, 1))
        delete_task(actor=SYSTEM, task_id=TaskFactory(project=project).pk)
        delete_project(actor=SYSTEM, project_id=ProjectFactory().pk)
        events = journal.read_after(0, limit=100).events
        self.assertEqual(len({event.kind for event in events}), 8)
        for query in DOCUMENTS:
            variables = {"is": True, "n": 1, "after": "0"}
            with self.subTest(query):
                for event in events:
                    payload, executed = self._both(query, variables, event)
                    self.assertEqual(payload, executed)

    def _both(self, query: str, variables: dict[str, Any], event: journal.JournalEvent) -> tuple[Any, Any]:
        ours = subscriber(query, variables, None, Context(viewer=SYSTEM))
        assert ours is not None
        executor = Executor.build(schema._schema, parse(query), None, Context(viewer=SYSTEM), variables)
        assert isinstance(executor, Executor)
        result = executor.build_per_event_executor(event).execute_operation(False)
        executed = run_in_thread(result) if hasattr(result, "__await__") else result
        payload = json.loads(asyncio.run(ours.payload(event)))
        for error in payload.get("errors", ()):
            del error["extensions"]  # `describe` has added them
        return payload, executed.formatted


NESTED = """subscription ($after: Cursor, $first: Int) {
  events(after: $after, kinds: [TASK_UPDATED]) {
    %s: cursor
    ... on TaskUpdated { task { project { name } assignee { name } comments(first: $first) { nodes { author } } } }
  }
}"""


@override_settings(ACCESS="closed", LIVE_POLL_S=60.0)
class NestedTests(CommittingCase):
    """Rows beyond the event are read once for all subscribers."""

    def setUp(self) -> None:
        self.project = ProjectFactory(name="Garden")
        self.users = [MembershipFactory(project=self.project).user for _ in range(5)]
        self.task = TaskFactory(project=self.project, assignee=self.users[0])
        self.tokens = [token_of(user) for user in self.users]
        for author in ("Ada", "Bob"):
            CommentFactory(task=self.task, author=author)
        self.expected = {
            "project": {"name": "Garden"},
            "assignee": {"name": self.users[0].display_name},
            "comments": {"nodes": [{"author": "Bob"}]},
        }

    async def change(self, title: str) -> None:
        await database_sync_to_async(update_task)(actor=SYSTEM, task_id=self.task.pk, changes={"title": title})

    async def subscribed(self, stack: AsyncExitStack, token: str, count: int, document: str) -> GraphQLSocket:
        socket: GraphQLSocket = await stack.enter_async_context(ready(authorization=f"Bearer {token}"))
        after = await database_sync_to_async(journal.retained)()
        for n in range(count):
            name = "cursor" if "%s" not in document else f"c{n}"
            await socket.subscribe(document.replace("%s", name), str(n), after=str(after.head), first=1)
        return socket

    async def statements_for(self, subscribers: int, *, document: str) -> int:
        """The number of SQL statements, other than on the journal, from a change until all sockets have received it."""
        async with AsyncExitStack() as stack:
            each = subscribers // len(self.tokens)
            sockets = [await self.subscribed(stack, token, each, document) for token in self.tokens]
            await self.change(f"First for {subscribers}")
            for socket in sockets:
                await self.assert_all_received(socket, each)
            await threads.requests.close()  # only statements on new connections are counted
            with counted_statements() as statements:
                await self.change(f"Second for {subscribers}")
                for socket in sockets:
                    await self.assert_all_received(socket, each)
            return len([sql for sql in statements if "projects_event" not in sql])

    async def assert_all_received(self, socket: GraphQLSocket, count: int) -> None:
        for _ in range(count):
            message = await socket.receive()
            self.assertEqual(message["payload"]["data"]["events"]["task"], self.expected)

    async def test_fifty_subscribers_cost_no_more_statements_than_five(self) -> None:
        for name, document in (("one document", NESTED % "cursor"), ("a document each", NESTED)):
            with self.subTest(name):
                self.assertGreater(await self.statements_for(5, document=document), 3)
                # One statement checks the access of all subscribers that wait at the same time.
                self.assertLess(await self.statements_for(50, document=document), 10)

    async def test_a_failing_document_does_not_affect_others_of_the_same_event(self) -> None:
        """graphql-core cancels the siblings of a field that failed."""
        head = "subscription ($after: Cursor) { events(after: $after, kinds: [TASK_UPDATED]) { ... on TaskUpdated"
        good = f"{head} {{ task {{ project {{ name }} }} }} }} }}"
        flawed = f"{head} {{ task {{ project {{ name }} comments(first: -1) {{ totalCount }} }} }} }} }}"
        async with AsyncExitStack() as stack:
            other = await self.subscribed(stack, self.tokens[1], 1, flawed)
            socket = await self.subscribed(stack, self.tokens[0], 1, good)
            for title in ("a", "b", "c"):
                await self.change(title)
                self.assertEqual(await socket.next("0"), {"task": {"project": {"name": "Garden"}}})
                message = await other.receive()
                self.assertEqual(message["payload"]["errors"][0]["extensions"]["argument"], "first")

    async def test_subscribers_with_different_variables_receive_different_payloads(self) -> None:
        async with ready(authorization=f"Bearer {self.tokens[0]}") as socket:
            for first in (1, 2):
                await socket.subscribe(NESTED % "cursor", str(first), after="0", first=first)
            await self.change("Mow")
            received = {}
            for _ in range(2):
                message = await socket.receive()
                received[message["id"]] = message["payload"]["data"]["events"]["task"]["comments"]["nodes"]
            self.assertEqual(received, {"1": [{"author": "Bob"}], "2": [{"author": "Bob"}, {"author": "Ada"}]})

    async def test_a_subscriber_who_has_lost_access_sees_nothing_beyond_the_event(self) -> None:
        async with AsyncExitStack() as stack:
            sockets = [await self.subscribed(stack, token, 1, NESTED) for token in self.tokens[:2]]
            await self.change("Before")
            for socket in sockets:
                await self.assert_all_received(socket, 1)
            # Without an event, as if the reader had not read it yet.
            await database_sync_to_async(Membership.objects.filter(user=self.users[1]).delete)()
            await self.change("After")
            await self.assert_all_received(sockets[0], 1)
            message = await sockets[1].receive()
            self.assertEqual(
                message["payload"]["data"]["events"]["task"],
                {"project": None, "assignee": None, "comments": {"nodes": []}},
            )

    async def test_a_subscriber_who_is_no_longer_staff_sees_nothing_beyond_the_event(self) -> None:
        user = User.objects.filter(pk=self.users[1].pk)
        await database_sync_to_async(Membership.objects.filter(user=self.users[1]).delete)()
        await database_sync_to_async(user.update)(is_staff=True)
        async with AsyncExitStack() as stack:
            socket = await self.subscribed(stack, self.tokens[1], 1, NESTED)
            await self.change("Before")
            await self.assert_all_received(socket, 1)
            # Without an event, as if the reader had not read it yet.
            await database_sync_to_async(user.update)(is_staff=False)
            await self.change("After")
            message = await socket.receive()
            self.assertEqual(
                message["payload"]["data"]["events"]["task"],
                {"project": None, "assignee": None, "comments": {"nodes": []}},
            )

    async def test_the_deletion_of_a_project_is_sent_to_all_its_members(self) -> None:
        document = (
            "subscription ($after: Cursor) { events(after: $after) { ... on ProjectDeleted { project { %s } } } }"
        )
        async with AsyncExitStack() as stack:
            selection = document % "name tasks { totalCount }"
            sockets = [await self.subscribed(stack, token, 1, selection) for token in self.tokens]
            await database_sync_to_async(delete_project)(actor=SYSTEM, project_id=self.project.pk)
            for socket in sockets:
                self.assertEqual(await socket.next("0"), {"project": {"name": "Garden", "tasks": {"totalCount": 0}}})

    async def test_an_assignee_outside_the_project_is_null(self) -> None:
        """This is so even if the subscriber shares another project with the assignee."""
        other = await database_sync_to_async(UserFactory)()
        elsewhere = await database_sync_to_async(ProjectFactory)()
        for user in (other, self.users[0]):
            await database_sync_to_async(add_member)(actor=SYSTEM, project_id=elsewhere.pk, username=user.username)
        self.task.assignee = other
        await database_sync_to_async(self.task.save)()
        async with AsyncExitStack() as stack:
            socket = await self.subscribed(stack, self.tokens[0], 1, NESTED)
            await self.change("Mow")
            self.expected["assignee"] = None
            await self.assert_all_received(socket, 1)


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """The statements on database connections that are opened within the block."""
    statements: list[str] = []

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    def attach(sender: Any, connection: BaseDatabaseWrapper, **_: Any) -> None:
        connection.execute_wrappers.append(count)

    connection_created.connect(attach)
    try:
        yield statements
    finally:
        connection_created.disconnect(attach)
