"""The web process with clients that stop reading or disconnect, and when it stops itself."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from backend.projects import notifier, services
from backend.projects.access import SYSTEM
from backend.projects.models import Event
from backend.server import STALLED_S, STOP_S
from tests.cases import ServerCase, memory_kb
from tests.factories import TaskFactory
from tests.schema.sockets import PROTOCOL, TIMEOUT_S

EVENTS, BATCH, QUEUE = 10_000, 250, 500
DESCRIPTION = "Weed the beds. " * 130
SUBSCRIPTION = """subscription ($after: Cursor) { events(after: $after) {
    cursor ... on TaskUpdated { task { title description } } } }"""
# Far less than the 23 MB that are sent to each client.
GROWTH_KB = 10_000


@pytest.mark.slow
class ClientCase(ServerCase):
    environment = {"LIVE_QUEUE_EVENTS": str(QUEUE)}

    def setUp(self) -> None:
        super().setUp()
        task = TaskFactory(description=DESCRIPTION)
        services.task.update_task(actor=SYSTEM, task_id=task.pk, changes={"title": "Weed"})
        self.head = 1

    def write(self, count: int) -> None:
        """Append copies of the first event, which is faster than a service."""
        table = Event._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute(
                f"""INSERT INTO {table}
                    (position, kind, project_id, task_id, actor_id, actor_name, at, payload, audience)
                SELECT %s + n, kind, project_id, task_id, actor_id, actor_name, at, payload, audience
                  FROM {table}, generate_series(1, %s) n WHERE position = 1""",
                [self.head, count],
            )
        self.head += count
        notifier.notify()

    def write_and_receive(self, count: int, listener: ClientConnection) -> None:
        """Append events, and check that `listener` receives them all in order."""
        for first in range(self.head + 1, self.head + count + 1, BATCH):
            self.write(BATCH)
            cursors = [json.loads(listener.recv(TIMEOUT_S))["cursor"] for _ in range(BATCH)]
            self.assertEqual(cursors, [str(position) for position in range(first, first + BATCH)])

    def reader(self) -> ClientConnection:
        """A plain socket that has received every event."""
        listener: ClientConnection = self.enterContext(connect(f"{self.ws_url}/ws/notifications/?after={self.head}"))
        self.assertEqual(json.loads(listener.recv(TIMEOUT_S))["type"], "ready")
        return listener

    def plain_socket(self) -> ClientConnection:
        """A live plain socket: it has received the newest event. It reads from the network only when a test does."""
        listener = self._open_websocket(f"/ws/notifications/?after={self.head - 1}")
        self.assertEqual(json.loads(listener.recv(TIMEOUT_S))["type"], "ready")
        self.assertEqual(json.loads(listener.recv(TIMEOUT_S))["cursor"], str(self.head))
        return listener

    def subscription(self) -> ClientConnection:
        """`plain_socket` with a GraphQL subscription."""
        listener = self._open_websocket("/graphql/", subprotocols=[Subprotocol(PROTOCOL)])
        listener.send(json.dumps({"type": "connection_init"}))
        self.assertEqual(json.loads(listener.recv(TIMEOUT_S))["type"], "connection_ack")
        payload = {"query": SUBSCRIPTION, "variables": {"after": str(self.head - 1)}}
        listener.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
        first = json.loads(listener.recv(TIMEOUT_S))
        self.assertEqual(first["payload"]["data"]["events"]["cursor"], str(self.head))
        return listener

    def stream(self) -> tuple[HTTPResponse, socket.socket]:
        """`plain_socket` with server-sent events. Returns the response and its TCP socket."""
        http = HTTPConnection(self.address[0], timeout=TIMEOUT_S)
        raw = http.sock = self._connect_tcp()
        http.request(
            "GET", f"/events/?after={self.head - 1}", headers={"Accept": "text/event-stream", "Host": "localhost"}
        )
        response = http.getresponse()
        self.addCleanup(response.close)
        self.assertEqual(response.status, 200)
        while response.readline() != f"id: {self.head}\n".encode():
            pass
        return response, raw

    @property
    def address(self) -> tuple[str, int]:
        url = urlsplit(self.base_url)
        assert url.hostname is not None
        assert url.port is not None
        return url.hostname, url.port

    def _open_websocket(self, path: str, **options: Any) -> ClientConnection:
        opening = connect(
            f"{self.ws_url}{path}",
            sock=self._connect_tcp(),
            max_queue=1,
            compression=None,
            ping_interval=None,
            close_timeout=0.1,
            **options,
        )
        listener: ClientConnection = self.enterContext(opening)
        return listener

    def _connect_tcp(self) -> socket.socket:
        """A TCP connection whose receive buffer is small."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(self.address)
        self.addCleanup(raw.close)
        return raw

    def stop(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.server.pid, number)


class SlowClients:
    """Tests that run on daphne and on uvicorn."""

    def test_clients_that_stop_reading_cost_no_memory_and_do_not_delay_others(self) -> None:
        reader = self.reader()
        self.write_and_receive(1000, reader)  # the process reaches its usual size
        _stopped = self.plain_socket(), self.subscription(), self.stream()
        before = memory_kb(self.server)

        self.write_and_receive(EVENTS, reader)

        self.assertLess(memory_kb(self.server) - before, GROWTH_KB)

    def test_clients_that_fall_behind_and_read_again_end_with_resync(self) -> None:
        reader = self.reader()
        plain, subscribed, (streamed, _) = self.plain_socket(), self.subscription(), self.stream()

        self.write_and_receive(4000, reader)

        *received, last = self._read_to_the_end(plain)
        self.assertEqual([frame["cursor"] for frame in received], [str(n) for n in range(2, 2 + len(received))])
        self.assertEqual(last, {"type": "resync", "oldest": "0"})
        self.assertEqual(plain.close_code, 4410)

        frames = (json.loads(line[6:]) for line in streamed if line.startswith(b"data: "))
        _first, *received, last = frames
        self.assertEqual([frame["cursor"] for frame in received], [str(n) for n in range(2, 2 + len(received))])
        self.assertEqual(last, {"type": "resync", "oldest": "0"})

        while (message := json.loads(subscribed.recv(TIMEOUT_S)))["type"] == "next":
            last = message
        code = (message["payload"] if message["type"] == "error" else last["payload"]["errors"])[0]["extensions"]
        self.assertEqual(code["code"], "RESYNC")

    def _read_to_the_end(self, listener: ClientConnection) -> list[Any]:
        frames = []
        try:
            while True:
                frames.append(json.loads(listener.recv(TIMEOUT_S)))
        except ConnectionClosed:
            return frames


class DisconnectingClients:
    """Tests that run on daphne and on uvicorn."""

    def test_clients_that_disconnect_while_events_are_sent_cause_no_error(self) -> None:
        reader = self.reader()
        self.write_and_receive(1000, reader)
        clients = [open_client() for open_client in (self.plain_socket, self.subscription) for _ in range(5)]
        streams = [self.stream() for _ in range(5)]
        self.write_and_receive(4000, reader)  # more than the kernel buffers for a client
        for number, client in enumerate(clients):
            if number % 2:
                client.protocol.send_close(1000)
                client.socket.sendall(b"".join(client.protocol.data_to_send()))
            else:
                self._reset(client.socket)
        for response, raw in streams:
            response.close()
            raw.close()
        self.write_and_receive(BATCH, reader)
        for client in clients[1::2]:  # uvicorn fails when it stops while a close frame awaits its answer
            self._reset(client.socket)
        self.write_and_receive(BATCH, reader)

        self.stop()

        assert self.server.stderr is not None
        lines = self.server.stderr.read().splitlines()
        self.assertEqual([line for line in lines if not line.startswith(("INFO ", "WARNING "))], [])

    def _reset(self, raw: socket.socket) -> None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()


class Stops:
    """Tests that run on daphne and on uvicorn."""

    def test_a_stop_closes_sockets_and_ends_streams(self) -> None:
        plain, subscribed, (streamed, _) = self.plain_socket(), self.subscription(), self.stream()
        idle = HTTPConnection(*self.address, timeout=TIMEOUT_S)
        idle.request("GET", "/healthz")
        idle.getresponse().read()

        self.stop()

        for listener in (plain, subscribed):
            with self.assertRaises(ConnectionClosed):
                listener.recv(TIMEOUT_S)
            self.assertEqual(listener.close_code, 1012)
        streamed.read()  # a stream that is cut off raises IncompleteRead
        self.assertEqual(self.server.wait(STOP_S), 0)

    def test_sigint_stops_the_server_as_well(self) -> None:
        plain = self.plain_socket()
        self.stop(signal.SIGINT)
        with self.assertRaises(ConnectionClosed):
            plain.recv(TIMEOUT_S)
        self.assertEqual(plain.close_code, 1012)
        self.assertEqual(self.server.wait(STOP_S), 0)

    def test_a_stop_does_not_wait_for_clients_that_stop_reading(self) -> None:
        reader = self.reader()
        self.plain_socket(), self.subscription(), self.stream()
        self.write_and_receive(3000, reader)

        self.stop()

        self.assertEqual(self.server.wait(STOP_S + 2), 0)  # raises TimeoutExpired after this time


class DaphneSlowClientTests(SlowClients, ClientCase):
    environment = {**ClientCase.environment, "SERVER": "daphne"}

    def test_clients_that_read_nothing_are_disconnected(self) -> None:
        self.write(4000)  # more than the kernel buffers for a client
        clients = [self._catching_up("/ws/notifications/?after=1"), self._catching_up("/events/?after=1")]
        for client in clients:
            poll = select.poll()
            poll.register(client, 0)  # reports nothing but the end of the connection
            self.assertEqual(len(poll.poll((2 * STALLED_S + 5) * 1000)), 1)

    def _catching_up(self, path: str) -> socket.socket:
        """A client that sends a request, and reads nothing."""
        raw = self._connect_tcp()
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n" if path.startswith("/ws/") else ""
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        accept = "Accept: text/event-stream\r\n"
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}{key}{accept}\r\n".encode())
        return raw


class UvicornSlowClientTests(SlowClients, ClientCase):
    environment = {**ClientCase.environment, "SERVER": "uvicorn"}


class DaphneStopTests(Stops, ClientCase):
    environment = {**ClientCase.environment, "SERVER": "daphne"}


class UvicornStopTests(Stops, ClientCase):
    environment = {**ClientCase.environment, "SERVER": "uvicorn"}


class DaphneDisconnectingClientTests(DisconnectingClients, ClientCase):
    environment = {"LIVE_QUEUE_EVENTS": "10000", "SERVER": "daphne"}


class UvicornDisconnectingClientTests(DisconnectingClients, ClientCase):
    environment = {"LIVE_QUEUE_EVENTS": "10000", "SERVER": "uvicorn"}
