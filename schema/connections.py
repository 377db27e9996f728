"""Connections after the Relay pagination spec (https://relay.dev/graphql/connections.htm), with `nodes` beside `edges`.

One class for all lists, top-level and nested. Its page is read when `edges`, `nodes` or `pageInfo` is asked for, and
its count when `totalCount` is: each at most once, whatever the aliases. strawberry-django's own follow only `edges`,
one alias and an explicit `first`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Generic, TypeVar

import strawberry

from backend.projects.resolvers.page import Page

from .loaders import PAGE_SIZE

T = TypeVar("T")

FirstArgument = Annotated[
    int | None, strawberry.argument(description=f"Rows to return: {PAGE_SIZE} unless told, 100 at most.")
]
AfterArgument = Annotated[str | None, strawberry.argument(description="Rows after the row with this `Edge.cursor`.")]
LastArgument = Annotated[int | None, strawberry.argument(description="Rows to return, counted from the end.")]
BeforeArgument = Annotated[str | None, strawberry.argument(description="Rows before the row with this `Edge.cursor`.")]


@strawberry.type
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class Edge(Generic[T]):
    cursor: str
    node: T


@strawberry.type
class Connection(Generic[T]):
    """`load_page` and `load_count` are called at most once, and only if the document asks for what they bring."""

    load_page: strawberry.Private[Callable[[], Awaitable[Page[Any]]]]
    load_count: strawberry.Private[Callable[[], Awaitable[int]]]
    loading: strawberry.Private[dict[str, asyncio.Future[Any]]] = strawberry.field(default_factory=dict)

    def _once(self, name: str, load: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        if name not in self.loading:
            self.loading[name] = asyncio.ensure_future(load())
        return self.loading[name]

    async def _page(self) -> Page[Any]:
        page: Page[Any] = await self._once("page", self.load_page)
        return page

    @strawberry.field
    async def nodes(self) -> list[T]:
        return list((await self._page()).rows)

    @strawberry.field
    async def edges(self) -> list[Edge[T]]:
        page = await self._page()
        return [Edge(cursor=page.cursor_of(row), node=row) for row in page.rows]

    @strawberry.field
    async def page_info(self) -> PageInfo:
        page = await self._page()
        return PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=page.cursor_of(page.rows[0]) if page.rows else None,
            end_cursor=page.cursor_of(page.rows[-1]) if page.rows else None,
        )

    @strawberry.field(description="How many rows there are on all pages; counted only when asked for.")
    async def total_count(self) -> int:
        count: int = await self._once("count", self.load_count)
        return count
