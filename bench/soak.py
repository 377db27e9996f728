"""Memory, descriptors and threads of web, worker and beat over time, while everything is used and servers restart.

Run: `make bench soak`, for an hour `SOAK_S=3600 make bench soak`. 300 clients of each kind (plain sockets, GraphQL
subscriptions, streams) disconnect and resume, one of 20 times from a much earlier position. 20 viewers send 20 requests
per second: lists, searches, nested GraphQL, details, and 4 writes. Reminders and summaries are due. PostgreSQL is
killed at 40 % of the time, and Redis (also the broker) at 60 %; both are started again at once. At the end, every
client's record is compared with the journal. A run from 10 minutes on draws its memory in `docs/benchmarks-soak.svg`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import psycopg2

from backend.local.console import Refusal, say
from backend.local.postgres import Postgres
from backend.local.processes import Tethered, wait_until
from backend.local.run import CHECKOUT
from backend.local.testing import throwaway_folder
from backend.local.valkey import Valkey

from .support.client import send
from .support.curves import as_svg, as_text
from .support.figures import Figure, report
from .support.listeners import KINDS, Listener
from .support.servers import Server, run_server

SOAK_S = float(os.environ.get("SOAK_S", "600"))
# Listeners of each kind.
LISTENERS = int(os.environ.get("SOAK_LISTENERS", "300"))
VIEWERS = 20
PER_S = 20.0
SAMPLE_S = 2.0
# The server reaches its full load within this time. The measurement starts after it.
WARM_S = min(120.0, SOAK_S / 3)
# Seconds at the start and at the end of the measured time, whose medians are compared.
WINDOW_S = min(30.0, SOAK_S / 6)
# Seconds after the kill of a server in which requests may fail.
OUTAGE_S = 15.0
CATCH_UP_S = 120.0
PICTURE = CHECKOUT / "docs" / "benchmarks-soak.svg"
PICTURE_MIN_S = 600.0

MAX_GROWTH = 1.05

# Log lines that the two restarts cause. No other error may be logged.
EXPECTED = {
    "web's notifications by Redis": re.compile(r"channels_redis\.pubsub: Unexpected exception in receive task"),
    "the worker's connection to the broker": re.compile(r"consumer: (Cannot connect to|Connection to broker lost)"),
    "beat's connection to the broker": re.compile(r"beat: Connection error"),
}
ERROR = re.compile(r"\b(ERROR|CRITICAL)\b|^Traceback ")


def main() -> None:
    with ExitStack() as cleanup:
        folder = cleanup.enter_context(throwaway_folder())
        postgres = cleanup.enter_context(Postgres(folder))
        valkey = cleanup.enter_context(Valkey(folder))
        postgres.keep_running()
        valkey.keep_running()
        environment = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "BROKER_URL": valkey.broker_url,
            "EMAIL_URL": f"filemail:///{folder}/outbox",
            "ACCESS": "closed",
        }
        data = _data(environment)
        server = cleanup.enter_context(run_server(**environment))
        worker = cleanup.enter_context(_celery("worker", ["--without-gossip", "--without-mingle"], folder, environment))
        beat = cleanup.enter_context(_celery("beat", ["--pidfile="], folder, environment))
        soak = Soak(server, {"web": server.pid, "worker": worker, "beat": beat}, postgres, valkey, data)
        asyncio.run(soak.run())
        logs = {"web": server.log, "worker": folder / "worker.log", "beat": folder / "beat.log"}
        soak.report({name: log.read_text(errors="replace") for name, log in logs.items()})


def _data(environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.support.soak_data", str(VIEWERS)],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise Refusal("The data of the soak could not be created.")
    data: dict[str, Any] = json.loads(done.stdout)
    return data


@contextmanager
def _celery(name: str, options: list[str], folder: Path, environment: dict[str, str]) -> Iterator[int]:
    """Run a worker or beat. Yield its process id."""
    command = [sys.executable, "-m", "celery", "--quiet", "--app", "backend", name, *options]
    with (folder / f"{name}.log").open("wb") as log:
        process = Tethered(command, cwd=CHECKOUT, env={**os.environ, **environment}, output=log)
    try:
        wait_until(lambda: bool(_children(process.pid)), timeout_s=10)
        yield _children(process.pid)[0]
    finally:
        process.stop()


class Soak:
    def __init__(
        self, server: Server, pids: dict[str, int], postgres: Postgres, valkey: Valkey, data: dict[str, Any]
    ) -> None:
        self.server = server
        self.pids = pids
        self.servers = {"PostgreSQL": (postgres, 0.4), "Redis": (valkey, 0.6)}
        self.url = postgres.url
        self.data = data
        self.random = random.Random(13)
        self.listeners: list[Listener] = []
        self.memory: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        self.descriptors: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        self.threads: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        self.killed_at: dict[str, float] = {}
        self.statuses: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.missed = 0
        self._started = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    async def run(self) -> None:
        self._started = time.monotonic()
        start = self._query("SELECT coalesce(max(position), 0) FROM projects_event")[0][0]
        tokens = self.data["tokens"]
        self.listeners = [
            kind(number, self.server.port, tokens[number % VIEWERS], start, "soak")
            for kind in KINDS
            for number in range(LISTENERS)
        ]
        listening = [asyncio.create_task(self._listen_later(listener)) for listener in self.listeners]
        try:
            await asyncio.gather(self._send_requests(), self._sample(), *map(self._kill, self.servers))
            for listener in self.listeners:
                listener.disconnects = False
            await self._compare_with_journal(start)
        finally:
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)

    async def _listen_later(self, listener: Listener) -> None:
        """Connect at a random moment of the warm-up, so that not all connect at once."""
        await asyncio.sleep(self.random.uniform(0, WARM_S / 4))
        await listener.run()

    # --- Load --------------------------------------------------------------------------------------------
    async def _send_requests(self) -> None:
        sending: set[asyncio.Task[None]] = set()
        number = 0
        while self.elapsed_s < SOAK_S:
            task = asyncio.create_task(self._send(number))
            sending.add(task)
            task.add_done_callback(sending.discard)
            number += 1
            await asyncio.sleep(max(0.0, number / PER_S - self.elapsed_s))
        await asyncio.gather(*sending)

    async def _send(self, number: int) -> None:
        began_s = self.elapsed_s
        method, path, body = self._request(number)
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.server.port}", "Accept: application/json"]
        lines += [f"Authorization: Bearer {self.data['tokens'][number % VIEWERS]}", f"Content-Length: {len(content)}"]
        lines += ["Content-Type: application/json", "Connection: close", "", ""]
        status = 0
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(30):
                status = await send(self.server.port, "\r\n".join(lines).encode() + content)
        self.statuses[status] += 1
        is_outage = any(
            killed_at - 1 <= moment <= killed_at + OUTAGE_S
            for killed_at in self.killed_at.values()
            for moment in (began_s, self.elapsed_s)
        )
        if status not in (200, 201) and not (is_outage and status != 500):
            self.failures[f"{method} {path.partition('?')[0]}: {status}"] += 1

    def _request(self, number: int) -> tuple[str, str, Any]:
        """One request of five is a write: 4 per second."""
        task, project = self.random.choice(self.data["tasks"]), self.random.choice(self.data["projects"])
        match number % 10:
            case 0:
                return "POST", f"/tasks/{task}/comments/", {"content": f"Remark {number}"}
            case 5:
                return "PATCH", f"/tasks/{task}/", {"title": f"Weed the bed {number}"}
            case 1 | 6:
                return "GET", f"/tasks/?project={project}&page_size=50", None
            case 2:
                return "GET", f"/tasks/?search=bed%20{number % 97:02}", None
            case 3 | 8:
                return "GET", f"/tasks/{task}/", None
            case 4:
                query = "{projects(first:3){nodes{name tasks(first:20){nodes{id title assignee{name}}}}}}"
                return "POST", "/graphql/", {"query": query}
            case 7:
                return "GET", "/projects/?count=1", None
            case _:
                query = "query($n: Int!){tasks(first: $n){nodes{id title status} totalCount}}"
                return "POST", "/graphql/", {"query": query, "variables": {"n": 10 + number % 37}}

    async def _kill(self, name: str) -> None:
        server, share = self.servers[name]
        await asyncio.sleep(share * SOAK_S)
        self.killed_at[name] = self.elapsed_s
        os.kill(int(server._pid_file.read_text().split()[0]), signal.SIGKILL)
        say(f"{self.killed_at[name]:.0f} s: {name} is killed")

    # --- Samples -----------------------------------------------------------------------------------------
    async def _sample(self) -> None:
        next_line_s = 0.0
        while self.elapsed_s < SOAK_S:
            now = self.elapsed_s
            for name, pid in self.pids.items():
                tree = [pid, *_descendants(pid)]
                self.memory[name].append((now, sum(map(_memory_kb, tree)) / 1024))
                self.descriptors[name].append((now, sum(map(_descriptors, tree))))
                self.threads[name].append((now, sum(map(_threads, tree))))
            if now >= next_line_s:
                next_line_s += max(10.0, SOAK_S / 20)
                memory = ", ".join(f"{name} {curve[-1][1]:.0f} MB" for name, curve in self.memory.items())
                say(f"{now:.0f} s: {memory}; web: {self.descriptors['web'][-1][1]:.0f} descriptors")
            await asyncio.sleep(SAMPLE_S)

    # --- Comparison --------------------------------------------------------------------------------------
    async def _compare_with_journal(self, start: int) -> None:
        """Wait until every record equals the journal. Queued jobs may still append events."""
        sql = "SELECT position FROM projects_event WHERE kind <> 'access.changed' AND position > %s ORDER BY position"
        deadline = time.monotonic() + CATCH_UP_S
        while True:
            journal = [position for (position,) in self._query(sql, start)]
            wrong = [listener for listener in self.listeners if listener.record != journal]
            if not wrong or time.monotonic() > deadline:
                break
            await asyncio.sleep(1)
        for listener in wrong[:5]:
            absent = sorted(set(journal) - set(listener.record))
            extra = sorted(set(listener.record) - set(journal))
            say(f"{type(listener).__name__} {listener.number} lacks {absent[:5]}; {extra[:5]} are not in the journal")
        self.missed = len(wrong)
        say(f"{len(journal)} events, {sum(listener.connections for listener in self.listeners)} connections")

    def _query(self, sql: str, *parameters: Any) -> list[Any]:
        connection = psycopg2.connect(self.url)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall()
        finally:
            connection.close()

    # --- Figures -----------------------------------------------------------------------------------------
    def report(self, logs: dict[str, str]) -> None:
        for name, curve in self.memory.items():
            say(f"{name:6} {as_text(curve)} {max(value for _, value in curve):.0f} MB at most")
        minutes = f"{SOAK_S / 60:.0f} min" if SOAK_S >= 60 else f"{SOAK_S:.0f} s"
        for name, pid in self.pids.items():
            if not _threads(pid):
                say(logs[name][-3000:])
                raise Refusal(f"{name} has ended; the end of its log is above.")
            for what, curves in (
                ("memory", self.memory),
                ("descriptors", self.descriptors),
                ("threads", self.threads),
            ):
                ratio = _growth(curves[name])
                report(Figure(f"{name}: {what} at the end / after the start, {minutes}", ratio, "", MAX_GROWTH, True))
        client_errors = [error for listener in self.listeners for error in listener.errors]
        for error, count in Counter(client_errors).most_common(5):
            say(f"{count} times: {error[:200]}")
        for failure, count in self.failures.most_common(5):
            say(f"{count} times: {failure}")
        report(Figure(f"clients with a missed or repeated event, of {len(self.listeners):,}", self.missed, "", 0, True))
        report(Figure("errors that clients received", len(client_errors), "", 0, True))
        report(Figure("requests that failed outside of the restarts", self.failures.total(), "", 0, True))
        errors = [f"{name}: {line}" for name, log in logs.items() for line in _errors(log)]
        for line, count in Counter(errors).most_common(10):
            say(f"{count} times: {line[:300]}")
        report(Figure("unexpected error lines in the logs", len(errors), "", 0, True))
        [[reminders]] = self._query("SELECT count(*) FROM projects_reminder")
        report(Figure("reminders by worker and beat", reminders))
        if SOAK_S >= PICTURE_MIN_S:
            marks = {f"{name} is killed": at for name, at in self.killed_at.items()}
            PICTURE.write_text(as_svg(f"Resident memory over {minutes} (make bench soak)", "MB", self.memory, marks))
            say(f"The curve is written to {PICTURE.relative_to(CHECKOUT)}.")


def _growth(curve: list[tuple[float, float]]) -> float:
    first = [value for at, value in curve if WARM_S <= at <= WARM_S + WINDOW_S]
    last = [value for at, value in curve if at >= SOAK_S - WINDOW_S]
    return median(last) / median(first)


def _errors(log: str) -> list[str]:
    lines = [line for line in log.splitlines() if ERROR.search(line)]
    return [line for line in lines if not any(pattern.search(line) for pattern in EXPECTED.values())]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    children = _children(pid)
    return children + [grandchild for child in children for grandchild in _descendants(child)]


def _memory_kb(pid: int) -> int:
    return _status(pid, "VmRSS")


def _threads(pid: int) -> int:
    return _status(pid, "Threads")


def _status(pid: int, name: str) -> int:
    try:
        found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
