"""The set-up before every make target, on a small checkout: with the real scripts, and locks without packages."""

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
    """A checkout set up for `dev`; once, because it is slow."""
    folder = tmp_path_factory.mktemp("check out")
    shutil.copytree(CHECKOUT / "backend" / "local", folder / "backend" / "local")
    (folder / "requirements").mkdir()
    for lock in ("local", "dev"):
        (folder / "requirements" / f"{lock}.txt").write_text(f"# {lock}\n")
    assert "Creating .venv" in set_up(folder, "dev").stdout
    return folder


def set_up(checkout: Path, target: str) -> "subprocess.CompletedProcess[str]":
    command: Command = [sys.executable, checkout / "backend" / "local" / "bootstrap.py", target]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_python_that_is_too_old_gets_one_line() -> None:
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


def test_an_environment_for_dev_also_serves_make_run(checkout: Path) -> None:
    assert set_up(checkout, "local").stdout == ""


def test_a_changed_lock_is_installed_into_the_same_environment(checkout: Path) -> None:
    with (checkout / "requirements" / "dev.txt").open("a") as lock:
        lock.write("# changed\n")
    assert set_up(checkout, "dev").stdout == "Installing 0 packages of requirements/dev.txt ...\n"
    assert set_up(checkout, "dev").stdout == ""


def test_an_interrupted_install_is_discarded(checkout: Path) -> None:
    (checkout / ".venv" / "taskwire.unfinished").touch()
    (checkout / ".venv" / "taskwire.stamp").unlink()
    (checkout / ".venv" / "half").touch()
    assert "Creating .venv" in set_up(checkout, "dev").stdout
    assert not (checkout / ".venv" / "half").exists()


def test_an_environment_whose_python_is_missing_is_created_again(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert "Creating .venv" in set_up(checkout, "dev").stdout
    assert set_up(checkout, "dev").stdout == ""


def test_an_environment_of_another_folder_is_created_again(checkout: Path) -> None:
    """A checkout that was moved is like a copy, and a copy leaves `checkout` to the next test."""
    copy = checkout.with_name("copy")
    shutil.copytree(checkout, copy, symlinks=True)
    assert "Creating .venv" in set_up(copy, "dev").stdout
    assert (copy / ".venv" / "bin" / "pip").read_text().count(f"{checkout}/") == 0


def test_an_install_that_fails_shows_the_reason_and_is_not_recorded(checkout: Path) -> None:
    (checkout / "requirements" / "local.txt").write_text("./nowhere-at-all\n")
    (checkout / ".venv" / "taskwire.stamp").unlink()
    done = set_up(checkout, "local")
    assert done.returncode == 1
    assert "nowhere-at-all" in done.stderr
    assert done.stderr.endswith("The packages could not be installed; pip's reason is above.\n")
    assert not (checkout / ".venv" / "taskwire.stamp").exists()


def test_a_folder_that_is_not_writable_gets_one_line(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "backend" / "local", tmp_path / "backend" / "local")
    # Root may write anywhere, so a file takes the place of the folder.
    (tmp_path / ".local").touch()
    done = set_up(tmp_path, "dev")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Taskwire needs to write to {tmp_path}, but cannot: ")
    assert done.stderr.count("\n") == 1
