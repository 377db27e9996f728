from typing import TypedDict

from django.db import transaction

from .. import access, journal
from ..access import Viewer
from ..errors import NotSignedIn
from ..events import AccessChanged, ProjectCreated, ProjectDeleted, ProjectUpdated
from ..models import Membership, Project, Role, Scope, User
from ..rows import ProjectRow
from .validation import check_version, set_fields


class ProjectChanges(TypedDict, total=False):
    """An absent field stays unchanged. None stores an empty description."""

    name: str | None
    description: str | None


@transaction.atomic
def create_project(*, actor: Viewer, name: str | None, description: str | None = "") -> Project:
    """Create a project, owned by its creator. Raises NotSignedIn, MissingScope, ValidationError."""
    access.require_scope(actor, Scope.WRITE)
    project = Project()
    set_fields(project, {"name": name, "description": description})
    project.save(force_insert=True)
    if actor.user_id is not None:
        if not access.lock_reference(User, actor.user_id):
            raise NotSignedIn
        Membership.objects.create(project=project, user_id=actor.user_id, role=Role.OWNER)
        journal.append(AccessChanged([actor.user_id], of_project=project.pk), actor=actor)
    journal.append(ProjectCreated(ProjectRow.of(project)), actor=actor)
    return project


@transaction.atomic
def update_project(
    *, actor: Viewer, project_id: int | None, changes: ProjectChanges, version: int | None = None
) -> Project:
    """Change name or description. Records no event where nothing changes.

    Locks the row. Raises ProjectNotFound, NotAllowed, ValidationError, Conflict where `version` is an old one.
    """
    project = access.project_for_update(actor, project_id, role=Role.EDITOR)
    check_version(ProjectRow.of(project), version)
    changed = set_fields(project, changes)
    if changed:
        project.version += 1
        project.save(update_fields=[*changed, "version", "updated_at"])
        journal.append(ProjectUpdated(ProjectRow.of(project), changes=changed), actor=actor)
    return project


@transaction.atomic
def delete_project(*, actor: Viewer, project_id: int | None, version: int | None = None) -> ProjectRow:
    """Delete a project with everything in it, and return its last state. Members and staff receive one event.

    Locks the project and its tasks. Raises ProjectNotFound, NotAllowed (actor is no owner), Conflict.
    """
    project = access.project_to_delete(actor, project_id)
    row = ProjectRow.of(project)
    check_version(row, version)
    members = list(Membership.objects.filter(project=project).order_by("user").values_list("user", flat=True))
    project.delete()
    journal.append(ProjectDeleted(row, members), actor=actor)
    return row
