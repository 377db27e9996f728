"""Child processes that never outlive their parent, and the command lines of other processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

TETHER = Path(__file__).with_name("tether.py")
POLL_S = 0.02

Command: TypeAlias = Sequence[str | Path]


@dataclass(frozen=True)
class Account:
    """The user and the group that a child process runs as."""

    uid: int
    gid: int


class Tethered:
    """A command under `tether.py`. It is stopped by `request_stop()`, and by the end of this process, however it ends.

    It runs in a session of its own, so that Ctrl-C in the terminal reaches only the process that decides the
    order of stopping. `inherited_fd` is a descriptor that stays open until the command has ended: a lock on it shows
    other processes that something still runs.
    """

    def __init__(
        self,
        command: Command,
        *,
        stop_signal: str = "TERM",
        grace_s: float = 5.0,
        account: Account | None = None,
        removes: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output: int | IO[bytes] | None = None,
        inherited_fd: int | None = None,
    ) -> None:
        tether: list[str | Path] = [
            sys.executable,
            "-IS",
            TETHER,
            "--signal",
            stop_signal,
            "--grace",
            str(grace_s),
        ]
        if account is not None:
            tether += ["--account", f"{account.uid}:{account.gid}"]
        for folder in removes:
            tether += ["--remove", folder]
        lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*tether, *command],
                stdin=lifeline,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
                pass_fds=() if inherited_fd is None else (inherited_fd,),
            )
        finally:
            os.close(lifeline)

    @property
    def pid(self) -> int:
        """The process id of the tether; the command is its child."""
        return self._process.pid

    @property
    def output(self) -> IO[bytes]:
        """The command's output; only with `output=subprocess.PIPE`."""
        assert self._process.stdout is not None
        return self._process.stdout

    def exit_code(self) -> int | None:
        """None while the command runs."""
        return self._process.poll()

    def request_stop(self) -> None:
        """Stop the command without waiting for its end. Safe to call twice."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def wait(self) -> int:
        return self._process.wait()

    def stop(self) -> int:
        """Stop the command and return its exit code, at the latest after its grace period."""
        self.request_stop()
        return self.wait()


def wait_until(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Poll until `condition` is true or `timeout_s` has passed. Return whether it became true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def command_line(pid: int) -> str:
    """The arguments that process `pid` was started with, joined by spaces; empty if it does not run."""
    proc = Path(f"/proc/{pid}")
    if proc.parent.joinpath("self").exists():
        try:
            return (proc / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    result = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return result.stdout.strip()
