from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Q, QuerySet

from .. import access
from ..access import Viewer
from ..cache.lists import CacheQuery
from ..errors import BadArgument
from ..models import Status, Task
from ..rows import TaskRow
from .cached import CachedPage, cached_page
from .page import (
    Listing,
    Order,
    Page,
    PageRequest,
    PerParent,
    Shares,
    among,
    count_by_parent,
    counts_by_parent,
    counts_of,
)
from .search import check_search, newest_matches, newest_matches_of_projects

# How PostgreSQL orders the tasks of several projects: of up to MAX_SHARES projects it merges the indexes, of up to
# MAX_SORTED projects it sorts the first rows of each, and of more projects it filters the index of all tasks
# (docs/decisions/0007-large-tables.md).
MAX_SHARES = 20
MAX_SORTED = 100
ORDER_FIELDS = ("id", "due_date", "created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """`due_after` includes its bound, `due_before` does not. An id of None matches every task, NO_SUCH_ID none.

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
        return tasks.filter(self.condition)

    @property
    def condition(self) -> Q:
        """Everything except `search`, which `newest_matches` applies. Empty if there is nothing else."""
        conditions = {
            "project_id": self.project_id,
            "status": self.status,
            "assignee_id": self.assignee_id,
            "due_date__gte": self.due_after,
            "due_date__lt": self.due_before,
        }
        return Q(**{name: value for name, value in conditions.items() if value is not None})


def get_task(viewer: Viewer, task_id: int | None) -> TaskRow:
    """Raises TaskNotFound."""
    return TaskRow.of(access.task(viewer, task_id))


def tasks_listing(filter: TaskFilter, order: Order) -> Listing[TaskRow]:
    return Listing("tasks", TaskRow, filter, order)


def list_tasks(
    viewer: Viewer,
    *,
    filter: TaskFilter,
    order: Order,
    page: PageRequest,
    min_position: int | None = None,
    if_none_match: str | None = None,
) -> CachedPage[TaskRow]:
    """Visible tasks, cached under the project if the filter has one (`min_position`: see `CacheQuery`).

    Raises BadArgument, NotModified.
    """
    access.require_access(viewer)
    listing = tasks_listing(filter, order)

    # One query, for the cache and for the list.
    visible_projects = cache(lambda: access.visible_project_ids(viewer))

    def build() -> Page[TaskRow]:
        rows: QuerySet[Task] | Shares[Task] | PerParent[Task]
        ids = None if viewer.sees_all or filter.project_id is not None else visible_projects()
        if filter.search is not None:
            is_first = order == Order() and page.after is None and page.before is None and not page.is_backward
            rows = _matches(viewer, filter, ids, page.size + 1 if is_first else None)
        elif ids is not None and MAX_SHARES < len(ids) <= MAX_SORTED and filter.assignee_id is None:
            projects = access.visible_projects(viewer).filter(pk__in=ids)
            rows = PerParent(projects, filter.apply(Task.objects.all()), "project_id")
        else:
            rows = _shares(viewer, filter, ids)
        return listing.page(rows, page)

    query = CacheQuery(
        viewer,
        listing.name,
        listing.cache_params(page),
        project_id=filter.project_id,
        visible_projects=visible_projects,
        min_position=min_position,
        if_none_match=if_none_match,
    )
    return cached_page(query, listing, build)


def count_tasks(viewer: Viewer, filter: TaskFilter) -> int:
    if filter.search is not None:
        ids = None if viewer.sees_all or filter.project_id is not None else access.visible_project_ids(viewer)
        return _matches(viewer, filter, ids).count()
    if filter.project_id is not None:
        return _visible(viewer, filter).count()
    return filter.apply(_of_visible_projects(viewer)).count()


def count_tasks_by_filter(viewer: Viewer, filters: Sequence[TaskFilter]) -> dict[TaskFilter, int]:
    """The number of visible tasks for each filter: one query for all filters without a search."""
    distinct = list(dict.fromkeys(filters))
    plain = [each for each in distinct if each.search is None]
    if len(plain) < 2:
        return {each: count_tasks(viewer, each) for each in distinct}
    counts = counts_of(_of_visible_projects(viewer), [each.condition for each in plain])
    searches = {each: count_tasks(viewer, each) for each in distinct if each.search is not None}
    return dict(zip(plain, counts, strict=True)) | searches


def _of_visible_projects(viewer: Viewer) -> QuerySet[Task]:
    """The visible tasks, for a count. To read the projects first takes a quarter of the time of a join."""
    if viewer.sees_all:
        return access.visible_tasks(viewer)
    projects = access.visible_projects(viewer).order_by().values("pk")
    return Task.objects.filter(among(ArraySubquery(projects), "project_id"))


def _visible(viewer: Viewer, filter: TaskFilter) -> QuerySet[Task]:
    if filter.project_id is not None:
        return filter.apply(access.visible_tasks_of(viewer, filter.project_id))
    return filter.apply(access.visible_tasks(viewer))


def _shares(viewer: Viewer, filter: TaskFilter, project_ids: Collection[int] | None) -> QuerySet[Task] | Shares[Task]:
    """The visible tasks that pass the filter, in these projects or in all.

    Up to MAX_SHARES projects are returned as shares, one per project. Each share has an index for every order, so
    merging them sorts nothing and reads no rows of other projects.
    """
    if project_ids is None:
        return _visible(viewer, filter)
    if not 0 < len(project_ids) <= MAX_SHARES:
        return _visible(viewer, filter).filter(project_id__in=project_ids)
    return Shares(lambda pk: filter.apply(access.visible_tasks_of(viewer, pk)), sorted(project_ids))


def _matches(
    viewer: Viewer, filter: TaskFilter, project_ids: Collection[int] | None, limit: int | None = None
) -> QuerySet[Task]:
    """The newest visible tasks that match the search and the filter, in these projects or in all."""
    assert filter.search is not None
    projects = access.visible_projects(viewer)
    if not viewer.sees_all:
        if filter.project_id is not None:
            projects = projects.filter(pk=filter.project_id)
        return newest_matches_of_projects(
            filter.search,
            tasks=replace(filter, project_id=None).apply(Task.objects.all()),
            projects=projects if project_ids is None else projects.filter(pk__in=project_ids),
            limit=limit,
        )
    tasks = filter.apply(Task.objects.all())
    visible = _shares(viewer, filter, project_ids)
    shares = [visible.of(pk) for pk in visible.keys] if isinstance(visible, Shares) else [visible]
    return newest_matches(
        filter.search,
        tasks=tasks,
        projects=projects if project_ids is None else projects.filter(pk__in=project_ids),
        shares=shares,
        probed=shares if project_ids is None or len(project_ids) <= MAX_SHARES else [tasks],
        limit=limit,
    )


def tasks_of_projects_listing(filter: TaskFilter, order: Order) -> Listing[TaskRow]:
    return Listing("project.tasks", TaskRow, filter, order)


def list_tasks_of_projects(
    viewer: Viewer,
    project_ids: Sequence[int],
    *,
    filter: TaskFilter,
    order: Order,
    page: PageRequest,
    keys_only: bool = False,
) -> dict[int, Page[TaskRow]]:
    """One page of visible tasks for each project, in one query. Raises BadArgument.

    A search considers the newest matches of all of these projects together. With `keys_only`, a row needs only
    its keys (`Listing.pages_of`).
    """
    listing = tasks_of_projects_listing(filter, order)
    if filter.search is not None:
        return listing.pages_of_few(_matches(viewer, filter, project_ids), page, project_ids, parent="project_id")
    projects = access.visible_projects(viewer).filter(pk__in=project_ids)
    tasks = PerParent(projects, filter.apply(Task.objects.all()), "project_id")
    return listing.pages_of(tasks, page, project_ids, keys_only=keys_only)


def count_tasks_of_projects(
    viewer: Viewer, project_ids: Sequence[int], filters: Sequence[TaskFilter]
) -> dict[int, dict[TaskFilter, int]]:
    """The number of visible tasks of each project for each filter: one query for all filters without a search."""
    found: dict[int, dict[TaskFilter, int]] = {pk: {} for pk in project_ids}
    if plain := [each for each in filters if each.search is None]:
        conditions = [each.condition for each in plain]
        counts = counts_by_parent(access.visible_tasks(viewer), "project_id", project_ids, conditions)
        for pk, numbers in counts.items():
            found[pk].update(zip(plain, numbers, strict=True))
    for each in filters:
        if each.search is not None:
            matches = _matches(viewer, each, project_ids)
            for pk, number in count_by_parent(matches, "project_id", project_ids).items():
                found[pk][each] = number
    return found


def tasks_by_id(viewer: Viewer, task_ids: Sequence[int]) -> dict[int, TaskRow]:
    """The tasks among these that the viewer sees, in one query."""
    return {row.id: row for row in TaskRow.read(access.visible_tasks(viewer).filter(id__in=set(task_ids)))}
