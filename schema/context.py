"""What an operation knows beside its document: who asks, and the loaders that batch what it asks for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import cached_property
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
        # The loop is this operation's own (`run_here`): Django need not fear that others wait for it.
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return function(*args, **kwargs)
        finally:
            asyncio._set_running_loop(loop)


_runners = threading.local()


def run_here(operation: Coroutine[Any, Any, T]) -> T:
    """Execute an operation in this thread, in an event loop that the thread keeps for it."""
    if not hasattr(_runners, "own"):
        _runners.own = asyncio.Runner()
    runner: asyncio.Runner = _runners.own
    return runner.run(operation, context=contextvars.copy_context())


Info: TypeAlias = strawberry.Info[Context, None]


def viewer(info: Info) -> Viewer:
    return info.context.viewer
