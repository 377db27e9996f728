import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account of the machine may pass through, unlike pytest's own under root."""
    made = Path(tempfile.mkdtemp(prefix="taskwire-test-", dir="/var/tmp"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)
