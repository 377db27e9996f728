from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from .. import access
from ..access import Viewer
from ..models import SummaryReport
from ..rows import ReportRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, Page, PageRequest


@dataclass(frozen=True, slots=True)
class ReportFilter:
    """An id is None for any, 0 for one that no row has."""

    project_id: int | None = None

    def apply(self, reports: QuerySet[SummaryReport]) -> QuerySet[SummaryReport]:
        return reports if self.project_id is None else reports.filter(project_id=self.project_id)


def get_report(viewer: Viewer, report_id: int | None) -> ReportRow:
    """Raises ReportNotFound."""
    return ReportRow.of(access.report(viewer, report_id))


def reports_listing(filter: ReportFilter) -> Listing:
    return Listing("reports", filter, Order())


def list_reports(
    viewer: Viewer,
    *,
    filter: ReportFilter,
    page: PageRequest,
    default_size: int,
    not_before: int | None = None,
    if_none_match: str | None = None,
) -> CachedPage[ReportRow]:
    """Newest first, of what the viewer sees, cached (`not_before`: see `cached_list`). Raises BadArgument."""
    access.require_access(viewer)
    listing = reports_listing(filter)

    def build() -> Page[ReportRow]:
        reports = filter.apply(access.visible_reports(viewer))
        return listing.page(reports, page, ReportRow, default_size=default_size)

    return cached_page(
        listing,
        viewer=viewer,
        page=page,
        default_size=default_size,
        read=ReportRow,
        build=build,
        project_id=filter.project_id,
        not_before=not_before,
        if_none_match=if_none_match,
    )


def count_reports(viewer: Viewer, filter: ReportFilter) -> int:
    return filter.apply(access.visible_reports(viewer)).count()
