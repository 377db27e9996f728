"""The `make` that started this process. Signals that stop it must stop this process, but it forwards only some."""

import os
import re
import signal
from pathlib import Path


class Caller:
    """Detects that a signal stopped the parent `make`. Without a parent `make`, nothing is detected."""

    def __init__(self) -> None:
        self._pid = os.getppid() if "MAKELEVEL" in os.environ else None
        self._caught_interrupts = self._catches_interrupts()

    def has_stopped(self) -> bool:
        if self._pid is None:
            return False
        return os.getppid() != self._pid or (self._caught_interrupts and not self._catches_interrupts())

    def _catches_interrupts(self) -> bool:
        """Whether `make` has a handler for SIGINT. Linux only.

        GNU make removes its handler when it is interrupted, and then waits for its child, which got no signal.
        """
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
        except OSError:
            return False
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) & 1 << signal.SIGINT - 1)
