"""The endpoints. Each method parses the request, calls one resolver or service, and renders the result."""

from __future__ import annotations

from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from backend.projects import prices, resolvers, services
from backend.projects.access import parse_id, parse_id_filter
from backend.projects.errors import Invalid
from backend.projects.models import Scope
from backend.projects.resolvers.page import Order
from backend.projects.rows import CommentRow, InvitationRow, MemberRow, ProjectRow, TaskRow

from . import serializers
from .base import ListView, View, created


class Projects(ListView):
    parameters = serializers.ProjectParameters
    body = serializers.ProjectInput
    shape = serializers.Project
    has_etag = True
    search_price = prices.PROJECT_SEARCH

    query: serializers.ProjectParameters

    def get(self, request: Request) -> Response:
        """List the projects that are visible to you, newest first."""
        domain_filter = self.query.filter()
        cached = resolvers.project.list_projects(
            self.viewer,
            filter=domain_filter,
            order=Order(),
            page=self.query.page(),
            if_none_match=self.if_none_match,
        )
        return self.list_response(
            cached,
            count=lambda: resolvers.project.count_projects(self.viewer, domain_filter),
        )

    def post(self, request: Request) -> Response:
        """Create a project. A signed-in user becomes its owner."""
        project = services.project.create_project(actor=self.viewer, **self.validated_body())
        return created(ProjectRow.of(project), reverse("rest:project", args=[project.pk]))


class Editable(View):
    """One project or task. A subclass implements `_read` and `_update`."""

    has_etag = True

    def get(self, request: Request, id: str) -> Response:
        """Retrieve the object."""
        cursor = resolvers.event.current_cursor(self.viewer)
        row = self._read(id)
        return self.object_response(row, cursor=cursor, version=row.version)

    def put(self, request: Request, id: str) -> Response:
        """Update the object. An optional field that is absent stays unchanged."""
        return Response(self._update(id, partial=False).as_json())

    def patch(self, request: Request, id: str) -> Response:
        """Update the object. A field that is absent stays unchanged."""
        return Response(self._update(id, partial=True).as_json())

    def _read(self, id: str) -> ProjectRow | TaskRow:
        raise NotImplementedError

    def _update(self, id: str, *, partial: bool) -> ProjectRow | TaskRow:
        raise NotImplementedError

    def _version_to_match(self, id: str) -> int | None:
        return self.version_to_match(lambda: self._read(id).version)


class Project(Editable):
    body = serializers.ProjectInput
    shape = serializers.Project

    def delete(self, request: Request, id: str) -> Response:
        """Delete a project and everything in it."""
        services.project.delete_project(actor=self.viewer, project_id=parse_id(id), version=self._version_to_match(id))
        return Response(status=204)

    def _read(self, id: str) -> ProjectRow:
        return resolvers.project.get_project(self.viewer, parse_id(id))

    def _update(self, id: str, *, partial: bool) -> ProjectRow:
        project = services.project.update_project(
            actor=self.viewer,
            project_id=parse_id(id),
            changes=self.validated_body(partial=partial),
            version=self._version_to_match(id),
        )
        return ProjectRow.of(project)


class Members(ListView):
    scope = Scope.ADMIN
    body = serializers.MemberInput
    shape = serializers.Member
    has_etag = True

    def get(self, request: Request, id: str) -> Response:
        """List the members of a project, newest first."""
        cached = resolvers.membership.list_members(
            self.viewer, parse_id(id), page=self.query.page(), if_none_match=self.if_none_match
        )
        return self.list_response(
            cached,
            count=lambda: resolvers.membership.count_members(self.viewer, parse_id(id)),
        )

    def post(self, request: Request, id: str) -> Response:
        """Add a member to a project at once. For staff: owners invite users."""
        membership = services.membership.add_member(actor=self.viewer, project_id=parse_id(id), **self.validated_body())
        return created(
            MemberRow.of(membership), reverse("rest:member", args=[membership.project_id, membership.user_id])
        )


class Member(View):
    scope = Scope.ADMIN
    body = serializers.RoleInput
    shape = serializers.Member

    def get(self, request: Request, id: str, user_id: str) -> Response:
        """Retrieve a member of a project."""
        cursor = resolvers.event.current_cursor(self.viewer)
        return self.object_response(self._read(id, user_id), cursor=cursor)

    def put(self, request: Request, id: str, user_id: str) -> Response:
        """Change the role of a member of a project that you own."""
        return Response(self._change_role(id, user_id, **self.validated_body()).as_json())

    def patch(self, request: Request, id: str, user_id: str) -> Response:
        """Change the role of a member of a project that you own. Without a role nothing changes."""
        changes = self.validated_body(partial=True)
        row = self._change_role(id, user_id, **changes) if changes else self._read(id, user_id)
        return Response(row.as_json())

    def delete(self, request: Request, id: str, user_id: str) -> Response:
        """Leave a project, or remove a member from one that you own. The member's tasks stay, without an assignee."""
        services.membership.remove_member(actor=self.viewer, project_id=parse_id(id), user_id=parse_id(user_id))
        return Response(status=204)

    def _read(self, id: str, user_id: str) -> MemberRow:
        return resolvers.membership.get_member(self.viewer, parse_id(id), parse_id(user_id))

    def _change_role(self, id: str, user_id: str, *, role: str) -> MemberRow:
        membership = services.membership.change_role(
            actor=self.viewer, project_id=parse_id(id), user_id=parse_id(user_id), role=role
        )
        return MemberRow.of(membership)


class ProjectInvitations(ListView):
    scope = Scope.ADMIN
    body = serializers.MemberInput
    shape = serializers.Invitation

    def get(self, request: Request, id: str) -> Response:
        """List the open invitations to a project that you own, newest first."""
        cursor = resolvers.event.current_cursor(self.viewer)
        page = resolvers.invitation.list_project_invitations(self.viewer, parse_id(id), page=self.query.page())
        return self.uncached_list_response(
            page,
            cursor=cursor,
            count=lambda: resolvers.invitation.count_project_invitations(self.viewer, parse_id(id)),
        )

    def post(self, request: Request, id: str) -> Response:
        """Invite a user to a project that you own. This replaces an earlier invitation of the same user."""
        invitation = services.invitation.invite_member(
            actor=self.viewer, project_id=parse_id(id), **self.validated_body()
        )
        location = reverse("rest:project-invitation", args=[invitation.project_id, invitation.pk])
        return created(InvitationRow.of(invitation), location)


class ProjectInvitation(View):
    scope = Scope.ADMIN
    shape = serializers.Invitation

    def delete(self, request: Request, id: str, invitation_id: str) -> Response:
        """Cancel an invitation to a project that you own."""
        services.invitation.cancel_invitation(
            actor=self.viewer, invitation_id=parse_id(invitation_id), project_id=parse_id_filter(id)
        )
        return Response(status=204)


class Invitations(ListView):
    shape = serializers.Invitation

    def get(self, request: Request) -> Response:
        """List your open invitations, newest first."""
        cursor = resolvers.event.current_cursor(self.viewer)
        page = resolvers.invitation.list_invitations(self.viewer, page=self.query.page())
        return self.uncached_list_response(
            page, cursor=cursor, count=lambda: resolvers.invitation.count_invitations(self.viewer)
        )


class AcceptInvitation(View):
    scope = Scope.ADMIN
    body = serializers.NoInput
    shape = serializers.Member

    def post(self, request: Request, id: str) -> Response:
        """Accept an invitation of yours. Returns you as a member of the project."""
        membership = services.invitation.accept_invitation(actor=self.viewer, invitation_id=parse_id(id))
        location = reverse("rest:member", args=[membership.project_id, membership.user_id])
        return created(MemberRow.of(membership), location)


class DeclineInvitation(View):
    scope = Scope.ADMIN
    body = serializers.NoInput
    shape = serializers.Invitation
    creates = False

    def post(self, request: Request, id: str) -> Response:
        """Decline an invitation of yours."""
        services.invitation.decline_invitation(actor=self.viewer, invitation_id=parse_id(id))
        return Response(status=204)


class Tasks(ListView):
    parameters = serializers.TaskParameters
    body = serializers.TaskInput
    shape = serializers.Task
    has_etag = True
    count_price = prices.LARGE_COUNT
    search_price = prices.TASK_SEARCH

    query: serializers.TaskParameters

    def get(self, request: Request) -> Response:
        """List the tasks that are visible to you, newest first by default."""
        domain_filter = self.query.filter()
        cached = resolvers.task.list_tasks(
            self.viewer,
            filter=domain_filter,
            order=self.query.order(),
            page=self.query.page(),
            if_none_match=self.if_none_match,
        )
        return self.list_response(
            cached,
            count=lambda: resolvers.task.count_tasks(self.viewer, domain_filter),
        )

    def post(self, request: Request) -> Response:
        """Create a task. Its default status is pending."""
        changes = self.validated_body()
        task = services.task.create_task(actor=self.viewer, project_id=changes.pop("project_id"), changes=changes)
        return created(TaskRow.of(task), reverse("rest:task", args=[task.pk]))


class Task(Editable):
    body = serializers.TaskUpdate
    shape = serializers.Task

    def delete(self, request: Request, id: str) -> Response:
        """Delete a task and its comments."""
        services.task.delete_task(actor=self.viewer, task_id=parse_id(id), version=self._version_to_match(id))
        return Response(status=204)

    def _read(self, id: str) -> TaskRow:
        return resolvers.task.get_task(self.viewer, parse_id(id))

    def _update(self, id: str, *, partial: bool) -> TaskRow:
        changes = self.validated_body(partial=partial)
        self._require_own_project(id, changes.pop("project_id", None))
        task = services.task.update_task(
            actor=self.viewer, task_id=parse_id(id), changes=changes, version=self._version_to_match(id)
        )
        return TaskRow.of(task)

    def _require_own_project(self, id: str, project_id: int | None) -> None:
        """Accept a body that repeats the task's project. A task's project never changes, so no lock is needed."""
        if project_id is not None and project_id != self._read(id).project_id:
            raise Invalid("project_id", "A task cannot move to another project.", "FIXED")


class Comments(ListView):
    body = serializers.CommentInput
    shape = serializers.Comment
    has_etag = True

    def get(self, request: Request, id: str) -> Response:
        """List the comments on a task, newest first."""
        cached = resolvers.comment.list_comments(
            self.viewer, parse_id(id), page=self.query.page(), if_none_match=self.if_none_match
        )
        return self.list_response(
            cached,
            count=lambda: resolvers.comment.count_comments(self.viewer, parse_id(id)),
        )

    def post(self, request: Request, id: str) -> Response:
        """Comment on a task, under your own name if you are signed in."""
        comment = services.comment.add_comment(actor=self.viewer, task_id=parse_id(id), **self.validated_body())
        return created(CommentRow.of(comment), reverse("rest:comments", args=[comment.task_id]))


class Reports(ListView):
    parameters = serializers.ReportParameters
    shape = serializers.SummaryReport
    has_etag = True

    query: serializers.ReportParameters

    def get(self, request: Request) -> Response:
        """List the daily summaries of the projects that are visible to you, newest first."""
        domain_filter = self.query.filter()
        cached = resolvers.report.list_reports(
            self.viewer, filter=domain_filter, page=self.query.page(), if_none_match=self.if_none_match
        )
        return self.list_response(cached, count=lambda: resolvers.report.count_reports(self.viewer, domain_filter))


class Report(View):
    shape = serializers.SummaryReport

    def get(self, request: Request, id: str) -> Response:
        """Retrieve the summary of one project and day."""
        cursor = resolvers.event.current_cursor(self.viewer)
        return self.object_response(resolvers.report.get_report(self.viewer, parse_id(id)), cursor=cursor)
