"""The `make` that started us: a signal sent to it alone means us too, and it does not pass every one on."""

import os
import re
import signal
from pathlib import Path


class Caller:
    """Tells whether the `make` above this process was told to stop; never where there is none."""

    def __init__(self) -> None:
        self._pid = os.getppid() if "MAKELEVEL" in os.environ else None
        self._caught_interrupts = self._catches_interrupts()

    def was_told_to_stop(self) -> bool:
        if self._pid is None:
            return False
        return os.getppid() != self._pid or (self._caught_interrupts and not self._catches_interrupts())

    def _catches_interrupts(self) -> bool:
        """Whether `make` has a handler for SIGINT. Linux only.

        GNU make drops it when it is interrupted, and then waits for its child, which heard nothing.
        """
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
        except OSError:
            return False
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) & 1 << signal.SIGINT - 1)
