"""Who is in which project. Each change takes a position and bumps the tags of what its user sees."""

from django.db import transaction

from .. import access, audit, journal
from ..access import Viewer
from ..errors import AlreadyAMember, LastOwner, MemberNotFound, UnknownUser
from ..events import AccessChanged
from ..models import AuditAction, Membership, Project, Role, Scope, Task, User
from .task import append_unassigned, unassign_tasks
from .validation import clean_fields


@transaction.atomic
def add_member(*, actor: Viewer, project_id: int | None, username: str, role: str = Role.EDITOR) -> Membership:
    """Make the user of this name, in whichever case it is written, a member.

    Locks the project. Raises MissingScope, ProjectNotFound, NotAllowed (actor is no owner), UnknownUser,
    AlreadyAMember, ValidationError (no such role).
    """
    project = _managed(actor, project_id)
    try:
        user = User.objects.get_by_natural_key(username)
    except User.DoesNotExist:
        raise UnknownUser from None
    if not (user.is_active and access.lock_reference(User, user.pk)):
        raise UnknownUser
    if Membership.objects.filter(project=project, user=user).exists():
        raise AlreadyAMember
    membership = Membership(project=project, user=user, role=role)
    clean_fields(membership, ["role"])
    membership.save(force_insert=True)
    _record(AuditAction.MEMBER_ADDED, membership, actor=actor)
    journal.append(AccessChanged([user.pk], of_project=project.pk), actor=actor)
    return membership


@transaction.atomic
def change_role(*, actor: Viewer, project_id: int | None, user_id: int | None, role: str) -> Membership:
    """Give a member another role; nothing is recorded where they hold it already.

    Locks the project, holds the member. Raises MissingScope, ProjectNotFound, NotAllowed (actor is no owner),
    MemberNotFound, LastOwner, ValidationError (no such role).
    """
    project = _managed(actor, project_id)
    membership = _member(project, user_id)
    if membership.role == role:
        return membership
    was = membership.role
    membership.role = role
    clean_fields(membership, ["role"])
    _keep_an_owner(membership, was)
    membership.save(update_fields=["role"])
    _record(AuditAction.ROLE_CHANGED, membership, actor=actor, was=was)
    journal.append(AccessChanged([membership.user_id], of_project=project.pk), actor=actor)
    return membership


@transaction.atomic
def remove_member(*, actor: Viewer, project_id: int | None, user_id: int | None) -> Membership:
    """End a membership, one's own or, for an owner, anybody's; returns it as it was.

    Their tasks in the project stay, unassigned, each with its event. Locks the project, holds the member, locks the
    tasks. Raises MissingScope, ProjectNotFound, NotAllowed, MemberNotFound, LastOwner.
    """
    leaves = actor.user_id is not None and actor.user_id == user_id
    project = _managed(actor, project_id, role=Role.VIEWER if leaves else Role.OWNER)
    membership = _member(project, user_id)
    _keep_an_owner(membership, membership.role)
    Membership.objects.filter(pk=membership.pk).delete()
    unassigned = unassign_tasks(Task.objects.filter(project=project, assignee=user_id))
    _record(AuditAction.MEMBER_REMOVED, membership, actor=actor)
    journal.append(AccessChanged([membership.user_id], of_project=project.pk), actor=actor)
    append_unassigned(unassigned, actor=actor)
    return membership


def _managed(actor: Viewer, project_id: int | None, role: Role = Role.OWNER) -> Project:
    return access.project_for_update(actor, project_id, role=role, scope=Scope.ADMIN)


def _member(project: Project, user_id: int | None) -> Membership:
    """Held, account and all: who deletes the account locks it, then tasks, then memberships. Raises MemberNotFound."""
    if user_id is None or not access.lock_member_reference(project.pk, user_id):
        raise MemberNotFound
    return Membership.objects.select_related("user").get(project=project, user=user_id)


def _keep_an_owner(membership: Membership, was: str) -> None:
    """The project's row is locked, so no other owner goes meanwhile. Raises LastOwner."""
    owners = Membership.objects.filter(project=membership.project_id, role=Role.OWNER, user__is_active=True)
    if was == Role.OWNER and not owners.exclude(pk=membership.pk).exists():
        raise LastOwner


def _record(action: AuditAction, membership: Membership, *, actor: Viewer, was: str = "") -> None:
    detail = f"{was} to {membership.role}" if was else membership.role
    audit.record(action, actor=actor, user=membership.user, project_id=membership.project_id, detail=detail)
