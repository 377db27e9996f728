"""`docs/benchmarks.md`: the figures of one run, with the machine and the versions that they were measured on."""

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
    """Write the page. `sections` maps the name of each benchmark to its summary and its figures."""
    figures = [figure for _, section in sections.values() for figure in section]
    missed = [figure for figure in figures if figure.is_reached is False]
    with_goal = [figure for figure in figures if figure.goal is not None]
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`: every benchmark, one after another, on one machine. A figure without a unit is the",
        "ratio of two that were measured in turn. The docstring of each module in `bench/` describes its method.",
        "",
        f"{len(with_goal) - len(missed)} of {len(with_goal)} goals are reached.",
        "",
        "| measured on | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _environment().items()),
    ]
    for name, (about, section) in sections.items():
        lines += ["", f"## {name}", "", about, "", "| figure | value | goal | |", "|---|---|---|---|"]
        lines += [
            f"| {figure.name} | {figure.shown_value} | {figure.shown_goal} | {_mark(figure)} |" for figure in section
        ]
    PAGE.write_text("\n".join([*lines, ""]))


def _mark(figure: Figure) -> str:
    return f"**{figure.mark}**" if figure.is_reached is False else figure.mark


def _environment() -> dict[str, str]:
    """The hardware and the versions, without anything that identifies the machine or its owner."""
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
    models = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return models[0].strip() if models else platform.processor() or "unknown"


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
    info = get_redis_connection("default").info("server")
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else str(info["redis_version"])
