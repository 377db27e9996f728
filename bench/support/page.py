"""`docs/benchmarks.md`: every figure of one run, beside what it was taken on."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from django.db import connection
from django_redis import get_redis_connection

from backend.local.run import CHECKOUT

from .figures import Figure

PAGE = CHECKOUT / "docs" / "benchmarks.md"
PACKAGES = [
    "Django",
    "strawberry-graphql",
    "strawberry-graphql-django",
    "djangorestframework",
    "channels",
    "daphne",
    "Twisted",
    "uvicorn",
    "psycopg2-binary",
    "redis",
    "hiredis",
    "msgspec",
    "orjson",
]


def write(sections: dict[str, tuple[str, list[Figure]]]) -> None:
    """`sections` has, by the name of each benchmark, what it says of itself and its figures."""
    figures = [figure for _, of_one in sections.values() for figure in of_one]
    short = [figure for figure in figures if figure.is_reached is False]
    with_goal = [figure for figure in figures if figure.goal is not None]
    lines = [
        "# What it costs",
        "",
        "Written by `make bench`: every benchmark, one after another, on one machine. A figure without a unit is",
        "a ratio of two, taken in turn in one run. How each is taken stands at the top of its module in `bench/`.",
        "",
        f"{len(with_goal) - len(short)} of {len(with_goal)} goals are reached.",
        "",
        "| taken on | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _taken_on().items()),
    ]
    for name, (about, of_one) in sections.items():
        lines += ["", f"## {name}", "", about, "", "| figure | value | goal | |", "|---|---|---|---|"]
        lines += [f"| {one.name} | {one.shown_value} | {one.shown_goal} | {_mark(one)} |" for one in of_one]
    PAGE.write_text("\n".join([*lines, ""]))


def _mark(figure: Figure) -> str:
    return f"**{figure.mark}**" if figure.is_reached is False else figure.mark


def _taken_on() -> dict[str, str]:
    """Nothing that tells whose machine it is."""
    memory_kb = int(re.findall(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())[0])
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory_kb / 1024**2:.0f} GB",
        "system": f"{_system()}, {platform.machine()}",
        "Python": platform.python_version(),
        "PostgreSQL": _postgres(),
        "Redis": _redis(),
        **{name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    found = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[0].strip() if found else platform.processor() or "unknown"


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _postgres() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('fsync')")
        number, fsync = cursor.fetchone()
    return f"{number}, fsync {fsync}"


def _redis() -> str:
    told = get_redis_connection("default").info("server")
    return f"Valkey {told['valkey_version']}" if "valkey_version" in told else str(told["redis_version"])
