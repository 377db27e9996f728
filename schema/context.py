"""What an operation knows beside its document: who asks, and the loaders that batch what it asks for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeAlias, TypeVar

import strawberry

from backend.projects import threads
from backend.projects.access import Viewer
from backend.projects.cache.validators import etag_matches, etag_of
from backend.projects.cache.versions import TagVersions

from .loaders import Loaders

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Context:
    """One per HTTP request, or per socket: there it serves every operation, so it keeps nothing of any.

    A request is executed in a thread that has a database connection, and calls there and then. A socket is served from
    the event loop: it `is_long_lived`, and has such a thread make its calls. One that `caches_rows` reads none twice.
    """

    viewer: Viewer
    request: Any = None
    response: Any = None
    connection_params: dict[str, Any] = field(default_factory=dict)
    is_long_lived: bool = False
    caches_rows: bool = False
    # Of one operation whose answer may be kept: the versions of the tags it is read from, once they are known. `name`
    # stands for the operation in an ETag; None where the answer takes none.
    records_tag_versions: bool = False
    name: str | None = None
    if_none_match: str | None = None
    tag_versions: TagVersions | None = None

    @property
    def etag(self) -> str | None:
        return None if self.tag_versions is None or self.name is None else etag_of(self.tag_versions, self.name)

    @property
    def etag_matches(self) -> bool:
        """Whether the client holds the answer already."""
        return self.etag is not None and etag_matches(self.if_none_match, self.etag)

    @cached_property
    def loaders(self) -> Loaders:
        return Loaders(self.viewer, self.in_database, is_cached=self.caches_rows)

    def look_as(self, viewer: Viewer) -> None:
        """Go on with the rights of now; the client is the same."""
        if viewer != self.viewer:
            self.viewer = replace(viewer, address=self.viewer.address)
            self.__dict__.pop("loaders", None)

    async def in_database(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a resolver or service from async code."""
        if self.is_long_lived:
            return await threads.requests.call(function, *args, **kwargs)
        # Django refuses the database to code under a running event loop, so `run_here` calls while its loop is stopped.
        called: asyncio.Future[T] = _here.loop.create_future()
        context = contextvars.copy_context()
        _here.calls.append((called, partial(context.run, function, *args, **kwargs)))
        _here.loop.stop()
        return await called


class _Here(threading.local):
    """Of a thread: the event loop that it executes operations in, and the calls that wait for it to stop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.calls: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []


_here = _Here()


def run_here(operation: Coroutine[Any, Any, T]) -> T:
    """Execute an operation in this thread, in an event loop that the thread keeps for it.

    The loop stops for each call of `Context.in_database`, and goes on with its result.
    """
    task = _here.loop.create_task(operation, context=contextvars.copy_context())
    task.add_done_callback(lambda _: _here.loop.stop())
    while not task.done():
        _here.loop.run_forever()
        calls, _here.calls = _here.calls, []
        for called, call in calls:
            _call(called, call)
    return task.result()


def _call(called: asyncio.Future[T], call: Callable[[], T]) -> None:
    if called.done():  # its field was cancelled, as a sibling failed
        return
    try:
        called.set_result(call())
    except Exception as error:
        called.set_exception(error)


Info: TypeAlias = strawberry.Info[Context, None]


def viewer(info: Info) -> Viewer:
    return info.context.viewer
