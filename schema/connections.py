"""Connections after the Relay pagination spec (https://relay.dev/graphql/connections.htm), with `nodes` beside `edges`.

One class for all lists, top-level and nested. `edges`, `nodes` and `pageInfo` load the page, `totalCount` the count:
each at most once, however many aliases there are. `pageInfo` alone loads the keys of a nested list and not its rows,
since its cost does not depend on the size of the page. strawberry-django's optimizer supports only `edges`, one alias
and an explicit `first`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import strawberry
from strawberry.annotation import StrawberryAnnotation
from strawberry.extensions import FieldExtension
from strawberry.types.arguments import StrawberryArgument
from strawberry.types.field import StrawberryField

from backend.projects.resolvers.page import MAX_PAGE, Page, PageRequest

from .directives import COUNT, PAGE_INFO, PAGE_SIZE, PAGED, Cost

T = TypeVar("T")


class PageArguments(FieldExtension):
    """Replaces the resolver's argument `page: PageRequest` by `first`, `after`, `last` and `before`.

    Declares the size of the page in the schema.
    """

    def apply(self, field: StrawberryField) -> None:
        [index] = [index for index, argument in enumerate(field.arguments) if argument.python_name == "page"]
        field.arguments = [*field.arguments[:index], *_page_arguments(), *field.arguments[index + 1 :]]
        field.directives = [*field.directives, PAGED]

    async def resolve_async(
        self,
        next_: Callable[..., Awaitable[Any]],
        source: Any,
        info: strawberry.Info,
        *,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
        **arguments: Any,
    ) -> Any:
        return await next_(source, info, page=PageRequest(first, after, last, before, PAGE_SIZE), **arguments)


def _page_arguments() -> list[StrawberryArgument]:
    return [
        StrawberryArgument(
            python_name=name,
            graphql_name=None,
            type_annotation=StrawberryAnnotation(type_ | None),
            default=None,
            description=description,
        )
        for name, type_, description in (
            ("first", int, f"The number of rows: {PAGE_SIZE} by default, {MAX_PAGE} at most."),
            ("after", str, "Return rows after the one with this `Edge.cursor`."),
            ("last", int, "The number of rows, counted from the end."),
            ("before", str, "Return rows before the one with this `Edge.cursor`."),
        )
    ]


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


async def _total_count(root: strawberry.Parent[Connection[Any]]) -> int:
    count: int = await root._once("count", root.load_count)
    return count


def counted(cost: Cost) -> Any:
    """The field `totalCount`, at this cost."""
    return strawberry.field(
        resolver=_total_count,
        directives=[cost],
        description="The number of rows on all pages. Counted only if selected.",
    )


@strawberry.type
class Connection(Generic[T]):
    """Calls each of its functions at most once, and only if the document selects their data.

    `load_keys` loads a page whose rows have no more than their keys.
    """

    load_page: strawberry.Private[Callable[[], Awaitable[Page[Any]]]]
    load_count: strawberry.Private[Callable[[], Awaitable[int]]]
    load_keys: strawberry.Private[Callable[[], Awaitable[Page[Any]]] | None] = None
    loading: strawberry.Private[dict[str, asyncio.Future[Any]]] = dataclasses.field(default_factory=dict)

    def _once(self, name: str, load: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        if name not in self.loading:
            self.loading[name] = asyncio.ensure_future(load())
        return self.loading[name]

    async def _page(self) -> Page[Any]:
        page: Page[Any] = await self._once("page", self.load_page)
        return page

    async def _keys(self) -> Page[Any]:
        if self.load_keys is not None:
            # Where `nodes` or `edges` are selected too, they have started to load the page when this continues.
            await asyncio.sleep(0)
            if "page" not in self.loading:
                keys: Page[Any] = await self._once("keys", self.load_keys)
                return keys
        return await self._page()

    @strawberry.field
    async def nodes(self) -> list[T]:
        return list((await self._page()).rows)

    @strawberry.field
    async def edges(self) -> list[Edge[T]]:
        page = await self._page()
        return [Edge(cursor=page.page_cursor(row), node=row) for row in page.rows]

    @strawberry.field(directives=[PAGE_INFO])
    async def page_info(self) -> PageInfo:
        page = await self._keys()
        return PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=page.page_cursor(page.rows[0]) if page.rows else None,
            end_cursor=page.page_cursor(page.rows[-1]) if page.rows else None,
        )

    total_count = counted(COUNT)
