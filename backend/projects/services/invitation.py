"""Invitations to projects. A user joins a project by accepting one, and has no access to the project before.

Changes of invitations are not journaled, since their lists are not cached. Accepting one is, as adding a member is.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from .. import access, audit, budget, journal
from ..access import Viewer
from ..errors import AlreadyAMember, InvitationExpired
from ..events import AccessChanged
from ..models import AuditAction, Invitation, Membership, Role, Scope, User
from ..rows import InvitationRow
from .membership import join
from .validation import clean_fields


@transaction.atomic
def invite_member(*, actor: Viewer, project_id: int | None, username: str, role: str = Role.EDITOR) -> Invitation:
    """Invite the user with this name, ignoring case, to a project. The invitation expires after `INVITATION_DAYS`.

    It replaces the role, sender and expiry of an earlier invitation of the user. Locks the project. Raises
    MissingScope, RateLimited, ProjectNotFound, NotAllowed (actor is no owner), UnknownUser, AlreadyAMember,
    ValidationError (no such role).
    """
    access.require_scope(actor, Scope.ADMIN)
    budget.charge(actor, [(budget.invitations_policy(), 1)])
    project = access.project_for_update(actor, project_id, role=Role.OWNER, scope=Scope.ADMIN)
    user = access.user_to_add(username)
    if Membership.objects.filter(project=project, user=user).exists():
        raise AlreadyAMember
    invitation = Invitation.objects.filter(project=project, user=user).first() or Invitation()
    invitation.project, invitation.user, invitation.role = project, user, role
    clean_fields(invitation, ["role"])
    invitation.invited_by = None if actor.user_id is None else User.objects.filter(pk=actor.user_id).first()
    invitation.created_at = timezone.now()
    invitation.expires_at = invitation.created_at + timedelta(days=settings.INVITATION_DAYS)
    invitation.save()
    _record(AuditAction.MEMBER_INVITED, invitation, actor=actor)
    return invitation


@transaction.atomic
def accept_invitation(*, actor: Viewer, invitation_id: int | None) -> Membership:
    """Make the actor a member of the project, in the role of the invitation, and delete the invitation.

    Locks the project, a reference to the user, and the invitation. Raises MissingScope, InvitationNotFound,
    InvitationExpired.
    """
    invitation = access.invitation_to_accept(actor, invitation_id)
    if invitation.expires_at <= timezone.now():
        raise InvitationExpired
    membership = Membership(project=invitation.project, user=invitation.user, role=invitation.role)
    join(membership)
    _record(AuditAction.INVITATION_ACCEPTED, invitation, actor=actor)
    invitation.delete()
    journal.append(AccessChanged([membership.user_id], of_project=membership.project_id), actor=actor)
    return membership


@transaction.atomic
def decline_invitation(*, actor: Viewer, invitation_id: int | None) -> InvitationRow:
    """Delete an invitation of the actor, and return its last state. Raises MissingScope, InvitationNotFound."""
    invitation = access.invitation_to_decline(actor, invitation_id)
    return _delete(AuditAction.INVITATION_DECLINED, invitation, actor=actor)


@transaction.atomic
def cancel_invitation(*, actor: Viewer, invitation_id: int | None, project_id: int | None = None) -> InvitationRow:
    """Delete an invitation to a project that the actor owns, and return its last state.

    Locks the project and the invitation. Raises MissingScope, InvitationNotFound (also for another project than
    `project_id`), NotAllowed (actor is no owner).
    """
    invitation = access.invitation_to_cancel(actor, invitation_id, project_id)
    return _delete(AuditAction.INVITATION_CANCELLED, invitation, actor=actor)


def _delete(action: AuditAction, invitation: Invitation, *, actor: Viewer) -> InvitationRow:
    row = InvitationRow.of(invitation)
    _record(action, invitation, actor=actor)
    invitation.delete()
    return row


def _record(action: AuditAction, invitation: Invitation, *, actor: Viewer) -> None:
    audit.record(action, actor=actor, user=invitation.user, project_id=invitation.project_id, detail=invitation.role)
