"""The connections of a web process to PostgreSQL: few, persistent, and reopened after PostgreSQL closes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import urlopen

from django.db import connection

from tests.cases import ServerCase
from tests.factories import TaskFactory

REQUESTS = 200
# Those of the request threads, the journal's reader, and two for listeners.
CONNECTIONS = 4 + 3
TIMEOUT_S = 60


class ConnectionTests(ServerCase):
    environment = {"DATABASE_CONNECTIONS": "4"}

    def setUp(self) -> None:
        super().setUp()
        self.task = TaskFactory()

    def read(self, _: int = 0) -> int:
        """Request an object that no cache stores, and return the status."""
        with urlopen(f"{self.base_url}/tasks/{self.task.pk}/", timeout=TIMEOUT_S) as response:  # noqa: S310
            return int(response.status)

    def sql(self, statement: str) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0]

    def test_concurrent_requests_share_few_connections(self) -> None:
        self.read()
        sessions = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
        before = self.sql(sessions)
        with ThreadPoolExecutor(REQUESTS) as clients:
            self.assertEqual(list(clients.map(self.read, range(REQUESTS))), [200] * REQUESTS)
        self.assertLessEqual(self.sql(sessions) - before, CONNECTIONS)
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        self.assertLessEqual(self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {others}"), CONNECTIONS)

    def test_closed_connections_are_reopened(self) -> None:
        """A restart of PostgreSQL closes them too. Each thread notices it when it next uses its connection."""
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(self.read, range(8)))
            terminated = self.sql(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            self.assertGreater(terminated, 1)
            self.assertEqual(list(clients.map(self.read, range(8))), [200] * 8)
