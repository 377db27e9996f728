"""Reminders of tasks that are about to fall due."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import connection, transaction
from django.utils import timezone

from ..models import Membership, Reminder, Role, Status, Task, User
from . import mail
from .clock import zone

AHEAD = timedelta(hours=24)
# A task causes a reminder until this long after its due date, in case no worker ran or no mail was sent in time.
LATE = timedelta(hours=24)

# The reminders that are due at a moment, one per task and recipient. A task counts while it is open and due within the
# next 24 hours, inclusive. It counts for another 24 hours after its due date, unless it was changed since: a user who
# sets a date in the past, or changes an overdue task, knows about it. The recipient is the assignee. If they have no
# mail address, it is every owner and editor of the project who has one; if there are none, the configured address.
_DUE = f"""
SELECT task.id AS task_id, task.due_date, addressee.email AS recipient
  FROM {Task._meta.db_table} task
 CROSS JOIN LATERAL (
        SELECT DISTINCT email, rank() OVER (ORDER BY priority) AS rank
          FROM (SELECT account.email, CASE WHEN account.id = task.assignee_id THEN 1 ELSE 2 END AS priority
                  FROM {Membership._meta.db_table} membership
                  JOIN {User._meta.db_table} account ON account.id = membership.user_id
                 WHERE membership.project_id = task.project_id
                   AND account.is_active AND account.email <> ''
                   AND (account.id = task.assignee_id OR membership.role IN %(writers)s)
                 UNION ALL
                SELECT %(notify_email)s, 3 WHERE %(notify_email)s <> '') candidate
       ) addressee
 WHERE addressee.rank = 1
   AND task.status <> %(completed)s
   AND task.due_date > %(now)s - %(late)s AND task.due_date <= %(now)s + %(ahead)s
   AND (task.due_date > %(now)s OR task.updated_at < task.due_date)
"""

# Locks the tasks against deletion until the commit. Skips tasks that are being deleted, without waiting.
_INSERT = f"""
INSERT INTO {Reminder._meta.db_table} (task_id, due_date, recipient)
{_DUE}
   AND NOT EXISTS (
       SELECT 1 FROM {Reminder._meta.db_table} known
        WHERE known.task_id = task.id AND known.due_date = task.due_date AND known.recipient = addressee.email)
 ORDER BY task.due_date, task.id, addressee.email
 LIMIT %(batch)s
   FOR KEY SHARE OF task SKIP LOCKED
    ON CONFLICT DO NOTHING
"""

_STILL_DUE = f"""
SELECT reminder.id
  FROM {Reminder._meta.db_table} reminder
 WHERE reminder.id = ANY(%(ids)s)
   AND EXISTS ({_DUE}
   AND task.id = reminder.task_id AND task.due_date = reminder.due_date AND addressee.email = reminder.recipient)
"""


def scan(*, now: datetime) -> list[int]:
    """Insert the reminders that are due. Return the ids of those to send: new ones, and old ones that may be claimed.

    Inserts at most `mail.BATCH`, soonest due first, and returns at most as many; the next scan continues. Scans may run
    concurrently: each skips the reminders that another has inserted.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_INSERT, {**_due_parameters(now), "batch": mail.BATCH})
    return mail.waiting(Reminder.objects.filter(digest=None))


def send(reminder_id: int) -> bool:
    """Mail one reminder. Return False where it was not sent. Safe to run twice, also concurrently.

    Deletes the reminder instead where its task is completed or has another due date or recipient now, for example
    because the assignee has left the project. A refused mail is sent by a later scan. For the claim and the limit of
    the recipient see `mail.send`.
    """
    reminders = Reminder.objects.filter(digest=None).select_related("task__project")
    return mail.send(reminders, reminder_id, _compose)


def _compose(reminder: Reminder) -> EmailMultiAlternatives | None:
    now = timezone.now()
    if not still_due([reminder.pk], now=now):
        return None
    is_late = reminder.due_date <= now
    when = f"{reminder.due_date.astimezone(zone()):%d %b, %H:%M}"
    return mail.draft(
        "reminder",
        subject=f"{'Was due' if is_late else 'Due'} {when}: {mail.shortened(reminder.task.title)}",
        recipient=reminder.recipient,
        identity=(reminder.task_id, reminder.due_date.timestamp()),
        context={"task": reminder.task, "zone": zone().key, "is_late": is_late},
    )


def still_due(reminder_ids: list[int], *, now: datetime) -> set[int]:
    """Return the ids of the reminders that still apply: the task is due, with the stored date and recipient."""
    with connection.cursor() as cursor:
        cursor.execute(_STILL_DUE, {**_due_parameters(now), "ids": reminder_ids})
        return {pk for [pk] in cursor.fetchall()}


def _due_parameters(now: datetime) -> dict[str, Any]:
    return {
        "now": now,
        "ahead": AHEAD,
        "late": LATE,
        "completed": Status.COMPLETED,
        "writers": (Role.OWNER, Role.EDITOR),
        "notify_email": settings.NOTIFY_EMAIL,
    }
