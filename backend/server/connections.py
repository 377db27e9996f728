"""A bound on the connections that one address opens, counted before a request is read. Both servers use this."""

from __future__ import annotations

import time
from collections import Counter

from django.conf import settings

from backend.projects.authentication import network_of

# An address may open the connections of this many seconds at once: an office may have one address.
PERIOD_S = 3


class ConnectionMeter:
    """Counts the new connections of each address, in periods of `PERIOD_S` seconds."""

    def __init__(self) -> None:
        self._counts: Counter[str | None] = Counter()
        self.began_at = time.monotonic()

    def admits(self, address: str) -> bool:
        """Whether the address may open a connection. All clients of a proxy have its address, so it may always."""
        if settings.TLS_PROXY:
            return True
        now = time.monotonic()
        if now - self.began_at >= PERIOD_S:
            self._counts.clear()
            self.began_at = now
        network = network_of(address)
        self._counts[network] += 1
        bound: int = settings.CONNECTIONS_PER_S * PERIOD_S
        return self._counts[network] <= bound
