"""What an operation knows beside its document: who asks, and the loaders that batch what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ParamSpec, TypeAlias, TypeVar

import strawberry
from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async

from backend.projects.access import Viewer

from .loaders import Loaders

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Context:
    """One per HTTP request, or per socket: there it serves every operation, so it keeps nothing of any.

    A request's database connection is its thread's, and Django's to give back at its end. A socket has no such end: it
    `is_long_lived`, and makes every call in a thread of its own, which gives the connection back. One that `keeps_rows`
    reads none twice.
    """

    viewer: Viewer
    request: Any = None
    response: Any = None
    connection_params: dict[str, Any] = field(default_factory=dict)
    is_long_lived: bool = False
    keeps_rows: bool = False

    @cached_property
    def loaders(self) -> Loaders:
        return Loaders(self.viewer, self.in_database, keeps=self.keeps_rows)

    def look_as(self, viewer: Viewer) -> None:
        """Go on with the rights of now; the client is the same."""
        if viewer != self.viewer:
            self.viewer = replace(viewer, address=self.viewer.address)
            self.__dict__.pop("loaders", None)

    async def in_database(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a resolver or service from async code, in the thread that holds the connection."""
        if self.is_long_lived:
            call = database_sync_to_async(function, thread_sensitive=False)
        else:
            call = sync_to_async(function)
        result: T = await call(*args, **kwargs)
        return result


Info: TypeAlias = strawberry.Info[Context, None]


def viewer(info: Info) -> Viewer:
    return info.context.viewer
