"""PostgreSQL is stopped: every API responds with 503 or its equivalent, and recovers with PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from socket import create_server
from subprocess import PIPE
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

import psycopg2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as sync_connect
from websockets.typing import Subprotocol

from tests import processes
from tests.faults.cases import PATIENCE_S, FaultCase, figures

TRY_AGAIN_LATER = 1013
JSON, GRAPHQL_RESPONSE, HTML = "application/json", "application/graphql-response+json", "text/html,*/*;q=0.8"
STREAM = "text/event-stream"
MESSAGE = "The database is not available. Try again in a few seconds."
UNAVAILABLE = {"detail": MESSAGE, "code": "UNAVAILABLE"}
CREATE = 'mutation { createProject(input: {name: "Engine"}) { __typename } }'


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class UnavailableCase(FaultCase):
    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        """Send a request. `body` is sent as JSON, or as it is if it is text."""
        connection = HTTPConnection(urlsplit(self.base_url).netloc, timeout=PATIENCE_S)
        headers = {"Content-Type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            connection.request(method, path, body if isinstance(body, str | None) else json.dumps(body), headers)
            response = connection.getresponse()
            return Response(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def graphql(self, query: str, accept: str = JSON, **headers: str) -> Response:
        return self.request("POST", "/graphql/", {"query": query}, Accept=accept, **headers)

    def assert_recovers(self) -> None:
        """Wait until requests succeed again, without any action on the web process."""

        async def is_back() -> None:
            await self.until(lambda: self.request("GET", "/healthz").status == 200, "requests succeed again")

        asyncio.run(is_back())
        self.assertEqual(self.request("POST", "/projects/", {"name": "After"}).status, 201)
        self.assertEqual(self.request("GET", "/projects/").json[0]["name"], "After")


class StoppedPostgresTests(UnavailableCase):
    def setUp(self) -> None:
        super().setUp()
        self.request("POST", "/projects/", {"name": "Before"})
        self.postgres.stop()

    def test_every_kind_of_request_gets_a_503_with_a_time_to_retry(self) -> None:
        for method, path, body, headers, expected in (
            ("GET", "/healthz", None, {}, {"status": "no database"}),
            ("GET", "/projects/1/", None, {}, UNAVAILABLE),
            ("GET", "/tasks/?search=uncached", None, {}, UNAVAILABLE),
            ("POST", "/projects/", {"name": "Engine"}, {}, UNAVAILABLE),
            ("DELETE", "/projects/1/", None, {}, UNAVAILABLE),
            ("GET", "/events/?after=0", None, {}, UNAVAILABLE),
            ("GET", "/events/?after=0", None, {"Accept": STREAM}, UNAVAILABLE),
            # The credentials are in the database too.
            ("GET", "/projects/1/", None, {"Authorization": f"Bearer tw_{'x' * 43}"}, UNAVAILABLE),
            ("GET", "/projects/1/", None, {"Cookie": f"sessionid={'x' * 32}"}, UNAVAILABLE),
        ):
            with self.subTest(path, method=method, **headers):
                response = self.request(method, path, body, **headers)
                self.assertEqual((response.status, response.json), (503, expected))
                self.assertEqual(response.headers["retry-after"], "2")
        self.postgres.start()
        self.assert_recovers()

    def test_a_request_for_a_page_gets_a_503_with_a_line_of_text(self) -> None:
        cookie = f"sessionid={'x' * 32}; csrftoken={'y' * 32}"
        form = urlencode({"username": "ada", "password": "secret", "csrfmiddlewaretoken": "y" * 32})
        for method, path, body, headers in (
            ("GET", "/accounts/password/", None, {"Cookie": cookie}),
            ("GET", "/admin/", None, {"Cookie": cookie}),
            ("POST", "/accounts/sign-in/", form, {"Content_Type": "application/x-www-form-urlencoded"}),
        ):
            with self.subTest(path, method=method):
                response = self.request(method, path, body, Accept=HTML, **{"Cookie": cookie, **headers})
                self.assertEqual((response.status, response.body.decode()), (503, MESSAGE))
                self.assertEqual(response.headers["retry-after"], "2")
        self.postgres.start()
        self.assert_recovers()

    def test_graphql_has_a_code_and_the_status_of_its_media_type(self) -> None:
        for query in ("{ tasks { totalCount } }", CREATE):
            for accept, status in ((JSON, 200), (GRAPHQL_RESPONSE, 503)):
                with self.subTest(query, accept=accept):
                    response = self.graphql(query, accept)
                    [error] = response.json["errors"]
                    self.assertEqual((error["message"], error["extensions"]), (MESSAGE, {"code": "UNAVAILABLE"}))
                    self.assertEqual((response.status, response.headers["retry-after"]), (status, "2"))
        for accept in (JSON, GRAPHQL_RESPONSE):
            # The operation is not executed, since its viewer is unknown.
            response = self.graphql("{ cursor }", accept, Authorization=f"Bearer tw_{'x' * 43}")
            [error] = response.json["errors"]
            self.assertEqual(error, {"message": MESSAGE, "extensions": {"code": "UNAVAILABLE"}})
            self.assertEqual((response.status, response.headers["retry-after"]), (503, "2"))
        self.postgres.start()
        self.assert_recovers()

    async def test_sockets_close_with_try_again_later_and_a_subscription_ends_with_the_code(self) -> None:
        with self.assertRaises(ConnectionClosed) as closed:
            async with connect(f"{self.ws_url}/ws/notifications/", proxy=None) as socket:
                await asyncio.wait_for(socket.recv(), PATIENCE_S)
        self.assertEqual(closed.exception.rcvd and closed.exception.rcvd.code, TRY_AGAIN_LATER)

        options: dict[str, Any] = {"subprotocols": [Subprotocol("graphql-transport-ws")], "proxy": None}
        with self.assertRaises(ConnectionClosed) as closed:
            async with connect(f"{self.ws_url}/graphql/", **options) as socket:
                payload = {"authorization": f"Bearer tw_{'x' * 43}"}
                await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
                await asyncio.wait_for(socket.recv(), PATIENCE_S)
        self.assertEqual(closed.exception.rcvd and closed.exception.rcvd.code, TRY_AGAIN_LATER)

        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.assert_recovers_and_stop_again)
        async with connect(f"{self.ws_url}/graphql/", **options) as socket:
            await socket.send(json.dumps({"type": "connection_init"}))
            self.assertEqual(json.loads(await socket.recv())["type"], "connection_ack")
            for query in ("subscription { events { cursor } }", "{ tasks { totalCount } }"):
                await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}))
                message = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))
                payload = message["payload"]
                [error] = payload if message["type"] == "error" else payload["errors"]
                self.assertEqual((error["message"], error["extensions"]), (MESSAGE, {"code": "UNAVAILABLE"}))
                if message["type"] == "next":
                    self.assertEqual(json.loads(await socket.recv())["type"], "complete")

    def assert_recovers_and_stop_again(self) -> None:
        self.assert_recovers()
        self.postgres.stop()

    def test_a_web_process_that_starts_before_postgresql_refuses_listeners_at_once(self) -> None:
        self.start_web()
        stream = self.request("GET", "/events/", Accept=STREAM)
        self.assertEqual((stream.status, stream.json), (503, UNAVAILABLE))
        with self.assertRaises(ConnectionClosed) as closed, sync_connect(f"{self.ws_url}/ws/notifications/") as socket:
            socket.recv(PATIENCE_S)
        self.assertEqual(closed.exception.rcvd and closed.exception.rcvd.code, TRY_AGAIN_LATER)
        self.postgres.start()
        self.assert_recovers()
        with sync_connect(f"{self.ws_url}/ws/notifications/") as socket:
            self.assertEqual(json.loads(socket.recv(PATIENCE_S))["type"], "ready")

    def test_the_outage_is_logged_once_and_without_a_traceback(self) -> None:
        for _ in range(50):
            self.assertEqual(self.request("GET", "/projects/1/").status, 503)
        self.postgres.start()
        self.assert_recovers()
        lines = list(self.log)
        self.assertEqual([line for line in lines if "Traceback" in line or line.startswith("ERROR")], [])
        self.assertEqual(len([line for line in lines if "PostgreSQL does not answer" in line]), 1, lines)
        self.assertEqual(len([line for line in lines if "PostgreSQL answers again" in line]), 1, lines)
        self.assertLess(len(lines), 10, lines)


class HungPostgresTests(UnavailableCase):
    def test_a_postgresql_that_accepts_connections_and_does_not_answer_is_unavailable(self) -> None:
        """One thread at a time waits for PostgreSQL, and all other requests are refused at once."""
        self.request("GET", "/projects/1/")
        postmaster = int(self.postgres._pid_file.read_text().split()[0])
        self.assertGreater(self.postgres.end_backends(), 0)
        os.kill(postmaster, signal.SIGSTOP)
        try:
            took_s = []
            for _ in range(3):
                start = time.monotonic()
                response = self.request("GET", "/projects/1/")
                took_s.append(time.monotonic() - start)
                self.assertEqual((response.status, response.json), (503, UNAVAILABLE))
            figures.append(f"{self.id()}: refused within {max(took_s):.2f} s")
        finally:
            os.kill(postmaster, signal.SIGCONT)
        self.assert_recovers()


class BeatTests(UnavailableCase):
    def test_beat_counts_its_attempts_and_can_be_stopped_meanwhile(self) -> None:
        self.server.terminate()  # it would connect to PostgreSQL too
        self.server.wait(PATIENCE_S)
        self.postgres.stop()
        environment = {**os.environ, **self.environment}
        command = ["--quiet", "--app", "backend", "beat", "--pidfile="]
        beat = processes.libraries().start("celery", command, environment=environment, stderr=PIPE)
        self.addCleanup(beat.kill)
        with create_server(("127.0.0.1", self.postgres.port)) as unavailable:
            for _ in range(4):
                unavailable.accept()[0].close()
        beat.terminate()
        assert beat.stderr is not None
        first, last = (line for line in beat.stderr if "The schedule cannot be read" in line)
        self.assertNotIn("repeated", first)
        self.assertRegex(last, r" \.\.\. repeated \d times in \d+ s$")
        self.assertEqual(beat.wait(PATIENCE_S), 0)


class LogTests(UnavailableCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        super().setUp()

    def _read_log(self, pipe: IO[str]) -> None:
        with pipe:
            self.lines.extend(pipe)

    def count(self, text: str) -> int:
        return sum(text in line for line in self.lines)

    def test_an_error_of_every_request_is_written_once_and_counted(self) -> None:
        with closing(psycopg2.connect(self.postgres.url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("ALTER TABLE projects_task RENAME TO away")
        for _ in range(50):
            self.assertEqual(self.request("GET", "/tasks/1/").status, 500)
            self.assertEqual(self.graphql('{ task(id: "1") { id } }').status, 200)
        self.server.terminate()
        asyncio.run(self.until(lambda: self.count("repeated 49 times in") == 3, "the counts are written"))
        self.assertEqual(self.count("The above exception was the direct cause"), 2)
        self.assertEqual(self.count("ERROR"), 6)  # one from REST, GraphQL and Django each, and their counts
