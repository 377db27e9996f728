from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import QuerySet

from .. import access
from ..access import Viewer
from ..cache.lists import CacheQuery
from ..models import Project
from ..rows import ProjectRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, PageRequest
from .search import check_search, matching


@dataclass(frozen=True, slots=True)
class ProjectFilter:
    """Raises BadArgument where `search` is too short."""

    search: str | None = None

    def __post_init__(self) -> None:
        check_search(self.search)

    def apply(self, projects: QuerySet[Project]) -> QuerySet[Project]:
        return matching(projects, self.search, "name", "description")


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

    query = CacheQuery(
        viewer,
        listing.name,
        listing.cache_params(page),
        min_position=min_position,
        if_none_match=if_none_match,
    )
    return cached_page(query, listing, lambda: listing.page(filter.apply(access.visible_projects(viewer)), page))


def count_projects(viewer: Viewer, filter: ProjectFilter) -> int:
    return filter.apply(access.visible_projects(viewer)).count()


def projects_by_id(viewer: Viewer, project_ids: Sequence[int]) -> dict[int, ProjectRow]:
    """The projects among these that the viewer sees, in one query."""
    projects = access.visible_projects(viewer).filter(id__in=set(project_ids))
    return {row.id: row for row in ProjectRow.read(projects)}
