"""`make run` from outside, in a copy of this checkout with its virtual environment."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.local.processes import command_line, wait_until
from tests.local.machine import PATIENCE_S, descendants, free_port, is_running, is_stopped, without_servers

pytestmark = [pytest.mark.server, pytest.mark.slow]

CHECKOUT = Path(__file__).resolve().parents[2]
COPIED = ("backend", "frontend", "rest", "schema", "tasks", "manage.py", "Procfile")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check out")
    for name in COPIED:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_elsewhere(checkout: Path) -> Iterator[None]:
    yield
    data = checkout / ".local" / "postgres"
    if data.is_symlink():
        shutil.rmtree(data.resolve())
        data.unlink()


class Run:
    """One `make run`, without the set-up before it."""

    def __init__(self, checkout: Path, port: int) -> None:
        self.port = port
        self.log = checkout / "run.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "backend.local.run"],
                cwd=checkout,
                env=without_servers() | {"PORT": str(port)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def await_ready(self) -> None:
        def is_ready_or_gone() -> bool:
            return "Taskwire is ready" in self.log.read_text() or self.process.poll() is not None

        assert wait_until(is_ready_or_gone, timeout_s=PATIENCE_S), self.log.read_text()
        assert self.process.poll() is None, self.log.read_text()

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
            return json.load(response)

    def await_success(self, path: str) -> None:
        def succeeds() -> bool:
            try:
                self.request(path)
            except OSError:
                return False
            return True

        assert wait_until(succeeds, timeout_s=PATIENCE_S), self.log.read_text()

    def end(self, number: signal.Signals) -> set[int]:
        """Signal the process group, as a terminal does. Wait for the run only. Return the descendants that it had."""
        pids = descendants(self.process.pid)
        assert len(pids) > 10  # five tethers, each with a command, and their children
        os.killpg(self.process.pid, number)
        self.process.wait()
        return pids


def refusal(checkout: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "backend.local.run"],
        cwd=checkout,
        env=without_servers() | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_taken_port_gets_one_line_and_nothing_is_started(checkout: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"Cannot listen on 127.0.0.1, port {port} " in refusal(checkout, PORT=str(port))
    assert not (checkout / ".local" / "postgres").exists()


def test_an_invalid_port_gets_one_line(checkout: Path) -> None:
    assert "port 70000 (no such port): set PORT" in refusal(checkout, PORT="70000")


def test_an_invalid_setting_gets_one_line(checkout: Path) -> None:
    assert "ACCESS is 'ajar'" in refusal(checkout, PORT=str(free_port()), ACCESS="ajar")


def test_an_env_file_is_read_and_the_environment_overrides_it(checkout: Path) -> None:
    env_file = checkout / ".env"
    env_file.write_text("PORT=70000\n")
    try:
        assert "port 70000" in refusal(checkout)
        assert "port 70001" in refusal(checkout, PORT="70001")
    finally:
        env_file.unlink()


@pytest.fixture(scope="module")
def run(checkout: Path) -> Iterator[Run]:
    """The first run in this checkout, which is ready. The last test ends it."""
    run = Run(checkout, free_port())
    try:
        run.await_ready()
        yield run
    finally:
        run.process.kill()


def manage(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "backend.local.manage", *arguments],
        cwd=checkout,
        env=without_servers() | {"DJANGO_SUPERUSER_PASSWORD": "a long enough one"},
        capture_output=True,
        text=True,
    )


def test_djangos_commands_need_a_run(checkout: Path) -> None:
    idle = manage(checkout, "check")
    assert (idle.returncode, "start it first" in idle.stderr) == (1, True)


def test_djangos_commands_join_the_run(checkout: Path, run: Run) -> None:
    created = manage(checkout, "createsuperuser", "--noinput", "--username", "boss", "--email", "boss@example.org")
    assert (created.returncode, created.stdout.strip()) == (0, "Superuser created successfully."), created.stderr


def test_killed_servers_are_started_again_and_the_product_goes_on(checkout: Path, run: Run) -> None:
    created = run.request("/projects/", {"name": "Before"})
    for server, pid_file in SERVERS.items():
        old = read_pid(checkout / ".local" / server / pid_file)
        os.kill(old, signal.SIGKILL)
        assert wait_until(lambda: answers_as_another(checkout, server, old), timeout_s=PATIENCE_S)  # noqa: B023
    run.await_success("/healthz")
    after = run.request("/projects/", {"name": "After"})
    assert [project["id"] for project in run.request("/projects/")][:2] == [after["id"], created["id"]]
    assert wait_until(lambda: worker_answers(checkout), timeout_s=PATIENCE_S), run.log.read_text()
    assert run.process.poll() is None
    lines = run.log.read_text().splitlines()
    assert [line for line in lines if "ended by itself" in line] == [
        "PostgreSQL ended by itself with exit code 137: it is started again.",
        "Valkey ended by itself with exit code 137: it is started again.",
    ]


def test_a_stopped_process_does_not_end_the_run(run: Run) -> None:
    lines = {pid: command_line(pid) for pid in descendants(run.process.pid)}
    (web,) = [pid for pid, line in lines.items() if line.endswith("-m backend.server") and "tether.py" not in line]
    os.kill(web, signal.SIGSTOP)
    assert wait_until(lambda: is_stopped(web), timeout_s=PATIENCE_S)
    os.kill(web, signal.SIGCONT)
    run.await_success("/healthz")
    assert (run.process.poll(), is_running(web)) == (None, True)


SERVERS = {"postgres": "data/postmaster.pid", "valkey": "valkey.pid"}


def read_pid(file: Path) -> int:
    return int(file.read_text().split()[0])


def answers_as_another(checkout: Path, server: str, old: int) -> bool:
    """Whether the server has another process than `old`, which is listening."""
    try:
        sockets = (checkout / ".local" / f"{server}.sockets").resolve()
        is_listening = any(path.is_socket() for path in sockets.iterdir())
        return is_listening and read_pid(checkout / ".local" / server / SERVERS[server]) != old
    except (OSError, IndexError):
        return False


def worker_answers(checkout: Path) -> bool:
    environment = json.loads((checkout / ".local" / "environment.json").read_text())
    ping = subprocess.run(
        [sys.executable, "-m", "celery", "--quiet", "--app", "backend", "inspect", "--timeout", "2", "ping"],
        cwd=checkout,
        env=without_servers() | environment,
        capture_output=True,
        check=False,
    )
    return ping.returncode == 0


def test_the_product_runs_and_its_data_survives_a_kill(checkout: Path, run: Run) -> None:
    try:
        before = [project["id"] for project in run.request("/projects/")]
        assert before, "demo data"
        created = run.request("/projects/", {"name": "Retained"})
        assert f"Taskwire already runs in this folder, as process {run.process.pid}" in refusal(checkout)
        killed = run.end(signal.SIGKILL)

        run = Run(checkout, run.port)
        run.await_ready()
        assert not any(map(is_running, killed))
        assert [project["id"] for project in run.request("/projects/")] == [created["id"], *before]
        stopped = run.end(signal.SIGINT)
        assert not any(map(is_running, stopped))
        assert run.process.returncode == 0
        assert manage(checkout, "check").returncode == 1
    finally:
        run.process.kill()
