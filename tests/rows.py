"""Bulk creation of rows, for tests of the cost of lists."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import orjson
from django.core.cache import cache
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from backend.projects import events
from backend.projects.models import (
    AuditAction,
    AuditEntry,
    Comment,
    Event,
    Invitation,
    Membership,
    Project,
    Role,
    SummaryReport,
    Task,
    Token,
    User,
)
from backend.projects.rows import CommentRow, ProjectRow, ReportRow, TaskRow
from tests.factories import InvitationFactory, TokenFactory, UserFactory

MARCH = datetime(2027, 3, 1, tzinfo=UTC)

# Numbers of rows of each kind. A page has 100 at most.
SIZES = (1, 20, 100)
# Ids that no row can have, for page cursors. The last ones are beyond 64 bits.
FORGED_IDS = (2**31, 2**63 - 1, -(2**31), -(2**63), 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Created:
    """The objects that contain `size` rows of each kind."""

    project: Project
    task: Task
    report: SummaryReport


def create_rows(size: int, *, reader: User | None = None) -> Created:
    """Create `size` projects: the first with `size` tasks, members and reports, the others with one of each.

    The first task has `size` comments, the others one. Every task has an assignee, which it shares with few tasks.
    `reader` owns every project, and has `size` tokens and invitations. The first project has `size` invitations.
    There are also `size` audit entries, and `size` events of each kind.
    """
    users = User.objects.bulk_create(UserFactory.build_batch(size))
    projects = Project.objects.bulk_create(Project(name=f"Project {n}") for n in range(size))
    places = [(projects[0], n) for n in range(size)] + [(project, 0) for project in projects[1:]]
    tasks = Task.objects.bulk_create(
        Task(project=project, title="Weed", due_date=MARCH, assignee=users[n % size])
        for n, (project, _) in enumerate(places)
    )
    memberships = [Membership(project=project, user=users[n], role=Role.EDITOR) for project, n in places]
    if reader is not None:
        memberships += [Membership(project=project, user=reader, role=Role.OWNER) for project in projects]
        invitations = [InvitationFactory.build(project=projects[0], user=user, invited_by=users[0]) for user in users]
        invitations += [
            InvitationFactory.build(project=project, user=reader, invited_by=users[0]) for project in projects
        ]
        Invitation.objects.bulk_create(invitations)
        Token.objects.bulk_create(TokenFactory.build_batch(size, user=reader))
    Membership.objects.bulk_create(memberships)
    reports = SummaryReport.objects.bulk_create(
        SummaryReport(project=project, date=date(2027, 3, 1) - timedelta(n), figures={}, generated_at=MARCH)
        for project, n in places
    )
    comments = Comment.objects.bulk_create(
        Comment(task=task, author="Ada", content="Done?") for task in [*[tasks[0]] * (size - 1), *tasks]
    )
    AuditEntry.objects.bulk_create(
        AuditEntry(action=AuditAction.SIGNED_IN, actor_id=user.pk, actor_name=user.username) for user in users
    )
    _append_events(projects, tasks, comments[-len(tasks) :], reports, users, [reader.pk] if reader else [])
    return Created(projects[0], tasks[0], reports[0])


def _append_events(
    projects: list[Project],
    tasks: list[Task],
    comments: list[Comment],
    reports: list[SummaryReport],
    users: list[User],
    audience: list[int],
) -> None:
    """Append an event of each kind for each project, about one of its tasks."""
    appended = []
    for project, task, comment, report, user in zip(projects, tasks, comments, reports, users, strict=False):
        project_row, task_row = ProjectRow.of(project), TaskRow.of(task)
        payloads: list[events.Payload] = [
            events.TaskCreated(task_row),
            events.TaskUpdated(task_row, changes=["title"]),
            events.TaskDeleted(task_row),
            events.TaskCommented(task_row, CommentRow.of(comment)),
            events.ProjectCreated(project_row),
            events.ProjectUpdated(project_row, changes=["name"]),
            events.ProjectDeleted(project_row, members=audience),
            events.ReportGenerated(ReportRow.of(report)),
        ]
        appended += [(payload, user) for payload in payloads]
    head = Event.head()
    Event.objects.bulk_create(
        Event(
            position=head + n,
            kind=payload.kind,
            project_id=payload.project_id,
            task_id=payload.task_id,
            actor_id=user.pk,
            actor_name=user.username,
            at=MARCH,
            payload=orjson.dumps(payload.data).decode(),
            audience=payload.audience,
        )
        for n, (payload, user) in enumerate(appended, 1)
    )


@contextmanager
def temporary_rows(size: int, *, reader: User | None = None) -> Iterator[Created]:
    """`create_rows`, rolled back at the end of the block. For tests in a transaction."""
    with transaction.atomic():
        yield create_rows(size, reader=reader)
        transaction.set_rollback(True)


@contextmanager
def uncached_statements() -> Iterator[list[str]]:
    """Empty the cache, and record the SQL statements of the block. The list is filled at the end of the block."""
    cache.delete_pattern("*")
    sql: list[str] = []
    with CaptureQueriesContext(connection) as captured:
        yield sql
    sql += [query["sql"] for query in captured.captured_queries]


def forge(page_cursor: str, number: int) -> str:
    """Replace the id in a page cursor. In a list ordered by id, the sort value is the id too."""
    digest, value, _ = orjson.loads(base64.urlsafe_b64decode(page_cursor + "=="))
    parts = [digest, number if type(value) is int else value, number]
    # orjson refuses integers of more than 64 bits.
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def counts_in(statements: list[str]) -> int:
    """The number of statements that count rows."""
    return sum("COUNT(" in sql for sql in statements)
