"""The endpoints: parse, call one resolver or service, answer."""

from __future__ import annotations

from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from backend.projects import resolvers, services
from backend.projects.access import parse_id
from backend.projects.errors import Invalid
from backend.projects.models import Scope
from backend.projects.resolvers.page import Order
from backend.projects.rows import CommentRow, MemberRow, ProjectRow, TaskRow

from . import serializers
from .base import ListView, View, created


class Projects(ListView):
    parameters = serializers.ProjectParameters
    body = serializers.ProjectInput
    shape = serializers.Project
    has_etag = True

    query: serializers.ProjectParameters

    def get(self, request: Request) -> Response:
        """The projects that you see, newest first."""
        wanted = self.query.filter()
        found = resolvers.project.list_projects(
            self.viewer,
            filter=wanted,
            order=Order(),
            page=self.query.page(),
            if_none_match=self.if_none_match,
        )
        return self.page(
            found,
            count=lambda: resolvers.project.count_projects(self.viewer, wanted),
        )

    def post(self, request: Request) -> Response:
        """Create a project; who is signed in becomes its owner."""
        project = services.project.create_project(actor=self.viewer, **self.given())
        return created(ProjectRow.of(project), reverse("rest:project", args=[project.pk]))


class Project(View):
    body = serializers.ProjectInput
    shape = serializers.Project
    has_etag = True

    def get(self, request: Request, id: str) -> Response:
        """A project."""
        cursor = resolvers.event.current_cursor(self.viewer)
        project = resolvers.project.get_project(self.viewer, parse_id(id))
        return self.detail(project, cursor=cursor, version=project.version)

    def put(self, request: Request, id: str) -> Response:
        """Change a project. What is optional and absent stays as it is."""
        return self._update(id, partial=False)

    def patch(self, request: Request, id: str) -> Response:
        """Change a project. What is absent stays as it is."""
        return self._update(id, partial=True)

    def delete(self, request: Request, id: str) -> Response:
        """Delete a project with all that is in it."""
        services.project.delete_project(actor=self.viewer, project_id=parse_id(id), version=self._version_to_match(id))
        return Response(status=204)

    def _update(self, id: str, *, partial: bool) -> Response:
        project = services.project.update_project(
            actor=self.viewer,
            project_id=parse_id(id),
            changes=self.given(partial=partial),
            version=self._version_to_match(id),
        )
        return Response(ProjectRow.of(project).as_json())

    def _version_to_match(self, id: str) -> int | None:
        return self.version_to_match(lambda: resolvers.project.get_project(self.viewer, parse_id(id)).version)


class Members(ListView):
    scope = Scope.ADMIN
    body = serializers.MemberInput
    shape = serializers.Member
    has_etag = True

    def get(self, request: Request, id: str) -> Response:
        """The members of a project, newest first."""
        found = resolvers.membership.list_members(
            self.viewer, parse_id(id), page=self.query.page(), if_none_match=self.if_none_match
        )
        return self.page(
            found,
            count=lambda: resolvers.membership.count_members(self.viewer, parse_id(id)),
        )

    def post(self, request: Request, id: str) -> Response:
        """Let somebody into a project that you own."""
        added = services.membership.add_member(actor=self.viewer, project_id=parse_id(id), **self.given())
        return created(MemberRow.of(added), reverse("rest:member", args=[added.project_id, added.user_id]))


class Member(View):
    scope = Scope.ADMIN
    body = serializers.RoleInput
    shape = serializers.Member

    def get(self, request: Request, id: str, user_id: str) -> Response:
        """A member of a project."""
        cursor = resolvers.event.current_cursor(self.viewer)
        return self.detail(self._read(id, user_id), cursor=cursor)

    def put(self, request: Request, id: str, user_id: str) -> Response:
        """Give a member of a project that you own another role."""
        return Response(self._change_role(id, user_id, **self.given()).as_json())

    def patch(self, request: Request, id: str, user_id: str) -> Response:
        """Give a member of a project that you own another role. What is absent stays as it is."""
        given = self.given(partial=True)
        row = self._change_role(id, user_id, **given) if given else self._read(id, user_id)
        return Response(row.as_json())

    def delete(self, request: Request, id: str, user_id: str) -> Response:
        """Leave a project, or take somebody out of one that you own. Their tasks stay, unassigned."""
        services.membership.remove_member(actor=self.viewer, project_id=parse_id(id), user_id=parse_id(user_id))
        return Response(status=204)

    def _read(self, id: str, user_id: str) -> MemberRow:
        return resolvers.membership.get_member(self.viewer, parse_id(id), parse_id(user_id))

    def _change_role(self, id: str, user_id: str, *, role: str) -> MemberRow:
        changed = services.membership.change_role(
            actor=self.viewer, project_id=parse_id(id), user_id=parse_id(user_id), role=role
        )
        return MemberRow.of(changed)


class Tasks(ListView):
    parameters = serializers.TaskParameters
    body = serializers.TaskInput
    shape = serializers.Task
    has_etag = True

    query: serializers.TaskParameters

    def get(self, request: Request) -> Response:
        """The tasks that you see, newest first unless ordered otherwise."""
        wanted = self.query.filter()
        found = resolvers.task.list_tasks(
            self.viewer,
            filter=wanted,
            order=self.query.order(),
            page=self.query.page(),
            if_none_match=self.if_none_match,
        )
        return self.page(
            found,
            count=lambda: resolvers.task.count_tasks(self.viewer, wanted),
        )

    def post(self, request: Request) -> Response:
        """Create a task. Without a status it is pending."""
        changes = self.given()
        task = services.task.create_task(actor=self.viewer, project_id=changes.pop("project_id"), changes=changes)
        return created(TaskRow.of(task), reverse("rest:task", args=[task.pk]))


class Task(View):
    body = serializers.TaskUpdate
    shape = serializers.Task
    has_etag = True

    def get(self, request: Request, id: str) -> Response:
        """A task."""
        cursor = resolvers.event.current_cursor(self.viewer)
        task = resolvers.task.get_task(self.viewer, parse_id(id))
        return self.detail(task, cursor=cursor, version=task.version)

    def put(self, request: Request, id: str) -> Response:
        """Change a task. What is optional and absent stays as it is."""
        return self._update(id, partial=False)

    def patch(self, request: Request, id: str) -> Response:
        """Change a task. What is absent stays as it is."""
        return self._update(id, partial=True)

    def delete(self, request: Request, id: str) -> Response:
        """Delete a task with its comments."""
        services.task.delete_task(actor=self.viewer, task_id=parse_id(id), version=self._version_to_match(id))
        return Response(status=204)

    def _update(self, id: str, *, partial: bool) -> Response:
        changes = self.given(partial=partial)
        self._require_own_project(id, changes.pop("project_id", None))
        task = services.task.update_task(
            actor=self.viewer, task_id=parse_id(id), changes=changes, version=self._version_to_match(id)
        )
        return Response(TaskRow.of(task).as_json())

    def _require_own_project(self, id: str, project_id: int | None) -> None:
        """A task may be sent back as it was read, project and all; its project never changes, so no lock is needed."""
        if project_id is not None and project_id != self._read(id).project_id:
            raise Invalid("project_id", "A task cannot move to another project.", "FIXED")

    def _version_to_match(self, id: str) -> int | None:
        return self.version_to_match(lambda: self._read(id).version)

    def _read(self, id: str) -> TaskRow:
        return resolvers.task.get_task(self.viewer, parse_id(id))


class Comments(ListView):
    body = serializers.CommentInput
    shape = serializers.Comment
    has_etag = True

    def get(self, request: Request, id: str) -> Response:
        """The comments on a task, newest first."""
        found = resolvers.comment.list_comments(
            self.viewer, parse_id(id), page=self.query.page(), if_none_match=self.if_none_match
        )
        return self.page(
            found,
            count=lambda: resolvers.comment.count_comments(self.viewer, parse_id(id)),
        )

    def post(self, request: Request, id: str) -> Response:
        """Comment on a task. Who is not signed in gives a name."""
        comment = services.comment.add_comment(actor=self.viewer, task_id=parse_id(id), **self.given())
        return created(CommentRow.of(comment), reverse("rest:comments", args=[comment.task_id]))


class Reports(ListView):
    parameters = serializers.ReportParameters
    shape = serializers.SummaryReport
    has_etag = True

    query: serializers.ReportParameters

    def get(self, request: Request) -> Response:
        """The daily summaries of the projects that you see, newest first."""
        wanted = self.query.filter()
        found = resolvers.report.list_reports(
            self.viewer, filter=wanted, page=self.query.page(), if_none_match=self.if_none_match
        )
        return self.page(found, count=lambda: resolvers.report.count_reports(self.viewer, wanted))


class Report(View):
    shape = serializers.SummaryReport

    def get(self, request: Request, id: str) -> Response:
        """The summary of one project and day."""
        cursor = resolvers.event.current_cursor(self.viewer)
        return self.detail(resolvers.report.get_report(self.viewer, parse_id(id)), cursor=cursor)
