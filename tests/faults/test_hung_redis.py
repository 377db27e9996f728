"""Redis is stopped by SIGSTOP: it accepts connections and does not answer. Writes succeed, and no list is stale."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

from backend.local.processes import wait_until
from tests.faults.cases import PATIENCE_S, FaultCase, figures
from tests.local.machine import is_stopped

ROUNDS = 4


class HungRedisTests(FaultCase):
    def request(self, path: str, body: Any = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.base_url}{path}", data, headers, method=method)  # noqa: S310
        with urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
            return json.load(response)

    def names(self) -> list[str]:
        """The names of the projects in REST's list, after a check that GraphQL has the same."""
        by_rest = [project["name"] for project in self.request("/projects/")]
        data = self.request("/graphql/", {"query": "{ projects { nodes { name } } }"})["data"]
        self.assertEqual([node["name"] for node in data["projects"]["nodes"]], by_rest)
        return by_rest

    @contextmanager
    def hung_redis(self) -> Iterator[None]:
        pid = int(self.valkey._pid_file.read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            self.assertTrue(wait_until(lambda: is_stopped(pid), timeout_s=PATIENCE_S))
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def test_writes_succeed_and_no_list_is_stale_during_the_outage_and_after_it(self) -> None:
        project = self.request("/projects/", {"name": "0"})
        names = ["0"]
        took_s = []
        for number in range(1, ROUNDS + 1):
            self.assertEqual(self.names(), names)  # stores the lists
            with self.hung_redis():
                for name, write in (
                    (f"rest {number}", lambda name: self.request("/projects/", {"name": name})),
                    (f"graphql {number}", self.create_by_graphql),
                ):
                    start = time.monotonic()
                    write(name)
                    took_s.append(time.monotonic() - start)
                    names.insert(0, name)
                    self.assertEqual(self.names(), names)
                renamed = {"name": f"renamed {number}"}
                start = time.monotonic()
                self.request(f"/projects/{project['id']}/", renamed, "PATCH")
                took_s.append(time.monotonic() - start)
                names[-1] = renamed["name"]
            # Read at once: the bumps of these writes are still pending.
            self.assertEqual(self.names(), names)
        figures.append(f"{self.id()}: writes took {max(took_s):.2f} s at most while Redis hung")

    def create_by_graphql(self, name: str) -> None:
        query = f'mutation {{ createProject(input: {{name: "{name}"}}) {{ __typename }} }}'
        result = self.request("/graphql/", {"query": query})
        self.assertEqual(result["data"], {"createProject": {"__typename": "Project"}})
