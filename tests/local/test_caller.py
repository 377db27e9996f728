"""A signal to `make` alone, which GNU make does not forward, is detected by the process that it runs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.machine import PATIENCE_S

CHECKOUT = Path(__file__).resolve().parents[2]
WATCH = """
import time
from backend.local.caller import Caller
caller = Caller()
print("watching", flush=True)
while not caller.has_stopped():
    time.sleep(0.01)
print("stopped", flush=True)
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_make_alone_is_detected(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "watch.py"
    script.write_text(WATCH)
    (tmp_path / "Makefile").write_text(f"run:\n\t@exec '{sys.executable}' '{script}'\n")
    make = subprocess.Popen(
        ["make", "-C", tmp_path, "--no-print-directory"],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert make.stdout is not None
        assert make.stdout.readline() == "watching\n"
        make.send_signal(number)
        assert make.communicate(timeout=PATIENCE_S)[0] == "stopped\n"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGKILL)


def test_without_make_no_stop_is_detected(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "MAKELEVEL"}
    program = "from backend.local.caller import Caller; print(Caller().has_stopped())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
