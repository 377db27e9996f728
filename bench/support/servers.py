"""The database of a benchmark, and its servers, each in a process of its own.

Importing this module sets up Django with the settings of a benchmark.
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
    """The URL of a new, migrated database, which is dropped at the end. It replaces one left by a killed run."""

    def run(statement: str) -> None:
        with connection._nodb_cursor() as cursor:
            cursor.execute(statement)

    name = f"taskwire_bench_{name}"
    before = connection.settings_dict["NAME"]
    try:
        run(f"DROP DATABASE IF EXISTS {name}")
        run(f"CREATE DATABASE {name}")
    except DatabaseError as error:
        raise Refusal(f"The database {name} could not be created: {error}".rstrip()) from None
    try:
        connection.close()
        connection.settings_dict["NAME"] = name
        call_command("migrate", verbosity=0)
        yield urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    finally:
        connection.close()
        connection.settings_dict["NAME"] = before
        run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # a thread of this process may still be connected
        _delete_keys()


def _delete_keys() -> None:
    redis = get_redis_connection("default")
    for key in redis.scan_iter(f"{PREFIX}*", count=1000):
        redis.delete(key)


@dataclass(frozen=True)
class Server:
    """A server that listens on 127.0.0.1."""

    port: int
    log: Path
    pid: int

    @property
    def log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    @property
    def memory_kb(self) -> int:
        """The resident memory of its process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])


@contextmanager
def run_server(module: str = "backend.server", **environment: str) -> Iterator[Server]:
    """Run the product's server, or another module that uses it."""
    folder = Path(tempfile.mkdtemp(prefix="taskwire-bench-"))
    log = folder / "server.log"
    # The clients of a benchmark share an address, and the budget of one viewer.
    unbounded = {"COST_MODE": "measure", "CONNECTIONS_PER_S": "1000000"}
    environment = {"BIND": "127.0.0.1", "PORT": "0", **unbounded, **environment}
    # The shell prints its process id, which `exec` passes on to the server.
    command = ["/bin/sh", "-c", f'echo "pid $$"; exec "{sys.executable}" -m {module}']
    with log.open("wb") as output:
        process = Tethered(command, removes=[folder], env={**os.environ, **environment}, cwd=CHECKOUT, output=output)
    try:
        address = re.compile(r"Listening on TCP address 127\.0\.0\.1:(\d+)")
        wait_until(
            lambda: address.search(log.read_text()) is not None or process.exit_code() is not None,
            timeout_s=START_TIMEOUT_S,
        )
        text = log.read_text()
        match = address.search(text)
        if match is None:
            raise Refusal(f"{text}\nThe server did not start; its log is above.")
        yield Server(int(match[1]), log, int(re.findall(r"pid (\d+)", text)[0]))
    finally:
        process.stop()
