"""Accounts, as far as they change who gets in and what somebody sees."""

from django.db import transaction

from .. import audit, journal
from ..access import Viewer
from ..events import AccessChanged
from ..models import AuditAction, Membership, Task, User
from .task import append_unassigned, take_off_tasks


@transaction.atomic
def save_user(*, actor: Viewer, user: User) -> User:
    """Store an account that is new or was changed. Locks its row.

    A changed password, staff or active flag, or shown name, takes a position: it ends the sessions of the old password,
    and moves what the user sees and, for the name, what those in the same projects are shown.
    """
    before = User.objects.select_for_update(no_key=True).filter(pk=user.pk).first() if user.pk else None
    user.save()
    if before is None:
        audit.record(AuditAction.ACCOUNT_CREATED, actor=actor, user=user, detail=_flags(user))
        return user
    users: set[int] = set()
    projects: list[int] = []
    if _flags(before) != _flags(user):
        users.add(user.pk)
        audit.record(AuditAction.ACCOUNT_CHANGED, actor=actor, user=user, detail=f"{_flags(before)} to {_flags(user)}")
    if before.password != user.password:
        users.add(user.pk)
        audit.record(AuditAction.PASSWORD_CHANGED, actor=actor, user=user)
    if before.display_name != user.display_name:
        projects = list(user.memberships.order_by("project").values_list("project_id", flat=True))
        shared = Membership.objects.filter(project__in=projects)
        users |= {user.pk, *shared.values_list("user_id", flat=True)}
    if users:
        journal.append(AccessChanged(sorted(users), shown_in=projects), actor=actor)
    return user


@transaction.atomic
def delete_user(*, actor: Viewer, user_id: int) -> None:
    """Delete an account. Its tasks stay, unassigned, each with its event. Quiet where it is gone already."""
    user = User.objects.select_for_update().filter(pk=user_id).first()
    if user is None:
        return
    shown_in = list(user.memberships.order_by("project").values_list("project_id", flat=True))
    unassigned = take_off_tasks(Task.objects.filter(assignee=user))
    audit.record(AuditAction.ACCOUNT_DELETED, actor=actor, user=user, detail=_flags(user))
    user.delete()
    journal.append(AccessChanged([user_id], shown_in=shown_in), actor=actor)
    append_unassigned(unassigned, actor=actor)


def _flags(user: User) -> str:
    return f"{'staff' if user.is_staff else 'no staff'}, {'active' if user.is_active else 'not active'}"
