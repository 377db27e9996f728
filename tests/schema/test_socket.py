"""The protocol of the GraphQL socket: access, malformed messages, and results."""

from __future__ import annotations

import asyncio
from typing import Any

from django.test import override_settings

from backend.asgi import sockets
from backend.projects.models import Project
from schema.execution.limits import MAX_ALIASES
from tests.cases import CommittingCase
from tests.factories import MembershipFactory, ProjectFactory
from tests.schema.sockets import TIMEOUT_S, GraphQLSocket, accepted, ready

CURSOR = "{ cursor }"
LISTEN = "subscription { events { kind } }"


@override_settings(ACCESS="open")
class HandshakeTests(CommittingCase):
    async def assert_connects(self, expected: bool, **options: Any) -> None:
        with self.subTest(**options):
            socket = GraphQLSocket(**options)
            try:
                connected, _ = await socket.connect()
                self.assertEqual(connected, expected)
            finally:
                await socket.disconnect()

    async def test_an_unknown_host_is_refused(self) -> None:
        for host in ("localhost", "localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
            await self.assert_connects(True, host=host)
        for host in ("", "example.org", "localhost.example.org", "example.org:8000", "[", "local host"):
            await self.assert_connects(False, host=host)

    async def test_a_page_of_another_origin_is_refused(self) -> None:
        for origin in ("http://localhost:8000", "https://localhost:8000", "HTTP://LOCALHOST:8000"):
            await self.assert_connects(True, host="localhost:8000", origin=origin)
        for origin in (
            "http://example.org",
            "http://localhost",
            "http://localhost:8001",
            "http://localhost:8000.example.org",
            "null",
            "",
            "localhost:8000",
            "http://[",
        ):
            await self.assert_connects(False, host="localhost:8000", origin=origin)

    @override_settings(CSRF_TRUSTED_ORIGINS=["https://app.example.org"], CORS_ALLOWED_ORIGINS=["https://example.org"])
    async def test_a_page_of_a_trusted_origin_is_accepted(self) -> None:
        for origin in ("https://app.example.org", "https://example.org"):
            await self.assert_connects(True, origin=origin)
        for origin in ("http://app.example.org", "https://other.example.org"):
            await self.assert_connects(False, origin=origin)

    async def test_another_subprotocol_is_refused(self) -> None:
        for subprotocol in ("graphql-ws", "chat"):
            with self.subTest(subprotocol):
                socket = GraphQLSocket(subprotocol=subprotocol)
                self.assertEqual(await socket.connect(), (True, None))
                self.assertEqual(await socket.close_code(), 4406)
                await socket.disconnect()


@override_settings(ACCESS="closed")
class ClosedAccessTests(CommittingCase):
    async def test_an_anonymous_user_is_refused(self) -> None:
        for options in ({}, {"session": "nonsense"}, {"session": ""}):
            with self.subTest(options):
                async with accepted(**options) as socket:
                    await socket.send("connection_init")
                    self.assertEqual(await socket.close_code(), 4403)

    async def test_no_operation_is_executed_before_the_viewer_is_known(self) -> None:
        async with accepted() as socket:
            await socket.subscribe(CURSOR)
            self.assertEqual(await socket.close_code(), 4401)


class SignedInTests(CommittingCase):
    def setUp(self) -> None:
        self.membership = MembershipFactory(project__name="Garden")
        ProjectFactory()
        self.client.force_login(self.membership.user)
        self.session = self.client.cookies["sessionid"].value

    @override_settings(ACCESS="closed")
    async def test_a_session_cookie_authenticates_its_user(self) -> None:
        async with ready(session=self.session) as socket:
            self.assertEqual(
                await socket.answer("{ me { name } projects { nodes { name } } }"),
                {
                    "data": {
                        "me": {"name": self.membership.user.username},
                        "projects": {"nodes": [{"name": "Garden"}]},
                    }
                },
            )


@override_settings(ACCESS="open")
class ProtocolTests(CommittingCase):
    async def test_a_socket_that_is_closed_right_after_its_acknowledgement_ends(self) -> None:
        for _ in range(3):
            socket = GraphQLSocket()
            await socket.connect()
            await socket.init()
            await socket.receive()
            await socket.communicator.send_input({"type": "websocket.disconnect", "code": 1000})
            ended, _ = await asyncio.wait([socket.communicator.future], timeout=TIMEOUT_S)
            self.assertTrue(ended)

    async def test_a_malformed_message_closes_the_socket(self) -> None:
        operation = '"id": "1", "payload": {"query": "{ cursor }"'
        for frame in (
            "x",
            "{",
            "[]",
            '"x"',
            "5",
            "null",
            "{}",
            '{"type": 5}',
            '{"type": "start"}',
            '{"type": "connection_ack"}',
            '{"type": "next", "id": "1", "payload": {}}',
            '{"type": "ping", "payload": []}',
            '{"type": "pong", "payload": "x"}',
            '{"type": "complete"}',
            '{"type": "complete", "id": 5}',
            '{"type": "subscribe"}',
            '{"type": "subscribe", "payload": {"query": "{ cursor }"}}',
            '{"type": "subscribe", "id": 5, "payload": {"query": "{ cursor }"}}',
            '{"type": "subscribe", "id": "", "payload": {"query": "{ cursor }"}}',
            '{"type": "subscribe", "id": "1"}',
            '{"type": "subscribe", "id": "1", "payload": null}',
            '{"type": "subscribe", "id": "1", "payload": "{ cursor }"}',
            '{"type": "subscribe", "id": "1", "payload": {}}',
            '{"type": "subscribe", "id": "1", "payload": {"query": 5}}',
            '{"type": "subscribe", "id": "1", "payload": {"query": ""}}',
            f'{{"type": "subscribe", {operation}, "variables": []}}}}',
            f'{{"type": "subscribe", {operation}, "variables": "x"}}}}',
            f'{{"type": "subscribe", {operation}, "operationName": 5}}}}',
            f'{{"type": "subscribe", {operation}, "extensions": []}}}}',
            "[" * 100_000,
            '{"a":' * 100_000,
            f'{{"type": "ping", "payload": {{"a": {"9" * 5000}}}}}',
        ):
            with self.subTest(frame[:90]):
                async with ready() as socket:
                    await socket.communicator.send_to(frame)
                    self.assertEqual(await socket.close_code(), 4400)

    async def test_a_binary_frame_closes_the_socket(self) -> None:
        async with ready() as socket:
            await socket.communicator.send_to(bytes_data=b'{"type": "ping"}')
            self.assertEqual(await socket.close_code(), 4400)

    async def test_a_malformed_connection_init_closes_the_socket(self) -> None:
        for payload in ([], "x", 5, None):
            with self.subTest(payload):
                async with accepted() as socket:
                    await socket.send("connection_init", payload=payload)
                    self.assertEqual(await socket.close_code(), 4400)

    async def test_a_connection_init_may_have_any_payload(self) -> None:
        async with accepted() as socket:
            await socket.send("connection_init", payload={"headers": {"a": "\ud800"}})
            self.assertEqual(await socket.receive(), {"type": "connection_ack"})

    @override_settings(SOCKET_INIT_S=0.05)
    async def test_a_client_that_sends_no_connection_init_in_time_is_closed(self) -> None:
        async with accepted() as socket:
            self.assertEqual(await socket.close_code(), 4408)

    async def test_a_second_connection_init_closes_the_socket(self) -> None:
        async with ready() as socket:
            await socket.send("connection_init")
            self.assertEqual(await socket.close_code(), 4429)

    async def test_an_operation_before_connection_init_closes_the_socket(self) -> None:
        async with accepted() as socket:
            await socket.subscribe(CURSOR)
            self.assertEqual(await socket.close_code(), 4401)

    async def test_an_id_that_is_in_use_closes_the_socket(self) -> None:
        async with ready() as socket:
            await socket.subscribe(LISTEN, "1")
            await socket.subscribe(LISTEN, "1")
            self.assertEqual(await socket.close_code(), 4409)

    async def test_a_ping_is_answered(self) -> None:
        async with accepted() as socket:
            for fields in ({}, {"payload": None}, {"payload": {"a": 1}}):
                await socket.send("ping", **fields)
                self.assertEqual(await socket.receive(), {"type": "pong"})

    async def test_a_pong_and_the_completion_of_an_unknown_operation_get_no_reply(self) -> None:
        async with ready() as socket:
            await socket.send("pong")
            await socket.send("complete", id="unknown")
            self.assertEqual(await socket.answer(CURSOR), {"data": {"cursor": "0"}})


@override_settings(ACCESS="open")
class UnreadTests(CommittingCase):
    """Messages that arrive faster than they are handled."""

    async def test_the_server_stops_receiving_messages_while_many_wait(self) -> None:
        received, sent, may_send = 0, 0, asyncio.Event()
        messages = ['{"type": "connection_init"}', *['{"type": "ping"}'] * 1000]

        async def receive() -> dict[str, Any]:
            nonlocal received
            received += 1
            if received == 1:
                return {"type": "websocket.connect"}
            if received - 2 < len(messages):
                return {"type": "websocket.receive", "text": messages[received - 2]}
            await all_sent.wait()
            return {"type": "websocket.disconnect", "code": 1000}

        async def send(message: dict[str, Any]) -> None:
            nonlocal sent
            if "pong" in message.get("text", ""):
                await may_send.wait()
                sent += 1
                if sent == 1000:
                    all_sent.set()

        all_sent = asyncio.Event()
        scope = {
            "type": "websocket",
            "path": "/graphql/",
            "headers": [(b"host", b"localhost")],
            "subprotocols": ["graphql-transport-ws"],
            "query_string": b"",
        }
        serving = asyncio.ensure_future(sockets(scope, receive, send))
        async with asyncio.timeout(TIMEOUT_S):
            while received < 18:
                await asyncio.sleep(0)
        for _ in range(1000):
            await asyncio.sleep(0)
        self.assertLess(received, 25)

        may_send.set()
        await asyncio.wait_for(serving, TIMEOUT_S)
        self.assertEqual(sent, 1000)


@override_settings(ACCESS="open")
class OperationTests(CommittingCase):
    async def test_a_query_gets_one_result_and_completes(self) -> None:
        async with ready() as socket:
            for _ in range(2):
                result = await socket.answer("query ($name: ID!) { project(id: $name) { id } cursor }", name="nine")
                self.assertEqual(result, {"data": {"project": None, "cursor": "0"}})

    async def test_a_query_shows_changes_since_the_last_one(self) -> None:
        document = "{ projects { nodes { name tasks { totalCount } } } }"
        async with ready() as socket:
            self.assertEqual(await socket.answer(document), {"data": {"projects": {"nodes": []}}})
            created = await socket.answer('mutation { createProject(input: {name: "Garden"}) { __typename } }')
            self.assertEqual(created, {"data": {"createProject": {"__typename": "Project"}}})
            nodes = [{"name": "Garden", "tasks": {"totalCount": 0}}]
            self.assertEqual(await socket.answer(document), {"data": {"projects": {"nodes": nodes}}})
        self.assertEqual(await Project.objects.acount(), 1)

    async def test_a_refused_mutation_returns_messages_and_changes_nothing(self) -> None:
        document = """mutation { createProject(input: {name: " "}) {
          ... on OperationInfo { messages { field code } }
        } }"""
        async with ready() as socket:
            result = await socket.answer(document)
        self.assertEqual(result, {"data": {"createProject": {"messages": [{"field": "name", "code": "BLANK"}]}}})
        self.assertEqual(await Project.objects.acount(), 0)

    async def test_a_request_error_ends_the_operation_and_the_socket_stays_open(self) -> None:
        async with ready() as socket:
            for query, code in [
                ("{", "GRAPHQL_PARSE_FAILED"),
                ("# nothing", "GRAPHQL_PARSE_FAILED"),
                ("{ colour }", "GRAPHQL_VALIDATION_FAILED"),
                ("{ task { id } }", "GRAPHQL_VALIDATION_FAILED"),
                ("subscription { events { colour } }", "GRAPHQL_VALIDATION_FAILED"),
                ("subscription { events(kinds: [NONE]) { kind } }", "GRAPHQL_VALIDATION_FAILED"),
                ("query ($id: ID!) { task(id: $id) { id } }", "GRAPHQL_VALIDATION_FAILED"),
                ("query A { cursor } query B { cursor }", "GRAPHQL_VALIDATION_FAILED"),
                ("subscription { a: events { kind } b: events { kind } }", "GRAPHQL_VALIDATION_FAILED"),
                ("{" + " ".join(f"a{n}: cursor" for n in range(MAX_ALIASES + 1)) + "}", "GRAPHQL_VALIDATION_FAILED"),
                ("subscription { events { " + "... { " * 700 + "kind" + " }" * 702, "GRAPHQL_PARSE_FAILED"),
            ]:
                with self.subTest(query[:60]):
                    await socket.subscribe(query)
                    self.assertEqual(await socket.error(), {"code": code})
            self.assertEqual(await socket.answer(CURSOR), {"data": {"cursor": "0"}})

    async def test_a_field_error_is_part_of_the_result(self) -> None:
        async with ready() as socket:
            result = await socket.answer("{ tasks(first: 0) { totalCount } }")
        self.assertIsNone(result["data"])
        [error] = result["errors"]
        self.assertEqual(error["extensions"], {"code": "BAD_USER_INPUT", "argument": "first"})

    async def test_one_of_several_operations_is_selected_by_its_name(self) -> None:
        query = "query A { a: cursor } query B { b: cursor }"
        async with ready() as socket:
            await socket.send("subscribe", id="1", payload={"query": query, "operationName": "B"})
            self.assertEqual(await socket.next(), {"data": {"b": "0"}})
            self.assertEqual(await socket.receive(), {"type": "complete", "id": "1"})
            await socket.send("subscribe", id="2", payload={"query": query, "operationName": "C"})
            self.assertEqual(await socket.error("2"), {"code": "GRAPHQL_VALIDATION_FAILED"})
