"""Accounts, as far as they change who gets in and what somebody sees."""

from collections.abc import Collection
from copy import copy

from django.db import transaction

from .. import audit, journal
from ..access import Viewer
from ..events import AccessChanged
from ..models import AuditAction, Task, User
from .task import append_unassigned, unassign_tasks


@transaction.atomic
def save_user(*, actor: Viewer, user: User, fields: Collection[str] | None = None) -> User:
    """Store an account that is new, or these fields of one that was changed; every one where none are named.

    A changed password, staff or active flag, or shown name, takes a position: it ends the sessions of the old password,
    moves what the user sees and, for the name, what their projects show. Locks the row. Raises User.DoesNotExist.
    """
    if user.pk is None:
        user.save(force_insert=True)
        audit.record(AuditAction.ACCOUNT_CREATED, actor=actor, user=user, detail=_rights(user))
        return user
    # As when it is deleted: nobody joins a project under the old name meanwhile (`access.lock_reference`).
    stored = User.objects.select_for_update().get(pk=user.pk)
    before = copy(stored)
    if fields is None:
        fields = [field.name for field in User._meta.concrete_fields if not field.primary_key]
    for name in fields:
        setattr(stored, name, getattr(user, name))
    stored.save(update_fields=fields)
    for was, new in ((before.username, stored.username), (_rights(before), _rights(stored))):
        if was != new:
            audit.record(AuditAction.ACCOUNT_CHANGED, actor=actor, user=stored, detail=f"{was} to {new}")
    if before.password != stored.password:
        audit.record(AuditAction.PASSWORD_CHANGED, actor=actor, user=stored)
    renamed = before.display_name != stored.display_name
    if renamed or (before.password, _rights(before)) != (stored.password, _rights(stored)):
        shown_in = _project_ids(stored) if renamed else []
        journal.append(AccessChanged([stored.pk], shown_in=shown_in), actor=actor)
    return stored


@transaction.atomic
def end_sessions(*, actor: Viewer, user: User) -> None:
    """Tell of a password that was stored by other means than `save_user`: its position ends the sessions of the old."""
    audit.record(AuditAction.PASSWORD_CHANGED, actor=actor, user=user)
    journal.append(AccessChanged([user.pk]), actor=actor)


@transaction.atomic
def delete_user(*, actor: Viewer, user_id: int) -> None:
    """Delete an account. Its tasks stay, unassigned, each with its event. Quiet where it is gone already.

    What it alone owned has no owner then: staff make somebody one.
    """
    user = User.objects.select_for_update().filter(pk=user_id).first()
    if user is None:
        return
    shown_in = _project_ids(user)
    unassigned = unassign_tasks(Task.objects.filter(assignee=user))
    audit.record(AuditAction.ACCOUNT_DELETED, actor=actor, user=user, detail=_rights(user))
    user.delete()
    journal.append(AccessChanged([user_id], shown_in=shown_in), actor=actor)
    append_unassigned(unassigned, actor=actor)


def _project_ids(user: User) -> list[int]:
    return list(user.memberships.order_by("project").values_list("project_id", flat=True))


def _rights(user: User) -> str:
    staff = "superuser" if user.is_superuser else "staff" if user.is_staff else "no staff"
    return f"{staff}, {'active' if user.is_active else 'not active'}"
