"""Pages from the cache: what both doors' lists stand on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from ..access import Viewer
from ..cache.lists import cached_list
from ..cache.versions import TagVersions
from ..rows import Row
from .page import Listing, Page, PageRequest

R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class CachedPage(Generic[R]):
    """A page, what names it in HTTP (`etag`), and what it was read from: of one project, if it was narrowed to one."""

    page: Page[R]
    etag: str
    tag_versions: TagVersions
    project_id: int | None


def cached_page(
    listing: Listing,
    *,
    viewer: Viewer,
    page: PageRequest,
    default_size: int,
    read: type[R],
    build: Callable[[], Page[R]],
    project_id: int | None = None,
    is_shown: bool = False,
    not_before: int | None = None,
    if_none_match: str | None = None,
    visible: Callable[[], frozenset[int]] | None = None,
) -> CachedPage[R]:
    """`is_shown`, `not_before`, `if_none_match`, `visible`: see `cached_list`, also for NotModified."""

    built: list[Page[R]] = []

    def build_json() -> dict[str, object]:
        built.append(build())
        return {
            "rows": list(map(msgspec.structs.astuple, built[0].rows)),
            "next": built[0].has_next,
            "previous": built[0].has_previous,
        }

    cached = cached_list(
        listing.name,
        viewer=viewer,
        params=[read.__struct_fields__, listing.filter, listing.order, page, page.size(default_size)],
        project_id=project_id,
        is_shown=is_shown,
        not_before=not_before,
        if_none_match=if_none_match,
        visible=visible,
        build=build_json,
    )
    if built:
        page_of_rows = built[0]
    else:
        rows = [read(*row) for row in cached.rows["rows"]]
        page_of_rows = Page(rows, cached.rows["next"], cached.rows["previous"], listing)
    return CachedPage(page_of_rows, cached.etag, TagVersions(cached.by_tag, cached.position), project_id)
