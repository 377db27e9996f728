"""The cost of authentication: requests per second of a list that is read with a token, relative to open mode.

Run: `make bench access`. Two servers that differ only in `ACCESS` return the same tasks, from a database that is
created for this and dropped at the end. They are measured in turn, in many short rounds: open, token, token, open,
open, token ... Two adjacent rounds of different servers are a pair, and the figure is the median of the pairs' ratios:
other load on the machine affects both rounds of a pair. Two adjacent rounds of one server are the control: their ratios
show the noise that remains.
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

from .support import rows, servers  # first: it sets up Django
from .support.figures import Figure, report

from backend.projects.models import Scope  # isort:skip

GOAL = 0.90
PROJECTS, TASKS_EACH = 5, 100

CONNECTIONS = 4
WARM_UP_S = 1.0
ROUND_S = 0.1
# Repetitions of the four rounds: open, token, token, open.
TURNS = 28

# Far more than a response takes.
RESPONSE_TIMEOUT_S = 20.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def main() -> None:
    with ExitStack() as cleanup:
        database_url = cleanup.enter_context(servers.database("access"))
        project_ids, token = rows.fill(PROJECTS, TASKS_EACH, Scope.READ)
        open_mode = cleanup.enter_context(_run_server("open", database_url))
        by_token = cleanup.enter_context(_run_server("closed", database_url, token))
        pairs = _measure(f"/tasks/?project={project_ids[0]}", open_mode, by_token)
        pairs += _measure("/tasks/", open_mode, by_token)
    report(Figure("token / open, of both lists", median(pairs), goal=GOAL))


# --- Servers ---------------------------------------------------------------------------------------------
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
def _run_server(access_mode: str, database_url: str, token: str | None = None) -> Iterator[Server]:
    environment = {
        "ACCESS": access_mode,
        "BENCH_PREFIX": f"{servers.PREFIX}-{access_mode}",
        "DATABASE_URL": database_url,
    }
    with servers.run_server(**environment) as process:
        yield Server(access_mode, token, process)


# --- Clients ---------------------------------------------------------------------------------------------
class Reader:
    """Keep-alive connections to one server, on which one list is read repeatedly."""

    def __init__(self, server: Server, path: str) -> None:
        self._server = server
        self._path = path
        self._request = server.request(path)
        self._connections: list[Streams] = []

    async def connect(self) -> None:
        for _ in range(CONNECTIONS):
            self._connections.append(await asyncio.open_connection("127.0.0.1", self._server.process.port))

    async def get(self) -> bytes:
        return await self._get(*self._connections[0])

    async def rate(self, seconds: float, expected: bytes) -> float:
        """Requests per second of one round. Raises Refusal if the body of a response is not `expected`."""

        async def request_until(end: float, streams: Streams) -> int:
            responses = 0
            while not responses or time.perf_counter() < end:
                if await self._get(*streams) != expected:
                    raise Refusal(f"{self._description} returned other bytes than the first response.")
                responses += 1
            return responses

        async def request_on_all(seconds: float) -> int:
            end = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(request_until(end, streams) for streams in self._connections)))

        try:
            async with asyncio.timeout(seconds + RESPONSE_TIMEOUT_S):
                # The first responses after a round of the other server are slower.
                await request_on_all(0)
                started = time.perf_counter()
                responses = await request_on_all(seconds)
                return responses / (time.perf_counter() - started)
        except (OSError, EOFError) as error:
            raise Refusal(f"{self._server.process.log_end}\n{self._description} got no response ({error!r}).") from None

    def close(self) -> None:
        for _, writer in self._connections:
            writer.close()

    async def _get(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].decode()
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if status != "HTTP/1.1 200 OK" or length is None:
            raise Refusal(f"{self._description} got the response {status}: {body[:300].decode(errors='replace')}")
        return body

    @property
    def _description(self) -> str:
        return f"GET {self._path} with ACCESS={self._server.access}"


async def _rates(path: str, servers: list[Server]) -> list[float]:
    """The rate of one round of each of `servers`, in this order. Every response must equal the first one."""
    readers = {server: Reader(server, path) for server in servers}
    try:
        for reader in readers.values():
            await reader.connect()
        expected = await readers[servers[0]].get()
        rows = len(json.loads(expected))
        if rows != TASKS_EACH:
            raise Refusal(f"GET {path} has {rows} rows instead of {TASKS_EACH}.")
        for reader in readers.values():
            await reader.rate(WARM_UP_S, expected)
        return [await readers[server].rate(ROUND_S, expected) for server in servers]
    finally:
        for reader in readers.values():
            reader.close()


# --- Results ---------------------------------------------------------------------------------------------
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
        rate = median(rate for measured, rate in rounds if measured is server)
        say(f"  {name:16}{rate:7.0f} requests/s   SQL statements in each: {_statements(path, server)}")
    for name, ratios in (("token / open", pairs), ("control", controls)):
        low, _, high = quantiles(ratios, n=4)
        say(f"  {name:16}{median(ratios):7.3f}              half of them within {low:.3f} to {high:.3f}")
    return pairs


def _statements(path: str, server: Server) -> int:
    """The number of SQL statements of a request. Like every measured request, it follows another within a second."""
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    client = Client(headers=headers, SERVER_NAME="127.0.0.1")
    with override_settings(ACCESS=server.access):
        client.get(path)
        with CaptureQueriesContext(connection) as statements:
            assert client.get(path).status_code == 200
    return len(statements)
