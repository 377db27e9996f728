"""Base classes and helpers of all tests."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase, override_settings

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.cache import redis, versions
from backend.projects.models import (
    AuditEntry,
    Comment,
    Event,
    Invitation,
    Membership,
    Project,
    Scope,
    SummaryReport,
    Task,
    Token,
    User,
)
from tests import processes
from tests.processes import Process

# Random tests are longer in CI and in `make faults` than in `make test`.
IS_THOROUGH = os.environ.get("CI") == "true" or os.environ.get("FAULTS") == "long"


class _Case:
    client: Any
    assertEqual: Callable[[Any, Any], None]  # noqa: N815
    addCleanup: Callable[..., None]  # noqa: N815

    def events(self) -> list[str]:
        """Kinds of the events in the journal, oldest first, without those that are never delivered."""
        delivered = Event.objects.exclude(kind="access.changed").order_by("position")
        return list(delivered.values_list("kind", flat=True))

    def write_unannounced(self, write: Callable[[], Any]) -> None:
        """Run `write` like a writer that is killed between its commit and its notification."""
        with transaction.atomic():
            before = len(connection.run_on_commit)
            write()
            del connection.run_on_commit[before:]

    @contextmanager
    def redis_down(self) -> Iterator[None]:
        """Make Redis unreachable within the block. After it, the next command of this process reaches Redis again."""
        unreachable = {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
        # The next test starts at position 0 again, so it must not receive the pending bumps of this one.
        self.addCleanup(versions.retry_pending_bumps)
        with override_settings(CACHES={"default": unreachable}):
            yield
        redis.server.ask_again_at = 0.0

    @contextmanager
    def nothing_changes(self) -> Iterator[None]:
        """Check that the block changes no row and no event."""
        before = _all_rows()
        yield
        self.assertEqual(_all_rows(), before)

    def gql(self, query: str, **variables: Any) -> dict[str, Any]:
        """POST an operation, which must get a 200. Returns its result without `extensions`."""
        response = self.client.post("/graphql/", {"query": query, "variables": variables}, "application/json")
        assert response.status_code == 200, response.content
        result: dict[str, Any] = response.json()
        result.pop("extensions", None)
        return result

    def data(self, query: str, **variables: Any) -> dict[str, Any]:
        """POST an operation, which must succeed without errors. Returns its data."""
        result = self.gql(query, **variables)
        assert "errors" not in result, result
        data: dict[str, Any] = result["data"]
        return data


@override_settings(ACCESS="closed")
class Case(_Case, TestCase):
    """One transaction per test, in closed mode."""

    def committed(self) -> Any:
        """Run on-commit work (bumping tags, notifying readers) at the end of the block, as a real commit would."""
        return self.captureOnCommitCallbacks(execute=True)


@override_settings(ACCESS="open")
class OpenCase(Case):
    """An anonymous client may do everything."""


@override_settings(ACCESS="closed")
class CommittingCase(_Case, TransactionTestCase):
    """Real commits, in closed mode: for races, sockets and streams."""

    def _fixture_teardown(self) -> None:
        """Delete all rows. Django's method truncates every table and creates all permissions, which takes 80 ms."""
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_tables_with_rows())
            for (table,) in cursor.fetchall():
                cursor.execute(f"DELETE FROM {table}")

    def run_together(self, *jobs: Callable[[], Any]) -> list[Exception]:
        """Run each job in a thread of its own. Returns the exceptions that they raised."""
        raised: list[Exception] = []
        barrier = threading.Barrier(len(jobs))

        def run(job: Callable[[], Any]) -> None:
            barrier.wait(10)
            try:
                job()
            except Exception as error:
                raised.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=run, args=[job]) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return raised


@pytest.mark.server
class ServerCase(CommittingCase):
    """Every test has a web process on the test database, in open mode, at `base_url` and `ws_url`.

    `SERVER` in the environment selects the server. A subclass for one server sets it in `environment`.
    """

    base_url: str
    ws_url: str
    environment: dict[str, str] = {}
    # Whether other tests start web processes in the same environment.
    is_environment_shared = True

    def setUp(self) -> None:
        super().setUp()
        environment = {"ACCESS": "open", "DATABASE_URL": database_url(), **self.environment}
        self.server, address = start_server(
            "backend.server", environment, self.addCleanup, is_environment_shared=self.is_environment_shared
        )
        self.base_url, self.ws_url = f"http://{address}", f"ws://{address}"


def start_server(
    module: str,
    environment: dict[str, str],
    add_cleanup: Callable[..., None],
    *,
    is_environment_shared: bool = False,
) -> tuple[Process, str]:
    """Start a server process. Returns it and its address. A cleanup stops it if it still runs."""
    environment = {**os.environ, "BIND": "127.0.0.1", "PORT": "0", **environment}
    prefork = processes.web(environment) if is_environment_shared else processes.libraries()
    server = prefork.start(module, environment=environment, stderr=PIPE)
    add_cleanup(_stop, server)
    address = None
    assert server.stderr is not None
    for line in server.stderr:
        if address := re.search(r"Listening on TCP address (\S+)", line):
            break
    assert address is not None, "the server ended before it listened"
    return server, address[1]


def memory_kb(process: Process) -> int:
    """The resident memory of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1])


def token_of(user: User, scope: str = Scope.ADMIN, days: int | None = None) -> str:
    """Create a token. Returns its secret, which a client sends."""
    _, secret = services.token.create_token(actor=SYSTEM, user_id=user.pk, name="script", scope=scope, days=days)
    return secret


def _stop(server: Process) -> None:
    server.terminate()
    server.communicate(timeout=20)


def database_url() -> str:
    """The URL of the test database, for other processes."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    return parts._replace(path=f"/{connection.settings_dict['NAME']}").geturl()


@lru_cache
def _tables_with_rows() -> str:
    """A query for the names of the tables that have rows, without the tables that `migrate` fills."""
    filled_by_migrate = {Permission._meta.db_table, ContentType._meta.db_table}
    tables = set(connection.introspection.django_table_names(only_existing=True)) - filled_by_migrate
    queries = [f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in sorted(tables)]
    return " UNION ALL ".join(queries)


def _all_rows() -> list[tuple[str, str]]:
    """Return the table and the text of every row of the domain, in one statement: the ORM takes ten times as long."""
    with connection.cursor() as cursor:
        cursor.execute(_query_for_all_rows())
        rows: list[tuple[str, str]] = cursor.fetchall()
        return rows


@lru_cache
def _query_for_all_rows() -> str:
    models = (User, Project, Membership, Invitation, Task, Comment, SummaryReport, Event, AuditEntry)
    rows = dict.fromkeys((model._meta.db_table for model in models), "t")
    # Without `last_used_at`: any request with the token may update it.
    rows[Token._meta.db_table] = "(id, user_id, name, scope, digest, expires_at)"
    queries = [f"SELECT '{table}', {row}::text FROM {table} t" for table, row in rows.items()]
    return f"{' UNION ALL '.join(queries)} ORDER BY 1, 2"
