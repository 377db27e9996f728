from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from .. import access
from ..access import Viewer
from ..models import SummaryReport
from ..rows import ReportRow
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


def list_reports(viewer: Viewer, *, filter: ReportFilter, page: PageRequest, default_size: int) -> Page[ReportRow]:
    """Newest first. Raises BadArgument."""
    reports = filter.apply(access.visible_reports(viewer))
    return reports_listing(filter).page(reports, page, ReportRow, default_size=default_size)


def count_reports(viewer: Viewer, filter: ReportFilter) -> int:
    return filter.apply(access.visible_reports(viewer)).count()
