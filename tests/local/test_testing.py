"""`make test` from outside: each test runs it on a small suite of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.machine import all_end, descendants, without_servers

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    file = tmp_path / "test_inner.py"
    file.write_text(
        "import os, time\n"
        "def test_urls():\n"
        "    assert 'taskwire' in os.environ['DATABASE_URL']\n"
        "    print('MARK', os.environ['REDIS_URL'], os.environ['BROKER_URL'], os.environ['ACCESS'], flush=True)\n"
        "    time.sleep(float(os.environ.get('LINGER_S', '0')))\n"
    )
    return file


@pytest.fixture
def lingering(suite: Path) -> Iterator["subprocess.Popen[str]"]:
    """A run in the middle of its suite, in a process group of its own."""
    run = subprocess.Popen(
        command(suite),
        cwd=CHECKOUT,
        env=without_servers() | {"LINGER_S": "1000", "ACCESS": "open"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    assert any("MARK unix:///tmp/taskwire-" in line and line.endswith(" closed\n") for line in run.stdout)
    yield run
    run.stdout.close()
    run.wait()


def command(suite: Path) -> list[str | Path]:
    plain = ["-p", "no:django", "-p", "no:cacheprovider", "-c", os.devnull]
    return [sys.executable, "-m", "backend.local.testing", suite, "-s", *plain]


def test_servers_named_in_the_environment_are_used(suite: Path) -> None:
    named = {
        "DATABASE_URL": "postgres://taskwire@db.invalid/taskwire",
        "REDIS_URL": "redis://cache.invalid/0",
        "BROKER_URL": "amqp://broker.invalid",
    }
    env = without_servers() | named
    done = subprocess.run(command(suite), cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MARK redis://cache.invalid/0 amqp://broker.invalid closed" in done.stdout


def test_the_exit_code_is_that_of_pytest(suite: Path) -> None:
    suite.write_text("def test_no():\n    assert False\n")
    done = subprocess.run(command(suite), cwd=CHECKOUT, env=without_servers(), capture_output=True, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_whole_run_is_signalled(
    lingering: "subprocess.Popen[str]", number: signal.Signals
) -> None:
    pids = descendants(lingering.pid)
    os.killpg(lingering.pid, number)
    lingering.wait()
    assert all_end(pids)


def test_nothing_is_left_when_pytest_is_killed(lingering: "subprocess.Popen[str]") -> None:
    pids = descendants(lingering.pid)
    (suite_process,) = (pid for pid in pids if b"pytest" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(suite_process, signal.SIGKILL)
    assert lingering.wait() != 0
    assert all_end(pids)
