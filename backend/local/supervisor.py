"""Runs the processes of the Procfile together: when one ends, all are stopped."""

import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from backend.local.console import say
from backend.local.processes import Tethered

POLL_S = 0.1
# Seconds that a process may take to finish its work before it is killed.
GRACE_S = 5.0
# Seconds to wait for the last output of a process, in case another process still has its pipe open.
OUTPUT_TIMEOUT_S = 1.0


class Supervisor:
    """Starts the processes on entry and stops them on exit. Prints each line of their output after their name.

    `lock_fd`: see `inherited_fd` of `Tethered`.
    """

    def __init__(self, procfile: Path, env: Mapping[str, str], *, lock_fd: int | None = None) -> None:
        self._procfile = procfile
        self._commands = _parse(procfile.read_text())
        self._env = {**env, "PYTHONUNBUFFERED": "1"}
        self._lock_fd = lock_fd
        self._processes: dict[str, Tethered] = {}
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop()

    def _start(self) -> None:
        width = max(map(len, self._commands))
        for name, command in self._commands.items():
            process = Tethered(
                ["/bin/sh", "-c", f"exec {command}"],
                grace_s=GRACE_S,
                env=self._env,
                cwd=self._procfile.parent,
                output=subprocess.PIPE,
                inherited_fd=self._lock_fd,
            )
            self._processes[name] = process
            reader = threading.Thread(target=_relay, args=(process, f"{name:{width}} | "), daemon=True)
            reader.start()
            self._readers.append(reader)

    def _stop(self) -> None:
        for process in self._processes.values():
            process.request_stop()
        for process in self._processes.values():
            process.wait()
        for reader in self._readers:
            reader.join(OUTPUT_TIMEOUT_S)

    def wait(self, on_poll: Callable[[], None]) -> str:
        """Wait until a process ends, and return a message about it. Call `on_poll` at every poll."""
        while True:
            for name, process in self._processes.items():
                code = process.exit_code()
                if code is not None:
                    return f"{name} ended by itself with exit code {code}, so the rest is stopped too."
            on_poll()
            time.sleep(POLL_S)


def _parse(text: str) -> dict[str, str]:
    lines = (line.partition(":") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {name.strip(): command.strip() for name, _, command in lines}


def _relay(process: Tethered, prefix: str) -> None:
    for line in process.output:
        try:
            say(prefix + line.decode(errors="replace").rstrip("\n"))
        except OSError:
            # Our own output is closed. Keep reading, or the process blocks on a full pipe.
            continue
