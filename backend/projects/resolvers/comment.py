from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Count

from .. import access
from ..access import Viewer
from ..models import Comment
from ..rows import CommentRow
from .cached import CachedPage, cached_page
from .page import Listing, Order, Page, PageRequest

_NEWEST_FIRST = Order()
COMMENTS_OF_TASKS = Listing("task.comments", None, _NEWEST_FIRST)


def list_comments(
    viewer: Viewer, task_id: int | None, *, page: PageRequest, default_size: int, if_none_match: str | None = None
) -> CachedPage[CommentRow]:
    """Newest first, cached under the task's project. Raises TaskNotFound, BadArgument."""
    task = access.task(viewer, task_id)
    listing = Listing("comments", task.pk, _NEWEST_FIRST)
    return cached_page(
        listing,
        viewer=viewer,
        page=page,
        default_size=default_size,
        read=CommentRow,
        build=lambda: listing.page(Comment.objects.filter(task=task), page, CommentRow, default_size=default_size),
        project_id=task.project_id,
        is_shown=True,
        if_none_match=if_none_match,
    )


def count_comments(viewer: Viewer, task_id: int | None) -> int:
    """Raises TaskNotFound."""
    return Comment.objects.filter(task=access.task(viewer, task_id)).count()


def list_comments_of_tasks(
    viewer: Viewer, task_ids: Sequence[int], *, page: PageRequest, default_size: int
) -> dict[int, Page[CommentRow]]:
    """One page for each of the tasks, of what the viewer sees, in one query. Raises BadArgument."""
    return COMMENTS_OF_TASKS.pages(
        access.visible_tasks(viewer).filter(pk__in=task_ids),
        Comment.objects.all(),
        page,
        CommentRow,
        default_size=default_size,
        parent="task_id",
        parent_ids=task_ids,
    )


def count_comments_of_tasks(viewer: Viewer, task_ids: Sequence[int]) -> dict[int, int]:
    comments = access.visible_comments(viewer).filter(task_id__in=task_ids)
    counts = comments.values("task_id").order_by().annotate(number=Count("id"))
    return dict.fromkeys(task_ids, 0) | dict(counts.values_list("task_id", "number"))
