"""Input types and their conversion to the domain's arguments.

In an update an absent field stays unchanged, and null clears a field that may be empty.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any, cast

import strawberry
from django.conf import settings
from strawberry import ID, UNSET

from backend.projects.access import parse_id_filter
from backend.projects.models import Status
from backend.projects.resolvers.page import Order
from backend.projects.resolvers.project import ProjectFilter as DomainProjectFilter
from backend.projects.resolvers.task import TaskFilter as DomainTaskFilter
from backend.projects.services.project import ProjectChanges
from backend.projects.services.task import TaskChanges
from backend.projects.services.token import DAYS, MAX_DAYS

from .directives import PROJECT_SEARCH, TASK_SEARCH
from .enums import Direction, ProjectOrderField, Role, TaskOrderField, TaskStatus, TokenScope


def id_filter(id: ID | None) -> int | None:
    """None means any id. Text that is not a number becomes NO_SUCH_ID."""
    return None if id is None else parse_id_filter(id)


# --- Lists -----------------------------------------------------------------------------------------------
@strawberry.input
class ProjectFilter:
    search: str | None = strawberry.field(
        default=None,
        directives=[PROJECT_SEARCH],
        description="A substring of the name or description, at least 3 letters.",
    )

    def to_domain(self) -> DomainProjectFilter:
        return DomainProjectFilter(search=self.search)


@strawberry.input
class TaskFilter:
    project_id: ID | None = None
    status: TaskStatus | None = None
    assignee_id: ID | None = None
    due_after: datetime | None = strawberry.field(default=None, description="Due at this moment or later.")
    due_before: datetime | None = strawberry.field(default=None, description="Due before this moment.")
    search: str | None = strawberry.field(
        default=None,
        directives=[TASK_SEARCH],
        description="A substring of the title or description, at least 3 letters.",
    )

    def to_domain(self) -> DomainTaskFilter:
        return DomainTaskFilter(
            project_id=id_filter(self.project_id),
            status=self.status and self.status.value,
            assignee_id=id_filter(self.assignee_id),
            due_after=self.due_after,
            due_before=self.due_before,
            search=self.search,
        )


@strawberry.input
class ProjectOrder:
    field: ProjectOrderField
    direction: Direction = Direction.ASC


@strawberry.input
class TaskOrder:
    field: TaskOrderField
    direction: Direction = Direction.ASC


def domain_order(order: ProjectOrder | TaskOrder | None) -> Order:
    return Order(order.field.value, order.direction is Direction.DESC) if order else Order()


# --- Mutations -------------------------------------------------------------------------------------------
_DESCRIPTION = f"At most {settings.DESCRIPTION_CHARACTERS:,} characters."


def _changes(values: Any) -> dict[str, Any]:
    """The object's fields that the input sets, by their names in the domain."""
    changes = {field.name: getattr(values, field.name) for field in fields(values)}
    for name in ("id", "version", "project_id"):
        changes.pop(name, None)
    changes = {name: value for name, value in changes.items() if value is not UNSET}
    if isinstance(changes.get("status"), Status):
        changes["status"] = changes["status"].value
    if "assignee_id" in changes:
        changes["assignee_id"] = id_filter(changes["assignee_id"])
    return changes


@strawberry.input
class CreateProjectInput:
    name: str
    description: str | None = strawberry.field(default=UNSET, description=_DESCRIPTION)

    def changes(self) -> ProjectChanges:
        return cast(ProjectChanges, _changes(self))


@strawberry.input
class UpdateProjectInput:
    id: ID
    version: int | None = strawberry.field(default=None, description="Update only if this is the current version.")
    name: str | None = UNSET
    description: str | None = strawberry.field(default=UNSET, description=_DESCRIPTION)

    def changes(self) -> ProjectChanges:
        return cast(ProjectChanges, _changes(self))


@strawberry.input
class DeleteProjectInput:
    id: ID
    version: int | None = strawberry.field(default=None, description="Delete only if this is the current version.")


@strawberry.input
class CreateTaskInput:
    project_id: ID
    title: str
    description: str | None = strawberry.field(default=UNSET, description=_DESCRIPTION)
    status: TaskStatus | None = UNSET
    due_date: datetime
    assignee_id: ID | None = UNSET

    def changes(self) -> TaskChanges:
        changes = _changes(self)
        if changes.get("status", UNSET) is None:
            del changes["status"]  # null means no status: the task is pending
        return cast(TaskChanges, changes)


@strawberry.input
class UpdateTaskInput:
    id: ID
    version: int | None = strawberry.field(default=None, description="Update only if this is the current version.")
    title: str | None = UNSET
    description: str | None = strawberry.field(default=UNSET, description=_DESCRIPTION)
    status: TaskStatus | None = UNSET
    due_date: datetime | None = UNSET
    assignee_id: ID | None = strawberry.field(default=UNSET, description="Null removes the assignee.")

    def changes(self) -> TaskChanges:
        return cast(TaskChanges, _changes(self))


@strawberry.input
class DeleteTaskInput:
    id: ID
    version: int | None = strawberry.field(default=None, description="Delete only if this is the current version.")


@strawberry.input
class AddCommentInput:
    task_id: ID
    content: str = strawberry.field(description=f"At most {settings.COMMENT_CHARACTERS:,} characters.")
    author: str | None = strawberry.field(
        default=None,
        description="Required if you are not signed in. A signed-in user comments under their own name, and another one"
        " is refused. The exception is an `admin` token of a staff member: it imports comments, which is audited.",
    )


@strawberry.input
class AddMemberInput:
    project_id: ID
    username: str = strawberry.field(description="The name that the user signs in with, ignoring case.")
    role: Role = Role.EDITOR


@strawberry.input
class ChangeRoleInput:
    project_id: ID
    user_id: ID
    role: Role


@strawberry.input
class RemoveMemberInput:
    project_id: ID
    user_id: ID


@strawberry.input
class InviteMemberInput:
    project_id: ID
    username: str = strawberry.field(description="The name that the user signs in with, ignoring case.")
    role: Role = Role.EDITOR


@strawberry.input
class AcceptInvitationInput:
    id: ID


@strawberry.input
class DeclineInvitationInput:
    id: ID


@strawberry.input
class CancelInvitationInput:
    id: ID


@strawberry.input
class CreateTokenInput:
    name: str
    scope: TokenScope
    days: int | None = strawberry.field(
        default=DAYS, description=f"Days until it expires, 1 to {MAX_DAYS}. With null it does not expire."
    )


@strawberry.input
class RevokeTokenInput:
    id: ID
