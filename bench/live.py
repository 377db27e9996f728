"""What live delivery costs, against the smallest application that tells as many sockets the same.

Run: `make bench live`. The bare application (`bench/support/bare.py`) and the product run in a process each, on the
same server; their clients are in this process, on the same machine. A round is a few changes, one after another, each
timed from its commit (of the bare application: from telling it) until the last socket has heard it. Rounds alternate;
a figure is the product's best of three against the bare application's. The product is in closed mode, its listeners are
users with a token each. Memory is that of processes which have served nobody before.
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

from .support import servers  # first: it makes Django ready
from .support.figures import Figure, report
from .support.sockets import Crowd, Socket

from backend.projects import access, notifier, services  # isort:skip
from backend.projects.models import Event, Scope, User  # isort:skip

ROUNDS = 3
# One after another, in each round.
CHANGES = 10
USERS = 25
SOCKETS, SUBSCRIPTIONS = 1500, 500
LATENCY_CHANGES = 200
CAUGHT_UP = 10_000
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
    """As many as there are subscriptions, each with other fields; on average they ask for as much as `DOCUMENT`."""
    chosen = [[name for bit, name in enumerate(FIELDS) if number >> bit & 1] for number in range(1, SUBSCRIPTIONS + 1)]
    return [DOCUMENT.replace("title status dueDate updatedAt version", " ".join(names)) for names in chosen]


class Bench:
    """The two servers, and the task that is changed."""

    def __init__(self, bare: servers.Server, product: servers.Server, tokens: list[str], task_id: int) -> None:
        self.bare, self.product = bare, product
        self._tokens = tokens
        self._task_id = task_id
        self._changes = 0

    # -- What happens --
    def change(self) -> float:
        """Change the task; the `time.perf_counter()` of the commit."""
        self._changes += 1
        committed: list[float] = []
        with transaction.atomic():
            # Before whatever else follows the commit.
            transaction.on_commit(lambda: committed.append(time.perf_counter()))
            services.task.update_task(
                actor=access.SYSTEM, task_id=self._task_id, changes={"title": f"Weed the bed {self._changes}"}
            )
        return committed[0]

    def change_often(self, times: int) -> None:
        """The newest event again and again, faster than a service would write it."""
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

    # -- Who hears it --
    async def listeners(self, crowd: Crowd, count: int) -> None:
        ready = crowd.awaits(count)
        await _in_turn(count, lambda n: crowd.join("/ws/notifications/", token=self.token(n)))
        await ready

    async def subscriptions(self, crowd: Crowd, documents: list[str]) -> None:
        async def subscribe(n: int) -> None:
            socket = await crowd.join("/graphql/", token=self.token(n), subprotocol=PROTOCOL)
            acknowledged = crowd.awaits(1)
            socket.send('{"type":"connection_init"}')
            await acknowledged
            payload = {"query": documents[n], "variables": {"kinds": ["TASK_UPDATED"]}}
            socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))

        for n in range(len(documents)):
            await subscribe(n)
        # It is not told when a subscription has begun: changes until everybody hears one.
        while True:
            heard = crowd.awaits(len(documents))
            await asyncio.to_thread(self.change)
            try:
                async with asyncio.timeout(2):
                    await heard
                return
            except TimeoutError:
                continue

    def token(self, number: int) -> str:
        return self._tokens[number % len(self._tokens)]


async def _in_turn(count: int, connect: Callable[[int], Awaitable[Socket]]) -> None:
    for first in range(0, count, 20):
        await asyncio.gather(*(connect(n) for n in range(first, min(first + 20, count))))


# --- Fan-out ---------------------------------------------------------------------------------------------
async def rate_of(crowd: Crowd, change: Callable[[], Awaitable[float]]) -> float:
    """Messages per second of one round."""
    took = 0.0
    for _ in range(CHANGES):
        heard = crowd.awaits(len(crowd.sockets))
        started = await change()
        async with asyncio.timeout(TIMEOUT_S):
            took += await heard - started
    return CHANGES * len(crowd.sockets) / took


@asynccontextmanager
async def bare_crowd(bench: Bench, count: int) -> AsyncIterator[tuple[Crowd, Callable[[str], float]]]:
    """So many sockets of the bare application, and what tells it something."""
    async with Crowd(bench.bare.port) as crowd, Crowd(bench.bare.port) as teller:
        await _in_turn(count, lambda _: crowd.join("/"))
        socket = await teller.join("/tell")

        def tell(text: str) -> float:
            started = time.perf_counter()
            socket.send(text)
            return started

        yield crowd, tell


async def fan_out(bench: Bench, name: str, goal: float, count: int, listen: Callable[[Crowd], Awaitable[None]]) -> None:
    async with Crowd(bench.product.port) as crowd, bare_crowd(bench, count) as (bare, tell):
        await listen(crowd)
        await rate_of(crowd, lambda: asyncio.to_thread(bench.change))  # a first round, not counted
        text = crowd.last.decode()

        async def told() -> float:
            return tell(text)

        await rate_of(bare, told)
        rates, references = [], []
        for _ in range(ROUNDS):
            references.append(await rate_of(bare, told))
            rates.append(await rate_of(crowd, lambda: asyncio.to_thread(bench.change)))
    report(Figure(f"{name}, product / bare", max(rates) / max(references), goal=goal))
    for who, all_rates in (("product", rates), ("bare", references)):
        say(f"    {who:8} messages/s: " + ", ".join(f"{rate:,.0f}" for rate in all_rates))


# --- One listener ----------------------------------------------------------------------------------------
async def latency(bench: Bench) -> None:
    medians = []
    async with Crowd(bench.product.port) as crowd:
        await bench.listeners(crowd, 1)
        for _ in range(ROUNDS):
            took = []
            for _ in range(LATENCY_CHANGES):
                heard = crowd.awaits(1)
                committed = await asyncio.to_thread(bench.change)
                took.append((await heard - committed) * 1000)
            medians.append(median(took))
    report(Figure("commit to first listener, median", min(medians), "ms", goal=10, is_cost=True))


async def catching_up(bench: Bench) -> None:
    """One socket, from `after` so many events back."""
    await asyncio.to_thread(bench.change_often, CAUGHT_UP)
    after = await asyncio.to_thread(Event.head) - CAUGHT_UP
    rates = []
    for _ in range(ROUNDS):
        async with Crowd(bench.product.port) as crowd:
            heard = crowd.awaits(1 + CAUGHT_UP)
            started = time.perf_counter()
            await crowd.join(f"/ws/notifications/?after={after}", token=bench.token(0))
            async with asyncio.timeout(TIMEOUT_S):
                rates.append(CAUGHT_UP / (await heard - started))
    report(Figure(f"{CAUGHT_UP:,} events caught up on one socket", max(rates), "events/s", goal=20_000))


# --- Memory ----------------------------------------------------------------------------------------------
async def memory(bench: Bench, join: Callable[[Crowd], Awaitable[None]]) -> float:
    """KB per socket of the product beyond one of the bare application."""

    async def grown_kb(server: servers.Server, join: Callable[[Crowd], Awaitable[None]]) -> float:
        async with Crowd(server.port) as crowd:
            before = server.memory_kb
            await join(crowd)
            return (server.memory_kb - before) / len(crowd.sockets)

    bare = await grown_kb(bench.bare, lambda crowd: _in_turn(SOCKETS, lambda _: crowd.join("/")))
    return await grown_kb(bench.product, join) - bare


# --- All of it -------------------------------------------------------------------------------------------
async def measure(bench: Bench) -> None:
    await latency(bench)
    await fan_out(
        bench, f"one change to {SOCKETS:,} sockets", 0.8, SOCKETS, lambda crowd: bench.listeners(crowd, SOCKETS)
    )
    await catching_up(bench)
    for name, goal, asked in (
        ("the same document", 0.6, [DOCUMENT] * SUBSCRIPTIONS),
        ("a document each", 0.3, documents()),
    ):
        await fan_out(
            bench,
            f"one change to {SUBSCRIPTIONS} subscriptions, {name}",
            goal,
            SUBSCRIPTIONS,
            lambda crowd, asked=asked: bench.subscriptions(crowd, asked),
        )


def main() -> None:
    with servers.database("live") as database_url:
        tokens, task_id = _fill()

        @contextmanager
        def both() -> Iterator[Bench]:
            with (
                servers.served(ACCESS="closed", DATABASE_URL=database_url) as product,
                servers.served("bench.support.bare") as bare,
            ):
                yield Bench(bare, product, tokens, task_id)

        with both() as bench:
            asyncio.run(measure(bench))
        with both() as bench:
            beyond = asyncio.run(memory(bench, lambda crowd: bench.listeners(crowd, SOCKETS)))
            report(Figure("memory of an idle socket beyond bare's", beyond, "KB", goal=40, is_cost=True))
        with both() as bench:
            asked = [DOCUMENT] * SOCKETS
            beyond = asyncio.run(memory(bench, lambda crowd: bench.subscriptions(crowd, asked)))
            report(Figure("the same of one with a subscription", beyond, "KB"))


def _fill() -> tuple[list[str], int]:
    """A token of each of the users, and the task that all of them see."""
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
