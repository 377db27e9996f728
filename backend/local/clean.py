"""`make clean`: remove `.venv` and `.local`, unless something there is in use.

Runs outside `.venv`, since a broken `.venv` is a reason to clean.
"""

import fcntl
import shutil
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LOCAL = CHECKOUT / ".local"


def main() -> str | None:
    """Return the reason if nothing was removed."""
    if any(_is_locked(lock) for lock in LOCAL.glob("*.lock")):
        return "Something still runs in this folder: stop 'make run' first."
    data = LOCAL / "postgres"
    if data.is_symlink():
        _remove(data.resolve())
    for folder in (LOCAL, CHECKOUT / ".venv"):
        _remove(folder)
    return None


def _is_locked(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _remove(folder: Path) -> None:
    if folder.exists():
        print(f"Removing {folder}", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"Cannot remove {error.filename}: {error.strerror}.")
