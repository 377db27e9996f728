"""A process of the race: it writes, or reads and checks, until its time is over or its standard input ends.

Writers store the versions of acknowledged changes in a file that all processes map into memory. A reader loads them
before its request, and the response must not show older ones. At the end a process prints its counts as a line of JSON.
Its exit code is 1 if it read a stale list.
"""

from __future__ import annotations

import argparse
import http.client
import json
import mmap
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

WRITERS = 3
# In seconds: the longest pause of a writer, in which lists do not change; the poll interval; the timeout of a request.
PAUSE_S = 0.4
POLL_S = 0.05
TIMEOUT_S = 30

QUERIES = {
    "projects": "{ projects { nodes { id version } } }",
    "tasks": "{ tasks { nodes { version id } } }",
}


class SharedState:
    """Numbers that all processes share: the newest acknowledged version of each object per writer, and three counters.

    `life` is odd while Redis is down, and differs after each start. `requested` and `acknowledged` count changes of the
    membership, and are equal while none is under way. An odd number means that the user is a member.
    """

    def __init__(self, path: Path, objects: int) -> None:
        self.objects = objects
        size = 8 * (3 + WRITERS * objects)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("q")

    life = property(lambda self: self._numbers[0], lambda self, number: self._numbers.__setitem__(0, number))
    requested = property(lambda self: self._numbers[1], lambda self, number: self._numbers.__setitem__(1, number))
    acknowledged = property(lambda self: self._numbers[2], lambda self, number: self._numbers.__setitem__(2, number))

    def acknowledge(self, writer: int, number: int, version: int) -> None:
        self._numbers[3 + writer * self.objects + number] = version

    def newest(self) -> list[int]:
        of_writers = [self._numbers[3 + n * self.objects : 3 + (n + 1) * self.objects] for n in range(WRITERS)]
        return [max(versions) for versions in zip(*of_writers, strict=True)]


class Stale(Exception):
    pass


class Racer:
    def __init__(self, options: argparse.Namespace) -> None:
        self.random = random.Random(options.seed)
        self.projects: list[int] = options.projects
        self.tasks: list[int] = options.tasks
        self.member_id: int = options.member
        self.state = SharedState(options.state, len(self.projects) + len(self.tasks))
        self.counts: Counter[str] = Counter()

    # --- Writers -----------------------------------------------------------------------------------------
    def write(self, writer: int) -> None:
        from backend.projects import services
        from backend.projects.access import SYSTEM
        from backend.projects.models import User

        number = self.random.randrange(len(self.projects))
        if writer == 0 and self.random.random() < 0.5:
            life, self.state.requested = self.state.life, self.state.requested + 1
            membership = {"actor": SYSTEM, "project_id": self.projects[-1]}
            if self.state.requested % 2:
                name = User.objects.values_list("username", flat=True).get(pk=self.member_id)
                services.membership.add_member(**membership, username=name)
            else:
                services.membership.remove_member(**membership, user_id=self.member_id)
            self._wait_for_bumps(life)
            self.state.acknowledged = self.state.requested
        else:
            text, life = f"{self.random.randrange(10**9)}", self.state.life
            if self.random.random() < 0.5:
                changed: Any = services.project.update_project(
                    actor=SYSTEM, project_id=self.projects[number], changes={"name": text}
                )
            else:
                changed = services.task.update_task(actor=SYSTEM, task_id=self.tasks[number], changes={"title": text})
                number += len(self.projects)
            self._wait_for_bumps(life)
            self.state.acknowledge(writer, number, changed.version)
        self.counts["writes"] += 1
        time.sleep(self.random.uniform(0, PAUSE_S))

    def _wait_for_bumps(self, life: int) -> None:
        """Wait until Redis has the pending bumps of this process: until then other processes get old lists from it.

        The wait also ends when Redis is killed: it serves none of these lists afterwards.
        """
        from backend.projects.cache import versions

        while versions._pending_bumps.exist and self.state.life == life and life % 2 == 0:
            self.counts["waits"] += 1
            time.sleep(POLL_S)

    # --- Readers -----------------------------------------------------------------------------------------
    def check(self, noun: str, is_staff: bool, read: Callable[[], dict[int, int]]) -> None:
        newest = self.state.newest()
        # Read in this order, so that a change that is requested between the two reads is not settled.
        acknowledged = self.state.acknowledged
        is_settled = self.state.requested == acknowledged
        rows = read()
        is_settled = is_settled and self.state.requested == acknowledged
        self.counts["reads"] += 1
        versions = newest[: len(self.projects)] if noun == "projects" else newest[len(self.projects) :]
        for project_id, version in zip(self.projects, versions, strict=True):
            is_visible = True
            if project_id == self.projects[-1] and not is_staff:
                is_visible = acknowledged % 2 == 1 if is_settled else project_id in rows
            if (project_id in rows) != is_visible or rows.get(project_id, version) < version:
                raise Stale(
                    f"{noun}, {'staff' if is_staff else 'member'}: read {rows} after {newest} was acknowledged, "
                    f"membership was {acknowledged}{'' if is_settled else ', and is changing'}."
                )

    def read_by_resolver(self) -> None:
        from django.db import connection

        from backend.projects.access import viewer_for
        from backend.projects.models import User
        from backend.projects.resolvers.page import Order, PageRequest
        from backend.projects.resolvers.project import ProjectFilter, list_projects
        from backend.projects.resolvers.task import TaskFilter, list_tasks

        is_staff = self.random.random() < 0.5
        if not hasattr(self, "viewers"):
            users = User.objects.order_by("is_staff")
            self.viewers = [viewer_for(user) for user in users]
        noun = self.random.choice(("projects", "tasks"))
        arguments: dict[str, Any] = {"order": Order(), "page": PageRequest(default_size=9)}
        statements = 0

        def count(execute: Any, *args: Any) -> Any:
            nonlocal statements
            statements += 1
            return execute(*args)

        def read() -> dict[int, int]:
            viewer = self.viewers[is_staff]
            if noun == "projects":
                page = list_projects(viewer, filter=ProjectFilter(), **arguments).page
                return {row.id: row.version for row in page.rows}
            return {
                row.project_id: row.version for row in list_tasks(viewer, filter=TaskFilter(), **arguments).page.rows
            }

        with connection.execute_wrapper(count):
            self.check(noun, is_staff, read)
        self.counts["hits"] += not statements

    def read_by_http(self, addresses: list[str], tokens: list[str]) -> None:
        """Read over persistent connections, with the last ETag where there is one."""
        if not hasattr(self, "connections"):
            self.connections = [http.client.HTTPConnection(address, timeout=TIMEOUT_S) for address in addresses]
            self.stored: dict[Any, tuple[str, dict[int, int]]] = {}
        is_staff = self.random.random() < 0.5
        noun = self.random.choice(("projects", "tasks"))
        connection = self.random.choice(self.connections)
        headers = {"Authorization": f"Bearer {tokens[is_staff]}"}

        def by_rest() -> dict[int, int]:
            etag, rows = self.stored.get((noun, is_staff), ("", {}))
            connection.request("GET", f"/{noun}/", headers={**headers, "If-None-Match": etag} if etag else headers)
            response = connection.getresponse()
            body = response.read()
            if response.status == 304:
                self.counts["not modified"] += 1
                return rows
            assert response.status == 200, body
            rows = {row["id" if noun == "projects" else "project"]: row["version"] for row in json.loads(body)}
            self.stored[noun, is_staff] = str(response.headers["ETag"]), rows
            return rows

        def by_graphql() -> dict[int, int]:
            operation = json.dumps({"query": QUERIES[noun]})
            connection.request("POST", "/graphql/", operation, {**headers, "Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            assert b'"errors"' not in body, body
            nodes = json.loads(body)["data"][noun]["nodes"]
            project_of = dict(zip(self.tasks, self.projects, strict=True))
            ids = [int(node["id"]) for node in nodes]
            return {
                pk if noun == "projects" else project_of[pk]: node["version"]
                for pk, node in zip(ids, nodes, strict=True)
            }

        self.check(noun, is_staff, self.random.choice((by_rest, by_graphql)))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("write", "resolver", "http"))
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--seed")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--member", type=int)
    parser.add_argument("--projects", type=int, nargs="+")
    parser.add_argument("--tasks", type=int, nargs="+")
    parser.add_argument("--addresses", nargs="*")
    parser.add_argument("--tokens", nargs="*")
    options = parser.parse_args()
    django.setup()
    racer = Racer(options)
    act = {
        "write": lambda: racer.write(options.number),
        "resolver": racer.read_by_resolver,
        "http": lambda: racer.read_by_http(options.addresses, options.tokens),
    }[options.role]
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    is_over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    ends_at = time.monotonic() + options.seconds
    try:
        while time.monotonic() < ends_at and not is_over.is_set():
            act()
    except Stale as error:
        print(json.dumps({"stale": str(error)}), flush=True)  # noqa: T201
        return 1
    print(json.dumps(racer.counts), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
