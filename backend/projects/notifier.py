"""Notifies every live process that the journal has grown. A notification carries no data.

Notifications are sent through the channel layer, from one event loop and one Redis connection per process:
`async_to_sync` would create a loop and a connection for each. A lost notification delays events and loses none.
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


class _Notifier:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._is_sending = False
        self._is_due = False
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="notifier", daemon=True).start()

    async def _send(self) -> None:
        """Send a notification. All calls during a send share the next one, so that notifications do not pile up."""
        self._is_due = True
        if self._is_sending:
            return
        self._is_sending = True
        try:
            while self._is_due:
                self._is_due = False
                await get_channel_layer().group_send(GROUP, MESSAGE)
        except Exception as error:
            logger.warning("A notification could not be sent; the journal is read at the next poll: %s", error)
        finally:
            self._is_sending = False

    def notify(self) -> None:
        asyncio.run_coroutine_threadsafe(self._send(), self.loop)


_notifier: _Notifier | None = None
_lock = threading.Lock()


def notify() -> None:
    """Wake the readers of all live processes. Returns at once."""
    global _notifier
    with _lock:
        # Threads do not survive a fork: a worker's child needs a notifier of its own.
        if _notifier is None or _notifier.pid != os.getpid():
            _notifier = _Notifier()
        notifier = _notifier
    notifier.notify()
