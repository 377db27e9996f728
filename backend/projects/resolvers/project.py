from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

from django.db.models import QuerySet

from .. import access
from ..access import Viewer
from ..cache.lists import CacheQuery
from ..models import Project
from ..rows import ProjectRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, Page, PageRequest
from .search import check_search, matching


@dataclass(frozen=True, slots=True)
class ProjectFilter:
    """Raises BadArgument where `search` is too short."""

    search: str | None = None

    def __post_init__(self) -> None:
        check_search(self.search)


def get_project(viewer: Viewer, project_id: int | None) -> ProjectRow:
    """Raises ProjectNotFound."""
    return ProjectRow.of(access.project(viewer, project_id))


def projects_listing(filter: ProjectFilter, order: Order) -> Listing[ProjectRow]:
    return Listing("projects", ProjectRow, filter, order)


def list_projects(
    viewer: Viewer,
    *,
    filter: ProjectFilter,
    order: Order,
    page: PageRequest,
    min_position: int | None = None,
    if_none_match: str | None = None,
) -> CachedPage[ProjectRow]:
    """Visible projects, cached (`min_position`: see `CacheQuery`). Raises BadArgument, NotModified."""
    access.require_access(viewer)
    listing = projects_listing(filter, order)

    # One query, for the cache and for the list.
    visible_projects = cache(lambda: access.visible_project_ids(viewer))
    by_ids = filter.search is not None and not viewer.sees_all

    def build() -> Page[ProjectRow]:
        return listing.page(_visible(viewer, filter, visible_projects() if by_ids else None), page)

    query = CacheQuery(
        viewer,
        listing.name,
        listing.cache_params(page),
        visible_projects=visible_projects if by_ids else None,
        min_position=min_position,
        if_none_match=if_none_match,
    )
    return cached_page(query, listing, build)


def count_projects(viewer: Viewer, filter: ProjectFilter) -> int:
    by_ids = filter.search is not None and not viewer.sees_all
    return _visible(viewer, filter, access.visible_project_ids(viewer) if by_ids else None).count()


def _visible(viewer: Viewer, filter: ProjectFilter, ids: Collection[int] | None) -> QuerySet[Project]:
    """The visible projects that pass the filter, with one of these ids if `ids` is not None.

    A member's search reads only the projects that they see. Otherwise its duration would depend on the words of other
    projects.
    """
    projects = access.visible_projects(viewer)
    if ids is not None:
        projects = projects.filter(pk__in=ids)
    return projects if filter.search is None else matching(projects, filter.search, "name", "description")


def projects_by_id(viewer: Viewer, project_ids: Sequence[int]) -> dict[int, ProjectRow]:
    """The projects among these that the viewer sees, in one query."""
    projects = access.visible_projects(viewer).filter(id__in=set(project_ids))
    return {row.id: row for row in ProjectRow.read(projects)}
