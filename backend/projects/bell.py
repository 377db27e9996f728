"""The bell: tells every live process that the journal has grown. It carries no truth.

Rung through the channel layer, from one event loop and one connection that the process keeps: `async_to_sync` would
make a loop and a Redis connection for every ring. A lost ring costs a listener time, never an event.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from channels.layers import get_channel_layer

GROUP = "journal"
MESSAGE = {"type": "journal.grown"}

logger = logging.getLogger(__name__)


class _Ringer:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="bell", daemon=True).start()

    async def _ring(self) -> None:
        try:
            await get_channel_layer().group_send(GROUP, MESSAGE)
        except Exception as error:
            logger.warning("The bell could not be rung, listeners hear at their next look: %s", error)

    def ring(self) -> None:
        asyncio.run_coroutine_threadsafe(self._ring(), self.loop)


_ringer: _Ringer | None = None
_lock = threading.Lock()


def ring() -> None:
    """Ring and return at once."""
    global _ringer
    with _lock:
        # Threads do not survive a fork: a worker's child needs a ringer of its own.
        if _ringer is None or _ringer.pid != os.getpid():
            _ringer = _Ringer()
        ringer = _ringer
    ringer.ring()
