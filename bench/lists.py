"""The cost of lists, one task and a new task, relative to a bare ASGI application and to stock implementations.

Run: `make bench lists`. Two servers at a time get requests on 16 keep-alive connections each, on this machine, in turn:
ours, the other, ours, the other ...; a figure is the ratio of our best of three rounds to the other's. The status of
every response is checked, and its body must equal that of the first one.

The bare application (`bench/support/bare_list.py`) answers each request with the bytes of our `GET /tasks/`, which it
reads by one GET from Redis. The stock implementations (`bench/stock/`) are a `ModelViewSet` of DRF, and a type, a list
and a mutation of strawberry-django, on the same database. They have no authentication; our lists are compared with
theirs once in open mode, and once with a token, which is harder for us. All other requests to our server have a token
of an editor of five projects, in closed mode. "Uncached" means CACHE_LIST_S=0: nothing is stored, and every response
reads its rows, which PostgreSQL's statistics confirm. Django's handler has the product's settings, but no persistent
connections, as is its default. All of them run on the same server, `backend.server`: on daphne, and on uvicorn.
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
# A round that is long enough to show in PostgreSQL's statistics.
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
    """The benchmarks on one kind of server, with the token and a project of the client."""

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

    # -- Relative to the bare application --
    def measure_cached(self) -> None:
        ours = self.product("cached")
        first = Load(ours, self.token_request(ours, "/tasks/"))
        asyncio.run(_rates(first, seconds=0, rounds=1))
        etag = re.search(rb"(?i)\r\netag: *(.+?)\r\n", first.head)
        assert etag is not None
        key = f"{servers.PREFIX}-bare"
        get_redis_connection("default").set(key, first.body)
        bare = self.run_server("bench.support.bare_list", BARE_KEY=key)

        def against_bare(name: str, goal: float, load: Load) -> None:
            self.compare(f"cached {name} / bare", goal, load, Load(bare, request(bare, "/")))
            _require_page(load)

        say(f"a page of {PAGE} tasks: {len(first.body):,} bytes")
        against_bare("GET /tasks/", 0.8, Load(ours, first.request))
        conditional = request(ours, "/tasks/", token=self.token, if_none_match=etag[1].decode())
        against_bare("GET /tasks/ with a matching If-None-Match", 1.0, Load(ours, conditional, status=304))
        operation = self.token_request(ours, "/graphql/", OURS)
        against_bare("GraphQL tasks, 7 fields and the project", 0.65, Load(ours, operation))
        self.cleanup.close()

    # -- Relative to the stock implementations --
    def measure_uncached(self) -> None:
        stock, ours = self.stock(), self.product("uncached", CACHE_LIST_S="0")
        open_mode = self.product("open", CACHE_LIST_S="0", ACCESS="open")
        our_query, stock_query = orjson.dumps({"query": OURS}), orjson.dumps({"query": STOCK})
        pairs = {
            ("GraphQL tasks / strawberry-django", 2.5): (
                Load(open_mode, request(open_mode, "/graphql/", json=our_query)),
                Load(ours, self.token_request(ours, "/graphql/", OURS)),
                Load(stock, request(stock, "/graphql/", json=stock_query)),
            ),
            ("GET /tasks/ / DRF", 3.0): (
                Load(open_mode, request(open_mode, "/tasks/")),
                Load(ours, self.token_request(ours, "/tasks/")),
                Load(stock, request(stock, "/tasks/")),
            ),
        }
        for (name, goal), (without_token, by_token, other) in pairs.items():
            self.compare(f"uncached {name}", goal, without_token, other, reads=True)
            self.compare(f"uncached {name}, ours by token", goal, by_token, other, reads=True)
        if len({_require_page(load) for loads in pairs.values() for load in loads}) != 1:
            raise Refusal("The stock implementations and the product returned different tasks.")
        by_django = {"DJANGO_SETTINGS_MODULE": "bench.stock.product", "CACHE_LIST_S": "0"}
        handler = self.product("handler", "bench.stock.server", **by_django)
        path = f"/tasks/{Task.objects.latest('pk').pk}/"
        self.compare(
            "uncached GET of one task / the same view by Django's ASGI handler",
            1.5,
            Load(ours, self.token_request(ours, path)),
            Load(handler, self.token_request(handler, path)),
            reads=True,
        )
        self.cleanup.close()

    def measure_creation(self) -> None:
        ours, stock = self.product("writing"), self.stock()
        new = {"title": NEW_TITLE, "description": "As drawn. " * 10, "dueDate": "2030-01-01T12:00:00Z"}
        stock_mutation = {
            "query": STOCK_CREATE,
            "variables": {"input": {"project": {"set": str(self.project_id)}, **new}},
        }
        our_mutation = self.token_request(ours, "/graphql/", OUR_CREATE, projectId=self.project_id, **new)
        loads = [
            Load(ours, our_mutation, check=_is_new_task),
            Load(stock, request(stock, "/graphql/", json=orjson.dumps(stock_mutation)), check=_is_new_task),
        ]
        self.compare("createTask / strawberry-django", 0.7, *loads)
        created = Task.objects.filter(title=NEW_TITLE)
        if created.count() != sum(load.responses for load in loads):
            raise Refusal(f"{created.count()} tasks were created by {[load.responses for load in loads]} requests.")
        created.delete()
        self.cleanup.close()

    def compare(self, name: str, goal: float, ours: Load, other: Load, *, reads: bool = False) -> None:
        """Report the ratio of both rates. `reads`: verify that each of our responses reads the table of tasks."""
        if reads:
            _require_reads(ours, name)
        rates = asyncio.run(_rates(ours, other, seconds=ROUND_S))
        best, reference = map(max, rates)
        report(Figure(f"{name} ({self.server})", best / reference, goal=goal))
        for label, round_rates in zip(("ours", "other"), rates, strict=True):
            say(f"    {label:6}responses/s: " + ", ".join(f"{rate:,.0f}" for rate in round_rates))

    # -- Servers --
    def run_server(self, module: str, **environment: str) -> servers.Server:
        environment = {"SERVER": self.server, "DATABASE_URL": self.database_url, **environment}
        return self.cleanup.enter_context(servers.run_server(module, **environment))

    def product(self, name: str, module: str = "backend.server", **environment: str) -> servers.Server:
        prefix = f"{servers.PREFIX}-{self.server}-{name}"
        return self.run_server(module, **{"ACCESS": "closed", "BENCH_PREFIX": prefix, **environment})

    def stock(self) -> servers.Server:
        return self.run_server("bench.stock.server", DJANGO_SETTINGS_MODULE="bench.stock.settings")

    def token_request(self, server: servers.Server, path: str, query: str | None = None, **variables: object) -> bytes:
        """A request with the token. A `query` is posted, with `variables` as its input."""
        if query is None:
            return request(server, path, token=self.token)
        operation = {"query": query, **({"variables": {"input": variables}} if variables else {})}
        return request(server, path, token=self.token, json=orjson.dumps(operation))


async def _rates(*loads: Load, seconds: float, rounds: int = ROUNDS) -> list[list[float]]:
    """Responses per second of each load's rounds. The rounds of the loads alternate."""
    try:
        for load in loads:
            await load.connect()
            await load.rate(min(WARM_UP_S, seconds))
        rates = [[await load.rate(seconds) for load in loads] for _ in range(rounds)]
        return [list(load_rates) for load_rates in zip(*rates, strict=True)]
    finally:
        for load in loads:
            load.close()


def _require_page(load: Load) -> tuple[bytes, ...]:
    """The ids of the tasks in the first response. Raises Refusal if its body is not a full page."""
    ids = tuple(re.findall(rb'"id": ?"?(\d+)"?, ?"(?:title|project)"', load.body))
    if len(ids) != PAGE and load.has_body:
        raise Refusal(f"Expected {PAGE} tasks, got: {load.body[:300].decode(errors='replace')}")
    return ids


def _is_new_task(body: bytes) -> bool:
    return NEW_TITLE.encode() in body and b'"errors"' not in body


def _require_reads(load: Load, name: str) -> None:
    """Raises Refusal if the table of tasks is not scanned for each response."""
    before = _scans()
    asyncio.run(_rates(load, seconds=STATISTICS_S, rounds=1))
    # The statistics do not include the last second yet.
    if _scans() - before < load.responses / 3:
        raise Refusal(f"{name}: {load.responses} responses, but {_scans() - before} scans of the tasks.")


def _scans() -> int:
    """The number of scans of the table of tasks in PostgreSQL's statistics, which are updated about every second."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = %s", [Task._meta.db_table]
        )
        [scans] = cursor.fetchone()
    return int(scans)
