"""The only way to a row from outside: viewers, the rows they see, and what they may do with them.

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

# The largest id of any table. Those that grow without end have 64 bits, the others 32.
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
    # Limits what the account may do. Only tokens have less than ADMIN.
    scope: Scope = Scope.ADMIN
    # The credential, where it can end before the account does.
    token_id: int | None = None
    session_key: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    # Set for a project observer, who sees the rows of this project only.
    observed_project_id: int | None = None
    # True for our own jobs and commands.
    is_system: bool = False
    # The client's IP address, for the audit log; "" where there is no client.
    address: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """Equal for viewers who see the same rows for the same reason; part of every cache key.

        A user as staff and the same user as a member have different keys, and so have two members of the staff: what
        is cached for a viewer never depends on the permissions of another.
        """
        if self.observed_project_id is not None:
            return f"project:{self.observed_project_id}"
        if self.user_id is not None:
            return f"{'staff' if self.sees_all else 'user'}:{self.user_id}"
        return "all" if self.sees_all else "nobody"

    @property
    def may_see_anything(self) -> bool:
        """Whether the viewer may see anything at all."""
        return self.is_signed_in or self.sees_all


ANONYMOUS = Viewer(user_id=None, name="", sees_all=False, is_signed_in=False)
# In open mode, any client on this machine may do everything, and so may our own jobs. Neither has a name.
UNNAMED = Viewer(user_id=None, name="", sees_all=True, is_signed_in=False)
SYSTEM = replace(UNNAMED, is_system=True)


def project_observer(project_id: int) -> Viewer:
    """Return a viewer who sees this project only, for results that are read once for many viewers of the project."""
    return Viewer(None, "", sees_all=False, is_signed_in=True, scope=Scope.READ, observed_project_id=project_id)


def viewer_for(user: Any) -> Viewer:
    """Return the viewer for an active user, with all their permissions; else the access mode's anonymous viewer."""
    if isinstance(user, User) and user.is_active:
        return Viewer(user.pk, user.display_name, sees_all=user.is_staff, is_signed_in=True)
    return UNNAMED if settings.ACCESS == "open" else ANONYMOUS


def require_access(viewer: Viewer) -> None:
    """Raise NotSignedIn for a viewer who may see nothing at all."""
    if not viewer.may_see_anything:
        raise NotSignedIn


def require_scope(viewer: Viewer, scope: Scope) -> None:
    """Raise NotSignedIn, or MissingScope where the scope of the viewer's token is below `scope`.

    Called before any row is looked up: the error depends on the token alone.
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
    """The visible tasks of a project. Permission is checked once per query, so an index by project gives the order."""
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
    """Return the viewers among these who see the project at present, in one query."""
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
    """Return the ids among these of the projects that the viewer sees."""
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


def _get(rows: QuerySet[M], pk: int | None, absent: type[NotFound]) -> M:
    row = rows.filter(pk=pk).first() if pk is not None else None
    if row is None:
        raise absent
    return row


def tokens_of(viewer: Viewer) -> QuerySet[Token]:
    """The viewer's own tokens, for staff too; all tokens for commands."""
    require_scope(viewer, Scope.ADMIN)
    return Token.objects.all() if viewer.is_system else Token.objects.filter(user=viewer.user_id)


def revocable_tokens(viewer: Viewer) -> QuerySet[Token]:
    """The viewer's own tokens; all tokens for staff, since revoking a leaked one cannot wait for its owner."""
    require_scope(viewer, Scope.ADMIN)
    return Token.objects.all() if viewer.sees_all else Token.objects.filter(user=viewer.user_id)


def invitations_of(viewer: Viewer) -> QuerySet[Invitation]:
    """The invitations that the viewer can accept, for staff too: their own ones. Raises NotSignedIn."""
    require_access(viewer)
    return Invitation.objects.filter(user=viewer.user_id, expires_at__gt=Now())


def invitations_to(viewer: Viewer, project_id: int | None) -> QuerySet[Invitation]:
    """The open invitations to a project. Raises ProjectNotFound, NotAllowed where the viewer is no owner."""
    found = project(viewer, project_id)
    _require_role(viewer, found.pk, Role.OWNER)
    return Invitation.objects.filter(project=found, expires_at__gt=Now())


def visible_audit(viewer: Viewer) -> QuerySet[AuditEntry]:
    """Raises NotAllowed where the viewer is not staff."""
    require_scope(viewer, Scope.ADMIN)
    if not viewer.sees_all:
        raise NotAllowed
    return AuditEntry.objects.all()


# --- What a viewer may change ----------------------------------------------------------------------------
def project_for_update(viewer: Viewer, project_id: int | None, *, role: Role, scope: Scope = Scope.WRITE) -> Project:
    """The project, its row locked.

    Raises MissingScope, ProjectNotFound, NotAllowed where the viewer's role is less than `role`.
    """
    require_scope(viewer, scope)
    found = _get(_locked(visible_projects(viewer)), project_id, ProjectNotFound)
    _require_role(viewer, found.pk, role)
    return found


def project_to_delete(viewer: Viewer, project_id: int | None) -> Project:
    """The project, for deletion by an owner, with its row and its tasks locked.

    Lock order: the project, then its tasks by id. Services that add a row lock a reference to its parent first
    (`lock_reference`), so no row is added meanwhile. Raises MissingScope, ProjectNotFound, NotAllowed.
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
    """The task, locked against new comments too. Raises MissingScope, TaskNotFound, NotAllowed."""
    require_scope(viewer, Scope.WRITE)
    found = _get(visible_tasks(viewer).select_for_update(of=("self",)), task_id, TaskNotFound)
    _require_role(viewer, found.project_id, Role.EDITOR)
    return found


def project_to_add_to(viewer: Viewer, project_id: int | None) -> Project:
    """The project, which cannot be deleted until the commit. Raises MissingScope, ProjectNotFound, NotAllowed."""
    require_scope(viewer, Scope.WRITE)
    found = project(viewer, project_id)
    _require_role(viewer, found.pk, Role.EDITOR)
    if not lock_reference(Project, found.pk):
        raise ProjectNotFound
    return found


def task_to_add_to(viewer: Viewer, task_id: int | None) -> Task:
    """The task, which cannot be deleted until the commit. Raises MissingScope, TaskNotFound, NotAllowed."""
    require_scope(viewer, Scope.WRITE)
    found = task(viewer, task_id)
    _require_role(viewer, found.project_id, Role.EDITOR)
    if not lock_reference(Task, found.pk):
        raise TaskNotFound
    return found


def user_to_add(username: str) -> User:
    """The active user with this name, in any case, who cannot be deleted until the commit. Raises UnknownUser."""
    try:
        user = User.objects.get_by_natural_key(username)
    except User.DoesNotExist:
        raise UnknownUser from None
    if not (user.is_active and lock_reference(User, user.pk)):
        raise UnknownUser
    return user


def invitation_to_accept(viewer: Viewer, invitation_id: int | None) -> Invitation:
    """The viewer's own invitation, locked, so that they can join its project. It may have expired.

    Lock order, as for adding a member: the project, a reference to the user, then the invitation. Raises MissingScope,
    InvitationNotFound (also for another user's invitation, for staff too), NotSignedIn.
    """
    require_scope(viewer, Scope.ADMIN)
    own = Invitation.objects.filter(user=viewer.user_id)
    found = _get(own, invitation_id, InvitationNotFound)
    _get(_locked(Project.objects.all()), found.project_id, InvitationNotFound)
    if not lock_reference(User, found.user_id):
        raise NotSignedIn
    return _get(_to_end(own), found.pk, InvitationNotFound)


def invitation_to_decline(viewer: Viewer, invitation_id: int | None) -> Invitation:
    """The viewer's own invitation, locked. Raises MissingScope, InvitationNotFound."""
    require_scope(viewer, Scope.ADMIN)
    return _get(_to_end(Invitation.objects.filter(user=viewer.user_id)), invitation_id, InvitationNotFound)


def invitation_to_cancel(viewer: Viewer, invitation_id: int | None, project_id: int | None = None) -> Invitation:
    """The invitation (to this project, if one is given), for an owner of its project. Locked after the project.

    Raises MissingScope, InvitationNotFound (also where the project is not visible), NotAllowed.
    """
    require_scope(viewer, Scope.ADMIN)
    visible = _visible(viewer, Invitation.objects.all(), "project__")
    if project_id is not None:
        visible = visible.filter(project=project_id)
    found = _get(visible, invitation_id, InvitationNotFound)
    project_for_update(viewer, found.project_id, role=Role.OWNER, scope=Scope.ADMIN)
    return _get(_to_end(Invitation.objects.all()), found.pk, InvitationNotFound)


def _to_end(invitations: QuerySet[Invitation]) -> QuerySet[Invitation]:
    """Lock against deletion, with the rows that the invitation refers to."""
    return invitations.select_related("user", "project", "invited_by").select_for_update(of=("self",))


def lock_reference(model: type[Model], pk: int) -> bool:
    """Lock a row against deletion until the commit (`FOR KEY SHARE`); False where it is gone.

    PostgreSQL checks Django's foreign keys at the commit and takes the same lock there, too late for a clear error and
    while it has the journal's lock. A service that writes a reference takes this lock first. Others may still update
    the row.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {model._meta.db_table} WHERE id = %s FOR KEY SHARE", [pk])
        return cursor.fetchone() is not None


def lock_member_reference(project_id: int, user_id: int) -> bool:
    """As `lock_reference`, for a user and then their membership; False where they are no member.

    The membership is read first, so that a user who is no member takes as long as one who does not exist.
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
