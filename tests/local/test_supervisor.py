from pathlib import Path

import pytest

from backend.local.processes import wait_until
from backend.local.supervisor import Supervisor
from tests.local.machine import PATIENCE_S, all_end

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GREETING": "good morning"}


def procfile(folder: Path, text: str) -> Path:
    file = folder / "Procfile"
    file.write_text(text)
    return file


def test_when_one_process_ends_the_rest_is_stopped_and_the_message_names_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    commands = (
        f"# A comment, and an empty line\n\nweb: sh -c 'echo $$ > {pid_file}; exec sleep 1000'\n"
        f"worker: sh -c 'until test -s {pid_file}; do sleep 0.01; done; exit 3'\n"
    )
    with Supervisor(procfile(tmp_path, commands), ENV) as supervisor:
        line = supervisor.wait(on_poll=lambda: None)
    assert line == "worker ended by itself with exit code 3, so the rest is stopped too."
    assert all_end({int(pid_file.read_text())})


def test_lines_are_printed_under_the_name_of_their_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    commands = 'web: echo "$GREETING"\nworker: sleep 1000\n'
    with Supervisor(procfile(tmp_path, commands), ENV) as supervisor:
        supervisor.wait(on_poll=lambda: None)
    assert capfd.readouterr().out == "web    | good morning\n"


def test_the_callback_is_called_at_every_poll(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    polls = 0

    def poll() -> None:
        nonlocal polls
        polls += 1
        if polls == 3:
            raise Enough

    with pytest.raises(Enough), Supervisor(procfile(tmp_path, "web: sleep 1000\n"), ENV) as supervisor:
        supervisor.wait(on_poll=poll)
    process = supervisor._processes["web"]
    assert wait_until(lambda: process.exit_code() is not None, timeout_s=PATIENCE_S)
