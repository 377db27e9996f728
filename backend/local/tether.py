"""Run one command until standard input is closed.

Usage: tether.py --signal NAME --grace SECONDS [--account UID:GID] [--remove FOLDER]... COMMAND...

The end of standard input always arrives, however the sender ended: a clean stop, a crash and `kill -9` all
close the pipe. The command is then sent the signal, and killed after the grace period together with the rest of
its process group. The folders of `--remove` are deleted after that. They remain if the command ends by itself: it
may be started again.

A file of its own that uses the standard library only: it starts in a few milliseconds.
"""

import argparse
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from types import FrameType


def main() -> int:
    options = _parse(sys.argv[1:])
    woken = _wake_on(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    uid, gid = options.account or (None, None)
    child = subprocess.Popen(
        options.command,
        stdin=subprocess.DEVNULL,
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
        process_group=0,
    )
    is_stop_requested = _wait(child, woken)
    code = _stop(child, options.signal, options.grace)
    if is_stop_requested:
        for folder in options.remove:
            shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--signal", type=lambda name: signal.Signals[f"SIG{name}"], required=True)
    parser.add_argument("--grace", type=float, required=True, help="seconds")
    parser.add_argument("--account", type=lambda text: tuple(map(int, text.split(":"))))
    parser.add_argument("--remove", action="append", default=[])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args(arguments)


def _wake_on(*signals: signal.Signals) -> int:
    """Return a descriptor that becomes readable when one of `signals` arrives."""

    def ignore(_number: int, _frame: FrameType | None) -> None:
        """Do nothing: without a handler the signal is not written to the wake-up descriptor."""

    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in signals:
        signal.signal(number, ignore)
    return readable


def _wait(child: "subprocess.Popen[bytes]", woken: int) -> bool:
    """Wait for a request to stop, or for the end of `child`. Return whether a stop was requested.

    SIGCHLD also arrives when a process is stopped (SIGSTOP) or continued, which does not end it.
    """
    while True:
        readable, _, _ = select.select([sys.stdin, woken], [], [])
        if sys.stdin in readable:
            return True
        if set(os.read(woken, 4096)) - {signal.SIGCHLD}:
            return True
        if child.poll() is not None:
            return False


def _stop(child: "subprocess.Popen[bytes]", number: signal.Signals, grace_s: float) -> int:
    """Stop `child` and its process group. Return the exit code of `child`."""
    if child.poll() is None:
        child.send_signal(number)
        child.send_signal(signal.SIGCONT)  # a process that is stopped handles no other signal
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    # macOS reports "not permitted" if only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
