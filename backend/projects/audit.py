"""Who got in, and who let whom do what: a record for staff, apart from the journal."""

from __future__ import annotations

from .access import Viewer
from .models import AuditAction, AuditEntry, User


def record(
    action: AuditAction,
    *,
    actor: Viewer,
    user: User | None = None,
    project_id: int | None = None,
    detail: str = "",
) -> None:
    """Write an entry in the caller's transaction: what did not happen leaves none.

    `user` is whose account, membership or token it is about. `detail` is for people to read; it holds no secret.
    """
    AuditEntry.objects.create(
        action=action,
        actor_id=actor.user_id,
        actor_name=actor.name,
        actor_token_id=actor.token_id,
        address=actor.address,
        user_id=user.pk if user else None,
        user_name=user.display_name if user else "",
        project_id=project_id,
        detail=detail[:255],
    )
