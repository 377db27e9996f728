"""The daily summary of a project."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef
from django.utils import timezone

from .. import access, journal
from ..errors import Invalid, ProjectNotFound
from ..events import EventKind, ReportGenerated
from ..models import Event, Project, ReportMail, Role, Status, SummaryReport, Task, User
from ..rows import ReportRow, iso
from . import mail
from .clock import Day, zone

# Days before yesterday whose summaries are still generated after a late start.
CATCH_UP_DAYS = 6
# Pairs of project and date that a scan returns at most.
BATCH = 500
# How long a refused mail is retried. An older summary is not worth a mail.
_MAIL_FOR = timedelta(days=3)
_MOST_COMMENTED = 5
_AHEAD = timedelta(hours=24)

# The state of a project's tasks at a moment. For a task without events since then, it is read from the row. For a task
# that was changed or deleted since, it is read from the last event before the moment, or, if that event is no longer
# retained, from the row.
_TASKS_AT = f"""
WITH change AS (
     SELECT position, at, task_id, kind, payload
       FROM {Event._meta.db_table}
      WHERE project_id = %(project_id)s
        AND kind IN ('{EventKind.TASK_CREATED}', '{EventKind.TASK_UPDATED}', '{EventKind.TASK_DELETED}')
), earlier AS (
     SELECT DISTINCT ON (task_id) task_id, kind, payload::json -> 'task' AS task
       FROM change
      WHERE at < %(moment)s AND task_id IN (SELECT task_id FROM change WHERE at >= %(moment)s)
      ORDER BY task_id, position DESC
), task AS (
     SELECT id, status, due_date FROM {Task._meta.db_table}
      WHERE project_id = %(project_id)s AND created_at < %(moment)s
), task_then AS (
     SELECT coalesce(earlier.task ->> 'status', task.status) AS status,
            coalesce((earlier.task ->> 'due_date')::timestamptz, task.due_date) AS due_date
       FROM task FULL JOIN earlier ON earlier.task_id = task.id
      WHERE earlier.kind IS DISTINCT FROM '{EventKind.TASK_DELETED}'
)
"""

_TASK_COUNTS = f"""
{_TASKS_AT}
SELECT {", ".join(f"count(*) FILTER (WHERE status = '{status}')" for status in Status.values)},
       count(*) FILTER (WHERE status <> '{Status.COMPLETED}' AND due_date < %(moment)s),
       count(*) FILTER (WHERE status <> '{Status.COMPLETED}'
                          AND due_date >= %(moment)s AND due_date < %(moment)s + %(ahead)s)
  FROM task_then
"""

_COMPLETED = f"""
SELECT count(DISTINCT task_id)
  FROM {Event._meta.db_table}
 WHERE project_id = %(project_id)s AND at >= %(start)s AND at < %(end)s
   AND payload::jsonb @> '{{"task": {{"status": "{Status.COMPLETED}"}}}}'
   AND (kind = '{EventKind.TASK_CREATED}'
        OR kind = '{EventKind.TASK_UPDATED}' AND payload::jsonb -> 'changes' ? 'status')
"""

# Times in payloads are text of fixed width, which compares like time.
_CREATED_AND_DELETED = f"""
SELECT count(*)
  FROM {Event._meta.db_table}
 WHERE project_id = %(project_id)s AND at >= %(start)s AND kind = '{EventKind.TASK_DELETED}'
   AND payload::json -> 'task' ->> 'created_at' >= %(start_text)s
   AND payload::json -> 'task' ->> 'created_at' < %(end_text)s
"""


def due(*, now: datetime) -> list[tuple[int, date]]:
    """Return the projects and local dates whose summary is due, oldest date first, at most BATCH.

    Yesterday's summary is due from the local hour SUMMARY_HOUR on, for each project created before that day ended.
    After a late start, the summaries of the last 7 days are due. One generated before its day ended is due again.
    """
    local = now.astimezone(zone())
    newest = local.date() - timedelta(days=1 if local.hour >= settings.SUMMARY_HOUR else 2)
    found: list[tuple[int, date]] = []
    for days_back in range(CATCH_UP_DAYS, -1, -1):
        day = Day.of(newest - timedelta(days=days_back))
        complete = SummaryReport.objects.filter(project=OuterRef("pk"), date=day.date, generated_at__gte=day.end)
        projects = Project.objects.filter(~Exists(complete), created_at__lt=day.end).order_by("pk")
        found += [(pk, day.date) for pk in projects.values_list("pk", flat=True)[: BATCH - len(found)]]
    return found


@transaction.atomic
def generate(project_id: int, date: date) -> SummaryReport:
    """Generate the summary of a local date, or update it. Concurrent calls write one row.

    Records ReportGenerated, without an actor, where the figures are new or have changed. The summary is mailed once:
    when it is first generated for a complete day, to the recipients at that time. Locks the project against deletion,
    and the report. Raises ProjectNotFound, and ValidationError for a day that has not begun or is no longer retained.
    """
    day, now = Day.of(date), timezone.now()
    if now < day.start:
        raise Invalid("date", "This day has not begun yet.", "TOO_EARLY")
    if not access.lock_reference(Project, project_id):
        raise ProjectNotFound
    blank = SummaryReport(project_id=project_id, date=date, figures={}, generated_at=now)
    SummaryReport.objects.bulk_create([blank], ignore_conflicts=True)
    report = SummaryReport.objects.select_for_update().get(project=project_id, date=date)
    is_first_complete = now >= day.end and (not report.figures or report.generated_at < day.end)
    before, report.figures = report.figures, figures(project_id, day, now=now)
    # Checked after the figures are read, since events may have been trimmed meanwhile.
    if not journal.is_retained_since(day.start):
        raise Invalid("date", "The events of this day are no longer retained.", "TOO_OLD")
    report.generated_at = now
    report.save(update_fields=["figures", "generated_at"])
    if is_first_complete:
        mails = [ReportMail(report=report, recipient=recipient) for recipient in _recipients(project_id)]
        ReportMail.objects.bulk_create(mails, ignore_conflicts=True)
    if report.figures != before:
        journal.append(ReportGenerated(ReportRow.of(report)), actor=access.SYSTEM)
    return report


def figures(project_id: int, day: Day, *, now: datetime) -> dict[str, Any]:
    """Return the figures of a project's day, as JSON.

    The state at the end of the day, or at present if the day has not ended. It is read from the rows and, for tasks
    that changed since, from the journal:
    - `tasks`: the number of tasks that are `pending`, `in_progress`, `completed`;
    - `overdue`: open tasks with a due date in the past; `due_in_24_hours`: open tasks due in the next 24 hours.
    The changes during the day:
    - `created`: tasks created, including those deleted since;
    - `completed`: tasks that became completed, each counted once, even if reopened later;
    - `most_commented`: the five tasks with most new comments, as `id`, `title`, `comments`, without deleted tasks.
    `time_zone` determines when the day starts and ends.
    """
    moment = min(day.end, now)
    task_counts = _row(_TASK_COUNTS, project_id=project_id, moment=moment, ahead=_AHEAD)
    of_day = {"project_id": project_id, "start": day.start, "end": day.end}
    tasks = Task.objects.filter(project=project_id)
    created = tasks.filter(created_at__gte=day.start, created_at__lt=day.end).count()
    created_and_deleted = _row(_CREATED_AND_DELETED, **of_day, start_text=iso(day.start), end_text=iso(day.end))[0]
    commented = tasks.filter(comments__created_at__gte=day.start, comments__created_at__lt=day.end)
    most_commented = commented.annotate(count=Count("comments")).order_by("-count", "pk")[:_MOST_COMMENTED]
    return {
        "time_zone": zone().key,
        "tasks": dict(zip(Status.values, task_counts, strict=False)),
        "created": created + created_and_deleted,
        "completed": _row(_COMPLETED, **of_day)[0],
        "overdue": task_counts[-2],
        "due_in_24_hours": task_counts[-1],
        "most_commented": [{"id": task.pk, "title": task.title, "comments": task.count} for task in most_commented],
    }


def _row(query: str, **parameters: Any) -> tuple[int, ...]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        row: tuple[int, ...] = cursor.fetchone()
        return row


def mails_to_send(*, now: datetime) -> list[int]:
    """Return ids for `send_mail`, of mails created in the last three days, at most `mail.BATCH`."""
    return mail.waiting(ReportMail.objects.filter(digest=None, created_at__gt=now - _MAIL_FOR))


def send_mail(report_mail_id: int) -> bool:
    """Mail one summary to one recipient. Return False where it was not sent. Safe to run twice, also concurrently.

    The mail is deleted instead where its recipient no longer gets these summaries. For the claim see `mail.send`.
    """
    mails = ReportMail.objects.filter(digest=None).select_related("report__project")
    return mail.send(mails, report_mail_id, _compose)


def _recipients(project_id: int) -> list[str]:
    """Return the distinct addresses of the project's owners and editors; if there are none, the configured address."""
    people = User.objects.filter(
        is_active=True,
        memberships__project=project_id,
        memberships__role__in=[Role.OWNER, Role.EDITOR],
    ).exclude(email="")
    addresses = sorted(set(people.values_list("email", flat=True)))
    return addresses or [address for address in [settings.NOTIFY_EMAIL] if address]


def has_recipient(report_mail: ReportMail) -> bool:
    """Whether the project's summaries still go to the mail's recipient."""
    return report_mail.recipient in _recipients(report_mail.report.project_id)


def _compose(report_mail: ReportMail) -> EmailMultiAlternatives | None:
    report = report_mail.report
    if not has_recipient(report_mail):
        return None
    tasks = report.figures["tasks"]
    largest = max(*tasks.values(), 1)
    bars = [(Status(status).label, count, round(100 * count / largest)) for status, count in tasks.items()]
    return mail.draft(
        "summary",
        subject=f"Summary of {report.date:%d %b %Y}, project {report.project_id}",
        recipient=report_mail.recipient,
        identity=(report.project_id, report.date),
        context={"project": report.project, "date": report.date, "figures": report.figures, "bars": bars},
    )
