"""Sends reminders and summaries: each mail has one recipient and is sent once.

A mail is stored as a row before it is sent. A worker first claims the row, in a transaction of its own. A claim
expires, so another worker sends the mail of a killed one. A refused mail is retried, after a longer wait each time.
SMTP leaves one gap: a crash after the server accepts the mail and before the row is updated. That mail is sent again
under the same Message-ID, by which the recipient's server can recognize it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta
from email.utils import parseaddr
from smtplib import SMTPException
from typing import Any, TypeVar

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.template.loader import render_to_string
from django.utils import timezone

from ..models.outgoing_mail import OutgoingMail
from .clock import zone

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=OutgoingMail)

# Longer than any job may run (`tasks`), so that no claim expires while its worker is still sending.
LEASE = timedelta(minutes=10)
# The wait after a refusal: 1, 2, 4, ... minutes, and 6 hours at most.
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(hours=6)
# Ids that a scan returns at most. The next scan, a minute later, returns those that are left.
BATCH = 500


def waiting(mails: QuerySet[M]) -> list[int]:
    """Return the ids of the unsent mails that may be claimed now, longest waiting first, at most BATCH."""
    ready = mails.filter(sent_at=None, not_before__lte=Now()).order_by("not_before", "id")
    return list(ready.values_list("id", flat=True)[:BATCH])


def send(mails: QuerySet[M], mail_id: int, compose: Callable[[M], EmailMultiAlternatives | None]) -> bool:
    """Send one of `mails`, if it is unsent and not claimed. Return True where the mail server accepted it.

    `compose` builds the mail, or returns None where it is obsolete: the row is then deleted, so that the same mail can
    be inserted again if it is needed again. A refusal is logged, and the mail is retried later. No lock is held while
    sending. Raises RuntimeError inside a transaction, where other workers could not see the claim.
    """
    with transaction.atomic(durable=True):
        mail = _claim(mails, mail_id)
    if mail is None:
        return False
    claimed = mails.filter(pk=mail.pk, attempts=mail.attempts)
    message = compose(mail)
    if message is None:
        claimed.delete()
        return False
    try:
        message.send()
    except (SMTPException, OSError, ValueError) as refusal:  # ValueError: an invalid address
        wait = _wait_after(mail.attempts)
        claimed.update(not_before=Now() + wait)
        logger.warning("%s %s was refused, next try in %s: %s", type(mail).__name__, mail.pk, wait, refusal)
        return False
    mails.filter(pk=mail.pk).update(sent_at=Now())
    logger.info("%s %s was sent.", type(mail).__name__, mail.pk)
    return True


def _claim(mails: QuerySet[M], mail_id: int) -> M | None:
    """Claim a mail for LEASE. `attempts` distinguishes this claim from a later one."""
    unclaimed = mails.filter(pk=mail_id, sent_at=None, not_before__lte=Now())
    if not unclaimed.update(not_before=Now() + LEASE, attempts=F("attempts") + 1):
        return None
    return mails.get(pk=mail_id)


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
    """Replace line breaks and other unprintable characters, which could inject a header, by spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
