"""The cost of many tasks: to load them, to search them, to read a page far down, and to write one more.

Run: `make bench tasks`; TASKS sets their number (1,000,000). They are loaded with `manage.py demo`, into a database
that is created for this and dropped at the end. Lists are read without the cache, by a viewer who sees everything and
by a member of three projects, the largest included. The two sides of a comparison alternate: a page far down and the
first page, a write to the full table and one to an empty table. A figure is the median, for writes the mean.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from statistics import median

from django.core.cache import cache
from django.core.management import call_command
from django.db import connection

from backend.local.console import say

from .support import servers  # first: it sets up Django
from .support.figures import Figure, report

from backend.projects import access, services  # isort:skip
from backend.projects.access import Viewer  # isort:skip
from backend.projects.management.commands.demo import WORDS  # isort:skip
from backend.projects.models import Project, Task, User  # isort:skip
from backend.projects.resolvers.page import Order, PageRequest  # isort:skip
from backend.projects.resolvers.task import TaskFilter, list_tasks, tasks_listing  # isort:skip
from backend.projects.rows import TaskRow  # isort:skip

LOAD_GOAL_S = 300.0
SEARCH_GOAL_MS = 50.0
DEEP_GOAL = WRITE_GOAL = 1.5

ALL_TASKS, PAGE, DEEP_PAGE = TaskFilter(), 100, 9_000
READS = 9
# Rounds, and writes per round, for each table.
ROUNDS, WRITES = 8, 50
DUE = datetime(2030, 3, 1, 12, tzinfo=UTC)
# Words in every 2nd, 10th, ... 10,000th task; three letters; parts of titles; words never found together; no match.
SEARCH_TEXTS = [*WORDS.values(), "the", "sketch the", "measure the garden 41", "minutes report", "zeppelin"]


def main() -> None:
    tasks = int(os.environ.get("TASKS", "1000000"))
    with servers.database("tasks"):
        started = time.perf_counter()
        call_command("demo", tasks=tasks)
        _report(f"load {tasks:,} tasks", time.perf_counter() - started, LOAD_GOAL_S, "s")
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE projects_task")
        viewers = {"all": access.SYSTEM, "three projects": _member_of_three()}
        for name, viewer in viewers.items():
            for text in SEARCH_TEXTS:
                _report_search(viewer, name, text)
        for name, viewer in viewers.items():
            for field in ("id", "due_date"):
                _report_deep_page(viewer, name, Order(field, False))
        full = connection.settings_dict["NAME"]
        with servers.database("tasks_empty"):
            _report_writes(full, connection.settings_dict["NAME"])


def _report(name: str, figure: float, goal: float, unit: str, details: str = "") -> None:
    report(Figure(name, figure, unit, goal=goal, is_cost=True))
    if details:
        say(f"    {details}")


# --- Lists -----------------------------------------------------------------------------------------------
def _member_of_three() -> Viewer:
    """A member of the largest project, of one in the middle and of the smallest."""
    user = User(username="bench")
    user.set_unusable_password()
    services.user.save_user(actor=access.SYSTEM, user=user)
    ids = list(Project.objects.order_by("pk").values_list("pk", flat=True))
    for project_id in (ids[0], ids[len(ids) // 2], ids[-1]):
        services.membership.add_member(actor=access.SYSTEM, project_id=project_id, username=user.username)
    return access.viewer_for(user)


def _read(viewer: Viewer, filter: TaskFilter, order: Order, page: PageRequest) -> tuple[int, float]:
    """The number of rows, and the milliseconds to read them without the cache."""
    cache.delete_pattern("*")
    started = time.perf_counter()
    rows = list_tasks(viewer, filter=filter, order=order, page=page).page.rows
    return len(rows), (time.perf_counter() - started) * 1000


def _report_search(viewer: Viewer, name: str, text: str) -> None:
    reads = [_read(viewer, TaskFilter(search=text), Order(), PageRequest(default_size=PAGE)) for _ in range(READS)]
    times_ms = [ms for _, ms in reads]
    details = f"{reads[0][0]} rows, the first time {times_ms[0]:.0f} ms"
    _report(f"search {text!r}, {name}", median(times_ms), SEARCH_GOAL_MS, "ms", details)


def _report_deep_page(viewer: Viewer, name: str, order: Order) -> None:
    rows = access.visible_tasks(viewer)
    before = min(PAGE * (DEEP_PAGE - 1), rows.count() - PAGE) - 1
    row = TaskRow.of(rows.order_by(*order.columns)[before])
    deep = PageRequest(default_size=PAGE, after=tasks_listing(ALL_TASKS, order).page_cursor(row))
    times_ms: dict[PageRequest, list[float]] = {PageRequest(default_size=PAGE): [], deep: []}
    for _ in range(READS):
        for page, times in times_ms.items():
            times.append(_read(viewer, ALL_TASKS, order, page)[1])
    first, far = (median(times) for times in times_ms.values())
    figure_name = f"page {(before + 1) // PAGE + 1:,} / page 1 by {order.field}, {name}"
    _report(figure_name, far / first, DEEP_GOAL, "", f"{far:.1f} and {first:.1f} ms")


# --- Writes ----------------------------------------------------------------------------------------------
@contextmanager
def _using_database(database: str) -> Iterator[None]:
    before = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = database
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = before


def _report_writes(full: str, empty: str) -> None:
    projects = {}
    for database in (full, empty):
        with _using_database(database):
            projects[database] = services.project.create_project(actor=access.SYSTEM, name="Written to").pk
    times_ms: dict[tuple[str, str], list[float]] = {(kind, at): [] for kind in ("create", "update") for at in projects}
    for _ in range(ROUNDS):
        for database, project_id in projects.items():
            with _using_database(database):
                first = [_create(project_id, 0) for _ in range(5)]  # untimed: these open the connection
                for number in range(WRITES):
                    times_ms["create", database].append(_timed(partial(_create, project_id, number)))
                for number, pk in enumerate(range(first[-1] + 1, first[-1] + 1 + WRITES)):
                    times_ms["update", database].append(_timed(partial(_update, pk, number)))
    for kind in ("create", "update"):
        full_ms, empty_ms = (sum(times_ms[kind, at]) / len(times_ms[kind, at]) for at in (full, empty))
        details = f"{full_ms:.2f} and {empty_ms:.2f} ms"
        _report(f"{kind} a task, full / empty table", full_ms / empty_ms, WRITE_GOAL, "", details)


def _create(project_id: int, number: int) -> int:
    task = services.task.create_task(
        actor=access.SYSTEM,
        project_id=project_id,
        changes={"title": f"Sketch the poster {number}", "description": "As drawn. " * 10, "due_date": DUE},
    )
    return task.pk


def _update(pk: int, number: int) -> Task:
    changes = {"title": f"Paint the poster {number}", "status": "completed"}
    return services.task.update_task(actor=access.SYSTEM, task_id=pk, changes=changes)  # type: ignore[arg-type]


def _timed(write: Callable[[], object]) -> float:
    """The milliseconds of one write. The mean is reported, since a few flush the pending list of the GIN index."""
    started = time.perf_counter()
    write()
    return (time.perf_counter() - started) * 1000
