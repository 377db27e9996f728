from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Count

from .. import access
from ..access import Viewer
from ..errors import MemberNotFound
from ..models import Membership
from ..rows import MemberRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, Page, PageRequest

_NEWEST_FIRST = Order()
MEMBERS_OF_PROJECTS = Listing("project.members", None, _NEWEST_FIRST)


def get_member(viewer: Viewer, project_id: int | None, user_id: int | None) -> MemberRow:
    """Raises ProjectNotFound, MemberNotFound."""
    project = access.project(viewer, project_id)
    found = MemberRow.read(Membership.objects.filter(project=project, user=user_id)) if user_id is not None else []
    if not found:
        raise MemberNotFound
    return found[0]


def list_members(
    viewer: Viewer, project_id: int | None, *, page: PageRequest, default_size: int, if_none_match: str | None = None
) -> CachedPage[MemberRow]:
    """Newest first, cached under the project. Raises ProjectNotFound, BadArgument."""
    project = access.project(viewer, project_id)
    listing = Listing("members", project.pk, _NEWEST_FIRST)
    return cached_page(
        listing,
        viewer=viewer,
        page=page,
        default_size=default_size,
        read=MemberRow,
        build=lambda: listing.page(
            Membership.objects.filter(project=project), page, MemberRow, default_size=default_size
        ),
        project_id=project.pk,
        is_shown=True,
        if_none_match=if_none_match,
    )


def count_members(viewer: Viewer, project_id: int | None) -> int:
    """Raises ProjectNotFound."""
    return Membership.objects.filter(project=access.project(viewer, project_id)).count()


def list_members_of_projects(
    viewer: Viewer, project_ids: Sequence[int], *, page: PageRequest, default_size: int
) -> dict[int, Page[MemberRow]]:
    """One page for each of the projects, of what the viewer sees, in one query. Raises BadArgument."""
    return MEMBERS_OF_PROJECTS.pages(
        access.visible_projects(viewer).filter(pk__in=project_ids),
        Membership.objects.all(),
        page,
        MemberRow,
        default_size=default_size,
        parent="project_id",
        parent_ids=project_ids,
    )


def count_members_of_projects(viewer: Viewer, project_ids: Sequence[int]) -> dict[int, int]:
    memberships = access.visible_memberships(viewer).filter(project_id__in=project_ids)
    counts = memberships.values("project_id").order_by().annotate(number=Count("id"))
    return dict.fromkeys(project_ids, 0) | dict(counts.values_list("project_id", "number"))
