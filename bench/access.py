"""What signing in costs: requests per second of a list that is read with a token, against the same list in open mode.

Run: `make bench access`. Two servers, the same but for `ACCESS`, show the same tasks of a database that is made for
this and dropped at the end. They are asked in turn, in many short rounds: open, token, token, open, open, token ... Two
rounds of both, side by side, are a pair, and the figure is the median of the pairs' ratios: what else the machine does
meets both alike. Two rounds of one server, side by side, tell as the control how much of it is left.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles

from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from backend.local.console import Refusal, say

from .support import rows, servers  # first: it makes Django ready
from .support.figures import Figure, report

from backend.projects.models import Scope  # isort:skip

GOAL = 0.90
PROJECTS, TASKS_EACH = 5, 100

CONNECTIONS = 4
WARM_UP_S = 1.0
ROUND_S = 0.1
# Open, token, token, open: this many times.
TURNS = 28

# Far beyond what one answer takes.
ANSWER_TIMEOUT_S = 20.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def main() -> None:
    with ExitStack() as cleanup:
        database_url = cleanup.enter_context(servers.database("access"))
        project_ids, token = rows.fill(PROJECTS, TASKS_EACH, Scope.READ)
        open_mode = cleanup.enter_context(_served("open", database_url))
        by_token = cleanup.enter_context(_served("closed", database_url, token))
        pairs = _measure(f"/tasks/?project={project_ids[0]}", open_mode, by_token)
        pairs += _measure("/tasks/", open_mode, by_token)
    report(Figure("token / open, of both lists", median(pairs), goal=GOAL))


# --- Who shows it ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Server:
    access: str
    token: str | None
    process: servers.Server

    def request(self, path: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self.process.port}", "Accept: application/json"]
        if self.token is not None:
            lines.append(f"Authorization: Bearer {self.token}")
        return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def _served(access_mode: str, database_url: str, token: str | None = None) -> Iterator[Server]:
    given = {
        "ACCESS": access_mode,
        "BENCH_PREFIX": f"{servers.PREFIX}-{access_mode}",
        "DATABASE_URL": database_url,
    }
    with servers.served(**given) as process:
        yield Server(access_mode, token, process)


# --- How it is asked -------------------------------------------------------------------------------------
class Reader:
    """A few kept connections to one server, on which one list is read over and over."""

    def __init__(self, server: Server, path: str) -> None:
        self._server = server
        self._path = path
        self._request = server.request(path)
        self._connections: list[Streams] = []

    async def connect(self) -> None:
        for _ in range(CONNECTIONS):
            self._connections.append(await asyncio.open_connection("127.0.0.1", self._server.process.port))

    async def first(self) -> bytes:
        return await self._ask(*self._connections[0])

    async def rate(self, seconds: float, expected: bytes) -> float:
        """Requests per second of one round. Raises Refusal where an answer is other than `expected`."""

        async def ask_until(end: float, streams: Streams) -> int:
            answered = 0
            while not answered or time.perf_counter() < end:
                if await self._ask(*streams) != expected:
                    raise Refusal(f"{self._named} did not answer with the same bytes as the first one.")
                answered += 1
            return answered

        async def ask_on_all(seconds: float) -> int:
            end = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(ask_until(end, streams) for streams in self._connections)))

        try:
            async with asyncio.timeout(seconds + ANSWER_TIMEOUT_S):
                # The first answers after another server's round are slower, whoever gives them.
                await ask_on_all(0)
                started = time.perf_counter()
                answered = await ask_on_all(seconds)
                return answered / (time.perf_counter() - started)
        except (OSError, EOFError) as error:
            raise Refusal(f"{self._server.process.log_end}\n{self._named} was not answered ({error!r}).") from None

    def close(self) -> None:
        for _, writer in self._connections:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].decode()
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if status != "HTTP/1.1 200 OK" or length is None:
            raise Refusal(f"{self._named} was answered with {status}: {body[:300].decode(errors='replace')}")
        return body

    @property
    def _named(self) -> str:
        return f"GET {self._path} with ACCESS={self._server.access}"


async def _rates(path: str, servers: list[Server]) -> list[float]:
    """Of one round each, in this order, every answer checked against the very first."""
    readers = {server: Reader(server, path) for server in servers}
    try:
        for reader in readers.values():
            await reader.connect()
        expected = await readers[servers[0]].first()
        rows = len(json.loads(expected))
        if rows != TASKS_EACH:
            raise Refusal(f"GET {path} has {rows} rows, and {TASKS_EACH} were to be read.")
        for reader in readers.values():
            await reader.rate(WARM_UP_S, expected)
        return [await readers[server].rate(ROUND_S, expected) for server in servers]
    finally:
        for reader in readers.values():
            reader.close()


# --- What comes of it ------------------------------------------------------------------------------------
def _measure(path: str, open_mode: Server, by_token: Server) -> list[float]:
    """Print the figures of one list, and return the ratio of each pair."""
    servers = [open_mode, by_token, by_token, open_mode] * TURNS
    rates = asyncio.run(_rates(path, servers))
    rounds = list(zip(servers, rates, strict=True))
    pairs, controls = [], []
    for turn, ((server, before), (next_server, after)) in enumerate(pairwise(rounds)):
        if server is next_server:
            controls.append(after / before)
        elif turn % 2 == 0:
            pairs.append(after / before if next_server is by_token else before / after)
    say(f"GET {path}: {TASKS_EACH} rows, {CONNECTIONS} connections, {len(pairs)} pairs of rounds of {ROUND_S} s")
    for name, server in (("open", open_mode), ("token", by_token)):
        rate = median(rate for asked, rate in rounds if asked is server)
        say(f"  {name:16}{rate:7.0f} requests/s   SQL statements in each: {_statements(path, server)}")
    for name, ratios in (("token / open", pairs), ("one with itself", controls)):
        low, _, high = quantiles(ratios, n=4)
        say(f"  {name:16}{median(ratios):7.3f}              half of them within {low:.3f} to {high:.3f}")
    return pairs


def _statements(path: str, server: Server) -> int:
    """SQL statements of one request like those that were measured: the one before it was of this second too."""
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    client = Client(headers=headers, SERVER_NAME="127.0.0.1")
    with override_settings(ACCESS=server.access):
        client.get(path)
        with CaptureQueriesContext(connection) as statements:
            assert client.get(path).status_code == 200
    return len(statements)
