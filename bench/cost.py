"""The time and memory of the most expensive operations that are allowed, with 100,000 tasks.

Run: `make bench cost`; TASKS sets the number of tasks. Each document has the largest page whose price is within
COST_MAX. The viewer sees every row, and no list is cached. A figure is the worst of a few requests; memory is the
difference between the server's peak and its memory before them.
"""

from __future__ import annotations

import http.client
import os
import time
from pathlib import Path

import orjson
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from graphql import get_introspection_query, parse
from graphql.utilities import get_operation_ast

from backend.local.console import Refusal, say

from .support import servers  # first: it sets up Django
from .support.figures import Figure, report

from backend.projects.models import Project  # isort:skip
from schema.execution.cost import price_of  # isort:skip
from schema.execution.limits import MAX_ALIASES  # isort:skip
from schema.schema import schema  # isort:skip

TIME_GOAL_MS, MEMORY_GOAL_MB = 1_000.0, 100.0
REQUESTS = 3

TASK = "id title description status dueDate createdAt updatedAt version"
# `%d` stands for the largest page size that the price allows.
DOCUMENTS = {
    "tasks of projects": "{ projects(first: 100) { nodes { name tasks(first: %d) { nodes { TASK } } } } }",
    "edges, with project and assignee": """{ projects(first: 100) { nodes { tasks(first: %d) {
      edges { cursor node { TASK project { name description } assignee { name } } } } } } }""",
    "comments of tasks": "{ tasks(first: 100) { nodes { TASK comments(first: %d) { nodes { author content } } } } }",
    "upwards and down": "{ tasks(first: 100) { nodes { project { name tasks(first: %d) { nodes { TASK } } } } } }",
    "three lists": """{ projects(first: %d) { nodes { tasks(first: 10) { nodes { TASK
      comments(first: 10) { nodes { author content task { title project { name } } } } } } } } }""",
    "counts of projects": "{ projects(first: %d) { nodes { tasks { totalCount } members { totalCount } } } }",
    "filtered counts": "{ ALIASES }",
    "events": '{ events(after: "0", first: %d) { nodes { ... on TaskCreated { task { TASK project { name } } } } } }',
    "introspection": get_introspection_query(type_depth=9),
    "nested introspection": """{ __schema { types { name fields { name type { name fields { name
      args { name type { name ofType { name } } } type { name ofType { name } } } } } } } }""",
}
COUNT = 'a%d: tasks(filter: {search: "the", status: PENDING, dueAfter: "20%02d-01-01T00:00:00Z"}) { totalCount }'


def main() -> None:
    tasks = int(os.environ.get("TASKS", "100000"))
    with servers.database("cost") as database_url:
        call_command("demo", tasks=tasks)
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE projects_task")
        say(f"{tasks:,} tasks in {Project.objects.count()} projects, COST_MAX={settings.COST_MAX:,}")
        environment = {"DATABASE_URL": database_url, "ACCESS": "open", "CACHE_LIST_S": "0"}
        environment |= {"REDIS_PREFIX": servers.PREFIX}
        with servers.run_server(**environment) as server:
            _send(server, "{ projects { nodes { tasks(first: 1) { nodes { id } } } } }")
            for name, document in DOCUMENTS.items():
                _measure(server, name, document)


def _measure(server: servers.Server, name: str, template: str) -> None:
    document, price = _dearest(template)
    times_ms, before = [], server.memory_kb
    _reset_peak(server)
    for _ in range(REQUESTS):
        started = time.perf_counter()
        size = _send(server, document)
        times_ms.append((time.perf_counter() - started) * 1000)
    grown_mb = (_peak_kb(server) - before) / 1024
    report(Figure(f"{name}, {price:,} units: time", max(times_ms), "ms", goal=TIME_GOAL_MS, is_cost=True))
    report(Figure(f"{name}, {price:,} units: memory", grown_mb, "MB", goal=MEMORY_GOAL_MB, is_cost=True))
    say(f"    {size:,} bytes, {max(times_ms) / price * 1000:.0f} µs per unit")


def _dearest(template: str) -> tuple[str, int]:
    """The document with the largest page that is allowed, and its price."""
    template = template.replace("TASK ", f"{TASK} ").replace(" TASK", f" {TASK}")
    template = template.replace("ALIASES", " ".join(COUNT % (n, n + 10) for n in range(MAX_ALIASES)))
    for size in range(100, 0, -1):
        document = template.replace("%d", str(size))
        parsed = parse(document)
        operation = get_operation_ast(parsed)
        assert operation is not None
        price = price_of(schema._schema, parsed, operation, {}).total
        if price <= settings.COST_MAX:
            return document, price
    raise Refusal(f"Not even one row is allowed: {template}")


def _send(server: servers.Server, document: str) -> int:
    """Send an operation that has to succeed. Return the bytes of its response."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        client.request("POST", "/graphql/", orjson.dumps({"query": document}), {"Content-Type": "application/json"})
        response = client.getresponse()
        body = response.read()
    finally:
        client.close()
    if response.status != 200 or b'"errors"' in body[-1000:]:
        raise Refusal(f"{server.log_end}\n{document}\ngot the response {body[:300]!r}")
    return len(body)


def _reset_peak(server: servers.Server) -> None:
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")


def _peak_kb(server: servers.Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
