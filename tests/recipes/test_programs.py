"""The recipes that are programs: with Node, Python and curl."""

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
from tests.recipes.cases import TIMEOUT_S, Program, RecipeCase, Survives

HERE = Path(__file__).parent
IN_CI = os.environ.get("CI") == "true"


class PythonTests(Survives, RecipeCase):
    last_words = "^closed with 4401$"

    def start(self) -> Program:
        return self.run_program([sys.executable, self.write_recipe("listen.py")])


@unittest.skipIf(shutil.which("curl") is None and not IN_CI, "curl is not installed")
class PollingTests(Survives, RecipeCase):
    last_words = "^refused with 401$"

    def start(self) -> Program:
        command = ["sh", self.write_recipe("poll.sh"), str(self.folder / "cursor")]
        return self.run_program(command, events_of, POLL_S="0.2")

    def test_started_again_it_goes_on_where_it_left_off(self) -> None:
        first = self.started()
        self.rename(2)
        first.wait_for("event", 2)
        kept = self.folder / "cursor"
        assert wait_until(lambda: kept.read_text().strip() == first.heard("event")[-1], timeout_s=TIMEOUT_S)
        first.process.terminate()
        first.wait_for_end()
        self.rename(2)
        second = self.start()
        second.wait_for("event", 2)
        [start] = first.heard("state")
        self.assertEqual(first.heard("event") + second.heard("event"), self.journal(after=start))
        self.assertEqual(second.heard("state"), [])


@unittest.skipIf((shutil.which("node") is None or shutil.which("npm") is None) and not IN_CI, "Node is not installed")
class ApolloTests(Survives, RecipeCase):
    last_words = r"\((4401|UNAUTHENTICATED)\)$"  # the subscription's end and the socket's come close together

    def start(self) -> Program:
        (self.folder / "node_modules").symlink_to(node_modules())
        return self.run_program(["node", self.write_recipe("apollo.mjs")])


def events_of(line: str) -> list[str]:
    """A page of events, as one line for each."""
    if not line.startswith("{"):
        return [line]
    return [f"event {event['cursor']}" for event in json.loads(line)["events"]]


def node_modules() -> Path:
    """What `package-lock.json` names, fetched once; npm holds each archive against the hash there."""
    lock = HERE / "package-lock.json"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = caches / "taskwire" / f"recipes-{sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = kept.with_name(f"{kept.name}.{os.getpid()}")
        made.mkdir()
        for name in ("package.json", lock.name):
            shutil.copy(HERE / name, made)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(["npm", "ci", *options], cwd=made, check=True, timeout=300)
        try:
            made.rename(kept)
        except OSError:  # another worker was first
            shutil.rmtree(made)
    return kept / "node_modules"
