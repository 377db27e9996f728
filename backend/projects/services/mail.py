"""Sends reminders and summaries: each mail has one recipient and is sent once.

A mail is stored as a row before it is sent. A worker first claims the row, in a transaction of its own. A claim
expires, so that another worker sends the mail if the first is killed. A refused mail is retried, after a longer wait
each time. SMTP leaves one gap: a crash after the server accepts the mail and before the row is updated. That mail is
sent again under the same Message-ID, by which the recipient's server can recognize it.

A recipient gets at most `MAILS_PER_HOUR` mails in any hour, and at most half of them for one project, so that it delays
no mails of others. Further ones are sent as one digest (`services.digest`), at most one an hour. A mail that the server
may have accepted is sent again separately, even over the limit.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta
from email.utils import parseaddr
from math import ceil
from smtplib import SMTPException
from typing import Any, TypeVar

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import connection, transaction
from django.db.models import F, Func, Q, QuerySet
from django.db.models.functions import Now
from django.template.loader import render_to_string
from django.utils import timezone

from ..models import MailDigest, MailQuota, Reminder, ReportMail
from ..models.outgoing_mail import LimitedMail, OutgoingMail
from .clock import zone

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=OutgoingMail)

# Longer than any job may run (`tasks`), so that no claim expires while its worker is still sending.
LEASE = timedelta(minutes=10)
# The wait after a refusal: 1, 2, 4, ... minutes, and 6 hours at most.
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(hours=6)
# A new digest waits this long, so that it contains the mails of several scans in a row.
DIGEST_WAIT = timedelta(minutes=5)
HOUR = timedelta(hours=1)
# Characters of a title in a subject at most.
SUBJECT_TITLE = 80
# Ids that a scan returns at most. The next scan, a minute later, returns the remaining ones.
BATCH = 500
# The mails that count towards the limit of their recipient.
LEDGERS: tuple[type[Reminder] | type[ReportMail], ...] = (Reminder, ReportMail)


def waiting(mails: QuerySet[M]) -> list[int]:
    """Return the ids of the unsent mails that may be claimed now, longest waiting first, at most BATCH."""
    ready = mails.filter(sent_at=None, not_before__lte=Now()).order_by("not_before", "id")
    return list(ready.values_list("id", flat=True)[:BATCH])


def send(mails: QuerySet[M], mail_id: int, compose: Callable[[M], EmailMultiAlternatives | None]) -> bool:
    """Send one of `mails`, if it is unsent and not claimed. Return True where the mail server accepted it.

    `compose` builds the mail, or returns None where it is obsolete: the row is then deleted, so that the same mail can
    be inserted again if it is needed again. A refusal is logged, and the mail is retried later. Over the limit of the
    recipient, the mail is put into a digest. No row is locked while sending. Raises RuntimeError inside a transaction,
    where other workers could not see the claim.
    """
    with transaction.atomic(durable=True):
        mail = _claim(mails, mail_id)
    if mail is None:
        return False
    claimed = mails.filter(pk=mail.pk, attempts=mail.attempts)
    message = compose(mail)
    if message is None:
        claimed.delete()
        _restore_quota(mail)
        return False
    try:
        message.send()
    except (SMTPException, OSError, ValueError) as refusal:  # ValueError: an invalid address
        wait = _wait_after(mail.attempts)
        claimed.update(not_before=Now() + wait, is_in_doubt=False)
        _restore_quota(mail)
        logger.warning("%s %s was refused, next try in %s: %s", type(mail).__name__, mail.pk, wait, refusal)
        return False
    with transaction.atomic():
        mails.filter(pk=mail.pk).update(sent_at=Now(), is_in_doubt=False)
        if isinstance(mail, MailDigest):
            for ledger in LEDGERS:
                ledger.objects.filter(digest=mail.pk).update(sent_at=Now())
    logger.info("%s %s was sent.", type(mail).__name__, mail.pk)
    return True


def _claim(mails: QuerySet[M], mail_id: int) -> M | None:
    """Claim a mail for LEASE, if the limit of its recipient allows it. `attempts` distinguishes this claim from others.

    Locks the recipient's quotas, then the mail.
    """
    unclaimed = mails.filter(pk=mail_id, sent_at=None, not_before__lte=Now())
    mail = unclaimed.first()
    if mail is None:
        return None
    quota, of_project = _lock_quotas(mail)
    mail = unclaimed.first()
    if mail is None:
        return None
    if not mail.is_in_doubt:
        if isinstance(mail, MailDigest) and quota.digest_at is not None:
            unclaimed.update(not_before=quota.digest_at + HOUR)
            return None
        if isinstance(mail, LimitedMail) and len(quota.claimed_at) >= settings.MAILS_PER_HOUR:
            _put_into_digest(mail, quota)
            return None
        if isinstance(mail, LimitedMail) and len(of_project.claimed_at) >= ceil(settings.MAILS_PER_HOUR / 2):
            _put_into_digest(mail, quota, project_id=mail.project_id)
            return None
    if not unclaimed.update(not_before=Now() + LEASE, attempts=F("attempts") + 1, is_in_doubt=True):
        return None
    if isinstance(mail, MailDigest):
        _quotas_of(mail).update(digest_at=Now())
    else:
        _quotas_of(mail).update(claimed_at=Func(F("claimed_at"), Now(), function="array_append"))
    return mails.get(pk=mail_id)


# Creates or locks the rows in order, and removes the times older than an hour.
_LOCK_QUOTAS = f"""
INSERT INTO {MailQuota._meta.db_table} AS quota (recipient, project_id, claimed_at, updated_at)
SELECT %(recipient)s, project_id, ARRAY[]::timestamptz[], statement_timestamp()
  FROM unnest(%(project_ids)s) AS project_id
 ORDER BY project_id
    ON CONFLICT (recipient, project_id) DO UPDATE
   SET claimed_at = ARRAY(SELECT at FROM unnest(quota.claimed_at) AS at
                           WHERE at > statement_timestamp() - interval '1 hour' ORDER BY at),
       digest_at = CASE WHEN quota.digest_at > statement_timestamp() - interval '1 hour' THEN quota.digest_at END,
       updated_at = statement_timestamp()
"""


def _lock_quotas(mail: OutgoingMail) -> tuple[MailQuota, MailQuota]:
    """Return the recipient's quota, and their quota of the mail's project; for a digest, which has none, the same."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_QUOTAS, {"recipient": mail.recipient.lower(), "project_ids": _project_ids(mail)})
    quotas = list(_quotas_of(mail).order_by("project_id"))
    return quotas[0], quotas[-1]


def _quotas_of(mail: OutgoingMail) -> QuerySet[MailQuota]:
    return MailQuota.objects.filter(recipient=mail.recipient.lower(), project_id__in=_project_ids(mail))


def _project_ids(mail: OutgoingMail) -> list[int]:
    return [MailQuota.ALL_PROJECTS, *([mail.project_id] if isinstance(mail, LimitedMail) else [])]


def _restore_quota(mail: OutgoingMail) -> None:
    """Remove the newest claim from the recipient's quotas, since its mail was not sent."""
    with transaction.atomic():
        _lock_quotas(mail)
        if isinstance(mail, MailDigest):
            _quotas_of(mail).update(digest_at=None)
        else:
            field = MailQuota._meta.get_field("claimed_at")
            shorter = Func(F("claimed_at"), 1, function="trim_array", output_field=field)
            _quotas_of(mail).filter(~Q(claimed_at=[])).update(claimed_at=shorter)


def _put_into_digest(mail: LimitedMail, quota: MailQuota, *, project_id: int | None = None) -> None:
    """Put this mail and all that wait for the same recipient into the recipient's next digest.

    With `project_id`, only those of this project. Skips mails in doubt, which are sent again separately, and locked
    rows: their tasks are being deleted.
    """
    of_recipient = Q(recipient__iexact=mail.recipient)
    digest = MailDigest.objects.filter(of_recipient, sent_at=None, attempts=0).first()
    if digest is None:
        not_before = timezone.now() + DIGEST_WAIT
        if quota.digest_at is not None:
            not_before = max(not_before, quota.digest_at + HOUR)
        digest = MailDigest.objects.create(recipient=mail.recipient, not_before=not_before)
    for ledger in LEDGERS:
        waiting = ledger.objects.filter(
            of_recipient, sent_at=None, digest=None, is_in_doubt=False, not_before__lte=Now()
        )
        if project_id is not None:
            waiting = waiting.filter(**{ledger.PROJECT: project_id})
        locked = waiting.order_by("pk").select_for_update(of=("self",), skip_locked=True)
        ids = list(locked.values_list("pk", flat=True)[:BATCH])
        ledger.objects.filter(pk__in=ids).update(digest=digest)


def _wait_after(attempts: int) -> timedelta:
    doublings = min(attempts - 1, 10)
    return min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)


def draft(
    template: str, *, subject: str, recipient: str, identity: tuple[object, ...], context: dict[str, Any]
) -> EmailMultiAlternatives:
    """Build a mail as text and HTML from the templates `mail/<template>.txt` and `.html`, in the team's time zone.

    `subject` may contain text from clients and is reduced to one line. Equal `template`, `identity` and `recipient`
    give the same Message-ID.
    """
    key = "|".join(map(str, [*identity, recipient]))
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    host = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    with timezone.override(zone()):
        text, html = (render_to_string(f"mail/{template}.{kind}", context) for kind in ("txt", "html"))
    mail = EmailMultiAlternatives(
        subject=one_line(subject),
        body=text,
        to=[recipient],
        headers={"Message-ID": f"<{template}.{digest}@{host}>", "Auto-Submitted": "auto-generated"},
    )
    mail.attach_alternative(html, "text/html")
    return mail


def one_line(text: str) -> str:
    """Replace line breaks and other unprintable characters by spaces, so that text cannot inject a header."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def shortened(text: str) -> str:
    """Reduce a client's text to one line of at most SUBJECT_TITLE characters."""
    line = one_line(text)
    return line if len(line) <= SUBJECT_TITLE else f"{line[: SUBJECT_TITLE - 1].rstrip()}…"
