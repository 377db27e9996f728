import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backend.local.processes import Tethered, command_line, wait_until
from tests.local.machine import PATIENCE_S, all_end, descendants, is_running, is_stopped

SLEEPER = ["/bin/sh", "-c", "sleep 1000 & echo $!; wait"]


def test_a_command_ends_with_its_tether() -> None:
    process = Tethered(SLEEPER, output=subprocess.PIPE)
    sleep = int(process.output.readline())
    assert process.exit_code() is None
    assert process.stop() == 128 + signal.SIGTERM
    assert all_end({sleep})


def test_wait_returns_the_exit_code_of_the_command() -> None:
    assert Tethered(["/bin/sh", "-c", "exit 7"]).wait() == 7


def test_a_command_that_does_not_stop_is_killed_with_its_children() -> None:
    process = Tethered(
        ["/bin/sh", "-c", 'trap "" TERM; sleep 1000 & echo $!; wait; wait'], grace_s=0.1, output=subprocess.PIPE
    )
    sleep = int(process.output.readline())
    assert process.stop() == 128 + signal.SIGKILL
    assert all_end({sleep})


def test_children_that_a_command_leaves_behind_are_killed() -> None:
    process = Tethered(["/bin/sh", "-c", "sleep 1000 & echo $!"], output=subprocess.PIPE)
    sleep = int(process.output.readline())
    assert process.wait() == 0
    assert all_end({sleep})


def test_a_command_ends_when_its_owner_is_killed() -> None:
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from backend.local.processes import Tethered\n"
            f"process = Tethered({SLEEPER!r})\n"
            "print('started', flush=True)\n"
            "process.wait()",
        ],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert owner.stdout is not None
    assert {owner.stdout.readline(), owner.stdout.readline()} >= {b"started\n"}
    pids = descendants(owner.pid)
    assert len(pids) == 3  # the tether, the shell, its sleep
    os.killpg(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert all_end(pids)


def test_a_lock_is_held_until_the_command_has_ended(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as own, (tmp_path / "lock").open("w") as other:
        fcntl.flock(own, fcntl.LOCK_EX)
        process = Tethered(["sleep", "1000"], inherited_fd=own.fileno())
        own.close()
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.stop()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_folders_to_remove_are_removed_when_the_command_was_stopped(tmp_path: Path) -> None:
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    (doomed / "file").touch()
    Tethered(["sleep", "1000"], removes=[doomed]).stop()
    assert not doomed.exists()


def test_folders_to_remove_remain_when_the_command_ends_by_itself(tmp_path: Path) -> None:
    Tethered(["/bin/sh", "-c", "true"], removes=[tmp_path]).wait()
    assert tmp_path.exists()


def test_a_stopped_command_has_not_ended() -> None:
    process = Tethered(["/bin/sh", "-c", "kill -STOP $$; echo continued; exit 7"], output=subprocess.PIPE)
    assert wait_until(lambda: any(map(is_stopped, descendants(process.pid))), timeout_s=PATIENCE_S)
    (command,) = descendants(process.pid)
    assert process.exit_code() is None
    os.kill(command, signal.SIGCONT)
    assert process.output.readline() == b"continued\n"
    assert process.wait() == 7


def test_a_stopped_command_ends_with_its_tether_before_its_grace_period() -> None:
    process = Tethered(
        ["/bin/sh", "-c", "trap 'exit 3' TERM; kill -STOP $$; while :; do sleep 0.01; done"], grace_s=PATIENCE_S
    )
    assert wait_until(lambda: any(map(is_stopped, descendants(process.pid))), timeout_s=PATIENCE_S)
    assert process.stop() == 3


def test_the_command_line_of_a_missing_process_is_empty() -> None:
    process = subprocess.Popen(["sleep", "1000"])
    assert wait_until(lambda: command_line(process.pid) == "sleep 1000", timeout_s=PATIENCE_S)
    process.kill()
    assert all_end({process.pid})
    assert command_line(process.pid) == ""
    process.wait()
    assert not is_running(process.pid)
