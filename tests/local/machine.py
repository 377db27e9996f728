"""The processes, ports and environment variables of this machine."""

import os
import random
import socket
from collections import defaultdict
from contextlib import suppress
from itertools import cycle
from pathlib import Path

from backend.local.processes import wait_until
from tests.worker import NAME

# Far longer than any wait takes: a test that waits this long has failed.
PATIENCE_S = 60.0

# Below the ports that Linux assigns to clients and to servers that bind port 0; 500 for each worker.
_first_port = 20_000 + 500 * int(NAME.removeprefix("gw") or 0)
_ports = cycle(random.sample(range(_first_port, _first_port + 500), 500))


def is_running(pid: int) -> bool:
    """Return False for zombies, too: the tests cannot reap them."""
    return _state(pid) not in {"", "Z"}


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has stopped the process."""
    return _state(pid) == "T"


def descendants(pid: int) -> set[int]:
    children = defaultdict(set)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(_fields(stat)[1])
        except (OSError, IndexError):
            continue
        children[parent].add(int(stat.parent.name))
    found: set[int] = set()
    waiting = {pid}
    while waiting:
        waiting = set().union(*(children[parent] for parent in waiting))
        found |= waiting
    return found


def all_end(pids: set[int]) -> bool:
    return wait_until(lambda: not any(map(is_running, pids)), timeout_s=PATIENCE_S)


def free_port() -> int:
    """Return an unused port. Neither the system nor another worker assigns it to another process."""
    return next(filter(_is_free, _ports))


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def without_servers() -> dict[str, str]:
    """Return this environment without the variables for servers and access that `make test` or a shell may set."""
    ours = {"DATABASE_URL", "REDIS_URL", "BROKER_URL", "EMAIL_URL", "ACCESS", "DEBUG", "BIND", "PORT", "MAKELEVEL"}
    ours |= {"REDIS_PREFIX", "QUEUE"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _state(pid: int) -> str:
    try:
        return _fields(Path(f"/proc/{pid}/stat"))[0]
    except OSError:
        return ""


def _fields(stat: Path) -> list[str]:
    # The name is in parentheses and may contain any character.
    return stat.read_text().rpartition(")")[2].split()
