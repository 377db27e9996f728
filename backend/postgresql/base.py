"""Django's PostgreSQL backend, with a health check of persistent connections that needs no round trip."""

from __future__ import annotations

import select
from typing import Any

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
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
