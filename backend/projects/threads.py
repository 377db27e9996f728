"""Thread pools whose threads each keep a database connection. A web process runs all its queries in them.

Django has a connection per thread, and its own handler starts a thread per request: the number of connections would
have no bound.

A job ends early when its client leaves or its deadline passes. It is interrupted before and after each statement, and
between the fields of a GraphQL result. A running statement is cancelled (docs/decisions/0010-execution.md).
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
    """Raised in the thread of a job to end it. It is no Exception, so that `except Exception` does not catch it."""


class ClientLeft(Interrupted):
    """The client does not wait for the result any more."""


class TimedOut(Interrupted):
    """The deadline of the job has passed."""


class Job:
    """One call in a thread. It counts for `account` in the limit of threads per account, unless that is None."""

    def __init__(self, account: Hashable = None) -> None:
        self.account = account
        self.timeout_s: float = settings.OPERATION_TIMEOUT_S
        self._interruption: Interrupted | None = None
        # The psycopg2 connection that executes a statement of this job. Sending a cancellation takes the lock, so that
        # the cancellation cannot reach the next statement on the connection.
        self._executing: Any = None
        self._lock = threading.Lock()

    @property
    def is_interrupted(self) -> bool:
        return self._interruption is not None

    def interrupt(self, interruption: Interrupted) -> None:
        """Raise `interruption` in the job's thread as soon as possible. Does not wait; may be called in any thread."""
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
            # PostgreSQL hangs. When it continues, the cancellation may reach a later statement on this connection.
            self._executing = None
            connection.close()

    def _cancel_statement(self) -> None:
        with self._lock:
            if self._executing is not None:
                with suppress(Exception):  # the connection may be lost
                    self._executing.cancel()


# Sends cancellations. For each, psycopg2 opens a connection, which the event loop must not wait for.
_cancelling = ThreadPoolExecutor(1, "cancelling")


class _Thread(threading.local):
    job: Job | None = None


_thread = _Thread()


def current_job() -> Job | None:
    """The job that the calling thread executes; None outside of the threads of requests."""
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

    One account uses at most a fifth of the threads. Its further jobs wait, first in, first out.
    """

    def __init__(self, size: int, name: str) -> None:
        super().__init__(size, name)
        self._limiter = _AccountLimiter(max(1, size // 5))

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
        """Start to call `function` as `job`. The future may raise OperationTimedOut or ClientLeft."""
        return asyncio.ensure_future(self._run(job, function))

    async def _run(self, job: Job, function: Callable[[], T]) -> T:
        timer = asyncio.get_running_loop().call_later(job.timeout_s, job.interrupt, TimedOut())
        try:
            if job.account is None:
                return await super().call(_execute_job, job, function)
            await self._limiter.acquire(job.account)
            try:
                job.check()  # it may have been interrupted while it waited
                return await super().call(_execute_job, job, function)
            finally:
                self._limiter.release(job.account)
        except TimedOut as interruption:
            raise OperationTimedOut(job.timeout_s) from interruption
        finally:
            timer.cancel()

    def _prepare_thread(self) -> None:
        connection = connections["default"]
        connection.execute_wrappers.append(_execute)
        # A little less than the deadline of the job.
        connection.statement_timeout_s = 0.95 * settings.OPERATION_TIMEOUT_S  # type: ignore[attr-defined]


def _execute_job(job: Job, function: Callable[[], T]) -> T:
    job.check()
    _thread.job = job
    try:
        return function()
    finally:
        _thread.job = None


def _ignore_result(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception of the future. Otherwise asyncio logs it."""
    if not future.cancelled():
        future.exception()


class _AccountLimiter:
    """A semaphore per account: it bounds how many jobs of the account run at once. Used by one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: Counter[Hashable] = Counter()
        self._waiters: dict[Hashable, deque[asyncio.Future[None]]] = {}

    async def acquire(self, account: Hashable) -> None:
        if self._running[account] < self._limit:
            self._running[account] += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(account, deque()).append(waiter)
        try:
            await waiter  # `release` passes its slot on
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.release(account)
            raise

    def release(self, account: Hashable) -> None:
        waiters = self._waiters.get(account, deque())
        while waiters:
            waiter = waiters.popleft()
            if not waiters:
                del self._waiters[account]
            if not waiter.done():
                waiter.set_result(None)
                return
        self._running[account] -= 1
        if not self._running[account]:
            del self._running[account]


requests = RequestThreads(settings.DATABASE_CONNECTIONS, "request")
