from django.db import transaction

from .. import access, journal
from ..access import Viewer
from ..errors import Invalid
from ..events import TaskCommented
from ..models import Comment, Scope
from ..rows import CommentRow, TaskRow
from .clean import clean_fields, tidy


@transaction.atomic
def add_comment(*, actor: Viewer, task_id: int | None, content: str | None, author: str | None = None) -> Comment:
    """A remark on a task. Who is signed in comments under their own name, whatever `author` says.

    A token for everything may name another author: it brings in what somebody wrote elsewhere.

    Holds the task. Raises TaskNotFound, NotAllowed, ValidationError.
    """
    task = access.task_to_add_to(actor, task_id)
    comment = Comment(task=task)
    imports = actor.token_id is not None and actor.scope == Scope.ADMIN and author is not None
    # A name of two long parts and a space is longer than an author may be.
    own_name = actor.name[:255] if actor.is_signed_in and not imports else None
    comment.author = own_name or tidy(author)  # type: ignore[assignment]
    comment.content = content  # type: ignore[assignment]
    clean_fields(comment, ["author", "content"])
    if not comment.content.strip():
        raise Invalid("content", "This field cannot be blank.", "BLANK")
    comment.save(force_insert=True)
    journal.append(TaskCommented(TaskRow.of(task), CommentRow.of(comment)), actor=actor)
    return comment
