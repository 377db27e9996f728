"""Each mutation calls one service. Domain errors become `OperationInfo`, so no mutation has a `try`."""

from __future__ import annotations

from typing import cast

import strawberry
import strawberry_django

from backend.projects import services
from backend.projects.access import parse_id
from backend.projects.rows import CommentRow, InvitationRow, MemberRow, ProjectRow, TaskRow, TokenRow

from .context import Info, viewer
from .directives import MUTATION, each_field_costs
from .inputs import (
    AcceptInvitationInput,
    AddCommentInput,
    AddMemberInput,
    CancelInvitationInput,
    ChangeRoleInput,
    CreateProjectInput,
    CreateTaskInput,
    CreateTokenInput,
    DeclineInvitationInput,
    DeleteProjectInput,
    DeleteTaskInput,
    InviteMemberInput,
    RemoveMemberInput,
    RevokeTokenInput,
    UpdateProjectInput,
    UpdateTaskInput,
)
from .types import Comment, Invitation, Member, NewToken, Project, Task, Token


@each_field_costs(MUTATION)
@strawberry.type
class Mutation:
    @strawberry_django.mutation(description="Create a project that you own.")
    async def create_project(self, info: Info, input: CreateProjectInput) -> Project:
        project = await info.context.in_database(services.project.create_project, actor=viewer(info), **input.changes())
        return cast(Project, ProjectRow.of(project))

    @strawberry_django.mutation(description="Update the fields of a project that the input sets.")
    async def update_project(self, info: Info, input: UpdateProjectInput) -> Project:
        project = await info.context.in_database(
            services.project.update_project,
            actor=viewer(info),
            project_id=parse_id(input.id),
            changes=input.changes(),
            version=input.version,
        )
        return cast(Project, ProjectRow.of(project))

    @strawberry_django.mutation(description="Delete a project and everything in it. Returns the project as it was.")
    async def delete_project(self, info: Info, input: DeleteProjectInput) -> Project:
        row = await info.context.in_database(
            services.project.delete_project, actor=viewer(info), project_id=parse_id(input.id), version=input.version
        )
        return cast(Project, row)

    @strawberry_django.mutation(description="Create a task. Its default status is pending.")
    async def create_task(self, info: Info, input: CreateTaskInput) -> Task:
        task = await info.context.in_database(
            services.task.create_task,
            actor=viewer(info),
            project_id=parse_id(input.project_id),
            changes=input.changes(),
        )
        return cast(Task, TaskRow.of(task))

    @strawberry_django.mutation(description="Update the fields of a task that the input sets.")
    async def update_task(self, info: Info, input: UpdateTaskInput) -> Task:
        task = await info.context.in_database(
            services.task.update_task,
            actor=viewer(info),
            task_id=parse_id(input.id),
            changes=input.changes(),
            version=input.version,
        )
        return cast(Task, TaskRow.of(task))

    @strawberry_django.mutation(description="Delete a task and its comments. Returns the task as it was.")
    async def delete_task(self, info: Info, input: DeleteTaskInput) -> Task:
        row = await info.context.in_database(
            services.task.delete_task, actor=viewer(info), task_id=parse_id(input.id), version=input.version
        )
        return cast(Task, row)

    @strawberry_django.mutation(description="Comment on a task.")
    async def add_comment(self, info: Info, input: AddCommentInput) -> Comment:
        comment = await info.context.in_database(
            services.comment.add_comment,
            actor=viewer(info),
            task_id=parse_id(input.task_id),
            content=input.content,
            author=input.author,
        )
        return cast(Comment, CommentRow.of(comment))

    @strawberry_django.mutation(description="Add a member to a project at once. For staff: owners use `inviteMember`.")
    async def add_member(self, info: Info, input: AddMemberInput) -> Member:
        membership = await info.context.in_database(
            services.membership.add_member,
            actor=viewer(info),
            project_id=parse_id(input.project_id),
            username=input.username,
            role=input.role.value,
        )
        return cast(Member, MemberRow.of(membership))

    @strawberry_django.mutation(description="Change the role of a member of a project that you own.")
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
        description="Leave a project, or remove a member from one that you own. Returns the member as it was."
        " The member's tasks stay, without an assignee."
    )
    async def remove_member(self, info: Info, input: RemoveMemberInput) -> Member:
        membership = await info.context.in_database(
            services.membership.remove_member,
            actor=viewer(info),
            project_id=parse_id(input.project_id),
            user_id=parse_id(input.user_id),
        )
        return cast(Member, MemberRow.of(membership))

    @strawberry_django.mutation(
        description="Invite a user to a project that you own. Replaces an earlier invitation of the same user."
    )
    async def invite_member(self, info: Info, input: InviteMemberInput) -> Invitation:
        invitation = await info.context.in_database(
            services.invitation.invite_member,
            actor=viewer(info),
            project_id=parse_id(input.project_id),
            username=input.username,
            role=input.role.value,
        )
        return cast(Invitation, InvitationRow.of(invitation))

    @strawberry_django.mutation(description="Accept an invitation of yours. Returns you as a member of the project.")
    async def accept_invitation(self, info: Info, input: AcceptInvitationInput) -> Member:
        membership = await info.context.in_database(
            services.invitation.accept_invitation, actor=viewer(info), invitation_id=parse_id(input.id)
        )
        return cast(Member, MemberRow.of(membership))

    @strawberry_django.mutation(description="Decline an invitation of yours. Returns the invitation as it was.")
    async def decline_invitation(self, info: Info, input: DeclineInvitationInput) -> Invitation:
        row = await info.context.in_database(
            services.invitation.decline_invitation, actor=viewer(info), invitation_id=parse_id(input.id)
        )
        return cast(Invitation, row)

    @strawberry_django.mutation(
        description="Cancel an invitation to a project that you own. Returns the invitation as it was."
    )
    async def cancel_invitation(self, info: Info, input: CancelInvitationInput) -> Invitation:
        row = await info.context.in_database(
            services.invitation.cancel_invitation, actor=viewer(info), invitation_id=parse_id(input.id)
        )
        return cast(Invitation, row)

    @strawberry_django.mutation(description="Create a token for your account.")
    async def create_token(self, info: Info, input: CreateTokenInput) -> NewToken:
        actor = viewer(info)
        token, secret = await info.context.in_database(
            services.token.create_token,
            actor=actor,
            user_id=actor.user_id,
            name=input.name,
            scope=input.scope.value,
            days=input.days,
        )
        return NewToken(token=cast(Token, TokenRow.of(token)), secret=secret)

    @strawberry_django.mutation(
        description="Revoke one of your tokens and close every socket that it opened. Returns the token as it was."
    )
    async def revoke_token(self, info: Info, input: RevokeTokenInput) -> Token:
        row = await info.context.in_database(
            services.token.revoke_token, actor=viewer(info), token_id=parse_id(input.id)
        )
        return cast(Token, row)
