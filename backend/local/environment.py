"""Bring `.venv` up to date with a lock file: `environment.py local` for `make run`, `dev` for everything else.

Runs outside `.venv`, so it uses the standard library only. `taskwire.stamp` in `.venv` names the lock, the
interpreter and the path of `.venv`, and is written last. `taskwire.unfinished` exists during an installation.
So an unchanged environment costs next to nothing, and the next run discards an interrupted installation.
"""

import fcntl
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "taskwire.stamp"
UNFINISHED = VENV / "taskwire.unfinished"
PROGRESS_EVERY_S = 5.0

# The locks that satisfy a target. `dev.txt` contains `local.txt`, so `make run` accepts what `make test` installed.
SATISFIED_BY = {"local": ("local", "dev"), "dev": ("dev",)}


class SetupError(Exception):
    """A failure, as a message for the user."""


def main(target: str) -> None:
    """Install the packages of `requirements/<target>.txt` into `.venv`."""
    with _exclusive_lock():
        if _stamp() in {_expected_stamp(lock) for lock in SATISFIED_BY[target]} and _runs("import pip"):
            return
        if UNFINISHED.exists() or _was_moved() or not _runs("import pip") or not _runs(_SAME_VERSION):
            _create()
        _install(target)


_SAME_VERSION = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}"


def _stamp() -> str:
    try:
        return STAMP.read_text()
    except FileNotFoundError:
        return ""


def _expected_stamp(lock: str) -> str:
    digest = hashlib.sha256(_lock_file(lock).read_bytes()).hexdigest()
    return f"{lock} {digest}\n{sys.version}\n{VENV}\n"


def _was_moved() -> bool:
    """Whether `.venv` was created at another path: its scripts would call a Python that is no longer there."""
    stamp = _stamp()
    return stamp != "" and stamp.splitlines()[-1] != str(VENV)


def _lock_file(lock: str) -> Path:
    return CHECKOUT / "requirements" / f"{lock}.txt"


def _runs(code: str) -> bool:
    try:
        return subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def _exclusive_lock() -> Iterator[None]:
    """Lock a file, so that two `make` processes do not write the same environment at once."""
    folder = CHECKOUT / ".local"
    folder.mkdir(exist_ok=True)
    with (folder / "venv.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another make that is setting up .venv ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _create() -> None:
    if any(importlib.util.find_spec(module) is None for module in ("venv", "ensurepip")):
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        raise SetupError(f"This Python lacks its venv module: on Debian, 'apt install {package}' installs it.")
    print(f"Creating .venv with Python {sys.version.split()[0]} ...", flush=True)
    if VENV.is_symlink() or VENV.is_file():
        VENV.unlink()
    elif VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    UNFINISHED.touch()
    result = subprocess.run([sys.executable, "-m", "venv", VENV], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SetupError(f"Python could not create .venv:\n{result.stdout}{result.stderr}".rstrip())


def _install(lock: str) -> None:
    pins = len(re.findall(r"^[A-Za-z0-9][^ ]*==", _lock_file(lock).read_text(), re.MULTILINE))
    print(f"Installing {pins} packages of requirements/{lock}.txt ...", flush=True)
    UNFINISHED.touch()
    STAMP.unlink(missing_ok=True)
    command: list[str | Path] = [PYTHON, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--require-hashes", "--requirement", _lock_file(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        output = _follow(pip, pins)
    if pip.returncode != 0:
        raise SetupError("".join(output[-15:]) + "The packages could not be installed; pip's reason is above.")
    # Written under another name and renamed: the stamp is either complete or absent.
    fresh = STAMP.with_suffix(".new")
    fresh.write_text(_expected_stamp(lock))
    fresh.replace(STAMP)
    UNFINISHED.unlink()


def _follow(pip: "subprocess.Popen[str]", pins: int) -> list[str]:
    """Return pip's output. Print its progress every few seconds meanwhile."""
    output: list[str] = []
    assert pip.stdout is not None
    reader = threading.Thread(target=output.extend, args=(pip.stdout,))
    reader.start()
    started = time.monotonic()
    while reader.is_alive():
        reader.join(PROGRESS_EVERY_S)
        if reader.is_alive():
            print(f"  {_progress(output, pins)}, {time.monotonic() - started:.0f} s", flush=True)
    return output


def _progress(output: list[str], pins: int) -> str:
    if any(line.startswith("Installing collected") for line in output):
        return "unpacking"
    fetched = sum(line.startswith(("Collecting ", "Requirement already")) for line in output)
    return f"{fetched} of {pins} fetched"


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except SetupError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"Taskwire needs to write to {CHECKOUT}, but cannot: {error.strerror} ({error.filename}).")
    except KeyboardInterrupt:
        sys.exit(130)
