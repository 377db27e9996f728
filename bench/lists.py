"""What lists, one task and a new task cost, against a bare ASGI application and against the stock way of doing them.

Run: `make bench lists`. Two servers at a time are asked by 16 kept-alive connections each, on this machine, in turn:
ours, the other, ours, the other ...; a figure is our best of three rounds against the other's. The status of every
answer is checked, and its body against that of the first.

The bare application (`bench/support/bare_list.py`) answers each request with one GET from Redis, of the bytes that our
`GET /tasks/` has. The stock twins (`bench/stock/`) are a `ModelViewSet` of DRF, and the type, list and mutation that
strawberry-django makes of a model, on the same database. They ask nobody who they are; nor do we where a list is
compared with theirs. All else that is ours is asked for by token, in closed mode, by an editor of five projects, and
those lists once more, which is the harder way for us. "Uncached" is with CACHE_LIST_S=0: nothing is filed, and every
answer has read its rows, which PostgreSQL's own statistics are asked to confirm. Django's handler has the product's
settings, but no connection that lasts, as is its default. All run on the same server, `backend.server`: on daphne, and
on uvicorn.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from dataclasses import dataclass

import orjson
from django.db import connection
from django_redis import get_redis_connection

from backend.local.console import Refusal, say

from .support import rows, servers
from .support.figures import Figure, report
from .support.load import CONNECTIONS, Load, request

from backend.projects.models import Scope, Task  # isort:skip

PROJECTS, TASKS_EACH = 5, 100
PAGE = 100
ROUNDS = 3
ROUND_S = 1.5
WARM_UP_S = 0.7
# A round for PostgreSQL to tell of.
STATISTICS_S = 2.0

FIELDS = "id title description status dueDate createdAt version project { id name }"
OURS = f"{{ tasks(first: {PAGE}) {{ nodes {{ {FIELDS} }} }} }}"
STOCK = f"{{ tasks(pagination: {{limit: {PAGE}}}) {{ {FIELDS} }} }}"
NEW_TITLE = "Build one more"
CREATED = "id title status dueDate version"
OUR_CREATE = f"""mutation ($input: CreateTaskInput!) {{
  createTask(input: $input) {{ ... on Task {{ {CREATED} }} ... on OperationInfo {{ messages {{ code }} }} }}
}}"""
STOCK_CREATE = f"mutation ($input: TaskInput!) {{ createTask(data: $input) {{ {CREATED} }} }}"


def main() -> None:
    with servers.database("lists") as database_url:
        project_ids, token = rows.fill(PROJECTS, TASKS_EACH, Scope.WRITE)
        for server in ("daphne", "uvicorn"):
            with ExitStack() as cleanup:
                Bench(server, database_url, project_ids[-1], token, cleanup).measure()


@dataclass
class Bench:
    """One kind of server, and who asks for what."""

    server: str
    database_url: str
    project_id: int
    token: str
    cleanup: ExitStack

    def measure(self) -> None:
        say(f"{self.server}, {CONNECTIONS} connections, best of {ROUNDS} rounds of {ROUND_S} s")
        self.measure_cached()
        self.measure_uncached()
        self.measure_creation()

    # -- Against the bare application --
    def measure_cached(self) -> None:
        ours = self.product("cached")
        first = Load(ours, self.asking(ours, "/tasks/"))
        asyncio.run(_rates(first, seconds=0, rounds=1))
        etag = re.search(rb"(?i)\r\netag: *(.+?)\r\n", first.head)
        assert etag is not None
        key = f"{servers.PREFIX}-bare"
        get_redis_connection("default").set(key, first.body)
        bare = self.served("bench.support.bare_list", BARE_KEY=key)

        def against_bare(name: str, goal: float, load: Load) -> None:
            self.compare(f"cached {name} / bare", goal, load, Load(bare, request(bare, "/")))
            _require_page(load)

        say(f"a page of {PAGE} tasks: {len(first.body):,} bytes")
        against_bare("GET /tasks/", 0.8, Load(ours, first.request))
        held = request(ours, "/tasks/", token=self.token, if_none_match=etag[1].decode())
        against_bare("GET /tasks/ with a matching If-None-Match", 1.0, Load(ours, held, status=304))
        against_bare("GraphQL tasks, 7 fields and the project", 0.65, Load(ours, self.asking(ours, "/graphql/", OURS)))
        self.cleanup.close()

    # -- Against the stock way --
    def measure_uncached(self) -> None:
        stock, ours = self.stock(), self.product("uncached", CACHE_LIST_S="0")
        unasked = self.product("unasked", CACHE_LIST_S="0", ACCESS="open")
        graphql, by_stock = orjson.dumps({"query": OURS}), orjson.dumps({"query": STOCK})
        pairs = {
            ("GraphQL tasks / strawberry-django", 2.5): (
                Load(unasked, request(unasked, "/graphql/", json=graphql)),
                Load(ours, self.asking(ours, "/graphql/", OURS)),
                Load(stock, request(stock, "/graphql/", json=by_stock)),
            ),
            ("GET /tasks/ / DRF", 3.0): (
                Load(unasked, request(unasked, "/tasks/")),
                Load(ours, self.asking(ours, "/tasks/")),
                Load(stock, request(stock, "/tasks/")),
            ),
        }
        for (name, goal), (open_to_all, by_token, other) in pairs.items():
            self.compare(f"uncached {name}", goal, open_to_all, other, reads=True)
            self.compare(f"uncached {name}, ours by token", goal, by_token, other, reads=True)
        if len({_require_page(load) for loads in pairs.values() for load in loads}) != 1:
            raise Refusal("The stock twins and the product did not show the same tasks.")
        by_django = {"DJANGO_SETTINGS_MODULE": "bench.stock.product", "CACHE_LIST_S": "0"}
        handled = self.product("handled", "bench.stock.server", **by_django)
        path = f"/tasks/{Task.objects.latest('pk').pk}/"
        self.compare(
            "uncached GET of one task / the same view by Django's ASGI handler",
            1.5,
            Load(ours, self.asking(ours, path)),
            Load(handled, self.asking(handled, path)),
            reads=True,
        )
        self.cleanup.close()

    def measure_creation(self) -> None:
        ours, stock = self.product("writing"), self.stock()
        new = {"title": NEW_TITLE, "description": "As drawn. " * 10, "dueDate": "2030-01-01T12:00:00Z"}
        by_stock = {"query": STOCK_CREATE, "variables": {"input": {"project": {"set": str(self.project_id)}, **new}}}
        by_us = self.asking(ours, "/graphql/", OUR_CREATE, projectId=self.project_id, **new)
        loads = [
            Load(ours, by_us, check=_is_new_task),
            Load(stock, request(stock, "/graphql/", json=orjson.dumps(by_stock)), check=_is_new_task),
        ]
        self.compare("createTask / strawberry-django", 0.7, *loads)
        made = Task.objects.filter(title=NEW_TITLE)
        if made.count() != sum(load.answers for load in loads):
            raise Refusal(f"{made.count()} tasks were made, and {[load.answers for load in loads]} were answered.")
        made.delete()
        self.cleanup.close()

    def compare(self, name: str, goal: float, ours: Load, other: Load, *, reads: bool = False) -> None:
        """`reads` says that ours is to read the table of tasks for each answer."""
        if reads:
            _require_reads(ours, name)
        rates = asyncio.run(_rates(ours, other, seconds=ROUND_S))
        best, reference = map(max, rates)
        report(Figure(f"{name} ({self.server})", best / reference, goal=goal))
        for who, of_rounds in zip(("ours", "other"), rates, strict=True):
            say(f"    {who:6}answers/s: " + ", ".join(f"{rate:,.0f}" for rate in of_rounds))

    # -- Servers --
    def served(self, module: str, **environment: str) -> servers.Server:
        given = {"SERVER": self.server, "DATABASE_URL": self.database_url, **environment}
        return self.cleanup.enter_context(servers.served(module, **given))

    def product(self, name: str, module: str = "backend.server", **environment: str) -> servers.Server:
        prefix = f"{servers.PREFIX}-{self.server}-{name}"
        return self.served(module, **{"ACCESS": "closed", "BENCH_PREFIX": prefix, **environment})

    def stock(self) -> servers.Server:
        return self.served("bench.stock.server", DJANGO_SETTINGS_MODULE="bench.stock.settings")

    def asking(self, server: servers.Server, path: str, query: str | None = None, **variables: object) -> bytes:
        """By token; a `query` is posted, with the `variables` as its input."""
        if query is None:
            return request(server, path, token=self.token)
        operation = {"query": query, **({"variables": {"input": variables}} if variables else {})}
        return request(server, path, token=self.token, json=orjson.dumps(operation))


async def _rates(*loads: Load, seconds: float, rounds: int = ROUNDS) -> list[list[float]]:
    """Answers per second of each load's rounds; the rounds of all alternate."""
    try:
        for load in loads:
            await load.connect()
            await load.rate(min(WARM_UP_S, seconds))
        rates = [[await load.rate(seconds) for load in loads] for _ in range(rounds)]
        return [list(of_load) for of_load in zip(*rates, strict=True)]
    finally:
        for load in loads:
            load.close()


def _require_page(load: Load) -> tuple[bytes, ...]:
    """The ids of the tasks in the first answer. Raises Refusal where it has a body without a full page."""
    ids = tuple(re.findall(rb'"id": ?"?(\d+)"?, ?"(?:title|project)"', load.body))
    if len(ids) != PAGE and load.has_body:
        raise Refusal(f"{PAGE} tasks were to be read, and not: {load.body[:300].decode(errors='replace')}")
    return ids


def _is_new_task(body: bytes) -> bool:
    return NEW_TITLE.encode() in body and b'"errors"' not in body


def _require_reads(load: Load, name: str) -> None:
    """Raises Refusal where the tasks are not searched for each answer."""
    before = _searches()
    asyncio.run(_rates(load, seconds=STATISTICS_S, rounds=1))
    # What was searched in the last second is not told yet.
    if _searches() - before < load.answers / 3:
        raise Refusal(f"{name}: {load.answers} answers, and {_searches() - before} searches of the tasks.")


def _searches() -> int:
    """How often PostgreSQL has searched the table of tasks, as its processes tell every second or so."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = %s", [Task._meta.db_table]
        )
        [found] = cursor.fetchone()
    return int(found)
