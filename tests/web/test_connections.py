"""The connections that a web process has to PostgreSQL: few, kept, and opened anew where they were ended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import urlopen

from django.db import connection

from tests.cases import ServerCase
from tests.factories import TaskFactory

AT_ONCE = 200
TIMEOUT_S = 60


class ConnectionTests(ServerCase):
    environment = {"DATABASE_CONNECTIONS": "4"}

    def setUp(self) -> None:
        super().setUp()
        self.task = TaskFactory()

    def read(self, turn: int = 0) -> int:
        """Ask for what no cache holds; the status."""
        with urlopen(f"{self.base_url}/tasks/{self.task.pk}/", timeout=TIMEOUT_S) as answer:  # noqa: S310
            return int(answer.status)

    def sql(self, statement: str) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0]

    def test_many_requests_at_once_share_few_connections(self) -> None:
        self.read()
        sessions = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
        before = self.sql(sessions)
        with ThreadPoolExecutor(AT_ONCE) as clients:
            self.assertEqual(list(clients.map(self.read, range(AT_ONCE))), [200] * AT_ONCE)
        self.assertLessEqual(self.sql(sessions) - before, 4 + 3)
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        self.assertLessEqual(self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {others}"), 4 + 3)

    def test_connections_that_were_ended_are_opened_anew(self) -> None:
        """As after a restart of PostgreSQL, which the threads learn of when they next use theirs."""
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(self.read, range(8)))
            ended = self.sql(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            self.assertGreater(ended, 1)
            self.assertEqual(list(clients.map(self.read, range(8))), [200] * 8)
