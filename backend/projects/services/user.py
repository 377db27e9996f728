"""Accounts. Changes may affect who can sign in and what users see."""

from collections.abc import Collection
from copy import copy
from itertools import chain

from django.db import transaction

from .. import audit, journal
from ..access import Viewer
from ..errors import NotAllowed
from ..events import AccessChanged
from ..models import AuditAction, Task, User
from .task import unassign_tasks, unassigned_events


@transaction.atomic
def save_user(*, actor: Viewer, user: User, fields: Collection[str] | None = None) -> User:
    """Store a new account, or `fields` of an existing one; all fields where it is None.

    A change of password, of the staff, superuser or active flag, or of the display name takes a position: it ends the
    sessions of the old password, and bumps the user's access tag, which all of their lists carry, and for the name the
    tags of what their projects show. Locks the row. Raises User.DoesNotExist; NotAllowed where the actor is no
    superuser, and the account is one or its staff or superuser flag changes.
    """
    if user.pk is None:
        if user.is_staff or user.is_superuser:
            _require_superuser(actor)
        user.save(force_insert=True)
        audit.record(AuditAction.ACCOUNT_CREATED, actor=actor, user=user, detail=_flags(user))
        return user
    # FOR UPDATE, as for deletion, blocks `access.lock_reference`: the user joins no project under the old name.
    stored = User.objects.select_for_update().get(pk=user.pk)
    before = copy(stored)
    if fields is None:
        fields = [field.name for field in User._meta.concrete_fields if not field.primary_key]
    for name in fields:
        setattr(stored, name, getattr(user, name))
    flags = {(account.is_staff, account.is_superuser) for account in (before, stored)}
    if before.is_superuser or len(flags) > 1:
        _require_superuser(actor)
    stored.save(update_fields=fields)
    for old, new in ((before.username, stored.username), (_flags(before), _flags(stored))):
        if old != new:
            audit.record(AuditAction.ACCOUNT_CHANGED, actor=actor, user=stored, detail=f"{old} to {new}")
    if before.password != stored.password:
        audit.record(AuditAction.PASSWORD_CHANGED, actor=actor, user=stored)
    renamed = before.display_name != stored.display_name
    if renamed or (before.password, _flags(before)) != (stored.password, _flags(stored)):
        shown_in = _project_ids(stored) if renamed else []
        journal.append(AccessChanged([stored.pk], shown_in=shown_in), actor=actor)
    return stored


@transaction.atomic
def end_sessions(*, actor: Viewer, user: User) -> None:
    """Record a password that was stored without `save_user`. The position ends the sessions of the old password."""
    audit.record(AuditAction.PASSWORD_CHANGED, actor=actor, user=user)
    journal.append(AccessChanged([user.pk]), actor=actor)


@transaction.atomic
def delete_user(*, actor: Viewer, user_id: int) -> None:
    """Delete an account. Its tasks become unassigned, each with its event. Does nothing where it no longer exists.

    A project whose only owner it was is left without an owner, until staff appoint one. Raises NotAllowed where the
    account is a superuser's and the actor is none.
    """
    user = User.objects.select_for_update().filter(pk=user_id).first()
    if user is None:
        return
    if user.is_superuser:
        _require_superuser(actor)
    shown_in = _project_ids(user)
    unassigned = unassign_tasks(Task.objects.filter(assignee=user))
    audit.record(AuditAction.ACCOUNT_DELETED, actor=actor, user=user, detail=_flags(user))
    user.delete()
    access_changed = AccessChanged([user_id], shown_in=shown_in)
    journal.append_all(chain([access_changed], unassigned_events(unassigned)), actor=actor)


def _require_superuser(actor: Viewer) -> None:
    """Raise NotAllowed where the actor is neither a superuser nor one of our own commands."""
    if actor.is_system:
        return
    superusers = User.objects.filter(is_superuser=True, is_active=True)
    if actor.user_id is None or not superusers.filter(pk=actor.user_id).exists():
        raise NotAllowed


def _project_ids(user: User) -> list[int]:
    return list(user.memberships.order_by("project").values_list("project_id", flat=True))


def _flags(user: User) -> str:
    """The flags of an account, different wherever one of them is."""
    match user.is_superuser, user.is_staff:
        case True, True:
            staff = "superuser"
        case True, False:
            staff = "superuser, no staff"
        case _, is_staff:
            staff = "staff" if is_staff else "no staff"
    return f"{staff}, {'active' if user.is_active else 'not active'}"
