from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from .. import access
from ..access import Viewer
from ..cache.lists import CacheQuery
from ..models import SummaryReport
from ..rows import ReportRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, PageRequest


@dataclass(frozen=True, slots=True)
class ReportFilter:
    """A `project_id` of None matches every report, NO_SUCH_ID none."""

    project_id: int | None = None

    def apply(self, reports: QuerySet[SummaryReport]) -> QuerySet[SummaryReport]:
        return reports if self.project_id is None else reports.filter(project_id=self.project_id)


def get_report(viewer: Viewer, report_id: int | None) -> ReportRow:
    """Raises ReportNotFound."""
    return ReportRow.of(access.report(viewer, report_id))


def reports_listing(filter: ReportFilter) -> Listing[ReportRow]:
    return Listing("reports", ReportRow, filter, Order())


def list_reports(
    viewer: Viewer,
    *,
    filter: ReportFilter,
    page: PageRequest,
    min_position: int | None = None,
    if_none_match: str | None = None,
) -> CachedPage[ReportRow]:
    """Visible reports, newest first, cached (`min_position`: see `CacheQuery`).

    Raises BadArgument, NotModified.
    """
    access.require_access(viewer)
    listing = reports_listing(filter)

    query = CacheQuery(
        viewer,
        listing.name,
        listing.cache_params(page),
        project_id=filter.project_id,
        min_position=min_position,
        if_none_match=if_none_match,
    )
    return cached_page(query, listing, lambda: listing.page(filter.apply(access.visible_reports(viewer)), page))


def count_reports(viewer: Viewer, filter: ReportFilter) -> int:
    return filter.apply(access.visible_reports(viewer)).count()
