import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.local.postgres import Postgres


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may traverse. Only root may traverse the folders of a pytest that root runs."""
    with _traversable() as path:
        yield path


@pytest.fixture(scope="session")
def _initialized() -> Iterator[Path]:
    """A folder with the data of a new PostgreSQL. Creating it takes more than a second."""
    with _traversable() as path:
        Postgres(path, durable=False)._prepare()
        yield path


@pytest.fixture
def initialized(folder: Path, _initialized: Path) -> Path:
    """Like `folder`, with the data of a PostgreSQL that has not been started yet."""
    subprocess.run(["cp", "-a", _initialized / "postgres", folder], check=True)
    return folder


@contextmanager
def _traversable() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="taskwire-test-", dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)
