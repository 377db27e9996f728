"""Accounts, as far as they change what somebody sees."""

from django.db import transaction

from .. import journal
from ..access import Viewer
from ..events import AccessChanged
from ..models import Membership, Task, User
from .task import append_unassigned, take_off_tasks


@transaction.atomic
def save_user(*, actor: Viewer, user: User) -> User:
    """Store an account that is new or was changed. Locks its row.

    A changed staff or active flag, or shown name, takes a position: it moves what the user sees, and for the name
    what those in the same projects are shown.
    """
    before = User.objects.select_for_update(no_key=True).filter(pk=user.pk).first() if user.pk else None
    user.save()
    touched: set[int] = set()
    if before is not None and (before.is_staff, before.is_active) != (user.is_staff, user.is_active):
        touched = {user.pk}
    if before is not None and before.display_name != user.display_name:
        shared = Membership.objects.filter(project__memberships__user=user.pk)
        touched = {user.pk, *shared.values_list("user_id", flat=True)}
    if touched:
        journal.append(AccessChanged(sorted(touched)), actor=actor)
    return user


@transaction.atomic
def delete_user(*, actor: Viewer, user_id: int) -> None:
    """Delete an account. Its tasks stay, unassigned, each with its event. Quiet where it is gone already."""
    user = User.objects.select_for_update().filter(pk=user_id).first()
    if user is None:
        return
    unassigned = take_off_tasks(Task.objects.filter(assignee=user))
    user.delete()
    journal.append(AccessChanged([user_id]), actor=actor)
    append_unassigned(unassigned, actor=actor)
