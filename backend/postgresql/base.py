"""Django's PostgreSQL backend, with a statement timeout, and a health check of connections that needs no round trip.

While PostgreSQL does not accept connections, one thread at a time tries to connect, and all others fail at once: a
server that hangs would otherwise make every thread wait for the timeout.
"""

from __future__ import annotations

import logging
import select
import threading
from typing import Any

from django.db.backends.postgresql import base
from psycopg2 import OperationalError  # type: ignore[import-untyped]

logger = logging.getLogger(__name__)


class _Availability:
    """Whether the last attempt of this process to connect has failed."""

    def __init__(self) -> None:
        self.is_down = False
        self._attempt = threading.Lock()
        self._failures = 0

    def connect(self, connect: Any) -> Any:
        """Return what `connect` returns. Raises OperationalError at once where another thread tries already."""
        is_only_attempt = self.is_down
        if is_only_attempt and not self._attempt.acquire(blocking=False):
            self._failures += 1
            raise OperationalError("PostgreSQL does not answer.")
        try:
            connection = connect()
        except OperationalError as error:
            self._report_failure(error)
            raise
        finally:
            if is_only_attempt:
                self._attempt.release()
        self._report_success()
        return connection

    def _report_failure(self, error: Exception) -> None:
        if not self.is_down:
            logger.warning("PostgreSQL does not answer: %s", " ".join(str(error).split()))
            self._failures = 0
        self.is_down = True
        self._failures += 1

    def _report_success(self) -> None:
        if self.is_down:
            self.is_down = False
            logger.warning("PostgreSQL answers again. %d attempts to connect had failed.", self._failures)


_availability = _Availability()


class DatabaseWrapper(base.DatabaseWrapper):
    # Seconds after which PostgreSQL cancels a statement. Takes effect when the connection is opened.
    statement_timeout_s: float | None = None

    def get_connection_params(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super().get_connection_params()
        if self.statement_timeout_s is not None:
            timeout = f"-c statement_timeout={int(self.statement_timeout_s * 1000)}"
            parameters["options"] = f"{parameters.get('options', '')} {timeout}".strip()
        return parameters

    def get_new_connection(self, conn_params: Any) -> Any:
        return _availability.connect(lambda: super(DatabaseWrapper, self).get_new_connection(conn_params))

    def close_if_health_check_failed(self) -> None:
        """Run Django's `SELECT 1` only if data has arrived on the idle connection.

        A server that closes a connection sends a message, and the machine of a killed server closes the socket.
        If the network fails silently, `SELECT 1` would not notice it any sooner than the next statement.
        """
        if self.connection is not None and _has_no_input(self.connection):
            self.health_check_done = True
        super().close_if_health_check_failed()


def _has_no_input(connection: Any) -> bool:
    if connection.closed:
        return False
    poll = select.poll()  # `select.select` supports no descriptor above 1,023
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
