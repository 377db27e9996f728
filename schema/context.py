"""The context of an operation: its viewer and the loaders that batch its nested fields."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeAlias, TypeVar

import strawberry

from backend.projects.access import Viewer
from backend.projects.budget import Balance
from backend.projects.cache.validators import etag_matches, etag_of
from backend.projects.cache.versions import TagVersions
from backend.projects.threads import Interrupted

from .loaders import Loaders, RowCache

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Context:
    """One per operation; those of a socket's operations are copies of the socket's own.

    An operation is executed in a thread with a database connection, by `run_in_thread`. With `row_cache` no row is
    loaded twice, by whichever operations share the cache.
    """

    viewer: Viewer
    request: Any = None
    response: Any = None
    connection_params: dict[str, Any] = field(default_factory=dict)
    row_cache: RowCache | None = None
    # For one operation with a cacheable response. `tag_versions`: the versions of the tags that it is read from, once
    # they are known. `etag_key` identifies the operation in an ETag; without it the response has none.
    records_tag_versions: bool = False
    etag_key: str | None = None
    if_none_match: str | None = None
    tag_versions: TagVersions | None = None
    # The budgets that the operation of a request was charged to.
    balances: Sequence[Balance] = ()

    @property
    def etag(self) -> str | None:
        return None if self.tag_versions is None or self.etag_key is None else etag_of(self.tag_versions, self.etag_key)

    @property
    def etag_matches(self) -> bool:
        """Whether the client already has the current response."""
        return self.etag is not None and etag_matches(self.if_none_match, self.etag)

    @cached_property
    def loaders(self) -> Loaders:
        return Loaders(self.viewer, self.in_database, self.row_cache)

    def set_viewer(self, viewer: Viewer) -> None:
        """Replace the viewer by their current state; the client's address stays."""
        if viewer != self.viewer:
            self.viewer = replace(viewer, address=self.viewer.address)
            self.__dict__.pop("loaders", None)

    async def in_database(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a resolver or service from async code."""
        # Django forbids database access while an event loop runs, so `run_in_thread` stops its loop for the call.
        future: asyncio.Future[T] = _thread.loop.create_future()
        context = contextvars.copy_context()
        _thread.calls.append((future, partial(context.run, function, *args, **kwargs)))
        _thread.loop.stop()
        return await future


def _handle_loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log the exceptions that no task retrieves, except those that only end a job."""
    if not isinstance(context.get("exception"), Interrupted):
        loop.default_exception_handler(context)


class _Thread(threading.local):
    """Per thread: the event loop that executes operations, and the calls to make once it has stopped."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_handle_loop_exception)
        self.calls: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []


_thread = _Thread()


def run_in_thread(operation: Coroutine[Any, Any, T]) -> T:
    """Execute an operation in the calling thread, in the thread's own event loop.

    The loop stops for each call of `Context.in_database` and then continues with the result. Raises Interrupted.
    """
    task = _thread.loop.create_task(operation, context=contextvars.copy_context())
    task.add_done_callback(lambda _: _thread.loop.stop())
    try:
        while not task.done():
            _thread.loop.run_forever()
            calls, _thread.calls = _thread.calls, []
            for future, call in calls:
                _call(future, call)
        return task.result()
    except Interrupted:
        _end_tasks()
        raise


def _call(future: asyncio.Future[T], call: Callable[[], T]) -> None:
    """Raises Interrupted."""
    if future.done():  # a sibling field failed, and this field was cancelled
        return
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)


def _end_tasks() -> None:
    """Cancel all that an interrupted operation has started, and wait for its end without further calls."""
    tasks = asyncio.all_tasks(_thread.loop)
    for task in tasks:
        task.cancel()
        task.add_done_callback(lambda _: _thread.loop.stop())
    while not all(task.done() for task in tasks):
        _thread.loop.run_forever()
        for future, _ in _thread.calls:
            future.cancel()
        _thread.calls = []


Info: TypeAlias = strawberry.Info[Context, None]


def viewer(info: Info) -> Viewer:
    return info.context.viewer
