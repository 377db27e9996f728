"""Thread pools whose threads each keep a database connection. A web process runs all its queries in them.

Django ties a connection to a thread. Its own handler starts a thread per request, hence a connection per request, and
as many at once as there are requests.
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
    """A pool of up to `size` threads, started on demand. A call waits for a free thread."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in one of the threads. A connection that PostgreSQL has closed is reopened."""

        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._size, self._name)

        def call_with_checked_connection() -> T:
            close_old_connections()  # also makes the first statement check that the connection still works
            return function(*args, **kwargs)

        return await sync_to_async(call_with_checked_connection, thread_sensitive=False, executor=self._pool)()

    async def close(self) -> None:
        """End the threads and close their connections, once all threads are free. A new call starts new threads."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        barrier = threading.Barrier(self._size)  # so that each thread runs the function below once

        def close_connections() -> None:
            barrier.wait()
            connections.close_all()

        closing = [pool.submit(close_connections) for _ in range(self._size)]
        pool.shutdown(wait=False)
        await asyncio.gather(*map(asyncio.wrap_future, closing))


requests = DatabaseThreads(settings.DATABASE_CONNECTIONS, "request")
