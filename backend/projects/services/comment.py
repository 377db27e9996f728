from django.db import transaction

from .. import access, audit, journal
from ..access import Viewer
from ..errors import Invalid, NotAllowed
from ..events import TaskCommented
from ..models import AuditAction, Comment, Scope
from ..rows import CommentRow, TaskRow
from .validation import clean_fields, stripped


@transaction.atomic
def add_comment(*, actor: Viewer, task_id: int | None, content: str | None, author: str | None = None) -> Comment:
    """Comment on a task. A signed-in actor comments under their own name, any other actor under `author`.

    A staff member's token with the scope `admin` may pass another `author`, to import comments; the audit log records
    this. Locks the task against deletion. Raises TaskNotFound, NotAllowed (actor may only read, or may not pass another
    author), ValidationError.
    """
    task = access.task_to_add_to(actor, task_id)
    # A display name is two names and a space, so it may be longer than `author`.
    own_name = actor.name[:255] if actor.is_signed_in else None
    is_import = own_name is not None and author is not None and stripped(author) not in (own_name, actor.name)
    if is_import and not _may_import(actor):
        raise NotAllowed("Only an `admin` token of a staff member may name another author.")
    comment = Comment(task=task)
    comment.author = stripped(author) if is_import or own_name is None else own_name  # type: ignore[assignment]
    comment.content = content  # type: ignore[assignment]
    clean_fields(comment, ["author", "content"])
    if not comment.content.strip():
        raise Invalid("content", "This field cannot be blank.", "BLANK")
    comment.save(force_insert=True)
    if is_import:
        detail = f"Comment {comment.pk} as {comment.author}"
        audit.record(AuditAction.COMMENT_IMPORTED, actor=actor, project_id=task.project_id, detail=detail)
    journal.append(TaskCommented(TaskRow.of(task), CommentRow.of(comment)), actor=actor)
    return comment


def _may_import(actor: Viewer) -> bool:
    return actor.sees_all and actor.token_id is not None and actor.scope == Scope.ADMIN
