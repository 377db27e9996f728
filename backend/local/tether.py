"""Run one command for as long as somebody holds the other end of standard input.

Usage: tether.py --signal NAME --grace SECONDS [--account UID:GID] [--remove FOLDER]... COMMAND...

The end of standard input is the one message that arrives whatever happened to the sender: a clean stop, a
crash and `kill -9` all close the pipe. The command is then asked to stop with the signal and killed after the
grace period, together with what is left of its process group. `--remove` names folders that go after that.

Runs as a file of its own, with the standard library only: it starts in a few milliseconds.
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
    select.select([sys.stdin, woken], [], [])
    code = _stop(child, options.signal, options.grace)
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

    def noted(_number: int, _frame: FrameType | None) -> None:
        """Do nothing: a handler must exist for the wake-up descriptor to be written."""

    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in signals:
        signal.signal(number, noted)
    return readable


def _stop(child: "subprocess.Popen[bytes]", number: signal.Signals, grace_s: float) -> int:
    """End `child`, if it still runs, and all of its group; return its exit code."""
    if child.poll() is None:
        child.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    # macOS answers "not permitted" where only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
