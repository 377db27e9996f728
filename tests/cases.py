"""What the tests stand on: real servers, real doors."""

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


class _Case:
    client: Any
    assertEqual: Callable[[Any, Any], None]  # noqa: N815
    addCleanup: Callable[..., None]  # noqa: N815

    def events(self) -> list[str]:
        """Kinds of the events in the journal, oldest first, without those delivered to nobody."""
        heard = Event.objects.exclude(kind="access.changed").order_by("position")
        return list(heard.values_list("kind", flat=True))

    def write_unannounced(self, write: Callable[[], Any]) -> None:
        """As a writer leaves it that is killed between its commit and its announcement."""
        with transaction.atomic():
            before = len(connection.run_on_commit)
            write()
            del connection.run_on_commit[before:]

    @contextmanager
    def redis_down(self) -> Iterator[None]:
        """No Redis answers within the block; after it this process finds it again as soon as it asks."""
        nowhere = {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
        # The next test's positions begin anew: what is still to be told of this one's must not come to its Redis.
        self.addCleanup(versions.retry_pending_bumps)
        with override_settings(CACHES={"default": nowhere}):
            yield
        redis.server.ask_again_at = 0.0

    @contextmanager
    def nothing_changes(self) -> Iterator[None]:
        """No row and no event is other than before."""
        before = _everything()
        yield
        self.assertEqual(_everything(), before)

    def gql(self, query: str, **variables: Any) -> dict[str, Any]:
        """POST an operation that is expected to be executed; the whole answer."""
        response = self.client.post("/graphql/", {"query": query, "variables": variables}, "application/json")
        assert response.status_code == 200, response.content
        answer: dict[str, Any] = response.json()
        return answer

    def data(self, query: str, **variables: Any) -> dict[str, Any]:
        """As `gql`, for an operation that is expected to have no errors; its data."""
        answer = self.gql(query, **variables)
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data


@override_settings(ACCESS="closed")
class Case(_Case, TestCase):
    """One transaction per test, in closed mode."""

    def committed(self) -> Any:
        """On-commit work (tags bumped, readers notified) is done at the end of the block, as a real commit would."""
        return self.captureOnCommitCallbacks(execute=True)


@override_settings(ACCESS="open")
class OpenCase(Case):
    """Anybody may do everything, so a request needs nobody behind it."""


@override_settings(ACCESS="closed")
class CommittingCase(_Case, TransactionTestCase):
    """Real commits, in closed mode: for races, sockets and streams."""

    def _fixture_teardown(self) -> None:
        """Delete all rows. Django's own truncates every table and creates every permission anew, which takes 80 ms."""
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_tables_with_rows())
            for (table,) in cursor.fetchall():
                cursor.execute(f"DELETE FROM {table}")

    def run_together(self, *jobs: Callable[[], Any]) -> list[Exception]:
        """Run each job in a thread of its own; what they raised."""
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
    """The web process on the test database, in open mode, new for every test: `base_url`, `ws_url`.

    It is the server that the environment names (`SERVER`), or `environment` where one is meant.
    """

    base_url: str
    ws_url: str
    environment: dict[str, str] = {}
    # Whether other tests start web processes in the same environment.
    is_environment_shared = True

    def setUp(self) -> None:
        super().setUp()
        given = {"ACCESS": "open", "DATABASE_URL": database_url(), **self.environment}
        self.server, address = start_server(
            "backend.server", given, self.addCleanup, is_environment_shared=self.is_environment_shared
        )
        self.base_url, self.ws_url = f"http://{address}", f"ws://{address}"


def start_server(
    module: str,
    environment: dict[str, str],
    add_cleanup: Callable[..., None],
    *,
    is_environment_shared: bool = False,
) -> tuple[Process, str]:
    """A process that serves on this machine, and its address. Who has not stopped it by the end has it stopped."""
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
    """What it holds in the machine's memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1])


def token_of(user: User, scope: str = Scope.ADMIN, days: int | None = None) -> str:
    """A new token of the user's: the text that a client sends."""
    _, secret = services.token.create_token(actor=SYSTEM, user_id=user.pk, name="script", scope=scope, days=days)
    return secret


def _stop(server: Process) -> None:
    server.terminate()
    server.communicate(timeout=20)


def database_url() -> str:
    """The database of this test run, for a process of its own."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    return parts._replace(path=f"/{connection.settings_dict['NAME']}").geturl()


@lru_cache
def _tables_with_rows() -> str:
    """A query for the names of the tables that have rows, without the tables that `migrate` fills."""
    made_by_migrate = {Permission._meta.db_table, ContentType._meta.db_table}
    tables = set(connection.introspection.django_table_names(only_existing=True)) - made_by_migrate
    queries = [f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in sorted(tables)]
    return " UNION ALL ".join(queries)


def _everything() -> list[Any]:
    models = (User, Project, Membership, Task, Comment, SummaryReport, Event, AuditEntry)
    rows = [list(model.objects.order_by("pk").values()) for model in models]
    # A token's last use is written by whatever request it comes with.
    return [*rows, list(Token.objects.order_by("pk").values("pk", "user", "name", "scope", "digest", "expires_at"))]
