"""Thread pools whose threads each keep a database connection. A web process runs all its queries in them.

Django ties a connection to a thread. Its own handler starts a thread per request, hence a connection per request, and
as many at once as there are requests.

A job ends early when its client leaves or its time is over (docs/decisions/0010-execution.md). It is interrupted before
and after each statement, and between the fields of a GraphQL result; a running statement is cancelled.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import OperationalError, close_old_connections, connections

from .errors import OperationTimedOut

P = ParamSpec("P")
T = TypeVar("T")

# PostgreSQL's code of a statement that was cancelled, by us or after `statement_timeout`.
_QUERY_CANCELED = "57014"
# Seconds that a thread whose statement has ended waits for a cancellation that is being sent.
_CANCEL_S = 1.0


# --- Jobs ------------------------------------------------------------------------------------------------
class Interrupted(BaseException):
    """Ends a job. It is no Exception, so that nothing on the way handles it as an error of its own."""


class ClientLeft(Interrupted):
    """Nobody waits for the result."""


class TimedOut(Interrupted):
    """The job has taken longer than it may."""


class Job:
    """One call in a thread. `account` is whom it counts for; None counts for nobody."""

    def __init__(self, account: Hashable = None) -> None:
        self.account = account
        self.timeout_s: float = settings.OPERATION_TIMEOUT_S
        self._interruption: Interrupted | None = None
        # The psycopg2 connection that executes a statement of this job. The lock is held while a cancellation is sent,
        # so that it cannot reach the next statement on the connection.
        self._executing: Any = None
        self._lock = threading.Lock()

    @property
    def is_interrupted(self) -> bool:
        return self._interruption is not None

    def interrupt(self, interruption: Interrupted) -> None:
        """Let the job end soon, by raising `interruption` in its thread. Does not wait; may be called in any thread."""
        if self._interruption is None:
            self._interruption = interruption
            if self._executing is not None:
                _cancelling.submit(self._cancel_statement)

    def check(self) -> None:
        """Raises Interrupted."""
        if self._interruption is not None:
            raise self._interruption

    def execute(self, execute: Callable[..., T], sql: str, params: Any, many: bool, context: dict[str, Any]) -> T:
        """Execute a statement. Raises Interrupted, also where PostgreSQL has cancelled it after `statement_timeout`."""
        self._executing = context["connection"].connection
        try:
            self.check()
            return execute(sql, params, many, context)
        except OperationalError as error:
            if getattr(error.__cause__, "pgcode", None) == _QUERY_CANCELED:
                raise self._interruption or TimedOut() from error
            raise
        finally:
            self._end_statement(context["connection"])
            self.check()

    def _end_statement(self, connection: Any) -> None:
        if self._lock.acquire(timeout=_CANCEL_S):
            self._executing = None
            self._lock.release()
        else:
            # PostgreSQL hangs. Once it goes on, the cancellation may reach whatever this connection executes then.
            self._executing = None
            connection.close()

    def _cancel_statement(self) -> None:
        with self._lock:
            if self._executing is not None:
                with suppress(Exception):  # the connection may be lost
                    self._executing.cancel()


# Sends cancellations, for which psycopg2 opens a connection: the event loop must not wait for that.
_cancelling = ThreadPoolExecutor(1, "cancelling")


class _Thread(threading.local):
    job: Job | None = None


_thread = _Thread()


def current_job() -> Job | None:
    """The job that the calling thread does; None outside of the threads of requests."""
    return _thread.job


def _execute(execute: Callable[..., T], sql: str, params: Any, many: bool, context: dict[str, Any]) -> T:
    job = _thread.job
    return execute(sql, params, many, context) if job is None else job.execute(execute, sql, params, many, context)


# --- Pools -----------------------------------------------------------------------------------------------
class DatabaseThreads:
    """A pool of up to `size` threads, started on demand. A call waits for a free thread."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in one of the threads. A connection that PostgreSQL has closed is reopened."""

        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._size, self._name, self._prepare_thread)

        def call_with_checked_connection() -> T:
            close_old_connections()  # also makes the first statement check that the connection still works
            return function(*args, **kwargs)

        return await sync_to_async(call_with_checked_connection, thread_sensitive=False, executor=self._pool)()

    def _prepare_thread(self) -> None:
        """Called first in each thread."""

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


class RequestThreads(DatabaseThreads):
    """The threads of requests and sockets. Each call is a job with a deadline.

    One account occupies half of the threads at most; its other jobs wait for those, in order.
    """

    def __init__(self, size: int, name: str) -> None:
        super().__init__(size, name)
        self._turns = _Turns(max(1, size // 2))

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`DatabaseThreads.call` as a job. Raises OperationTimedOut."""
        return await self.run(Job(), partial(function, *args, **kwargs))

    async def run(self, job: Job, function: Callable[[], T]) -> T:
        """Call `function` as `job`, and interrupt it where the caller is cancelled. Raises OperationTimedOut."""
        running = self.start(job, function)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            job.interrupt(ClientLeft())
            running.add_done_callback(_ignore_result)
            raise

    def start(self, job: Job, function: Callable[[], T]) -> asyncio.Future[T]:
        """Begin to call `function` as `job`. The future raises OperationTimedOut; ClientLeft if it is interrupted."""
        return asyncio.ensure_future(self._run(job, function))

    async def _run(self, job: Job, function: Callable[[], T]) -> T:
        timer = asyncio.get_running_loop().call_later(job.timeout_s, job.interrupt, TimedOut())
        try:
            if job.account is None:
                return await super().call(_do, job, function)
            async with self._turns.turn(job.account):
                job.check()  # it may have waited for long
                return await super().call(_do, job, function)
        except TimedOut as interruption:
            raise OperationTimedOut(job.timeout_s) from interruption
        finally:
            timer.cancel()

    def _prepare_thread(self) -> None:
        connection = connections["default"]
        connection.execute_wrappers.append(_execute)
        # A little less than the deadline of the job.
        connection.statement_timeout_s = 0.95 * settings.OPERATION_TIMEOUT_S  # type: ignore[attr-defined]


def _do(job: Job, function: Callable[[], T]) -> T:
    job.check()
    _thread.job = job
    try:
        return function()
    finally:
        _thread.job = None


def _ignore_result(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception, or asyncio would log it."""
    if not future.cancelled():
        future.exception()


class _Turns:
    """Bounds how many jobs of an account run at once. Used by one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def turn(self, account: Hashable) -> _Turn:
        return _Turn(self, account)

    async def begin(self, account: Hashable) -> None:
        if self._running[account] < self._limit:
            self._running[account] += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(place)
        try:
            await place  # `end` passes its turn on
        except asyncio.CancelledError:
            if not place.cancelled():
                self.end(account)
            raise

    def end(self, account: Hashable) -> None:
        waiting = self._waiting.get(account, deque())
        while waiting:
            place = waiting.popleft()
            if not waiting:
                del self._waiting[account]
            if not place.done():
                place.set_result(None)
                return
        self._running[account] -= 1
        if not self._running[account]:
            del self._running[account]


class _Turn:
    def __init__(self, turns: _Turns, account: Hashable) -> None:
        self._turns = turns
        self._account = account

    async def __aenter__(self) -> None:
        await self._turns.begin(self._account)

    async def __aexit__(self, *_: object) -> None:
        self._turns.end(self._account)


requests = RequestThreads(settings.DATABASE_CONNECTIONS, "request")
