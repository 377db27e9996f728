"""Cached pages, shared by the lists of REST and GraphQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from ..cache.lists import CacheQuery, cached_list
from ..cache.versions import TagVersions
from ..rows import Row
from .page import Listing, Page

R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class CachedPage(Generic[R]):
    """A page, its ETag, and the tag versions that it was read at. `project_id` is the one of the `CacheQuery`."""

    page: Page[R]
    etag: str
    tag_versions: TagVersions
    project_id: int | None


def cached_page(query: CacheQuery, listing: Listing[R], build: Callable[[], Page[R]]) -> CachedPage[R]:
    """Return a page of `listing` through `cached_list`. Raises NotModified."""
    built: list[Page[R]] = []

    def build_json() -> dict[str, object]:
        built.append(build())
        return {
            "rows": list(map(msgspec.structs.astuple, built[0].rows)),
            "next": built[0].has_next,
            "previous": built[0].has_previous,
        }

    cached = cached_list(query, build_json)
    if built:
        page = built[0]
    else:
        rows = [listing.row_type(*row) for row in cached.rows["rows"]]
        page = Page(rows, cached.rows["next"], cached.rows["previous"], listing)
    return CachedPage(page, cached.etag, TagVersions(cached.by_tag, cached.position), query.project_id)
