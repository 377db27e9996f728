"""Base classes of the recipe tests: they run the programs of `docs/live.md` on a server that is killed meanwhile."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import Event, Membership, Scope, Task, Token
from tests import processes
from tests.cases import ServerCase, database_url, token_of
from tests.factories import MembershipFactory, TaskFactory
from tests.processes import Process

PAGE = settings.BASE_DIR / "docs" / "live.md"
TIMEOUT_S = 60


def recipe(name: str) -> str:
    """Return the program of this name from the page."""
    [text] = re.findall(rf"^<!-- recipe: {re.escape(name)} -->\n```\w+\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return str(text)


class Recipe(Protocol):
    """A running recipe."""

    def cursors(self, word: str) -> list[str]:
        """Return the cursors that it printed after `word`: `state` for a state that it read, `event` for an event."""

    def wait_for(self, word: str, count: int) -> None: ...

    def wait_for_end(self) -> str:
        """Wait until it ends, and return the last line that it printed."""


class Program:
    """A recipe that runs as a process and prints lines."""

    def __init__(
        self, command: list[str], environment: dict[str, str], parse: Callable[[str], list[str]] | None = None
    ):
        self._lines: list[str] = []
        self._printed = threading.Condition()
        self._parse = parse or (lambda line: [line])
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._printed:
                self._lines += self._parse(line.strip())
                self._printed.notify_all()

    def cursors(self, word: str) -> list[str]:
        return [line.split()[1] for line in self._lines if line.split()[:1] == [word]]

    def wait_for(self, word: str, count: int) -> None:
        with self._printed:
            if not self._printed.wait_for(lambda: len(self.cursors(word)) >= count, TIMEOUT_S):
                raise AssertionError(f"expected {count} of {word!r}, got: {self._lines}")

    def wait_for_end(self) -> str:
        assert self.process.wait(TIMEOUT_S) == 1, self._lines
        self._reading.join(TIMEOUT_S)
        return self._lines[-1]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT_S)
        self._reading.join(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.slow
class RecipeCase(ServerCase):
    """Closed mode, a member with a token, and one task of their project that changes."""

    environment = {"ACCESS": "closed"}

    def setUp(self) -> None:
        self.membership: Membership = MembershipFactory()
        self.task: Task = TaskFactory(project=self.membership.project)
        self.token = token_of(self.membership.user, Scope.READ)
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self._database_url = database_url()
        self._database = ThreadPoolExecutor(1)
        self.addCleanup(self._database.shutdown)
        self.addCleanup(self.in_database, lambda: connection.close())
        super().setUp()

    def run_program(
        self, command: list[str], parse: Callable[[str], list[str]] | None = None, **environment: str
    ) -> Program:
        variables = {
            "TASKWIRE_URL": self.base_url,
            "TASKWIRE_TOKEN": self.token,
            "TMPDIR": str(self.folder),
            **environment,
        }
        program = Program(command, variables, parse)
        self.addCleanup(program.kill)
        return program

    def write_recipe(self, name: str) -> str:
        path = self.folder / name
        path.write_text(recipe(name))
        return str(path)

    def in_database(self, work: Callable[[], object]) -> None:
        """Run `work` in another thread: Playwright runs an event loop in this one, where Django refuses ORM queries."""
        self._database.submit(work).result()

    def rename(self, count: int) -> None:
        def write() -> None:
            for number in range(count):
                services.task.update_task(
                    actor=SYSTEM, task_id=self.task.pk, changes={"title": f"{number} of {Event.objects.count()}"}
                )

        self.in_database(write)

    def journal(self, after: str) -> list[str]:
        """Return the cursors of the events that a member receives after a position."""
        cursors: list[str] = []
        events = Event.objects.filter(position__gt=int(after)).exclude(kind="access.changed").order_by("position")
        self.in_database(lambda: cursors.extend(map(str, events.values_list("position", flat=True))))
        return cursors

    def delete_all_events_but_the_newest(self) -> None:
        def delete() -> None:
            newest = Event.objects.latest("position").position
            Event.objects.filter(position__lt=newest).delete()

        self.in_database(delete)

    def revoke(self) -> None:
        self.in_database(lambda: services.token.revoke_token(actor=SYSTEM, token_id=Token.objects.get().pk))

    def kill_server(self) -> None:
        self.server.kill()
        self.server.communicate(timeout=20)

    def start_server_again(self) -> None:
        """Start a server on the same port and database."""
        address = {"BIND": "127.0.0.1", "PORT": str(urlsplit(self.base_url).port)}
        self.server = processes.libraries().start(
            "backend.server",
            environment={**os.environ, **address, "DATABASE_URL": self._database_url, **self.environment},
            stderr=subprocess.PIPE,
        )
        self.addCleanup(self._stop_server, self.server)
        assert self.server.stderr is not None
        assert any("Listening on TCP address" in line for line in self.server.stderr), "the server did not come back"

    @staticmethod
    def _stop_server(server: Process) -> None:
        server.kill()
        server.communicate(timeout=20)


class RecoveryTests:
    """The tests of every recipe. `start` runs one. `last_line` matches its last line after a revocation."""

    last_line: str

    def start(self) -> Recipe:
        raise NotImplementedError

    def started(self) -> Recipe:
        program = self.start()
        program.wait_for("state", 1)
        return program

    def test_a_recipe_misses_and_repeats_no_event_when_the_server_is_killed_during_changes(self) -> None:
        program = self.started()
        writer = threading.Thread(target=self.rename, args=[40])
        writer.start()
        program.wait_for("event", 3)
        self.kill_server()
        writer.join()
        self.rename(3)
        self.start_server_again()
        program.wait_for("event", 43)
        self.kill_server()
        self.rename(3)
        self.start_server_again()
        program.wait_for("event", 46)
        self.rename(1)
        program.wait_for("event", 47)

        [start] = program.cursors("state")
        self.assertEqual(program.cursors("event"), self.journal(after=start))

    def test_a_recipe_reads_the_state_again_when_events_are_no_longer_retained(self) -> None:
        program = self.started()
        self.rename(1)
        program.wait_for("event", 1)
        self.kill_server()
        self.rename(4)
        self.delete_all_events_but_the_newest()
        self.start_server_again()
        program.wait_for("state", 2)
        self.rename(2)
        program.wait_for("event", 3)

        first, again = program.cursors("state")
        self.assertEqual(int(again), int(first) + 5)
        self.assertEqual(program.cursors("event"), [str(int(first) + 1), *self.journal(after=again)])

    def test_a_recipe_ends_when_its_credential_is_revoked(self) -> None:
        program = self.started()
        self.revoke()
        self.assertRegex(program.wait_for_end(), self.last_line)
