"""The audit log of sign-ins, changes of access and imported comments. Staff read it; it is not part of the journal."""

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
    """Write an entry in the caller's transaction, so that a change that is rolled back leaves no entry.

    `user` is the owner of the account, membership, invitation or token concerned. `detail` is text for people, without
    secrets.
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
