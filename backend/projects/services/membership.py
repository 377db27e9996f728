"""The members of projects. Each change is journaled, and bumps the tags of what the user sees."""

from itertools import chain

from django.db import transaction

from .. import access, audit, journal
from ..access import Viewer
from ..errors import AlreadyAMember, InvitationRequired, LastOwner, MemberNotFound
from ..events import AccessChanged
from ..models import AuditAction, Invitation, Membership, Project, Role, Scope, Task
from .task import unassign_tasks, unassigned_events
from .validation import clean_fields


@transaction.atomic
def add_member(*, actor: Viewer, project_id: int | None, username: str, role: str = Role.EDITOR) -> Membership:
    """Add the user with this name, ignoring case, to a project without an invitation. Only staff may; owners invite.

    Deletes the user's invitation. Locks the project. Raises MissingScope, ProjectNotFound, InvitationRequired (actor is
    an owner), NotAllowed (actor is another member), UnknownUser, AlreadyAMember, ValidationError (no such role).
    """
    project = _lock_project(actor, project_id)
    if not actor.sees_all:
        raise InvitationRequired
    membership = Membership(project=project, user=access.user_to_add(username), role=role)
    join(membership)
    Invitation.objects.filter(project=project, user=membership.user).delete()
    _record(AuditAction.MEMBER_ADDED, membership, actor=actor)
    journal.append(AccessChanged([membership.user_id], of_project=project.pk), actor=actor)
    return membership


def join(membership: Membership) -> None:
    """Validate and store a new membership. The caller has locked the project and a reference to the user.

    Raises AlreadyAMember, ValidationError (no such role).
    """
    if Membership.objects.filter(project=membership.project_id, user=membership.user_id).exists():
        raise AlreadyAMember
    clean_fields(membership, ["role"])
    membership.save(force_insert=True)


@transaction.atomic
def change_role(*, actor: Viewer, project_id: int | None, user_id: int | None, role: str) -> Membership:
    """Change a member's role. Records nothing where it stays the same.

    Locks the project, and references to the user and the membership. Raises MissingScope, ProjectNotFound,
    NotAllowed (actor is no owner), MemberNotFound, LastOwner, ValidationError (no such role).
    """
    project = _lock_project(actor, project_id)
    membership = _lock_member(project, user_id)
    if membership.role == role:
        return membership
    old_role = membership.role
    membership.role = role
    clean_fields(membership, ["role"])
    _require_other_owner(membership, old_role)
    membership.save(update_fields=["role"])
    _record(AuditAction.ROLE_CHANGED, membership, actor=actor, old_role=old_role)
    journal.append(AccessChanged([membership.user_id], of_project=project.pk), actor=actor)
    return membership


@transaction.atomic
def remove_member(*, actor: Viewer, project_id: int | None, user_id: int | None) -> Membership:
    """Delete a membership and return its last state. Owners may remove anyone, other members only themselves.

    The user's tasks in the project become unassigned, each with its event. Locks the project, references to the user
    and the membership, then the tasks. Raises MissingScope, ProjectNotFound, NotAllowed, MemberNotFound, LastOwner.
    """
    is_leaving = actor.user_id is not None and actor.user_id == user_id
    project = _lock_project(actor, project_id, role=Role.VIEWER if is_leaving else Role.OWNER)
    membership = _lock_member(project, user_id)
    _require_other_owner(membership, membership.role)
    Membership.objects.filter(pk=membership.pk).delete()
    unassigned = unassign_tasks(Task.objects.filter(project=project, assignee=user_id))
    _record(AuditAction.MEMBER_REMOVED, membership, actor=actor)
    access_changed = AccessChanged([membership.user_id], of_project=project.pk)
    journal.append_all(chain([access_changed], unassigned_events(unassigned)), actor=actor)
    return membership


def _lock_project(actor: Viewer, project_id: int | None, role: Role = Role.OWNER) -> Project:
    return access.project_for_update(actor, project_id, role=role, scope=Scope.ADMIN)


def _lock_member(project: Project, user_id: int | None) -> Membership:
    """Lock references to the user and the membership, and return the membership. Raises MemberNotFound.

    Lock order: the user, then the membership. Deleting an account locks the user, its tasks and its memberships.
    """
    if user_id is None or not access.lock_member_reference(project.pk, user_id):
        raise MemberNotFound
    return Membership.objects.select_related("user").get(project=project, user=user_id)


def _require_other_owner(membership: Membership, old_role: str) -> None:
    """Raise LastOwner where the project has no other active owner. Its owners stay the same while it is locked."""
    owners = Membership.objects.filter(project=membership.project_id, role=Role.OWNER, user__is_active=True)
    if old_role == Role.OWNER and not owners.exclude(pk=membership.pk).exists():
        raise LastOwner


def _record(action: AuditAction, membership: Membership, *, actor: Viewer, old_role: str = "") -> None:
    detail = f"{old_role} to {membership.role}" if old_role else membership.role
    audit.record(action, actor=actor, user=membership.user, project_id=membership.project_id, detail=detail)
