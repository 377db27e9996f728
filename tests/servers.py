"""Servers that can be killed and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.test import override_settings

from backend.local.processes import Tethered
from backend.local.servers import Server
from backend.local.testing import throwaway_folder
from backend.local.valkey import Valkey
from tests.local.machine import free_port


class FixedPort(Server):
    """A server that has the same port after a restart. The embedded servers get a new socket at every start."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.port = free_port()

    def kill(self) -> None:
        """Send SIGKILL to the process, and wait for its end."""
        process: Tethered | None = self._process
        assert process is not None
        os.kill(int(self._pid_file.read_text().split()[0]), signal.SIGKILL)
        process.wait()


class FaultyValkey(FixedPort, Valkey):
    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def broker_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/1"

    def _command(self) -> list[str | Path]:
        return [*super()._command(), "--bind", "127.0.0.1", "--port", str(self.port)]


@contextmanager
def own_redis() -> Iterator[FaultyValkey]:
    """A separate Redis server, which this process uses within the block."""
    with throwaway_folder() as folder, FaultyValkey(folder) as valkey:
        caches = {"default": {**settings.CACHES["default"], "LOCATION": valkey.url}}
        with override_settings(CACHES=caches):
            yield valkey
