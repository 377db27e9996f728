"""The recipes of docs/live.md that run outside a browser: with Python, curl and Node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unittest
from hashlib import sha256
from pathlib import Path

from backend.local.processes import wait_until
from tests.recipes.cases import TIMEOUT_S, Program, RecipeCase, RecoveryTests

HERE = Path(__file__).parent
IN_CI = os.environ.get("CI") == "true"


class PythonTests(RecoveryTests, RecipeCase):
    last_line = "^closed with 4401$"

    def start(self) -> Program:
        return self.run_program([sys.executable, self.write_recipe("listen.py")])


@unittest.skipIf(shutil.which("curl") is None and not IN_CI, "curl is not installed")
class PollingTests(RecoveryTests, RecipeCase):
    last_line = "^refused with 401$"

    def start(self) -> Program:
        command = ["sh", self.write_recipe("poll.sh"), str(self.folder / "cursor")]
        return self.run_program(command, events_of, POLL_S="0.2")

    def test_a_restarted_program_continues_after_its_last_event(self) -> None:
        first = self.started()
        self.rename(2)
        first.wait_for("event", 2)
        cursor_file = self.folder / "cursor"
        assert wait_until(lambda: cursor_file.read_text().strip() == first.cursors("event")[-1], timeout_s=TIMEOUT_S)
        first.process.terminate()
        first.wait_for_end()
        self.rename(2)
        second = self.start()
        second.wait_for("event", 2)
        [start] = first.cursors("state")
        self.assertEqual(first.cursors("event") + second.cursors("event"), self.journal(after=start))
        self.assertEqual(second.cursors("state"), [])


@unittest.skipIf((shutil.which("node") is None or shutil.which("npm") is None) and not IN_CI, "Node is not installed")
class ApolloTests(RecoveryTests, RecipeCase):
    last_line = r"\((4401|UNAUTHENTICATED)\)$"  # the subscription and the socket end almost together

    def start(self) -> Program:
        (self.folder / "node_modules").symlink_to(node_modules())
        return self.run_program(["node", self.write_recipe("apollo.mjs")])


def events_of(line: str) -> list[str]:
    """Return one line per event for a page of events, or any other line unchanged."""
    if not line.startswith("{"):
        return [line]
    return [f"event {event['cursor']}" for event in json.loads(line)["events"]]


def node_modules() -> Path:
    """Install the packages of `package-lock.json` once. npm checks each archive against the hash there."""
    lock = HERE / "package-lock.json"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    installed = caches / "taskwire" / f"recipes-{sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not installed.exists():
        installed.parent.mkdir(parents=True, exist_ok=True)
        unfinished = installed.with_name(f"{installed.name}.{os.getpid()}")
        unfinished.mkdir()
        for name in ("package.json", lock.name):
            shutil.copy(HERE / name, unfinished)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(["npm", "ci", *options], cwd=unfinished, check=True, timeout=300)
        try:
            unfinished.rename(installed)
        except OSError:  # another worker was first
            shutil.rmtree(unfinished)
    return installed / "node_modules"
