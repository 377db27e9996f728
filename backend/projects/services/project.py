from typing import TypedDict

from django.db import transaction

from .. import access, journal
from ..access import Viewer
from ..errors import NotSignedIn
from ..events import AccessChanged, ProjectCreated, ProjectDeleted, ProjectUpdated
from ..models import Membership, Project, Role, Scope, User
from ..rows import ProjectRow
from .clean import check_version, clean_fields, tidy


class ProjectChanges(TypedDict, total=False):
    """What is absent stays as it is; a description of None is an empty one."""

    name: str | None
    description: str | None


@transaction.atomic
def create_project(*, actor: Viewer, name: str | None, description: str | None = "") -> Project:
    """A new project, owned by its creator. Raises NotSignedIn, MissingScope, ValidationError."""
    access.require_scope(actor, Scope.WRITE)
    project = Project()
    _assign(project, {"name": name, "description": description})
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
    """Change name or description; nothing is recorded where nothing changes.

    Locks the row. Raises ProjectNotFound, NotAllowed, ValidationError, Conflict where `version` is an old one.
    """
    project = access.project_for_update(actor, project_id, role=Role.EDITOR)
    check_version(ProjectRow.of(project), version)
    changed = _assign(project, changes)
    if changed:
        project.version += 1
        project.save(update_fields=[*changed, "version", "updated_at"])
        journal.append(ProjectUpdated(ProjectRow.of(project), changes=changed), actor=actor)
    return project


@transaction.atomic
def delete_project(*, actor: Viewer, project_id: int | None, version: int | None = None) -> ProjectRow:
    """Delete a project with all that is in it, and return it as it was: one event, to those who could see it.

    Locks the project and its tasks. Raises ProjectNotFound, NotAllowed (actor is no owner), Conflict.
    """
    project = access.project_to_delete(actor, project_id)
    row = ProjectRow.of(project)
    check_version(row, version)
    members = list(Membership.objects.filter(project=project).order_by("user").values_list("user", flat=True))
    project.delete()
    journal.append(ProjectDeleted(row, members), actor=actor)
    return row


def _assign(project: Project, changes: ProjectChanges) -> list[str]:
    """Set what differs, checked; return the names of what was set."""
    new = dict(changes)
    if "name" in new:
        new["name"] = tidy(new["name"])
    if "description" in new:
        new["description"] = new["description"] or ""
    changed = [name for name, value in new.items() if project.pk is None or getattr(project, name) != value]
    for name in changed:
        setattr(project, name, new[name])
    clean_fields(project, changed)
    return changed
