from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, QuerySet

from .. import access
from ..access import Viewer
from ..errors import BadArgument
from ..models import Status, Task
from ..rows import TaskRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, Page, PageRequest
from .search import check_search, matching

ORDER_FIELDS = ("id", "due_date", "created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """`due_after` includes its bound, `due_before` does not. An id is None for any, 0 for one that no row has.

    Raises BadArgument where the status is unknown or `search` too short.
    """

    project_id: int | None = None
    status: str | None = None
    assignee_id: int | None = None
    due_after: datetime | None = None
    due_before: datetime | None = None
    search: str | None = None

    def __post_init__(self) -> None:
        check_search(self.search)
        if self.status is not None and self.status not in Status.values:
            raise BadArgument("status", f"The status is one of {', '.join(Status.values)}.")

    def apply(self, tasks: QuerySet[Task]) -> QuerySet[Task]:
        conditions = {
            "project_id": self.project_id,
            "status": self.status,
            "assignee_id": self.assignee_id,
            "due_date__gte": self.due_after,
            "due_date__lt": self.due_before,
        }
        given = {name: value for name, value in conditions.items() if value is not None}
        return matching(tasks.filter(**given), self.search, "title", "description")


def get_task(viewer: Viewer, task_id: int | None) -> TaskRow:
    """Raises TaskNotFound."""
    return TaskRow.of(access.task(viewer, task_id))


def tasks_listing(filter: TaskFilter, order: Order) -> Listing:
    return Listing("tasks", filter, order)


def list_tasks(
    viewer: Viewer,
    *,
    filter: TaskFilter,
    order: Order,
    page: PageRequest,
    default_size: int,
    not_before: int | None = None,
    if_none_match: str | None = None,
) -> CachedPage[TaskRow]:
    """What the viewer sees, cached, under the project where the filter names one (`not_before`: see `cached_list`).

    Raises BadArgument.
    """
    access.require_access(viewer)
    listing = tasks_listing(filter, order)

    def build() -> Page[TaskRow]:
        tasks = filter.apply(access.visible_tasks(viewer))
        return listing.page(tasks, page, TaskRow, default_size=default_size)

    return cached_page(
        listing,
        viewer=viewer,
        page=page,
        default_size=default_size,
        read=TaskRow,
        build=build,
        project_id=filter.project_id,
        not_before=not_before,
        if_none_match=if_none_match,
    )


def count_tasks(viewer: Viewer, filter: TaskFilter) -> int:
    return filter.apply(access.visible_tasks(viewer)).count()


def tasks_of_projects_listing(filter: TaskFilter, order: Order) -> Listing:
    return Listing("project.tasks", filter, order)


def list_tasks_of_projects(
    viewer: Viewer,
    project_ids: Sequence[int],
    *,
    filter: TaskFilter,
    order: Order,
    page: PageRequest,
    default_size: int,
) -> dict[int, Page[TaskRow]]:
    """One page for each of the projects, of what the viewer sees, in one query. Raises BadArgument.

    A search looks through the newest matches of all of these projects together.
    """
    return tasks_of_projects_listing(filter, order).pages(
        filter.apply(access.visible_tasks(viewer).filter(project_id__in=project_ids)),
        page,
        TaskRow,
        default_size=default_size,
        parent="project_id",
        parent_ids=project_ids,
    )


def count_tasks_of_projects(viewer: Viewer, project_ids: Sequence[int], filter: TaskFilter) -> dict[int, int]:
    tasks = filter.apply(access.visible_tasks(viewer).filter(project_id__in=project_ids))
    counts = tasks.values("project_id").order_by().annotate(number=Count("id"))
    return dict.fromkeys(project_ids, 0) | dict(counts.values_list("project_id", "number"))


def tasks_by_id(viewer: Viewer, task_ids: Sequence[int]) -> dict[int, TaskRow]:
    """Those of the tasks that the viewer sees, in one query."""
    return {row.id: row for row in TaskRow.read(access.visible_tasks(viewer).filter(id__in=set(task_ids)))}
