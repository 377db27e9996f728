from django.db import transaction

from .. import access, journal
from ..access import Viewer
from ..errors import Invalid
from ..events import TaskCommented
from ..models import Comment, Scope
from ..rows import CommentRow, TaskRow
from .validation import clean_fields, stripped


@transaction.atomic
def add_comment(*, actor: Viewer, task_id: int | None, content: str | None, author: str | None = None) -> Comment:
    """Comment on a task. A signed-in actor comments under their own name, whatever `author` says.

    A token with the scope `admin` may name another author: it imports comments from elsewhere. Locks a reference to the
    task. Raises TaskNotFound, NotAllowed, ValidationError.
    """
    task = access.task_to_add_to(actor, task_id)
    comment = Comment(task=task)
    is_import = actor.token_id is not None and actor.scope == Scope.ADMIN and author is not None
    # A display name, two names and a space, may exceed the length of `author`.
    own_name = actor.name[:255] if actor.is_signed_in and not is_import else None
    comment.author = own_name or stripped(author)  # type: ignore[assignment]
    comment.content = content  # type: ignore[assignment]
    clean_fields(comment, ["author", "content"])
    if not comment.content.strip():
        raise Invalid("content", "This field cannot be blank.", "BLANK")
    comment.save(force_insert=True)
    journal.append(TaskCommented(TaskRow.of(task), CommentRow.of(comment)), actor=actor)
    return comment
