"""Output types over frozen rows: lists, mutations and events show an object in the same way.

No field queries the database itself: data that is not in the row comes from the loaders.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from typing import Any, ClassVar, TypeVar

import strawberry
from strawberry.dataloader import DataLoader
from strawberry.scalars import JSON

from backend.projects import rows
from backend.projects.resolvers.comment import COMMENTS_OF_TASKS
from backend.projects.resolvers.membership import MEMBERS_OF_PROJECTS
from backend.projects.resolvers.page import Listing, Page, PageRequest
from backend.projects.resolvers.task import TaskFilter as DomainTaskFilter
from backend.projects.resolvers.task import tasks_of_projects_listing

from .connections import Connection, PageArguments, counted
from .context import Info
from .directives import COMMENT_COUNT, LARGE_COUNT, NESTED_LIST
from .enums import AuditAction, Role, TaskStatus, TokenScope
from .execution.columns import resolves_related
from .inputs import TaskFilter, TaskOrder, domain_order
from .loaders import Nested, NestedPage, TaskPage

C = TypeVar("C", bound=Connection[Any])


@resolves_related("project", "project_id")
async def _project_of(root: strawberry.Parent[rows.TaskRow | rows.ReportRow], info: Info) -> Project | None:
    return await info.context.loaders.project.load(root.project_id)  # type: ignore[return-value]


@resolves_related("task", "task_id")
async def _task_of(root: strawberry.Parent[rows.CommentRow], info: Info) -> Task | None:
    return await info.context.loaders.task.load(root.task_id)  # type: ignore[return-value]


@resolves_related("user", "assignee_id")
async def _assignee_of(root: strawberry.Parent[rows.TaskRow], info: Info) -> User | None:
    if root.assignee_id is None:
        return None
    return await info.context.loaders.user.load(root.assignee_id)  # type: ignore[return-value]


async def _tasks_of(
    root: strawberry.Parent[rows.ProjectRow],
    info: Info,
    page: PageRequest,
    filter: TaskFilter | None = None,
    order: TaskOrder | None = None,
) -> TaskConnection:
    task_page = TaskPage(
        filter.to_domain() if filter else DomainTaskFilter(),
        domain_order(order),
        page,
    )
    tasks_of_projects_listing(task_page.filter, task_page.order).check(page)
    loaders = info.context.loaders
    return TaskConnection(
        load_page=lambda: loaders.tasks.load(Nested(root.id, task_page)),
        load_keys=lambda: loaders.tasks.load(Nested(root.id, replace(task_page, keys_only=True))),
        load_count=lambda: loaders.task_count.load(Nested(root.id, task_page.filter)),
    )


def _nested(
    connection: type[C],
    parent_id: int,
    listing: Listing[Any],
    page: PageRequest,
    pages: DataLoader[Nested[NestedPage], Page[Any]],
    counts: DataLoader[Nested[None], int],
) -> C:
    """A connection that is filtered by its parent alone. Raises BadArgument."""
    listing.check(page)
    return connection(
        load_page=lambda: pages.load(Nested(parent_id, NestedPage(page))),
        load_keys=lambda: pages.load(Nested(parent_id, NestedPage(page, keys_only=True))),
        load_count=lambda: counts.load(Nested(parent_id, None)),
    )


async def _comments_of(root: strawberry.Parent[rows.TaskRow], info: Info, page: PageRequest) -> CommentConnection:
    loaders = info.context.loaders
    return _nested(CommentConnection, root.id, COMMENTS_OF_TASKS, page, loaders.comments, loaders.comment_count)


async def _members_of(root: strawberry.Parent[rows.ProjectRow], info: Info, page: PageRequest) -> Connection[Member]:
    loaders = info.context.loaders
    return _nested(Connection, root.id, MEMBERS_OF_PROJECTS, page, loaders.members, loaders.member_count)


def _user_of(root: strawberry.Parent[rows.MemberRow]) -> User:
    return rows.UserRow(root.user_id, root.name)  # type: ignore[return-value]


def _invited_user_of(root: strawberry.Parent[rows.InvitationRow]) -> User:
    return rows.UserRow(root.user_id, root.user_name)  # type: ignore[return-value]


def _sender_of(root: strawberry.Parent[rows.InvitationRow]) -> User | None:
    if root.invited_by_id is None:
        return None
    return rows.UserRow(root.invited_by_id, root.invited_by_name)  # type: ignore[return-value]


def _actor_of(root: strawberry.Parent[rows.AuditRow]) -> User | None:
    return None if root.actor_id is None else rows.UserRow(root.actor_id, root.actor_name)  # type: ignore[return-value]


class _RowType:
    """Base of a type whose instances are rows of one class."""

    row: ClassVar[type]

    @classmethod
    def is_type_of(cls, obj: Any, info: Any) -> bool:
        return isinstance(obj, cls.row)


@strawberry.type(description="A user as other users see them.")
class User(_RowType):
    row = rows.UserRow
    id: strawberry.ID
    name: str


@strawberry.type
class Project(_RowType):
    row = rows.ProjectRow
    id: strawberry.ID
    name: str
    description: str
    created_at: datetime
    updated_at: datetime
    version: int = strawberry.field(description="Starts at 1 and grows by 1 with each change of the project's fields.")
    tasks: TaskConnection = strawberry.field(
        resolver=_tasks_of,
        extensions=[PageArguments()],
        directives=[NESTED_LIST],
        description="Newest first, unless `order` is set.",
    )
    members: Connection[Member] = strawberry.field(
        resolver=_members_of, extensions=[PageArguments()], directives=[NESTED_LIST], description="Newest first."
    )


@strawberry.type(description="A member of a project.")
class Member(_RowType):
    row = rows.MemberRow
    user: User = strawberry.field(resolver=_user_of)
    role: Role


@strawberry.type
class Task(_RowType):
    row = rows.TaskRow
    id: strawberry.ID
    title: str
    description: str
    status: TaskStatus
    due_date: datetime
    created_at: datetime
    updated_at: datetime
    version: int = strawberry.field(description="Starts at 1 and grows by 1 with each change of the task's fields.")
    project: Project | None = strawberry.field(
        resolver=_project_of, description="Null only if it was deleted, or your access to it ended, in the meantime."
    )
    assignee: User | None = strawberry.field(resolver=_assignee_of)
    comments: CommentConnection = strawberry.field(
        resolver=_comments_of, extensions=[PageArguments()], description="Newest first."
    )


@strawberry.type
class Comment(_RowType):
    row = rows.CommentRow
    id: strawberry.ID
    author: str
    content: str
    created_at: datetime
    task: Task | None = strawberry.field(
        resolver=_task_of, description="Null only if it was deleted, or your access to it ended, in the meantime."
    )


@strawberry.type
class TaskConnection(Connection[Task]):
    total_count = counted(LARGE_COUNT)


@strawberry.type
class CommentConnection(Connection[Comment]):
    total_count = counted(COMMENT_COUNT)


@strawberry.type(description="A summary of one local date in a project.")
class SummaryReport(_RowType):
    row = rows.ReportRow
    id: strawberry.ID
    date: date
    generated_at: datetime
    figures: JSON
    project: Project | None = strawberry.field(
        resolver=_project_of, description="Null only if it was deleted, or your access to it ended, in the meantime."
    )


@strawberry.type(description="An offer of a role in a project. The user becomes a member by accepting it.")
class Invitation(_RowType):
    row = rows.InvitationRow
    id: strawberry.ID
    project_id: strawberry.ID = strawberry.field(description="The project is visible once you have accepted.")
    project_name: str
    user: User = strawberry.field(resolver=_invited_user_of)
    role: Role
    invited_by: User | None = strawberry.field(
        resolver=_sender_of, description="Null if the account of the sender is deleted."
    )
    created_at: datetime
    expires_at: datetime = strawberry.field(description="The invitation cannot be accepted from this moment on.")


@strawberry.type(description="The user that the request is authenticated as.")
class Viewer:
    id: strawberry.ID | None
    name: str
    is_staff: bool


@strawberry.type(
    description="A credential for scripts: `Authorization: Bearer <secret>`. Only `createToken` returns its secret."
)
class Token(_RowType):
    row = rows.TokenRow
    id: strawberry.ID
    name: str
    scope: TokenScope
    created_at: datetime
    expires_at: datetime | None = strawberry.field(description="Null if it does not expire.")
    last_used_at: datetime | None = strawberry.field(description="Accurate to a minute; null if it was never used.")


@strawberry.type
class NewToken:
    token: Token
    secret: str = strawberry.field(description="The secret that a script sends. It cannot be retrieved again.")


@strawberry.type(
    description="A sign-in, a change of a user's access, or an imported comment."
    " It outlives the rows that its ids refer to."
)
class AuditEntry:
    id: strawberry.ID
    at: datetime
    action: AuditAction
    actor: User | None = strawberry.field(
        resolver=_actor_of, description="Null if the actor was not signed in, and for commands."
    )
    actor_token_id: strawberry.ID | None = strawberry.field(description="The token that authenticated the actor.")
    address: str = strawberry.field(description="The client's IP address; empty for commands.")
    user_id: strawberry.ID | None = strawberry.field(
        description="The user whose account, membership or token it concerns."
    )
    user_name: str
    project_id: strawberry.ID | None
    detail: str = strawberry.field(description="Further details as text.")


@strawberry.type
class AuditEntryConnection(Connection[AuditEntry]):
    total_count = counted(LARGE_COUNT)
