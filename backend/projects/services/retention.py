"""Deletes old events and audit entries, and expired sessions, failed sign-ins, invitations and digests.

Events and entries are deleted from the oldest end, in batches that are transactions of their own. So the journal has no
holes, even if a trim is killed or runs concurrently, and its oldest event shows from where a client may resume. No
writer waits: writers only insert, at the other end, and a batch locks only the rows that it deletes.

The ledgers of mails (`Reminder`, `ReportMail`) are stored as long as their task or report, to prevent duplicate mails.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Model

from ..models import AuditEntry, Event, Invitation, MailDigest, MailQuota

# Rows deleted in one transaction at most, which takes some milliseconds.
BATCH = 1000
# An expired invitation is stored this long: accepting it raises InvitationExpired, not InvitationNotFound.
_EXPIRED_INVITATION_RETENTION = timedelta(days=7)
_SENT_DIGEST_RETENTION = timedelta(days=30)


def trim_journal(*, now: datetime) -> int:
    """Delete the events older than `JOURNAL_DAYS` and return how many. Never the newest: positions continue from it.

    Does not take the journal's lock. A listener that has not read the deleted events detects the gap
    (`journal.read_after`).
    """
    return _trim(Event, "position", before=now - timedelta(days=settings.JOURNAL_DAYS), keeps_newest=True)


def trim_audit(*, now: datetime) -> int:
    """Delete the entries of the audit log that are older than `AUDIT_DAYS`, and return how many."""
    return _trim(AuditEntry, "id", before=now - timedelta(days=settings.AUDIT_DAYS), keeps_newest=False)


def clear_sessions(*, now: datetime) -> int:
    """Delete the sessions that have expired, and return how many."""
    return _clear(Session, "expire_date", before=now)


def clear_attempts(*, now: datetime) -> int:
    """Delete the failed sign-ins that no longer count towards a lockout, and return how many.

    django-axes deletes them only when a user signs in.
    """
    return _clear(AccessAttempt, "attempt_time", before=now - settings.AXES_COOLOFF_TIME)


def _clear(model: type[Model], field: str, *, before: datetime) -> int:
    """Delete the rows whose `field` is before `before`, except those that change meanwhile."""
    deleted = 0
    old = model._default_manager.filter(**{f"{field}__lt": before})
    while batch := list(old.order_by().values_list("pk", flat=True)[:BATCH]):
        deleted += old.filter(pk__in=batch).delete()[0]
    return deleted


def trim_invitations(*, now: datetime) -> int:
    """Delete the invitations that expired more than a week ago, and return how many.

    Skips those that another transaction has locked to accept or delete them.
    """
    deleted = 0
    expired = Invitation.objects.filter(expires_at__lt=now - _EXPIRED_INVITATION_RETENTION).order_by("pk")
    while True:
        with transaction.atomic():
            ids = list(expired.select_for_update(skip_locked=True).values_list("pk", flat=True)[:BATCH])
            deleted += Invitation.objects.filter(pk__in=ids).delete()[0]
        if len(ids) < BATCH:
            return deleted


def trim_mail(*, now: datetime) -> int:
    """Delete digests sent a month ago, and quotas of addresses without mail since yesterday. Return how many."""
    digests = _clear(MailDigest, "sent_at", before=now - _SENT_DIGEST_RETENTION)
    return digests + _clear(MailQuota, "updated_at", before=now - timedelta(days=1))


def _trim(model: type[Model], key: str, *, before: datetime, keeps_newest: bool) -> int:
    """Delete the oldest rows by `key`, up to the first one that is not older than `before`.

    It reads the age of each batch in key order, then deletes it. This takes 3 ms where nothing is old, and one second
    to delete 500,000 rows. An index on the age would take 22 MB per million events, for one query an hour. A binary
    search would delete recent rows if the clock was ever set back.
    """
    deleted = 0
    rows = model._default_manager.order_by(key)
    after = 0
    while True:
        oldest = list(rows.filter(**{f"{key}__gt": after}).values_list(key, "at")[: BATCH + 1])
        # One row more than a batch is read: the last one may be the newest row, which is not deleted.
        candidates = oldest[:-1] if keeps_newest else oldest[:BATCH]
        old = [number for number, at in takewhile(lambda row: row[1] < before, candidates)]
        if not old:
            return deleted
        deleted += rows.filter(**{f"{key}__gt": after, f"{key}__lte": old[-1]}).delete()[0]
        if len(old) < BATCH:
            return deleted
        # Continue here, not at the oldest row: until a vacuum, the index still contains the deleted rows.
        after = old[-1]
