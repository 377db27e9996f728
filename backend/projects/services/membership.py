"""Who is in which project. Each change takes a position and moves what its user sees."""

from django.db import transaction

from .. import access, journal
from ..access import Viewer
from ..events import AccessChanged
from ..models import Membership, Role, Task, User
from .clean import clean_fields
from .task import append_unassigned, take_off_tasks


@transaction.atomic
def set_membership(*, actor: Viewer, project_id: int, user_id: int, role: str) -> Membership:
    """Make somebody a member, or change their role; nothing is recorded where they hold it already.

    Locks the project. Raises ProjectNotFound, NotAllowed (actor is no owner), ValidationError.
    """
    project = access.project_for_update(actor, project_id, role=Role.OWNER)
    membership = Membership.objects.filter(project=project, user=user_id).first()
    if membership is not None and membership.role == role:
        return membership
    membership = membership or Membership(project=project, user_id=user_id)
    membership.role = role
    clean_fields(membership, ["user", "role"])
    access.hold(User, user_id)
    membership.save()
    journal.append(AccessChanged([user_id], of_project=project.pk), actor=actor)
    return membership


@transaction.atomic
def remove_membership(*, actor: Viewer, project_id: int, user_id: int) -> None:
    """Their tasks in the project stay, unassigned, each with its event. Quiet where there is no such membership.

    Locks the project, then the tasks. Raises ProjectNotFound, NotAllowed (actor is no owner).
    """
    project = access.project_for_update(actor, project_id, role=Role.OWNER)
    deleted, _ = Membership.objects.filter(project=project, user=user_id).delete()
    if not deleted:
        return
    unassigned = take_off_tasks(Task.objects.filter(project=project, assignee=user_id))
    journal.append(AccessChanged([user_id], of_project=project.pk), actor=actor)
    append_unassigned(unassigned, actor=actor)
