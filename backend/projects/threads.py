"""Threads that keep a connection to the database each: what a web process asks of it, it asks in one of these.

Django ties a connection to a thread. A thread for every request, as its own handler has it, is a connection for every
request, and as many at once as there are requests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import close_old_connections, connections

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseThreads:
    """So many threads, started as they are needed; a call waits for one that is free."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in one of the threads; a connection that PostgreSQL ended meanwhile is opened anew."""

        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._size, self._name)

        def checked() -> T:
            close_old_connections()  # and have the first statement check the one that is kept
            return function(*args, **kwargs)

        return await sync_to_async(checked, thread_sensitive=False, executor=self._pool)()

    async def close(self) -> None:
        """Let the threads and their connections go, each once it is free. A new call starts new ones."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        all_are_here = threading.Barrier(self._size)

        def leave() -> None:
            all_are_here.wait()
            connections.close_all()

        leaving = [pool.submit(leave) for _ in range(self._size)]
        pool.shutdown(wait=False)
        await asyncio.gather(*map(asyncio.wrap_future, leaving))


requests = DatabaseThreads(settings.DATABASE_CONNECTIONS, "request")
