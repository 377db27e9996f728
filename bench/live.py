"""The cost of live delivery, relative to a minimal application that sends the same message to as many sockets.

Run: `make bench live`. The bare application (`bench/support/bare.py`) and the product run in one process each, on the
same server; their clients are in this process, on the same machine. A round is a few changes, one after another, each
timed from its commit (bare application: from sending its message) until the last socket has received it. Rounds
alternate; a figure is the ratio of the product's best of three to the bare application's. The product is in closed
mode, and its listeners are users with a token each. Memory is measured in processes that have had no clients before.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from statistics import median

from django.db import connection, transaction

from backend.local.console import say

from .support import servers  # first: it sets up Django
from .support.figures import Figure, report
from .support.sockets import Socket, SocketGroup

from backend.projects import access, notifier, services  # isort:skip
from backend.projects.models import Event, Scope, User  # isort:skip

ROUNDS = 3
# Changes per round.
CHANGES = 10
USERS = 25
SOCKETS, SUBSCRIPTIONS = 1500, 500
HANDSHAKES_AT_ONCE = 20
LATENCY_CHANGES = 200
CATCH_UP_EVENTS = 10_000
TIMEOUT_S = 60.0

PROTOCOL = "graphql-transport-ws"
DOCUMENT = """subscription Changes($kinds: [EventKind!]) {
  events(kinds: $kinds) {
    cursor kind at actor { name }
    ... on TaskUpdated { changes task { id title status dueDate updatedAt version } }
  }
}"""
FIELDS = [
    "title",
    "status",
    "dueDate",
    "updatedAt",
    "createdAt",
    "version",
    "description",
    "again: title",
    "on: dueDate",
]


def documents() -> list[str]:
    """One per subscription, each with different fields. On average they select as many fields as `DOCUMENT`."""
    chosen = [[name for bit, name in enumerate(FIELDS) if number >> bit & 1] for number in range(1, SUBSCRIPTIONS + 1)]
    return [DOCUMENT.replace("title status dueDate updatedAt version", " ".join(names)) for names in chosen]


class Bench:
    """The two servers, and the task that is changed."""

    def __init__(self, bare: servers.Server, product: servers.Server, tokens: list[str], task_id: int) -> None:
        self.bare, self.product = bare, product
        self._tokens = tokens
        self._task_id = task_id
        self._changes = 0

    # -- Changes --
    def change(self) -> float:
        """Change the task. Return the `time.perf_counter()` of the commit."""
        self._changes += 1
        committed: list[float] = []
        with transaction.atomic():
            # Registered first, so it runs before the other commit hooks.
            transaction.on_commit(lambda: committed.append(time.perf_counter()))
            services.task.update_task(
                actor=access.SYSTEM, task_id=self._task_id, changes={"title": f"Weed the bed {self._changes}"}
            )
        return committed[0]

    def append_copies(self, times: int) -> None:
        """Append copies of the newest event, faster than a service would write them."""
        table = Event._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute(
                f"""INSERT INTO {table}
                    (position, kind, project_id, task_id, actor_id, actor_name, at, payload, audience)
                SELECT position + n, kind, project_id, task_id, actor_id, actor_name, at, payload, audience
                  FROM {table}, generate_series(1, %s) n WHERE position = (SELECT max(position) FROM {table})""",
                [times],
            )
        notifier.notify()

    # -- Listeners --
    async def listeners(self, group: SocketGroup, count: int) -> None:
        ready = group.expect(count)
        await _in_batches(count, lambda n: group.join("/ws/notifications/", token=self.token(n)))
        await ready

    async def subscriptions(self, group: SocketGroup, documents: list[str]) -> None:
        async def subscribe(n: int) -> None:
            socket = await group.join("/graphql/", token=self.token(n), subprotocol=PROTOCOL)
            acknowledged = group.expect(1)
            socket.send('{"type":"connection_init"}')
            await acknowledged
            payload = {"query": documents[n], "variables": {"kinds": ["TASK_UPDATED"]}}
            socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))

        for n in range(len(documents)):
            await subscribe(n)
        # The protocol does not report the start of a subscription: make changes until all subscriptions receive one.
        while True:
            received = group.expect(len(documents))
            await asyncio.to_thread(self.change)
            try:
                async with asyncio.timeout(2):
                    await received
                return
            except TimeoutError:
                continue

    def token(self, number: int) -> str:
        return self._tokens[number % len(self._tokens)]


async def _in_batches(count: int, connect: Callable[[int], Awaitable[Socket]]) -> None:
    for first in range(0, count, HANDSHAKES_AT_ONCE):
        await asyncio.gather(*(connect(n) for n in range(first, min(first + HANDSHAKES_AT_ONCE, count))))


# --- Fan-out ---------------------------------------------------------------------------------------------
async def rate_of(group: SocketGroup, change: Callable[[], Awaitable[float]]) -> float:
    """Messages per second of one round."""
    took = 0.0
    for _ in range(CHANGES):
        received = group.expect(len(group.sockets))
        started = await change()
        async with asyncio.timeout(TIMEOUT_S):
            took += await received - started
    return CHANGES * len(group.sockets) / took


@asynccontextmanager
async def bare_group(bench: Bench, count: int) -> AsyncIterator[tuple[SocketGroup, Callable[[str], float]]]:
    """`count` sockets of the bare application, and a function that sends a message to all of them."""
    async with SocketGroup(bench.bare.port) as group, SocketGroup(bench.bare.port) as sender:
        await _in_batches(count, lambda _: group.join("/"))
        socket = await sender.join("/send")

        def send(text: str) -> float:
            started = time.perf_counter()
            socket.send(text)
            return started

        yield group, send


async def fan_out(
    bench: Bench, name: str, goal: float, count: int, listen: Callable[[SocketGroup], Awaitable[None]]
) -> None:
    async with SocketGroup(bench.product.port) as group, bare_group(bench, count) as (bare, send):
        await listen(group)
        await rate_of(group, lambda: asyncio.to_thread(bench.change))  # warm-up
        text = group.last.decode()

        async def send_text() -> float:
            return send(text)

        await rate_of(bare, send_text)
        rates, references = [], []
        for _ in range(ROUNDS):
            references.append(await rate_of(bare, send_text))
            rates.append(await rate_of(group, lambda: asyncio.to_thread(bench.change)))
    report(Figure(f"{name}, product / bare", max(rates) / max(references), goal=goal))
    for label, all_rates in (("product", rates), ("bare", references)):
        say(f"    {label:8} messages/s: " + ", ".join(f"{rate:,.0f}" for rate in all_rates))


# --- One listener ----------------------------------------------------------------------------------------
async def latency(bench: Bench) -> None:
    medians = []
    async with SocketGroup(bench.product.port) as group:
        await bench.listeners(group, 1)
        for _ in range(ROUNDS):
            took = []
            for _ in range(LATENCY_CHANGES):
                received = group.expect(1)
                committed = await asyncio.to_thread(bench.change)
                took.append((await received - committed) * 1000)
            medians.append(median(took))
    report(Figure("commit to first listener, median", min(medians), "ms", goal=10, is_cost=True))


async def catching_up(bench: Bench) -> None:
    """One socket that reads `CATCH_UP_EVENTS` events from `after`."""
    await asyncio.to_thread(bench.append_copies, CATCH_UP_EVENTS)
    after = await asyncio.to_thread(Event.head) - CATCH_UP_EVENTS
    rates = []
    for _ in range(ROUNDS):
        async with SocketGroup(bench.product.port) as group:
            received = group.expect(1 + CATCH_UP_EVENTS)
            started = time.perf_counter()
            await group.join(f"/ws/notifications/?after={after}", token=bench.token(0))
            async with asyncio.timeout(TIMEOUT_S):
                rates.append(CATCH_UP_EVENTS / (await received - started))
    report(Figure(f"{CATCH_UP_EVENTS:,} events caught up on one socket", max(rates), "events/s", goal=20_000))


# --- Memory ----------------------------------------------------------------------------------------------
async def memory(bench: Bench, join: Callable[[SocketGroup], Awaitable[None]]) -> float:
    """Memory per socket of the product minus that of the bare application, in KB."""

    async def growth_kb(server: servers.Server, join: Callable[[SocketGroup], Awaitable[None]]) -> float:
        async with SocketGroup(server.port) as group:
            before = server.memory_kb
            await join(group)
            return (server.memory_kb - before) / len(group.sockets)

    bare = await growth_kb(bench.bare, lambda group: _in_batches(SOCKETS, lambda _: group.join("/")))
    return await growth_kb(bench.product, join) - bare


# --- The benchmark ---------------------------------------------------------------------------------------
async def measure(bench: Bench) -> None:
    await latency(bench)
    await fan_out(
        bench, f"one change to {SOCKETS:,} sockets", 0.8, SOCKETS, lambda group: bench.listeners(group, SOCKETS)
    )
    await catching_up(bench)
    for name, goal, queries in (
        ("the same document", 0.6, [DOCUMENT] * SUBSCRIPTIONS),
        ("a document each", 0.3, documents()),
    ):
        await fan_out(
            bench,
            f"one change to {SUBSCRIPTIONS} subscriptions, {name}",
            goal,
            SUBSCRIPTIONS,
            lambda group, queries=queries: bench.subscriptions(group, queries),
        )


def main() -> None:
    with servers.database("live") as database_url:
        tokens, task_id = _fill()

        @contextmanager
        def both_servers() -> Iterator[Bench]:
            with (
                servers.run_server(ACCESS="closed", DATABASE_URL=database_url) as product,
                servers.run_server("bench.support.bare") as bare,
            ):
                yield Bench(bare, product, tokens, task_id)

        with both_servers() as bench:
            asyncio.run(measure(bench))
        with both_servers() as bench:
            extra_kb = asyncio.run(memory(bench, lambda group: bench.listeners(group, SOCKETS)))
            report(Figure("memory of an idle socket, product - bare", extra_kb, "KB", goal=40, is_cost=True))
        with both_servers() as bench:
            queries = [DOCUMENT] * SOCKETS
            extra_kb = asyncio.run(memory(bench, lambda group: bench.subscriptions(group, queries)))
            report(Figure("memory of a socket with a subscription, product - bare", extra_kb, "KB"))


def _fill() -> tuple[list[str], int]:
    """Return a token of each user, and the id of a task that all of them can read."""
    project = services.project.create_project(actor=access.SYSTEM, name="Garden")
    tokens = []
    for number in range(USERS):
        user = User(username=f"bench-{number}")
        user.set_unusable_password()
        services.user.save_user(actor=access.SYSTEM, user=user)
        services.membership.add_member(actor=access.SYSTEM, project_id=project.pk, username=user.username)
        _, token = services.token.create_token(
            actor=access.SYSTEM, user_id=user.pk, name="bench", scope=Scope.READ, days=1
        )
        tokens.append(token)
    task = services.task.create_task(
        actor=access.SYSTEM,
        project_id=project.pk,
        changes={"title": "Weed", "description": "As drawn. " * 10, "due_date": datetime(2030, 1, 1, tzinfo=UTC)},
    )
    return tokens, task.pk
