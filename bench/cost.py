"""The time and memory of the dearest operations that are allowed, with 100,000 tasks.

Run: `make bench cost`; TASKS sets the number of tasks. Each document has the largest pages, or the most aliases, that
COST_MAX allows. It is sent without the cache, by a viewer who sees everything and by a member of all projects, whose
searches read all tasks. A figure is the worst of a few requests; memory is the difference between the server's peak and
its memory before them, reported for the document that takes most.
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

from backend.projects import access, services  # isort:skip
from backend.projects.models import Comment, Membership, Project, Role, Scope, Task, User  # isort:skip
from backend.projects.resolvers.page import MAX_PAGE  # isort:skip
from schema.execution.cost import price_of  # isort:skip
from schema.execution.limits import MAX_ALIASES  # isort:skip
from schema.schema import schema  # isort:skip

TIME_GOAL_MS, MEMORY_GOAL_MB = 1_000.0, 100.0
REQUESTS = 3

TASK = "id title description status dueDate createdAt updatedAt version"
# The oldest projects have the most tasks.
OLDEST = "order: {field: ID}"
# A filter that every task passes. `#` becomes another number in each alias, so that no two filters are the same.
ALL = 'dueAfter: "2020-01-01T00:00:#Z"'
# A filter that no task passes, and an order: no index serves both.
NONE = f'filter: {{assigneeId: "999999", {ALL}}}, order: {{field: UPDATED_AT}}'


FIELDS = " ".join(f"a{place}: dueDate" for place in range(MAX_ALIASES))


def _template(text: str) -> str:
    for name, value in {"TASK": TASK, "OLDEST": OLDEST, "ALL": ALL, "NONE": NONE, "FIELDS": FIELDS}.items():
        text = text.replace(name, value)
    return text


# `%d` is the size of a page, as large as the price allows.
PAGES = {
    "tasks of projects": "{ projects(first: 100, OLDEST) { nodes { name tasks(first: %d) { nodes { TASK } } } } }",
    "edges, with project and assignee": """{ projects(first: 100, OLDEST) { nodes { tasks(first: %d) {
      edges { cursor node { TASK project { name description } assignee { name } } } } } } }""",
    "comments of tasks": "{ tasks(first: 100) { nodes { TASK comments(first: %d) { nodes { author content } } } } }",
    "members of projects": "{ projects(first: 100) { nodes { members(first: %d) { nodes { role user { name } } } } } }",
    "upwards and down": "{ tasks(first: 100) { nodes { project { name tasks(first: %d) { nodes { TASK } } } } } }",
    "three lists": """{ projects(first: %d) { nodes { tasks(first: 10) { nodes { TASK
      comments(first: 10) { nodes { author content task { title project { name } } } } } } } } }""",
    "many fields of each task": """{ projects(first: 100, OLDEST) { nodes { tasks(first: %d) {
      nodes { comments { __typename } FIELDS } } } } }""",
    "events": """{ events(after: "2000", first: %d) { nodes { ... on TaskCreated {
      task { TASK project { name } comments { totalCount } } } } } }""",
    "introspection": get_introspection_query(type_depth=9),
    "nested introspection": """{ __schema { types { name fields { name type { name fields { name
      args { name type { name ofType { name } } } type { name ofType { name } } } } } } } }""",
}
# As many aliases as the price allows. `#` and `SIZE` differ in each.
AT_ROOT, IN_PROJECTS = "{ * }", "{ projects(first: 100, OLDEST) { nodes { * } } }"
ALIASES = {
    "counts": (AT_ROOT, "tasks(filter: {status: PENDING, ALL}) { totalCount }"),
    "counts in projects": (IN_PROJECTS, "tasks(filter: {status: PENDING, ALL}) { totalCount }"),
    "counts in a project": ("{ project(id: 1) { * } }", "tasks(filter: {status: PENDING, ALL}) { totalCount }"),
    "counts of a search": (AT_ROOT, 'tasks(filter: {search: "the", status: PENDING, ALL}) { totalCount }'),
    "searches without a match": (AT_ROOT, 'tasks(first: 1, filter: {search: "zeppelin #"}) { nodes { id } }'),
    "searches in another order": (
        AT_ROOT,
        'tasks(first: 1, filter: {search: "the", ALL}, order: {field: DUE_DATE}) { nodes { id } }',
    ),
    "searches in a project": (
        "{ project(id: 1) { * } }",
        'tasks(first: 1, filter: {search: "zeppelin #"}) { nodes { id } }',
    ),
    "pages": (AT_ROOT, "tasks(first: SIZE) { pageInfo { endCursor } }"),
    "pages without a match": (AT_ROOT, "tasks(first: 1, NONE) { nodes { id } }"),
    "pages in projects": (IN_PROJECTS, "tasks(first: SIZE, order: {field: DUE_DATE}) { pageInfo { endCursor } }"),
    "pages without a match in projects": (IN_PROJECTS, "tasks(first: 1, NONE) { nodes { id } }"),
    "pages of members": ("{ projects(first: 100) { nodes { * } } }", "members(first: SIZE) { pageInfo { endCursor } }"),
    "pages of comments": ("{ tasks(first: 100) { nodes { * } } }", "comments(first: SIZE) { pageInfo { endCursor } }"),
    "pages of events without a match": (AT_ROOT, 'events(after: "5#", projectId: "999999") { cursor }'),
    "objects": (AT_ROOT, "task(id: #) { id project { name } assignee { name } }"),
}


def main() -> None:
    tasks = int(os.environ.get("TASKS", "100000"))
    with servers.database("cost") as database_url:
        call_command("demo", tasks=tasks)
        _fill_pages()
        token = _token_of_member()
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        say(f"{tasks:,} tasks in {Project.objects.count()} projects, COST_MAX={settings.COST_MAX:,}")
        environment = {"DATABASE_URL": database_url, "CACHE_LIST_S": "0", "REDIS_PREFIX": servers.PREFIX}
        for viewer, access_mode in {"all": "open", "member": "closed"}.items():
            headers = {} if access_mode == "open" else {"Authorization": f"Bearer {token}"}
            with servers.run_server(**environment, ACCESS=access_mode) as server:
                _send(server, "{ projects { nodes { tasks(first: 1) { nodes { id } } } } }", headers)
                grown_mb = {
                    name: _measure(server, f"{name}, {viewer}", _dearest(documents), headers)
                    for name, documents in _documents().items()
                }
            name = max(grown_mb, key=grown_mb.__getitem__)
            figure_name = f"most memory, {viewer}: {name}"
            report(Figure(figure_name, grown_mb[name], "MB", goal=MEMORY_GOAL_MB, is_cost=True))


def _fill_pages() -> None:
    """Give each of the newest tasks a full page of comments, and each of the newest projects a full page of members."""
    tasks = list(Task.objects.order_by("-id")[:MAX_PAGE])
    text = "Can we have this a day earlier? I have put my notes into the description."
    Comment.objects.bulk_create(
        Comment(task=task, author="Ada Lovelace", content=text) for task in tasks for _ in range(MAX_PAGE)
    )
    users = User.objects.bulk_create(User(username=f"user-{number}") for number in range(MAX_PAGE))
    projects = list(Project.objects.order_by("-id")[:MAX_PAGE])
    Membership.objects.bulk_create(
        Membership(project=project, user=user, role=Role.VIEWER) for project in projects for user in users
    )


def _token_of_member() -> str:
    """A token of a member of all projects."""
    user = User.objects.get(username="ada")
    _, token = services.token.create_token(actor=access.SYSTEM, user_id=user.pk, name="bench", scope=Scope.READ, days=1)
    return token


def _documents() -> dict[str, list[str]]:
    """Each document in all sizes, the largest first."""
    found = {
        name: [_template(text).replace("%d", str(size)) for size in range(MAX_PAGE, 0, -1)]
        for name, text in PAGES.items()
    }
    for name, (parent, field) in ALIASES.items():
        fields = [
            f"a{place}: {_template(field).replace('#', str(place + 10)).replace('SIZE', str(MAX_PAGE - place))}"
            for place in range(MAX_ALIASES)
        ]
        found[name] = [_template(parent).replace("*", " ".join(fields[:count])) for count in range(MAX_ALIASES, 0, -1)]
    return found


def _dearest(documents: list[str]) -> tuple[str, int]:
    """The first document that is allowed, and its price."""
    for document in documents:
        parsed = parse(document)
        operation = get_operation_ast(parsed)
        assert operation is not None
        price = price_of(schema._schema, parsed, operation, {}).total
        if price <= settings.COST_MAX:
            return document, price
    raise Refusal(f"Not even one row is allowed: {documents[-1]}")


def _measure(server: servers.Server, name: str, dearest: tuple[str, int], headers: dict[str, str]) -> float:
    """Report the time of a document. Return the memory that it takes, in MB."""
    document, price = dearest
    times_ms, before = [], server.memory_kb
    _reset_peak(server)
    for _ in range(REQUESTS):
        started = time.perf_counter()
        size = _send(server, document, headers)
        times_ms.append((time.perf_counter() - started) * 1000)
    grown_mb = (_peak_kb(server) - before) / 1024
    report(Figure(f"{name}, {price:,} units", max(times_ms), "ms", goal=TIME_GOAL_MS, is_cost=True))
    say(f"    {size:,} bytes, {max(times_ms) / price * 1000:.0f} µs per unit, {grown_mb:.0f} MB")
    return grown_mb


def _send(server: servers.Server, document: str, headers: dict[str, str]) -> int:
    """Send an operation that has to succeed. Return the bytes of its response."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        body = orjson.dumps({"query": document})
        client.request("POST", "/graphql/", body, {"Content-Type": "application/json", **headers})
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
