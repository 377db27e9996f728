"""Accounts. Changes may affect which users can sign in, and what they see."""

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
    """Store a new account, or `fields` of an existing one; all of them if `fields` is None.

    A change of the password, display name, or staff, superuser or active flag takes a position. It ends the sessions of
    an old password, and bumps the user's access tag; a change of the name also bumps the tags of the user's projects.
    Locks the row. Raises User.DoesNotExist; NotAllowed where an actor who is no superuser changes a superuser's account
    or the staff or superuser flag.
    """
    if user.pk is None:
        if user.is_staff or user.is_superuser:
            _require_superuser(actor)
        user.save(force_insert=True)
        audit.record(AuditAction.ACCOUNT_CREATED, actor=actor, user=user, detail=_flags(user))
        return user
    # FOR UPDATE, as for deletion, blocks `access.lock_reference`: the user cannot join a project under the old name.
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
    """Record a new password that was stored without `save_user`. This takes a position, which ends older sessions."""
    audit.record(AuditAction.PASSWORD_CHANGED, actor=actor, user=user)
    journal.append(AccessChanged([user.pk]), actor=actor)


@transaction.atomic
def delete_user(*, actor: Viewer, user_id: int) -> None:
    """Delete an account. Its tasks become unassigned, each with its event. Does nothing if there is no such account.

    A project of which this is the only owner has no owner until staff appoint one. Raises NotAllowed where the account
    is a superuser's and the actor is no superuser.
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
    """The flags of an account as text. Different flags give different texts."""
    match user.is_superuser, user.is_staff:
        case True, True:
            staff = "superuser"
        case True, False:
            staff = "superuser, no staff"
        case _, is_staff:
            staff = "staff" if is_staff else "no staff"
    return f"{staff}, {'active' if user.is_active else 'not active'}"
