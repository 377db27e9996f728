"""Access control: viewers, the rows that they see, and the changes that they may make.

Every function here treats a row that the viewer may not see like one that does not exist.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from django.conf import settings
from django.db import connection
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from .errors import (
    InvitationNotFound,
    MissingScope,
    NotAllowed,
    NotFound,
    NotSignedIn,
    ProjectNotFound,
    ReportNotFound,
    TaskNotFound,
    UnknownUser,
)
from .models import (
    AuditEntry,
    Comment,
    Invitation,
    Membership,
    Project,
    Role,
    Scope,
    SummaryReport,
    Task,
    Token,
    User,
)

# The largest id of any table. Tables that grow without end have ids of 64 bits, the others of 32.
MAX_ID = 2**63 - 1
# An id that no row has.
NO_SUCH_ID = 0
M = TypeVar("M", bound=Model)
_SCOPE_RANK = {Scope.READ: 0, Scope.WRITE: 1, Scope.ADMIN: 2}
_ROLE_RANK = {Role.VIEWER: 0, Role.EDITOR: 1, Role.OWNER: 2}


@dataclass(frozen=True, slots=True)
class Viewer:
    """The user, token or anonymous client behind a request.

    `authentication` creates one per request or connection. Every resolver and service takes one.
    """

    user_id: int | None
    name: str
    sees_all: bool
    is_signed_in: bool
    # The scope of the token. A session has ADMIN, a project observer READ.
    scope: Scope = Scope.ADMIN
    # The token or session that authenticates the viewer, if any, and when it expires.
    token_id: int | None = None
    session_key: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    # Set for a project observer, who sees the rows of this project only.
    observed_project_id: int | None = None
    # True for our own jobs and commands.
    is_system: bool = False
    # The client's IP address, for the audit log and for budgets; "" where there is no client.
    address: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """Identifies the rows that the viewer sees; part of every cache key.

        Each user has a key of their own, and another one while they are staff. So what is cached for a viewer never
        depends on the permissions of another.
        """
        if self.observed_project_id is not None:
            return f"project:{self.observed_project_id}"
        if self.user_id is not None:
            return f"{'staff' if self.sees_all else 'user'}:{self.user_id}"
        return "all" if self.sees_all else "anonymous"

    @property
    def may_see_anything(self) -> bool:
        """False only for an anonymous client in closed mode."""
        return self.is_signed_in or self.sees_all


ANONYMOUS = Viewer(user_id=None, name="", sees_all=False, is_signed_in=False)
# UNRESTRICTED is any client without a credential in open mode, SYSTEM our own jobs and commands.
UNRESTRICTED = Viewer(user_id=None, name="", sees_all=True, is_signed_in=False)
SYSTEM = replace(UNRESTRICTED, is_system=True)


def project_observer(project_id: int) -> Viewer:
    """Return a viewer who sees this project only, for results that are read once for many viewers of the project."""
    return Viewer(None, "", sees_all=False, is_signed_in=True, scope=Scope.READ, observed_project_id=project_id)


def viewer_for(user: Any) -> Viewer:
    """Return the viewer for an active user, in full scope; otherwise UNRESTRICTED or ANONYMOUS, by the access mode."""
    if isinstance(user, User) and user.is_active:
        return Viewer(user.pk, user.display_name, sees_all=user.is_staff, is_signed_in=True)
    return UNRESTRICTED if settings.ACCESS == "open" else ANONYMOUS


def require_access(viewer: Viewer) -> None:
    """Raise NotSignedIn for a viewer who may see nothing at all."""
    if not viewer.may_see_anything:
        raise NotSignedIn


def require_scope(viewer: Viewer, scope: Scope) -> None:
    """Raise NotSignedIn, or MissingScope where the scope of the viewer's token is below `scope`.

    Call this before any row is read, so that the error depends on the token alone.
    """
    require_access(viewer)
    if _SCOPE_RANK[viewer.scope] < _SCOPE_RANK[scope]:
        raise MissingScope(scope)


def parse_id(text: str | int) -> int | None:
    """Parse a primary key; None where no row can have it."""
    text = str(text)
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    number = int(text)
    return number if 1 <= number <= MAX_ID else None


def parse_id_filter(text: str | int) -> int:
    """Parse a primary key to filter by; NO_SUCH_ID where no row can have it."""
    return parse_id(text) or NO_SUCH_ID


# --- What a viewer sees ----------------------------------------------------------------------------------
def visible_projects(viewer: Viewer) -> QuerySet[Project]:
    return _visible(viewer, Project.objects.all(), "")


def visible_tasks(viewer: Viewer) -> QuerySet[Task]:
    return _visible(viewer, Task.objects.all(), "project__")


def visible_tasks_of(viewer: Viewer, project_id: int) -> QuerySet[Task]:
    """The visible tasks of a project. The query checks the permission once, so it can read an index by project."""
    require_access(viewer)
    tasks = Task.objects.filter(project_id=project_id)
    if viewer.observed_project_id is not None:
        return tasks.filter(project_id=viewer.observed_project_id)
    if viewer.sees_all:
        return tasks
    return tasks.filter(Exists(Membership.objects.filter(user=viewer.user_id, project=project_id)))


def visible_comments(viewer: Viewer) -> QuerySet[Comment]:
    return _visible(viewer, Comment.objects.all(), "task__project__")


def visible_reports(viewer: Viewer) -> QuerySet[SummaryReport]:
    return _visible(viewer, SummaryReport.objects.all(), "project__")


def visible_memberships(viewer: Viewer) -> QuerySet[Membership]:
    return _visible(viewer, Membership.objects.all(), "project__")


def _visible(viewer: Viewer, rows: QuerySet[M], to_project: str) -> QuerySet[M]:
    """Filter rows to those whose project the viewer sees. `to_project` is the lookup prefix of a row's project."""
    require_access(viewer)
    if viewer.observed_project_id is not None:
        return rows.filter(**{f"{to_project}pk": viewer.observed_project_id})
    return rows if viewer.sees_all else rows.filter(**{f"{to_project}memberships__user": viewer.user_id})


def viewers_who_see(project_id: int, viewers: Collection[Viewer]) -> set[Viewer]:
    """Return those of `viewers` who see the project at present, in one query."""
    ids = {viewer.user_id for viewer in viewers if viewer.user_id is not None}
    allowed = Q(is_staff=True) | Exists(Membership.objects.filter(user=OuterRef("pk"), project=project_id))
    found = set(User.objects.filter(allowed, pk__in=ids, is_active=True).values_list("pk", flat=True)) if ids else set()
    return {viewer for viewer in viewers if (viewer.user_id in found if viewer.is_signed_in else viewer.sees_all)}


def visible_project_ids(viewer: Viewer) -> frozenset[int]:
    """Return the project ids of a member or a project observer. Not for viewers who see all projects."""
    if viewer.observed_project_id is not None:
        return frozenset([viewer.observed_project_id])
    with connection.cursor() as cursor:  # runs before every list that a member reads; the ORM takes three times as long
        cursor.execute(f"SELECT project_id FROM {Membership._meta.db_table} WHERE user_id = %s", [viewer.user_id])
        return frozenset(project_id for [project_id] in cursor.fetchall())


def visible_among(viewer: Viewer, project_ids: Collection[int]) -> frozenset[int]:
    """Return the ids of the projects that the viewer sees, out of `project_ids`."""
    return frozenset(visible_projects(viewer).filter(pk__in=project_ids).values_list("pk", flat=True))


def project(viewer: Viewer, project_id: int | None) -> Project:
    """Raises ProjectNotFound."""
    return _get(visible_projects(viewer), project_id, ProjectNotFound)


def task(viewer: Viewer, task_id: int | None) -> Task:
    """Raises TaskNotFound."""
    return _get(visible_tasks(viewer), task_id, TaskNotFound)


def report(viewer: Viewer, report_id: int | None) -> SummaryReport:
    """Raises ReportNotFound."""
    return _get(visible_reports(viewer), report_id, ReportNotFound)


def _get(rows: QuerySet[M], pk: int | None, error: type[NotFound]) -> M:
    row = rows.filter(pk=pk).first() if pk is not None else None
    if row is None:
        raise error
    return row


def tokens_of(viewer: Viewer) -> QuerySet[Token]:
    """The viewer's own tokens, even for staff; all tokens for commands. Raises NotSignedIn, MissingScope."""
    require_scope(viewer, Scope.ADMIN)
    return Token.objects.all() if viewer.is_system else Token.objects.filter(user=viewer.user_id)


def revocable_tokens(viewer: Viewer) -> QuerySet[Token]:
    """The viewer's own tokens; all tokens for staff, so that a leaked one can be revoked without its owner."""
    require_scope(viewer, Scope.ADMIN)
    return Token.objects.all() if viewer.sees_all else Token.objects.filter(user=viewer.user_id)


def invitations_of(viewer: Viewer) -> QuerySet[Invitation]:
    """The viewer's own open invitations, even for staff. Raises NotSignedIn."""
    require_access(viewer)
    return Invitation.objects.filter(user=viewer.user_id, expires_at__gt=Now())


def invitations_to(viewer: Viewer, project_id: int | None) -> QuerySet[Invitation]:
    """The open invitations to a project. Raises ProjectNotFound, NotAllowed where the viewer is no owner."""
    found = project(viewer, project_id)
    _require_role(viewer, found.pk, Role.OWNER)
    return Invitation.objects.filter(project=found, expires_at__gt=Now())


def visible_audit(viewer: Viewer) -> QuerySet[AuditEntry]:
    """All audit entries. Raises NotSignedIn, MissingScope, NotAllowed where the viewer is not staff."""
    require_scope(viewer, Scope.ADMIN)
    if not viewer.sees_all:
        raise NotAllowed
    return AuditEntry.objects.all()


# --- What a viewer may change ----------------------------------------------------------------------------
def project_for_update(viewer: Viewer, project_id: int | None, *, role: Role, scope: Scope = Scope.WRITE) -> Project:
    """The project, its row locked.

    Raises MissingScope, ProjectNotFound, NotAllowed where the viewer's role is below `role`.
    """
    require_scope(viewer, scope)
    found = _get(_locked(visible_projects(viewer)), project_id, ProjectNotFound)
    _require_role(viewer, found.pk, role)
    return found


def project_to_delete(viewer: Viewer, project_id: int | None) -> Project:
    """The project, for deletion by an owner, with its row and its tasks locked.

    Lock order: the project, then its tasks by id. No row is added meanwhile, since every service first locks a
    reference to the parent of a new row (`lock_reference`). Raises MissingScope, ProjectNotFound, NotAllowed.
    """
    require_scope(viewer, Scope.WRITE)
    found = _get(visible_projects(viewer).select_for_update(of=("self",)), project_id, ProjectNotFound)
    _require_role(viewer, found.pk, Role.OWNER)
    list(Task.objects.filter(project=found).order_by("pk").select_for_update().values_list("pk"))
    return found


def task_for_update(viewer: Viewer, task_id: int | None) -> Task:
    """The task, its row locked. Raises MissingScope, TaskNotFound, NotAllowed where the viewer may only read."""
    require_scope(viewer, Scope.WRITE)
    found = _get(_locked(visible_tasks(viewer)), task_id, TaskNotFound)
    _require_role(viewer, found.project_id, Role.EDITOR)
    return found


def task_to_delete(viewer: Viewer, task_id: int | None) -> Task:
    """The task, its row locked, also against new comments. Raises MissingScope, TaskNotFound, NotAllowed."""
    require_scope(viewer, Scope.WRITE)
    found = _get(visible_tasks(viewer).select_for_update(of=("self",)), task_id, TaskNotFound)
    _require_role(viewer, found.project_id, Role.EDITOR)
    return found


def project_to_add_to(viewer: Viewer, project_id: int | None) -> Project:
    """The project, locked against deletion until the commit. Raises MissingScope, ProjectNotFound, NotAllowed."""
    require_scope(viewer, Scope.WRITE)
    found = project(viewer, project_id)
    _require_role(viewer, found.pk, Role.EDITOR)
    if not lock_reference(Project, found.pk):
        raise ProjectNotFound
    return found


def task_to_add_to(viewer: Viewer, task_id: int | None) -> Task:
    """The task, locked against deletion until the commit. Raises MissingScope, TaskNotFound, NotAllowed."""
    require_scope(viewer, Scope.WRITE)
    found = task(viewer, task_id)
    _require_role(viewer, found.project_id, Role.EDITOR)
    if not lock_reference(Task, found.pk):
        raise TaskNotFound
    return found


def user_to_add(username: str) -> User:
    """The active user with this name, ignoring case, locked against deletion until the commit. Raises UnknownUser."""
    try:
        user = User.objects.get_by_natural_key(username)
    except User.DoesNotExist:
        raise UnknownUser from None
    if not (user.is_active and lock_reference(User, user.pk)):
        raise UnknownUser
    return user


def invitation_to_accept(viewer: Viewer, invitation_id: int | None) -> Invitation:
    """The viewer's own invitation, its row locked. It may have expired.

    Lock order, as for adding a member: the project, a reference to the user, then the invitation. Raises MissingScope,
    InvitationNotFound (also for another user's invitation, even for staff), NotSignedIn.
    """
    require_scope(viewer, Scope.ADMIN)
    own = Invitation.objects.filter(user=viewer.user_id)
    found = _get(own, invitation_id, InvitationNotFound)
    _get(_locked(Project.objects.all()), found.project_id, InvitationNotFound)
    if not lock_reference(User, found.user_id):
        raise NotSignedIn
    return _get(_locked_for_deletion(own), found.pk, InvitationNotFound)


def invitation_to_decline(viewer: Viewer, invitation_id: int | None) -> Invitation:
    """The viewer's own invitation, its row locked. Raises MissingScope, InvitationNotFound."""
    require_scope(viewer, Scope.ADMIN)
    return _get(_locked_for_deletion(Invitation.objects.filter(user=viewer.user_id)), invitation_id, InvitationNotFound)


def invitation_to_cancel(viewer: Viewer, invitation_id: int | None, project_id: int | None = None) -> Invitation:
    """The invitation, for an owner of its project. Lock order: the project, then the invitation.

    Raises MissingScope, InvitationNotFound (also for another project than `project_id`), NotAllowed.
    """
    require_scope(viewer, Scope.ADMIN)
    visible = _visible(viewer, Invitation.objects.all(), "project__")
    if project_id is not None:
        visible = visible.filter(project=project_id)
    found = _get(visible, invitation_id, InvitationNotFound)
    project_for_update(viewer, found.project_id, role=Role.OWNER, scope=Scope.ADMIN)
    return _get(_locked_for_deletion(Invitation.objects.all()), found.pk, InvitationNotFound)


def _locked_for_deletion(invitations: QuerySet[Invitation]) -> QuerySet[Invitation]:
    """Lock the invitations, and read the rows that they refer to in the same query."""
    return invitations.select_related("user", "project", "invited_by").select_for_update(of=("self",))


def lock_reference(model: type[Model], pk: int) -> bool:
    """Lock a row against deletion until the commit (`FOR KEY SHARE`); False where it is gone.

    A service that writes a reference takes this lock first. PostgreSQL takes the same lock when it checks foreign keys,
    but only at the commit: too late for a clear error, and while the transaction has the journal's lock. Other
    transactions may still update the row.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {model._meta.db_table} WHERE id = %s FOR KEY SHARE", [pk])
        return cursor.fetchone() is not None


def lock_member_reference(project_id: int, user_id: int) -> bool:
    """Like `lock_reference`, for a user, then for their membership; False where the user is no member.

    The membership is read first, so that the call takes as long for a user who is no member as for an unknown user.
    """
    membership = Membership.objects.filter(project=project_id, user=user_id).values_list("pk", flat=True).first()
    return membership is not None and lock_reference(User, user_id) and lock_reference(Membership, membership)


def _locked(rows: QuerySet[M]) -> QuerySet[M]:
    return rows.select_for_update(of=("self",), no_key=True)


def _require_role(viewer: Viewer, project_id: int, role: Role) -> None:
    if viewer.sees_all:
        return
    actual = Membership.objects.filter(project=project_id, user=viewer.user_id).values_list("role", flat=True).first()
    if actual is None or _ROLE_RANK[Role(actual)] < _ROLE_RANK[role]:
        raise NotAllowed
