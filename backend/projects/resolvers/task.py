from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from django.db.models import Count, QuerySet

from .. import access
from ..access import Viewer
from ..errors import BadArgument
from ..models import Status, Task
from ..rows import TaskRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, Page, PageRequest, Shares
from .search import check_search, newest_matches

# How the tasks of somebody's projects are put in order. Where they are few, by merging the index of each; where they
# are more, by sorting the first rows of each; beyond that many tasks are theirs, and are picked from the index of all.
MOST_SHARES = 20
MOST_APART = 100
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
        """Those that pass; `search` is for `newest_matches`."""
        conditions = {
            "project_id": self.project_id,
            "status": self.status,
            "assignee_id": self.assignee_id,
            "due_date__gte": self.due_after,
            "due_date__lt": self.due_before,
        }
        return tasks.filter(**{name: value for name, value in conditions.items() if value is not None})


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

    # Asked once, for the cache and for the list.
    visible = cache(lambda: access.visible_project_ids(viewer))

    def build() -> Page[TaskRow]:
        rows: QuerySet[Task] | Shares[Task]
        ids = None if viewer.sees_all or filter.project_id is not None else visible()
        if filter.search is not None:
            is_first = order == Order() and page.after is None and page.before is None and not page.is_backward
            rows = _matches(viewer, filter, ids, page.size(default_size) + 1 if is_first else None)
        elif ids is not None and MOST_SHARES < len(ids) <= MOST_APART and filter.assignee_id is None:
            tasks = filter.apply(Task.objects.all())
            return listing.page_of_many(
                access.visible_projects(viewer).filter(pk__in=ids),
                tasks,
                page,
                TaskRow,
                default_size=default_size,
                parent="project_id",
            )
        else:
            rows = _shares(viewer, filter, ids)
        return listing.page(rows, page, TaskRow, default_size=default_size)

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
        visible=visible,
    )


def count_tasks(viewer: Viewer, filter: TaskFilter) -> int:
    if filter.search is None:
        return _visible(viewer, filter).count()
    ids = None if viewer.sees_all or filter.project_id is not None else access.visible_project_ids(viewer)
    return _matches(viewer, filter, ids).count()


def _visible(viewer: Viewer, filter: TaskFilter) -> QuerySet[Task]:
    if filter.project_id is not None:
        return filter.apply(access.visible_tasks_of(viewer, filter.project_id))
    return filter.apply(access.visible_tasks(viewer))


def _shares(viewer: Viewer, filter: TaskFilter, project_ids: Collection[int] | None) -> QuerySet[Task] | Shares[Task]:
    """What the viewer sees of what passes the filter, of these projects or of all: each by itself where they are few.

    Each project has an index in every order. What is merged of them takes no sorting, and reads no other project's.
    """
    if project_ids is None:
        return _visible(viewer, filter)
    if not 0 < len(project_ids) <= MOST_SHARES:
        return _visible(viewer, filter).filter(project_id__in=project_ids)
    return Shares(lambda pk: filter.apply(access.visible_tasks_of(viewer, pk)), sorted(project_ids))


def _matches(
    viewer: Viewer, filter: TaskFilter, project_ids: Collection[int] | None, most: int | None = None
) -> QuerySet[Task]:
    """The newest of the matches that the viewer sees, of these projects or of all."""
    assert filter.search is not None
    projects = access.visible_projects(viewer)
    tasks = filter.apply(Task.objects.all())
    seen = _shares(viewer, filter, project_ids)
    shares = [seen.of(pk) for pk in seen.keys] if isinstance(seen, Shares) else [seen]
    return newest_matches(
        filter.search,
        tasks=tasks,
        projects=projects if project_ids is None else projects.filter(pk__in=project_ids),
        shares=shares,
        probed=shares if project_ids is None or len(project_ids) <= MOST_SHARES else [tasks],
        most=most,
    )


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
    listing = tasks_of_projects_listing(filter, order)
    if filter.search is not None:
        matches = _matches(viewer, filter, project_ids)
        return listing.pages_of_few(
            matches, page, TaskRow, default_size=default_size, parent="project_id", parent_ids=project_ids
        )
    return listing.pages(
        access.visible_projects(viewer).filter(pk__in=project_ids),
        filter.apply(Task.objects.all()),
        page,
        TaskRow,
        default_size=default_size,
        parent="project_id",
        parent_ids=project_ids,
    )


def count_tasks_of_projects(viewer: Viewer, project_ids: Sequence[int], filter: TaskFilter) -> dict[int, int]:
    if filter.search is not None:
        tasks = _matches(viewer, filter, project_ids)
    else:
        tasks = filter.apply(access.visible_tasks(viewer).filter(project_id__in=project_ids))
    counts = tasks.values("project_id").order_by().annotate(number=Count("id"))
    return dict.fromkeys(project_ids, 0) | dict(counts.values_list("project_id", "number"))


def tasks_by_id(viewer: Viewer, task_ids: Sequence[int]) -> dict[int, TaskRow]:
    """Those of the tasks that the viewer sees, in one query."""
    return {row.id: row for row in TaskRow.read(access.visible_tasks(viewer).filter(id__in=set(task_ids)))}
