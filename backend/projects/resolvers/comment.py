from __future__ import annotations

from collections.abc import Sequence

from .. import access
from ..access import Viewer
from ..cache.lists import CacheQuery
from ..models import Comment
from ..rows import CommentRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, Page, PageRequest, PerParent, count_by_parent

_NEWEST_FIRST = Order()
COMMENTS_OF_TASKS = Listing("task.comments", CommentRow, None, _NEWEST_FIRST)


def list_comments(
    viewer: Viewer, task_id: int | None, *, page: PageRequest, if_none_match: str | None = None
) -> CachedPage[CommentRow]:
    """Newest first, cached under the task's project. Raises TaskNotFound, BadArgument, NotModified."""
    task = access.task(viewer, task_id)
    listing = Listing("comments", CommentRow, task.pk, _NEWEST_FIRST)
    query = CacheQuery(
        viewer,
        listing.name,
        listing.cache_params(page),
        project_id=task.project_id,
        is_visible=True,
        if_none_match=if_none_match,
    )
    return cached_page(query, listing, lambda: listing.page(Comment.objects.filter(task=task), page))


def count_comments(viewer: Viewer, task_id: int | None) -> int:
    """Raises TaskNotFound."""
    return Comment.objects.filter(task=access.task(viewer, task_id)).count()


def list_comments_of_tasks(
    viewer: Viewer, task_ids: Sequence[int], page: PageRequest, *, keys_only: bool = False
) -> dict[int, Page[CommentRow]]:
    """One page of visible comments for each task, in one query. Raises BadArgument.

    With `keys_only`, a row has only its keys (`Listing.pages_of`).
    """
    tasks = access.visible_tasks(viewer).filter(pk__in=task_ids)
    comments = PerParent(tasks, Comment.objects.all(), "task_id")
    return COMMENTS_OF_TASKS.pages_of(comments, page, task_ids, keys_only=keys_only)


def count_comments_of_tasks(viewer: Viewer, task_ids: Sequence[int]) -> dict[int, int]:
    return count_by_parent(access.visible_comments(viewer), "task_id", task_ids)
