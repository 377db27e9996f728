"""Two teams that share nothing, and for each id of the other team an id that no row ever had."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from msgspec.structs import replace

from backend.projects import resolvers, services
from backend.projects.access import SYSTEM
from backend.projects.authentication import new_token
from backend.projects.models import (
    AuditEntry,
    Comment,
    Event,
    Invitation,
    Membership,
    Project,
    Scope,
    SummaryReport,
    Task,
    Token,
    User,
)
from backend.projects.resolvers.page import Listing, Order
from backend.projects.resolvers.project import ProjectFilter
from backend.projects.resolvers.report import ReportFilter
from backend.projects.resolvers.task import TaskFilter
from backend.projects.rows import (
    AuditRow,
    CommentRow,
    InvitationRow,
    MemberRow,
    ProjectRow,
    ReportRow,
    TaskRow,
    TokenRow,
)
from tests.access.world import SampleProject, session_of
from tests.factories import InvitationFactory, TokenFactory, UserFactory

# In every text of the other team, and in no other text.
SECRET = "Xanadu"


class Teams:
    """Creates the data of the other team between two projects of my team."""

    @transaction.atomic
    def __init__(self) -> None:
        due = datetime(2031, 3, 1, tzinfo=UTC)
        self.me, self.viewer = UserFactory(username="mine-1"), UserFactory(username="mine-2")
        ours = {"owner": self.me, "viewer": self.viewer}
        SampleProject.of("Before", ours, due=due, status="pending")
        their_owner = UserFactory(username="theirs-1", first_name=SECRET)
        their_editor = UserFactory(username="theirs-2", first_name=SECRET)
        self.theirs = SampleProject.of(
            SECRET, {"owner": their_owner, "editor": their_editor}, due=due, status="pending"
        )
        self.their_token = TokenFactory(user=their_editor, name=SECRET)
        self.their_invitation = InvitationFactory(
            project=self.theirs.project, user=UserFactory(first_name=SECRET), invited_by=their_owner
        )
        unused_ids = {
            model: _skip_id(model)
            for model in (Project, Task, Comment, SummaryReport, User, Membership, Token, Invitation)
        }
        self.mine = SampleProject.of("After", ours, due=due, status="pending")
        self.theirs.change("again")
        position = Event.head()
        # The next position is that of an event that no listener receives.
        services.token.revoke_token(actor=SYSTEM, token_id=TokenFactory(user=self.me).pk)
        newest_entry = AuditEntry.objects.latest("pk").pk
        self.mine.change("again")

        self.credentials = {
            "owner": {"cookie": f"sessionid={session_of(self.me)}"},
            "viewer": {"cookie": f"sessionid={session_of(self.viewer)}"},
        }
        for scope in Scope.values:
            secret = new_token()
            TokenFactory(user=self.me, scope=scope, secret=secret)
            self.credentials[f"{scope} token"] = {"authorization": f"Bearer {secret}"}

        own: dict[str, Any] = {
            "my_project": self.mine.project.pk,
            "my_task": self.mine.task.pk,
            "my_name": self.viewer.username,
            "me": self.me.pk,
        }
        member = Membership.objects.select_related("user").get(user=their_editor, project=self.theirs.project)
        existing = {
            "project": self.theirs.project.pk,
            "task": self.theirs.task.pk,
            "comment": self.theirs.comment.pk,
            "report": self.theirs.report.pk,
            "user": their_editor.pk,
            "member": member.pk,
            "token": self.their_token.pk,
            "invitation": self.their_invitation.pk,
            "entry": newest_entry,
            "position": position,
        }
        self.names = own | existing | {"text": SECRET, "name": "theirs-2"} | self.cursors(existing)
        absent = {
            "project": unused_ids[Project],
            "task": unused_ids[Task],
            "comment": unused_ids[Comment],
            "report": unused_ids[SummaryReport],
            "user": unused_ids[User],
            "member": unused_ids[Membership],
            "token": unused_ids[Token],
            "invitation": unused_ids[Invitation],
            "entry": newest_entry + 1,
            "position": position + 1,
        }
        self.absent_names = own | absent | {"text": SECRET[::-1], "name": "theirs-9"} | self.cursors(absent)

    def cursors(self, ids: dict[str, int]) -> dict[str, str]:
        """Return cursors of the other team's lists at these ids."""
        newest = Order()
        task = replace(TaskRow.of(self.theirs.task), id=ids["task"])
        report = replace(ReportRow.of(self.theirs.report), id=ids["report"])
        comment = replace(CommentRow.of(self.theirs.comment), id=ids["comment"])
        member = replace(
            MemberRow.of(Membership.objects.filter(project=self.theirs.project).latest("pk")), id=ids["member"]
        )
        invitation = replace(InvitationRow.of(self.their_invitation), id=ids["invitation"])
        invitations_listing = resolvers.invitation.invitations_listing
        rows = resolvers
        return {
            "projects_cursor": rows.project.projects_listing(ProjectFilter(), newest).page_cursor(
                replace(ProjectRow.of(self.theirs.project), id=ids["project"])
            ),
            "tasks_cursor": rows.task.tasks_listing(TaskFilter(), newest).page_cursor(task),
            "tasks_of_project_cursor": rows.task.tasks_listing(
                TaskFilter(project_id=ids["project"]), newest
            ).page_cursor(task),
            "tasks_in_project_cursor": rows.task.tasks_of_projects_listing(TaskFilter(), newest).page_cursor(task),
            "reports_cursor": rows.report.reports_listing(ReportFilter()).page_cursor(report),
            "reports_of_project_cursor": rows.report.reports_listing(ReportFilter(ids["project"])).page_cursor(report),
            "invitations_cursor": invitations_listing(None).page_cursor(invitation),
            "invitations_to_project_cursor": invitations_listing(ids["project"]).page_cursor(invitation),
            "tokens_cursor": rows.token.TOKENS.page_cursor(replace(TokenRow.of(self.their_token), id=ids["token"])),
            "audit_cursor": rows.audit.AUDIT_LOG.page_cursor(AuditRow(ids["entry"], "", "", *(None,) * 8)),
            "members_in_project_cursor": rows.membership.MEMBERS_OF_PROJECTS.page_cursor(member),
            "members_cursor": Listing("members", MemberRow, ids["project"], newest).page_cursor(member),
            "comments_on_task_cursor": rows.comment.COMMENTS_OF_TASKS.page_cursor(comment),
            "comments_cursor": Listing("comments", CommentRow, ids["task"], newest).page_cursor(comment),
        }


def _skip_id(model: Any) -> int:
    """Take an id from the sequence, so that no row will have it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval(pg_get_serial_sequence(%s, 'id'))", [model._meta.db_table])
        pk: int = cursor.fetchone()[0]
        return pk
