"""Digests: one mail in place of the reminders and summaries that exceed the hourly limit of their recipient."""

from __future__ import annotations

from django.core.mail import EmailMultiAlternatives
from django.utils import timezone

from ..models import MailDigest, Reminder, ReportMail
from . import mail, reminder, report
from .clock import zone

# A digest has at most this many reminders and this many summaries. Further ones are in the next digest.
MAX_ENTRIES = 500


def scan() -> list[int]:
    """Return the ids of the digests to send."""
    return mail.waiting(MailDigest.objects.all())


def send(digest_id: int) -> bool:
    """Mail one digest. Return False where it was not sent. Safe to run twice, also concurrently.

    Obsolete reminders and summaries are deleted, not mailed; so is a digest that has nothing else. A refused digest is
    sent by a later scan, with the same contents. For the claim see `mail.send`.
    """
    return mail.send(MailDigest.objects.all(), digest_id, _compose)


def _compose(digest: MailDigest) -> EmailMultiAlternatives | None:
    reminders, summaries = _reminders(digest), _summaries(digest)
    count = len(reminders) + len(summaries)
    if not count:
        return None
    now = timezone.now()
    nouns = "reminders and summaries" if summaries else "reminders" if count > 1 else "reminder"
    return mail.draft(
        "digest",
        subject=f"{count} more {nouns}",
        recipient=digest.recipient,
        identity=(digest.pk,),
        context={
            "late": [row for row in reminders if row.due_date <= now],
            "due": [row for row in reminders if row.due_date > now],
            "reports": [row.report for row in summaries],
            "zone": zone().key,
        },
    )


def _reminders(digest: MailDigest) -> list[Reminder]:
    """The due reminders of a digest, soonest first. Deletes obsolete ones; releases those that exceed MAX_ENTRIES."""
    rows = Reminder.objects.filter(digest=digest).select_related("task__project").order_by("due_date", "pk")
    found, further = list(rows[:MAX_ENTRIES]), list(rows[MAX_ENTRIES:].values_list("pk", flat=True))
    Reminder.objects.filter(pk__in=further).update(digest=None)
    still_due = reminder.still_due([row.pk for row in found], now=timezone.now())
    Reminder.objects.filter(digest=digest).exclude(pk__in=still_due).delete()
    return [row for row in found if row.pk in still_due]


def _summaries(digest: MailDigest) -> list[ReportMail]:
    """Like `_reminders`, for the summaries that still go to the recipient."""
    rows = ReportMail.objects.filter(digest=digest).select_related("report__project").order_by("pk")
    found, further = list(rows[:MAX_ENTRIES]), list(rows[MAX_ENTRIES:].values_list("pk", flat=True))
    ReportMail.objects.filter(pk__in=further).update(digest=None)
    current = [row for row in found if report.has_recipient(row)]
    ReportMail.objects.filter(digest=digest).exclude(pk__in=[row.pk for row in current]).delete()
    return current
