"""Django's backend for PostgreSQL, which checks a connection that was kept without a round trip."""

from __future__ import annotations

import select
from typing import Any

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    def close_if_health_check_failed(self) -> None:
        """Ask `SELECT 1`, as Django does, only where something has come in meanwhile.

        A server that ends a connection says so, as does the machine of one that was killed. Of a network that fails
        without a word, no statement is told any sooner.
        """
        if self.connection is not None and _is_quiet(self.connection):
            self.health_check_done = True
        super().close_if_health_check_failed()


def _is_quiet(connection: Any) -> bool:
    if connection.closed:
        return False
    poll = select.poll()  # `select` knows no descriptor beyond 1,023
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
