"""Servers that can be killed, web processes, writers, and listeners that record what they receive."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import random
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import psycopg2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from backend.local.console import say
from backend.local.postgres import Postgres
from backend.local.testing import throwaway_folder
from tests import processes
from tests.cases import ServerCase
from tests.processes import Process
from tests.servers import FaultyValkey, FixedPort

# Far longer than any wait takes: a test that reaches it fails.
PATIENCE_S = 120.0
POLL_S = 0.02
# Log lines of the web processes that a failure shows.
LINES_SHOWN = 40

# The measurements, a line per test that has passed.
figures: list[str] = []

LISTEN = """subscription ($after: Cursor!) {
  events(after: $after) {
    kind cursor at
    ... on TaskCreated { task { id title version } }
    ... on TaskUpdated { task { id title version } }
    ... on TaskCommented { task { id title version } comment { content } }
  }
}"""


@dataclass(frozen=True)
class Sizes:
    writers: int
    changes: int  # per writer
    listeners: int
    orphans: int  # listeners on the web process that is killed
    unread: int  # events while some listeners have stopped reading
    redis_away_s: float
    poll_s: float


SIZES = {
    "short": Sizes(writers=8, changes=25, listeners=6, orphans=30, unread=1600, redis_away_s=2, poll_s=1),
    "long": Sizes(writers=16, changes=200, listeners=20, orphans=200, unread=10_000, redis_away_s=10, poll_s=3),
}[os.environ.get("FAULTS", "short")]


class Change(NamedTuple):
    """The fields of an event that sockets, subscriptions and the journal have in common."""

    position: int
    kind: str
    task: tuple[int, str, int] | None
    comment: str | None

    @classmethod
    def of(cls, position: int, kind: str, payload: dict[str, Any]) -> Change:
        task = payload.get("task")
        return cls(
            position,
            kind,
            task and (int(task["id"]), task["title"], task["version"]),
            payload.get("comment", {}).get("content"),
        )


# --- Servers ---------------------------------------------------------------------------------------------
class FaultyPostgres(FixedPort, Postgres):
    @property
    def url(self) -> str:
        return f"postgres://taskwire@127.0.0.1:{self.port}/taskwire"

    def _command(self) -> list[str | Path]:
        return [*super()._command(), "-c", "listen_addresses=127.0.0.1"]

    def query(self, sql: str, *args: Any) -> list[Any]:
        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, args)
                return cursor.fetchall()
        finally:
            connection.close()

    def journal(self) -> list[Change]:
        rows = self.query("SELECT position, kind, payload FROM projects_event ORDER BY position")
        return [Change.of(position, kind, json.loads(payload)) for position, kind, payload in rows]

    def end_backends(self) -> int:
        """End every other session. Returns their number."""
        return len(
            self.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


@cache
def migrated() -> Path:
    """The folder of a stopped PostgreSQL with migrated, empty tables. Every test copies it."""
    folder = _until_exit.enter_context(throwaway_folder())
    with FaultyPostgres(folder, durable=False) as postgres:
        environment = {**os.environ, "DATABASE_URL": postgres.url}
        migrate = processes.libraries().start("django", ["migrate", "-v0"], environment=environment)
        assert migrate.wait(PATIENCE_S) == 0
    return postgres.home


_until_exit = ExitStack()
atexit.register(_until_exit.close)


# --- Listeners -------------------------------------------------------------------------------------------
class Refused(Exception):
    """A listener received a message after which it must not reconnect."""


class Listener:
    """A client that records events and reconnects at its position, to the next URL if its server is gone."""

    def __init__(self, urls: list[str], seed: str, *, drops: bool) -> None:
        self.urls = urls
        self.drops = drops
        self.random = random.Random(seed)
        self.record: list[Change] = []
        self.position = 0
        self.connections = 0
        self.slowest_s = 0.0
        # A listener that drops connections uses the second web process, if there is one: a new one may wake its reader.
        self._url_index = 1 if drops else 0

    async def run(self) -> None:
        while True:
            stays_s = self.random.expovariate(1) if self.drops else None  # seconds: 1 on average
            try:
                async with asyncio.timeout(stays_s), self._connected() as socket:
                    try:
                        self.connections += 1
                        await self.receive(socket)
                    finally:
                        # Every other time, without a closing handshake.
                        if self.random.random() < 0.5:
                            socket.transport.abort()
            except TimeoutError:
                pass
            except WebSocketException:
                pass
            except OSError:
                self._url_index += 1
            await asyncio.sleep(self.random.uniform(0, 0.1))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[ClientConnection]:
        url = self.urls[self._url_index % len(self.urls)]
        async with connect(self.address(url), proxy=None, compression=None, **self.options) as socket:
            yield socket

    def record_event(self, kind: str, payload: dict[str, Any]) -> None:
        self.position = int(payload["cursor"])
        self.record.append(Change.of(self.position, kind, payload))
        self.slowest_s = max(self.slowest_s, time.time() - datetime.fromisoformat(payload["at"]).timestamp())

    options: dict[str, Any] = {}

    def address(self, url: str) -> str:
        raise NotImplementedError

    async def receive(self, socket: ClientConnection) -> None:
        raise NotImplementedError


class PlainListener(Listener):
    """On `/ws/notifications/`."""

    def address(self, url: str) -> str:
        return f"{url}/ws/notifications/?after={self.position}"

    async def receive(self, socket: ClientConnection) -> None:
        async for text in socket:
            frame = json.loads(text)
            match frame["type"]:
                case "ready" if int(frame["cursor"]) == self.position:
                    pass
                case "cursor" if int(frame["cursor"]) >= self.position:
                    self.position = int(frame["cursor"])
                case "ready" | "cursor" | "resync" | "error":
                    raise Refused(f"At {self.position}: {text!r}")
                case kind:
                    self.record_event(kind, frame)


class GraphQLListener(Listener):
    """A subscription."""

    options = {"subprotocols": [Subprotocol("graphql-transport-ws")]}

    def address(self, url: str) -> str:
        return f"{url}/graphql/"

    async def receive(self, socket: ClientConnection) -> None:
        await socket.send(json.dumps({"type": "connection_init"}))
        async for text in socket:
            message = json.loads(text)
            match message["type"]:
                case "connection_ack":
                    payload = {"query": LISTEN, "variables": {"after": str(self.position)}}
                    await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
                case "next" if "errors" not in message["payload"]:
                    event = message["payload"]["data"]["events"]
                    self.record_event(event["kind"].lower().replace("_", "."), event)
                case "ping":
                    await socket.send(json.dumps({"type": "pong"}))
                case "error" if message["payload"][0]["extensions"]["code"] == "UNAVAILABLE":
                    return
                case _:
                    raise Refused(f"At {self.position}: {text!r}")


class StoppedListener:
    """A client that receives one event, so that it is live, and then stops reading."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    @classmethod
    @asynccontextmanager
    async def plain(cls, url: str) -> AsyncIterator[StoppedListener]:
        async with cls._connected(f"{url}/ws/notifications/?after=0") as socket:
            await socket.recv()  # "ready"
            await socket.recv()
            yield cls(socket)

    @classmethod
    @asynccontextmanager
    async def subscribed(cls, url: str) -> AsyncIterator[StoppedListener]:
        async with cls._connected(f"{url}/graphql/", subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
            await socket.send(json.dumps({"type": "connection_init"}))
            await socket.recv()
            document = LISTEN.replace("title version", "title version description")
            payload = {"query": document, "variables": {"after": "0"}}
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            await socket.recv()
            yield cls(socket)

    @staticmethod
    def _connected(address: str, **options: Any) -> connect:
        url = urlsplit(address)
        assert url.hostname is not None
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # a small receive buffer
        raw.connect((url.hostname, url.port))
        raw.setblocking(False)
        return connect(
            address, sock=raw, max_queue=1, compression=None, ping_interval=None, close_timeout=0.1, **options
        )

    async def end(self) -> str:
        """Read until the end. Returns `resync`, or `cut off` if the connection ended without it. May time out."""
        last = ""
        try:
            while "RESYNC" not in last:
                last = str(await asyncio.wait_for(self._socket.recv(), PATIENCE_S))
        except ConnectionClosed:
            pass
        return "resync" if "resync" in last.lower() else "cut off"


# --- The case --------------------------------------------------------------------------------------------
@pytest.mark.faults
@pytest.mark.slow
class FaultCase(ServerCase):
    """Every test has its own servers and web process, and an empty journal."""

    is_environment_shared = False
    queue_events = 1000

    def setUp(self) -> None:
        self.seed = os.environ.get("FAULTS_SEED") or str(random.randrange(10**6))
        say(f"FAULTS_SEED={self.seed}")  # pytest shows it if the test fails
        folder = self.enterContext(throwaway_folder())
        subprocess.run(["cp", "--archive", migrated(), folder / FaultyPostgres.name], check=True)
        self.postgres = self.enterContext(FaultyPostgres(folder, durable=False))
        self.valkey = self.enterContext(FaultyValkey(folder))
        self.environment = {
            "ACCESS": "open",
            "COST_MODE": "measure",  # all clients are one viewer, and write more than it may
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
            "BROKER_URL": self.valkey.broker_url,
            "LIVE_POLL_S": str(SIZES.poll_s),
            "REDIS_TIMEOUT_S": "0.4",
            "LIVE_QUEUE_EVENTS": str(self.queue_events),
            "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
        }
        self.webs: list[Process] = []
        self.urls: list[str] = []
        self.log: deque[str] = deque(maxlen=LINES_SHOWN)
        self.listeners: list[Listener] = []
        self._listening: list[asyncio.Task[None]] = []
        self.start_web()

    def start_web(self) -> None:
        """Start another web process, and append its URL to `urls`."""
        started: list[Process] = []
        self.addCleanup(lambda: [web.kill() for web in started])  # if it did not stop on SIGTERM
        super().setUp()
        started.append(self.server)
        self.webs.append(self.server)
        self.urls.append(self.ws_url)
        for pipe in (self.server.stdout, self.server.stderr):
            if pipe is not None:
                # A duplicate descriptor: the cleanup that stops the process reads and closes the original.
                threading.Thread(target=self._read_log, args=[os.fdopen(os.dup(pipe.fileno()))], daemon=True).start()

    def _read_log(self, pipe: IO[str]) -> None:
        """Read the log until its end: a process blocks when its pipe is full."""
        with pipe:
            self.log.extend(pipe)

    def start_writer(self, **options: Any) -> Process:
        arguments = ["--seed", self.seed]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        environment = {**os.environ, **self.environment}
        writer = processes.libraries().start("tests.faults.writer", arguments, environment=environment, stdin=PIPE)
        self.addCleanup(_end, writer)
        return writer

    async def stop(self, writer: Process) -> int:
        """Stop a writer. Returns its exit code."""
        assert writer.stdin is not None
        writer.stdin.close()
        return await self.end_of(writer)

    async def end_of(self, writer: Process) -> int:
        await self.until(lambda: writer.poll() is not None, "the writer ends")
        return writer.returncode

    @asynccontextmanager
    async def listening(self, count: int, *, drops: Callable[[int], bool] = lambda _: False) -> AsyncIterator[None]:
        """Run `count` listeners from the first position on, in `listeners`. Every other one is a subscription."""
        kinds = (PlainListener, GraphQLListener)
        self.listeners = [kinds[n % 2](self.urls, f"{self.seed}-{n}", drops=drops(n)) for n in range(count)]
        self._listening = [asyncio.create_task(listener.run()) for listener in self.listeners]
        try:
            yield
        finally:
            for task in self._listening:
                task.cancel()
            await asyncio.gather(*self._listening, return_exceptions=True)

    async def all_reach(self, position: int) -> None:
        """Wait until every listener has reached a position."""
        await self.until(
            lambda: all(listener.position >= position for listener in self.listeners),
            f"every listener reaches {position}",
        )

    async def all_advance(self, events: int) -> None:
        """Wait until every listener is `events` positions beyond the current head of the journal."""
        [(head,)] = self.postgres.query("SELECT coalesce(max(position), 0) FROM projects_event")
        await self.all_reach(head + events)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    for task in self._listening:
                        if task.done():
                            task.result()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            positions = [listener.position for listener in self.listeners]
            self.fail(f"Timed out waiting until {what}. The listeners are at {positions}.\n{''.join(self.log)}")

    async def assert_nothing_missed(self) -> None:
        """Check that every record becomes equal to the journal. All writers have ended."""
        journal = self.postgres.journal()
        self.assertEqual([change.position for change in journal], list(range(1, len(journal) + 1)))
        await self.all_reach(len(journal))
        for number, listener in enumerate(self.listeners):
            if listener.record != journal:
                first = next(
                    (n for n, pair in enumerate(zip(listener.record, journal, strict=False)) if pair[0] != pair[1]),
                    min(len(listener.record), len(journal)),
                )
                received, written = listener.record[first : first + 3], journal[first : first + 3]
                self.fail(f"Listener {number} ({type(listener).__name__}) received {received} instead of {written}.")
        connections = sum(listener.connections for listener in self.listeners)
        figure = f"{len(journal)} events, {len(self.listeners)} listeners on {connections} connections"
        if delays_s := [listener.slowest_s for listener in self.listeners if not listener.drops]:
            # Since the append. The commit may be a moment later.
            figure += (
                f"; received {max(delays_s):.2f} s after the append at the latest, with a poll every {SIZES.poll_s} s"
            )
        figures.append(f"{self._testMethodName} (seed {self.seed}): {figure}")


def _end(process: Process) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
