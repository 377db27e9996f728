from __future__ import annotations

from collections.abc import Sequence

from .. import access
from ..access import Viewer
from ..cache.lists import CacheQuery
from ..errors import MemberNotFound
from ..models import Membership
from ..rows import MemberRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, Page, PageRequest, PerParent, count_by_parent

_NEWEST_FIRST = Order()
MEMBERS_OF_PROJECTS = Listing("project.members", MemberRow, None, _NEWEST_FIRST)


def get_member(viewer: Viewer, project_id: int | None, user_id: int | None) -> MemberRow:
    """Raises ProjectNotFound, MemberNotFound."""
    project = access.project(viewer, project_id)
    found = MemberRow.read(Membership.objects.filter(project=project, user=user_id)) if user_id is not None else []
    if not found:
        raise MemberNotFound
    return found[0]


def list_members(
    viewer: Viewer, project_id: int | None, *, page: PageRequest, if_none_match: str | None = None
) -> CachedPage[MemberRow]:
    """Newest first, cached under the project. Raises ProjectNotFound, BadArgument, NotModified."""
    project = access.project(viewer, project_id)
    listing = Listing("members", MemberRow, project.pk, _NEWEST_FIRST)
    query = CacheQuery(
        viewer,
        listing.name,
        listing.cache_params(page),
        project_id=project.pk,
        is_visible=True,
        if_none_match=if_none_match,
    )
    return cached_page(query, listing, lambda: listing.page(Membership.objects.filter(project=project), page))


def count_members(viewer: Viewer, project_id: int | None) -> int:
    """Raises ProjectNotFound."""
    return Membership.objects.filter(project=access.project(viewer, project_id)).count()


def list_members_of_projects(
    viewer: Viewer, project_ids: Sequence[int], page: PageRequest, *, keys_only: bool = False
) -> dict[int, Page[MemberRow]]:
    """One page of visible members for each project, in one query. Raises BadArgument.

    With `keys_only`, a row has only its keys (`Listing.pages_of`).
    """
    projects = access.visible_projects(viewer).filter(pk__in=project_ids)
    members = PerParent(projects, Membership.objects.all(), "project_id")
    return MEMBERS_OF_PROJECTS.pages_of(members, page, project_ids, keys_only=keys_only)


def count_members_of_projects(viewer: Viewer, project_ids: Sequence[int]) -> dict[int, int]:
    return count_by_parent(access.visible_memberships(viewer), "project_id", project_ids)
