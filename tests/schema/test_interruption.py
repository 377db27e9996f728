"""Operations that time out, lose their client, or have too large a result. None of them blocks other work."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from channels.db import database_sync_to_async
from django.db import connection
from django.test import override_settings
from graphql import parse
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from backend.local.processes import wait_until
from backend.projects.access import SYSTEM
from backend.projects.models import Project, Task
from backend.projects.services.task import update_task
from tests.cases import CommittingCase, OpenCase, ServerCase
from tests.factories import TaskFactory
from tests.schema.sockets import PROTOCOL, TIMEOUT_S, ready

TASKS = "{ tasks { nodes { id title } } }"
GRAPHQL, JSON = "application/graphql-response+json", "application/json"


class OtherConnection:
    """A transaction of another client of the database."""

    def __init__(self) -> None:
        self._connection = connection.copy()
        self._connection.settings_dict = {**connection.settings_dict}

    def lock_tasks(self) -> None:
        """Block every statement on tasks until `close`."""
        self._connection.set_autocommit(False)
        with self._connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {Task._meta.db_table} IN ACCESS EXCLUSIVE MODE")

    def close(self) -> None:
        self._connection.close()


class LockedCase(ServerCase):
    """A web process whose statements on tasks wait for a lock."""

    def setUp(self) -> None:
        super().setUp()
        update_task(actor=SYSTEM, task_id=TaskFactory().pk, changes={"title": "Weed"})
        other = OtherConnection()
        other.lock_tasks()
        self.addCleanup(other.close)

    def http(self, method: str, path: str, body: Any = None, **headers: str) -> HTTPConnection:
        """Send a request."""
        client = HTTPConnection(urlsplit(self.base_url).netloc, timeout=TIMEOUT_S)
        self.addCleanup(client.close)
        content = None if body is None else json.dumps(body)
        client.request(method, path, content, {"Content-Type": JSON, **headers})
        return client

    def socket(self) -> ClientConnection:
        socket: ClientConnection = self.enterContext(
            connect(f"{self.ws_url}/graphql/", subprotocols=[Subprotocol(PROTOCOL)])
        )
        socket.send(json.dumps({"type": "connection_init"}))
        self.assertEqual(json.loads(socket.recv(TIMEOUT_S)), {"type": "connection_ack"})
        return socket

    def subscribe(self, socket: ClientConnection, query: str) -> None:
        socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}))

    def waiting(self) -> int:
        """The number of statements that wait for the lock."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            count: int = cursor.fetchone()[0]
        return count

    def wait_until_waiting(self, count: int) -> None:
        self.assertTrue(wait_until(lambda: self.waiting() == count, timeout_s=TIMEOUT_S), f"{self.waiting()} wait")
        self.assertIsNone(self.server.poll())


class DeadlineTests(LockedCase):
    environment = {"OPERATION_TIMEOUT_S": "0.5"}

    def test_a_timeout_over_http_is_an_error_with_a_time_to_retry(self) -> None:
        message = "This took longer than 0.5 seconds. Ask for less, or try again later."
        error = {"message": message, "extensions": {"code": "TIMEOUT"}}
        for accept, status in ((GRAPHQL, 503), (JSON, 200)):
            with self.subTest(accept):
                response = self.http("POST", "/graphql/", {"query": TASKS}, Accept=accept).getresponse()
                self.assertEqual((response.status, response.headers["Retry-After"]), (status, "10"))
                self.assertEqual(json.load(response), {"errors": [error]})
        response = self.http("GET", "/tasks/").getresponse()
        self.assertEqual((response.status, response.headers["Retry-After"]), (503, "10"))
        self.assertEqual(json.load(response), {"detail": message, "code": "TIMEOUT"})

    def test_a_timeout_ends_an_operation_on_a_socket_and_the_socket_stays_open(self) -> None:
        socket = self.socket()
        for _ in range(2):
            self.subscribe(socket, TASKS)
            answer = json.loads(socket.recv(TIMEOUT_S))
            self.assertEqual((answer["type"], answer["payload"][0]["extensions"]), ("error", {"code": "TIMEOUT"}))

    def test_an_event_that_takes_too_long_ends_its_subscription(self) -> None:
        socket = self.socket()
        head = 'subscription { events(after: "0") { cursor ... on TaskUpdated { task'
        self.subscribe(socket, f"{head} {{ project {{ tasks {{ totalCount }} }} }} }} }} }}")
        answer = json.loads(socket.recv(TIMEOUT_S))
        self.assertEqual((answer["type"], answer["payload"][0]["extensions"]), ("error", {"code": "TIMEOUT"}))
        self.subscribe(socket, f"{head} {{ title }} }} }} }}")  # the event itself has the title: no statement is needed
        answer = json.loads(socket.recv(TIMEOUT_S))
        self.assertEqual(answer["payload"], {"data": {"events": {"cursor": "1", "task": {"title": "Weed"}}}})

    def test_a_change_that_was_committed_before_the_timeout_stays(self) -> None:
        document = """mutation { createProject(input: {name: "Garden"}) { ... on Project { tasks { totalCount } } } }"""
        response = self.http("POST", "/graphql/", {"query": document}, Accept=GRAPHQL).getresponse()
        self.assertEqual(response.status, 503)
        self.assertTrue(Project.objects.filter(name="Garden").exists())


class Disconnecting:
    """Tests that run on daphne and on uvicorn."""

    def test_work_stops_when_its_client_disconnects(self) -> None:
        clients = [self.http("GET", "/tasks/"), self.http("POST", "/graphql/", {"query": TASKS})]
        while clients:
            self.wait_until_waiting(len(clients))
            clients.pop(0).close()
        self.wait_until_waiting(0)

    def test_work_stops_when_its_operation_is_completed_or_its_socket_closed(self) -> None:
        socket = self.socket()
        self.subscribe(socket, TASKS)
        self.wait_until_waiting(1)
        socket.send(json.dumps({"type": "complete", "id": "1"}))
        self.wait_until_waiting(0)
        self.subscribe(socket, TASKS)
        self.wait_until_waiting(1)
        socket.close()
        self.wait_until_waiting(0)

    def test_one_account_occupies_a_fifth_of_the_threads(self) -> None:
        socket = self.socket()
        for number in range(20):
            payload = {"query": TASKS}
            socket.send(json.dumps({"type": "subscribe", "id": str(number), "payload": payload}))
        self.wait_until_waiting(2)
        self.assertEqual(self.http("GET", "/healthz").getresponse().status, 200)
        self.assertEqual(self.waiting(), 2)


class DaphneDisconnectingTests(Disconnecting, LockedCase):
    environment = {"SERVER": "daphne", "OPERATION_TIMEOUT_S": "600", "DATABASE_CONNECTIONS": "10"}


class UvicornDisconnectingTests(Disconnecting, LockedCase):
    environment = {"SERVER": "uvicorn", "OPERATION_TIMEOUT_S": "600", "DATABASE_CONNECTIONS": "10"}


class SizeTests(OpenCase):
    """The tests set a limit far below the minimum of the settings."""

    def setUp(self) -> None:
        TaskFactory.create_batch(20)

    @override_settings(ANSWER_BYTES=300)
    def test_a_response_that_is_too_large_is_an_error(self) -> None:
        message = "The response would have more than 300 bytes. Ask for fewer rows or fields."
        for accept, status in ((GRAPHQL, 400), (JSON, 200)):
            with self.subTest(accept):
                response = self.client.post("/graphql/", {"query": TASKS}, JSON, headers={"accept": accept})
                self.assertEqual(response.status_code, status)
                error = {"message": message, "extensions": {"code": "RESPONSE_TOO_LARGE"}}
                self.assertEqual(response.json(), {"errors": [error]})
        response = self.client.get("/tasks/")
        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"detail": message, "code": "RESPONSE_TOO_LARGE"})
        self.assertEqual(self.client.get("/tasks/?page_size=1").status_code, 200)


NESTED = """subscription { events(after: "0") { ... on TaskUpdated {
    task { project { name } comments { nodes { id } } } } } }"""


@contextmanager
def graphql_calls() -> Iterator[list[str]]:
    """The functions of graphql-core that the current thread calls to parse, validate or execute a document."""
    calls: list[str] = []

    names = ("parse", "validate", "execute_field", "execute_operation")

    def record(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and "/graphql/" in code.co_filename and code.co_name in names:
            calls.append(code.co_name)

    sys.setprofile(record)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@override_settings(ACCESS="open")
class LoopTests(CommittingCase):
    """The event loop of sockets does not execute GraphQL."""

    def setUp(self) -> None:
        self.task = TaskFactory(project__name="Garden")

    def test_a_call_in_the_current_thread_is_recorded(self) -> None:
        with graphql_calls() as calls:
            parse("{ cursor }")
        self.assertIn("parse", calls)

    async def test_an_operation_is_parsed_and_executed_in_a_thread(self) -> None:
        async with ready() as socket:
            with graphql_calls() as calls:
                self.assertEqual(len((await socket.answer(TASKS))["data"]["tasks"]["nodes"]), 1)
                await socket.subscribe("{", "2")
                self.assertEqual((await socket.error("2"))["code"], "GRAPHQL_PARSE_FAILED")
        self.assertEqual(calls, [])

    async def test_an_event_with_other_rows_is_executed_in_a_thread(self) -> None:
        async with ready() as socket:
            with graphql_calls() as calls:
                await socket.subscribe(NESTED)
                await database_sync_to_async(update_task)(actor=SYSTEM, task_id=self.task.pk, changes={"title": "Weed"})
                self.assertEqual(
                    await socket.next(), {"task": {"project": {"name": "Garden"}, "comments": {"nodes": []}}}
                )
        self.assertEqual(calls, [])

    @override_settings(ANSWER_BYTES=200)
    async def test_a_result_that_is_too_large_is_an_error_on_a_socket(self) -> None:
        await database_sync_to_async(TaskFactory.create_batch)(10)
        async with ready() as socket:
            await socket.subscribe(TASKS)
            self.assertEqual(await socket.error(), {"code": "RESPONSE_TOO_LARGE"})
            self.assertEqual(await socket.answer("{ me { name } }"), {"data": {"me": None}})
