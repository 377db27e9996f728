"""What the benchmarks of the product stand on: a database of their own, and servers in processes of their own.

Importing this makes Django ready, with the settings of a benchmark.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import django
from django.core.management import call_command
from django.db import DatabaseError, connection
from django_redis import get_redis_connection

from backend.local.console import Refusal
from backend.local.processes import Tethered, wait_until
from backend.local.run import CHECKOUT

os.environ["DJANGO_SETTINGS_MODULE"] = "bench.support.settings"
os.environ["BENCH_PREFIX"] = PREFIX = f"taskwire-bench-{secrets.token_hex(4)}"
django.setup()

START_TIMEOUT_S = 30.0


@contextmanager
def database(name: str) -> Iterator[str]:
    """The URL of a database of our own, migrated; what a killed run left of it is dropped first."""

    def run(statement: str) -> None:
        with connection._nodb_cursor() as cursor:
            cursor.execute(statement)

    name = f"taskwire_bench_{name}"
    before = connection.settings_dict["NAME"]
    try:
        run(f"DROP DATABASE IF EXISTS {name}")
        run(f"CREATE DATABASE {name}")
    except DatabaseError as error:
        raise Refusal(f"The database {name} could not be made: {error}".rstrip()) from None
    try:
        connection.close()
        connection.settings_dict["NAME"] = name
        call_command("migrate", verbosity=0)
        yield urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    finally:
        connection.close()
        connection.settings_dict["NAME"] = before
        run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # a thread of ours may have kept its connection
        _forget_keys()


def _forget_keys() -> None:
    redis = get_redis_connection("default")
    for key in redis.scan_iter(f"{PREFIX}*", count=1000):
        redis.delete(key)


@dataclass(frozen=True)
class Server:
    """One that listens on 127.0.0.1."""

    port: int
    log: Path
    pid: int

    @property
    def log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    @property
    def memory_kb(self) -> int:
        """What it holds in the machine's memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])


@contextmanager
def served(module: str = "backend.server", **environment: str) -> Iterator[Server]:
    """A server of the product, or of another module that listens as it does."""
    folder = Path(tempfile.mkdtemp(prefix="taskwire-bench-"))
    log = folder / "server.log"
    given = {"BIND": "127.0.0.1", "PORT": "0", **environment}
    # The shell says its process id, which stays the server's.
    command = ["/bin/sh", "-c", f'echo "pid $$"; exec "{sys.executable}" -m {module}']
    with log.open("wb") as output:
        process = Tethered(command, removes=[folder], env={**os.environ, **given}, cwd=CHECKOUT, output=output)
    try:
        address = re.compile(r"Listening on TCP address 127\.0\.0\.1:(\d+)")
        wait_until(
            lambda: address.search(log.read_text()) is not None or process.exit_code() is not None,
            timeout_s=START_TIMEOUT_S,
        )
        text = log.read_text()
        found = address.search(text)
        if found is None:
            raise Refusal(f"{text}\nThe server did not start; its log is above.")
        yield Server(int(found[1]), log, int(re.findall(r"pid (\d+)", text)[0]))
    finally:
        process.stop()
