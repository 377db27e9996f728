"""The set-up before every target, on a checkout in small: the scripts themselves, and locks without packages."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backend.local.processes import Command

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set up once for `dev`: that is the slow part."""
    made = tmp_path_factory.mktemp("check out")
    shutil.copytree(CHECKOUT / "backend" / "local", made / "backend" / "local")
    (made / "requirements").mkdir()
    for lock in ("local", "dev"):
        (made / "requirements" / f"{lock}.txt").write_text(f"# {lock}\n")
    assert "Creating .venv" in set_up(made, "dev").stdout
    return made


def set_up(checkout: Path, target: str) -> "subprocess.CompletedProcess[str]":
    command: Command = [sys.executable, checkout / "backend" / "local" / "bootstrap.py", target]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_python_too_old_gets_one_line() -> None:
    script = CHECKOUT / "backend" / "local" / "bootstrap.py"
    old = f"""
import runpy, sys
sys.version_info, sys.version = (3, 9, 2, "final", 0), "3.9.2 (default)"
runpy.run_path({str(script)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "Taskwire needs Python 3.11 or newer, this is 3.9.2: name another one, as in 'make run PYTHON=python3.13'.\n"
    )


def test_an_unchanged_lock_installs_nothing(checkout: Path) -> None:
    done = set_up(checkout, "dev")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_set_up_for_dev_serves_make_run_too(checkout: Path) -> None:
    assert set_up(checkout, "local").stdout == ""


def test_a_changed_lock_is_installed_into_the_same_environment(checkout: Path) -> None:
    with (checkout / "requirements" / "dev.txt").open("a") as lock:
        lock.write("# changed\n")
    assert set_up(checkout, "dev").stdout == "Installing 0 packages of requirements/dev.txt ...\n"
    assert set_up(checkout, "dev").stdout == ""


def test_an_interrupted_install_is_thrown_away(checkout: Path) -> None:
    (checkout / ".venv" / "taskwire.unfinished").touch()
    (checkout / ".venv" / "taskwire.stamp").unlink()
    (checkout / ".venv" / "half").touch()
    assert "Creating .venv" in set_up(checkout, "dev").stdout
    assert not (checkout / ".venv" / "half").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert "Creating .venv" in set_up(checkout, "dev").stdout
    assert set_up(checkout, "dev").stdout == ""


def test_an_environment_that_was_moved_is_made_anew(checkout: Path) -> None:
    moved = checkout.with_name("moved")
    checkout.rename(moved)
    try:
        assert "Creating .venv" in set_up(moved, "dev").stdout
        assert (moved / ".venv" / "bin" / "pip").read_text().count(str(checkout)) == 0
    finally:
        moved.rename(checkout)
    assert "Creating .venv" in set_up(checkout, "dev").stdout


def test_an_install_that_fails_shows_the_reason_and_is_not_taken_for_done(checkout: Path) -> None:
    (checkout / "requirements" / "local.txt").write_text("./nowhere-at-all\n")
    (checkout / ".venv" / "taskwire.stamp").unlink()
    done = set_up(checkout, "local")
    assert done.returncode == 1
    assert "nowhere-at-all" in done.stderr
    assert done.stderr.endswith("The packages could not be installed; pip's reason is above.\n")
    assert not (checkout / ".venv" / "taskwire.stamp").exists()


def test_a_folder_that_takes_no_files_gets_one_line(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "backend" / "local", tmp_path / "backend" / "local")
    # Root may write anywhere, so a file stands where the folder should.
    (tmp_path / ".local").touch()
    done = set_up(tmp_path, "dev")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Taskwire needs to write to {tmp_path}, but cannot: ")
    assert done.stderr.count("\n") == 1
