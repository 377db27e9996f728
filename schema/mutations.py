"""Each mutation is one service. What the domain refuses comes back as `OperationInfo`, so none has a `try`."""

from __future__ import annotations

from typing import cast

import strawberry
import strawberry_django

from backend.projects import services
from backend.projects.access import parse_id
from backend.projects.rows import CommentRow, MemberRow, ProjectRow, TaskRow, TokenRow

from .context import Info, viewer
from .inputs import (
    AddCommentInput,
    AddMemberInput,
    ChangeRoleInput,
    CreateProjectInput,
    CreateTaskInput,
    CreateTokenInput,
    DeleteProjectInput,
    DeleteTaskInput,
    RemoveMemberInput,
    RevokeTokenInput,
    UpdateProjectInput,
    UpdateTaskInput,
)
from .types import Comment, Member, NewToken, Project, Task, Token


@strawberry.type
class Mutation:
    @strawberry_django.mutation(description="A new project, owned by you.")
    async def create_project(self, info: Info, input: CreateProjectInput) -> Project:
        project = await info.context.in_database(services.project.create_project, actor=viewer(info), **input.changes())
        return cast(Project, ProjectRow.of(project))

    @strawberry_django.mutation(description="Change what the input names of a project.")
    async def update_project(self, info: Info, input: UpdateProjectInput) -> Project:
        project = await info.context.in_database(
            services.project.update_project,
            actor=viewer(info),
            project_id=parse_id(input.id),
            changes=input.changes(),
            version=input.version,
        )
        return cast(Project, ProjectRow.of(project))

    @strawberry_django.mutation(description="Delete a project with all that is in it; answers with it as it was.")
    async def delete_project(self, info: Info, input: DeleteProjectInput) -> Project:
        row = await info.context.in_database(
            services.project.delete_project, actor=viewer(info), project_id=parse_id(input.id), version=input.version
        )
        return cast(Project, row)

    @strawberry_django.mutation(description="A new task, pending unless told otherwise.")
    async def create_task(self, info: Info, input: CreateTaskInput) -> Task:
        task = await info.context.in_database(
            services.task.create_task,
            actor=viewer(info),
            project_id=parse_id(input.project_id),
            changes=input.changes(),
        )
        return cast(Task, TaskRow.of(task))

    @strawberry_django.mutation(description="Change what the input names of a task.")
    async def update_task(self, info: Info, input: UpdateTaskInput) -> Task:
        task = await info.context.in_database(
            services.task.update_task,
            actor=viewer(info),
            task_id=parse_id(input.id),
            changes=input.changes(),
            version=input.version,
        )
        return cast(Task, TaskRow.of(task))

    @strawberry_django.mutation(description="Delete a task with its comments; answers with the task as it was.")
    async def delete_task(self, info: Info, input: DeleteTaskInput) -> Task:
        row = await info.context.in_database(
            services.task.delete_task, actor=viewer(info), task_id=parse_id(input.id), version=input.version
        )
        return cast(Task, row)

    @strawberry_django.mutation(description="A remark on a task.")
    async def add_comment(self, info: Info, input: AddCommentInput) -> Comment:
        comment = await info.context.in_database(
            services.comment.add_comment,
            actor=viewer(info),
            task_id=parse_id(input.task_id),
            content=input.content,
            author=input.author,
        )
        return cast(Comment, CommentRow.of(comment))

    @strawberry_django.mutation(description="Let somebody into a project that you own.")
    async def add_member(self, info: Info, input: AddMemberInput) -> Member:
        membership = await info.context.in_database(
            services.membership.add_member,
            actor=viewer(info),
            project_id=parse_id(input.project_id),
            username=input.username,
            role=input.role.value,
        )
        return cast(Member, MemberRow.of(membership))

    @strawberry_django.mutation(description="Give a member of a project that you own another role.")
    async def change_role(self, info: Info, input: ChangeRoleInput) -> Member:
        membership = await info.context.in_database(
            services.membership.change_role,
            actor=viewer(info),
            project_id=parse_id(input.project_id),
            user_id=parse_id(input.user_id),
            role=input.role.value,
        )
        return cast(Member, MemberRow.of(membership))

    @strawberry_django.mutation(
        description="Leave a project, or take somebody out of one that you own; answers with the member as they were."
        " Their tasks stay, unassigned."
    )
    async def remove_member(self, info: Info, input: RemoveMemberInput) -> Member:
        membership = await info.context.in_database(
            services.membership.remove_member,
            actor=viewer(info),
            project_id=parse_id(input.project_id),
            user_id=parse_id(input.user_id),
        )
        return cast(Member, MemberRow.of(membership))

    @strawberry_django.mutation(description="A new token of yours.")
    async def create_token(self, info: Info, input: CreateTokenInput) -> NewToken:
        asking = viewer(info)
        token, secret = await info.context.in_database(
            services.token.create_token,
            actor=asking,
            user_id=asking.user_id,
            name=input.name,
            scope=input.scope.value,
            days=input.days,
        )
        return NewToken(token=cast(Token, TokenRow.of(token)), secret=secret)

    @strawberry_django.mutation(
        description="End a token of yours at once, with every socket that it opened; answers with it as it was."
    )
    async def revoke_token(self, info: Info, input: RevokeTokenInput) -> Token:
        row = await info.context.in_database(
            services.token.revoke_token, actor=viewer(info), token_id=parse_id(input.id)
        )
        return cast(Token, row)
