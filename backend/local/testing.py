"""`make test`: run pytest against servers that exist for this run alone."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backend.local.console import exit_with
from backend.local.postgres import Postgres
from backend.local.valkey import Valkey

# The suite runs with these values, whatever the shell sets.
TEST_ENV = {
    "ACCESS": "closed",
    "BIND": "127.0.0.1",
    "DEBUG": "false",
    "EMAIL_URL": "memorymail://",
    # A busy machine may take longer to answer than the default allows, and a test would find Redis away.
    "REDIS_TIMEOUT_S": "2",
    "ENV_FILE": "",
    "SECRET_KEY": "only-for-tests-" + "0" * 50,
}


def main(arguments: list[str]) -> int:
    """Return pytest's exit code. Servers named in the environment are used instead of embedded ones."""
    env = {**os.environ, **TEST_ENV}
    with servers(env) as urls:
        # Ctrl-C in the terminal reaches pytest directly. The servers run until it has printed its summary.
        signal.signal(signal.SIGINT, lambda *_: None)
        pytest = subprocess.Popen([sys.executable, "-m", "pytest", *arguments], env={**env, **urls})
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: pytest.terminate())
        return pytest.wait()


@contextmanager
def servers(env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Start an embedded server for each URL that `env` lacks, and stop it at the end of the block. Yield the URLs."""
    with ExitStack() as cleanup:
        urls = {}
        if not {"DATABASE_URL", "REDIS_URL", "BROKER_URL"} <= env.keys():
            folder = cleanup.enter_context(throwaway_folder())
            urls = _start_servers(folder, env, cleanup)
        yield urls


@contextmanager
def throwaway_folder() -> Iterator[Path]:
    """A folder for the data of servers, which is deleted at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="taskwire-test-"))
    try:
        # If started by root, PostgreSQL runs as another account, which must be able to enter this folder.
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start_servers(folder: Path, env: Mapping[str, str], cleanup: ExitStack) -> dict[str, str]:
    """Start the servers that `env` does not name, and return their URLs."""
    urls = {}
    if "DATABASE_URL" not in env:
        postgres = cleanup.enter_context(Postgres(folder, durable=False, removes=[folder]))
        urls["DATABASE_URL"] = postgres.url
    if not {"REDIS_URL", "BROKER_URL"} <= env.keys():
        valkey = cleanup.enter_context(Valkey(folder))
        urls["REDIS_URL"] = env.get("REDIS_URL", valkey.url)
        urls["BROKER_URL"] = env.get("BROKER_URL", valkey.broker_url)
    return urls


if __name__ == "__main__":
    exit_with(main)
