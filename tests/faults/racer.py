"""A process of the race: it writes, or reads and checks, until its time is over or its standard input ends.

What was answered stands in a file that all of them have in memory: who reads notes it before they ask, and must then be
shown nothing older. A line of JSON at the end says how often it did what; who is shown an old list ends with 1.
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
# Seconds at most between two changes of one writer, in which lists stay as they are; between two looks; for one answer.
PAUSE_S = 0.4
POLL_S = 0.05
PATIENCE_S = 30

QUERIES = {
    "projects": "{ projects { nodes { id version } } }",
    "tasks": "{ tasks { nodes { version id } } }",
}


class Notes:
    """Numbers that all processes share: the newest versions that each writer was answered, and what else is told.

    `life` is odd while Redis is killed, and another one after each start. Who is a member is `answered` once it is no
    other than `asked`: odd for yes.
    """

    def __init__(self, path: Path, objects: int) -> None:
        self.objects = objects
        size = 8 * (3 + WRITERS * objects)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("q")

    life = property(lambda self: self._numbers[0], lambda self, number: self._numbers.__setitem__(0, number))
    asked = property(lambda self: self._numbers[1], lambda self, number: self._numbers.__setitem__(1, number))
    answered = property(lambda self: self._numbers[2], lambda self, number: self._numbers.__setitem__(2, number))

    def note(self, writer: int, number: int, version: int) -> None:
        self._numbers[3 + writer * self.objects + number] = version

    def newest(self) -> list[int]:
        of_writers = [self._numbers[3 + n * self.objects : 3 + (n + 1) * self.objects] for n in range(WRITERS)]
        return [max(versions) for versions in zip(*of_writers, strict=True)]


class Stale(Exception):
    pass


class Racer:
    def __init__(self, given: argparse.Namespace) -> None:
        self.random = random.Random(given.seed)
        self.projects: list[int] = given.projects
        self.tasks: list[int] = given.tasks
        self.member_id: int = given.member
        self.notes = Notes(given.notes, len(self.projects) + len(self.tasks))
        self.counts: Counter[str] = Counter()

    # --- Writers -----------------------------------------------------------------------------------------
    def write(self, writer: int) -> None:
        from backend.projects import services
        from backend.projects.access import SYSTEM
        from backend.projects.models import User

        number = self.random.randrange(len(self.projects))
        if writer == 0 and self.random.random() < 0.5:
            life, self.notes.asked = self.notes.life, self.notes.asked + 1
            last = {"actor": SYSTEM, "project_id": self.projects[-1]}
            if self.notes.asked % 2:
                name = User.objects.values_list("username", flat=True).get(pk=self.member_id)
                services.membership.add_member(**last, username=name)
            else:
                services.membership.remove_member(**last, user_id=self.member_id)
            self._until_told(life)
            self.notes.answered = self.notes.asked
        else:
            text, life = f"{self.random.randrange(10**9)}", self.notes.life
            if self.random.random() < 0.5:
                one: Any = services.project.update_project(
                    actor=SYSTEM, project_id=self.projects[number], changes={"name": text}
                )
            else:
                one = services.task.update_task(actor=SYSTEM, task_id=self.tasks[number], changes={"title": text})
                number += len(self.projects)
            self._until_told(life)
            self.notes.note(writer, number, one.version)
        self.counts["writes"] += 1
        time.sleep(self.random.uniform(0, PAUSE_S))

    def _until_told(self, life: int) -> None:
        """A Redis that is there but did not answer this process shows others the old list until it does.

        One that was killed shows nobody anything.
        """
        from backend.projects.cache import versions

        while versions._pending_bumps.exist and self.notes.life == life and life % 2 == 0:
            self.counts["waits"] += 1
            time.sleep(POLL_S)

    # --- Readers -----------------------------------------------------------------------------------------
    def check(self, noun: str, is_staff: bool, read: Callable[[], dict[int, int]]) -> None:
        newest = self.notes.newest()
        # In this order: what is asked for after it was answered is not settled.
        answered = self.notes.answered
        is_settled = self.notes.asked == answered
        rows = read()
        is_settled = is_settled and self.notes.asked == answered
        self.counts["reads"] += 1
        versions = newest[: len(self.projects)] if noun == "projects" else newest[len(self.projects) :]
        for project_id, version in zip(self.projects, versions, strict=True):
            is_visible = True
            if project_id == self.projects[-1] and not is_staff:
                is_visible = answered % 2 == 1 if is_settled else project_id in rows
            if (project_id in rows) != is_visible or rows.get(project_id, version) < version:
                raise Stale(
                    f"{noun}, {'staff' if is_staff else 'member'}: {rows} was read, {newest} was answered before, "
                    f"membership was {answered}{'' if is_settled else ', and is changing'}."
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
        asked: dict[str, Any] = {"order": Order(), "page": PageRequest(default_size=9)}
        statements = 0

        def count(execute: Any, *args: Any) -> Any:
            nonlocal statements
            statements += 1
            return execute(*args)

        def read() -> dict[int, int]:
            viewer = self.viewers[is_staff]
            if noun == "projects":
                page = list_projects(viewer, filter=ProjectFilter(), **asked).page
                return {row.id: row.version for row in page.rows}
            return {row.project_id: row.version for row in list_tasks(viewer, filter=TaskFilter(), **asked).page.rows}

        with connection.execute_wrapper(count):
            self.check(noun, is_staff, read)
        self.counts["hits"] += not statements

    def read_by_http(self, doors: list[str], tokens: list[str]) -> None:
        """Over connections that are kept; what was read before is named, so that it need not be sent again."""
        if not hasattr(self, "connections"):
            self.connections = [http.client.HTTPConnection(door, timeout=PATIENCE_S) for door in doors]
            self.held: dict[Any, tuple[str, dict[int, int]]] = {}
        is_staff = self.random.random() < 0.5
        noun = self.random.choice(("projects", "tasks"))
        connection = self.random.choice(self.connections)
        headers = {"Authorization": f"Bearer {tokens[is_staff]}"}

        def by_rest() -> dict[int, int]:
            etag, held = self.held.get((noun, is_staff), ("", {}))
            connection.request("GET", f"/{noun}/", headers={**headers, "If-None-Match": etag} if etag else headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 304:
                self.counts["not modified"] += 1
                return held
            assert answer.status == 200, body
            rows = {row["id" if noun == "projects" else "project"]: row["version"] for row in json.loads(body)}
            self.held[noun, is_staff] = str(answer.headers["ETag"]), rows
            return rows

        def by_graphql() -> dict[int, int]:
            body = json.dumps({"query": QUERIES[noun]})
            connection.request("POST", "/graphql/", body, {**headers, "Content-Type": "application/json"})
            answer = connection.getresponse()
            told = answer.read()
            assert answer.status == 200, told
            assert b'"errors"' not in told, told
            nodes = json.loads(told)["data"][noun]["nodes"]
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
    parser.add_argument("--notes", type=Path)
    parser.add_argument("--member", type=int)
    parser.add_argument("--projects", type=int, nargs="+")
    parser.add_argument("--tasks", type=int, nargs="+")
    parser.add_argument("--doors", nargs="*")
    parser.add_argument("--tokens", nargs="*")
    given = parser.parse_args()
    django.setup()
    racer = Racer(given)
    act = {
        "write": lambda: racer.write(given.number),
        "resolver": racer.read_by_resolver,
        "http": lambda: racer.read_by_http(given.doors, given.tokens),
    }[given.role]
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    is_over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    ends_at = time.monotonic() + given.seconds
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
