"""One mail to one recipient, once: how reminders and summaries leave the house.

A mail is a row before it is sent. Whoever sends it claims the row first, in a transaction of its own; a claim lapses,
so a killed worker's mail is sent by another. A refused mail waits, longer each time. What stays open is what
SMTP leaves open: a crash between the server's yes and our note of it. That mail goes out again under the same
Message-ID, so that the recipient's server can tell.
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

# Longer than any worker may take (`tasks`): a claim does not lapse under somebody who is still at it.
LEASE = timedelta(minutes=10)
# After a refusal: 1, 2, 4, ... minutes, and 6 hours at most.
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(hours=6)
# Ids that one scan hands out; the next one, a minute later, hands out what is still waiting.
BATCH = 500


def waiting(mails: QuerySet[M]) -> list[int]:
    """Ids of the unsent among `mails` that may be taken up now, longest waiting first, at most BATCH."""
    ready = mails.filter(sent_at=None, not_before__lte=Now()).order_by("not_before", "id")
    return list(ready.values_list("id", flat=True)[:BATCH])


def send(mails: QuerySet[M], mail_id: int, compose: Callable[[M], EmailMultiAlternatives | None]) -> bool:
    """Send one of `mails`, if it is unsent and nobody is at it; True where the mail server took it.

    `compose` writes the mail, or answers None where it has no point any more: the row is then deleted, so that the
    same mail can be entered again should it get one. A refusal is logged, and the row waits. Locks nothing
    while it sends; raises RuntimeError inside a transaction, where nobody else could see the claim.
    """
    with transaction.atomic(durable=True):
        mail = _claim(mails, mail_id)
    if mail is None:
        return False
    ours = mails.filter(pk=mail.pk, attempts=mail.attempts)
    composed = compose(mail)
    if composed is None:
        ours.delete()
        return False
    try:
        composed.send()
    except (SMTPException, OSError, ValueError) as refusal:  # ValueError: a recipient that is no address
        wait = _wait_after(mail.attempts)
        ours.update(not_before=Now() + wait)
        logger.warning("%s %s was refused, next try in %s: %s", type(mail).__name__, mail.pk, wait, refusal)
        return False
    mails.filter(pk=mail.pk).update(sent_at=Now())
    logger.info("%s %s was sent.", type(mail).__name__, mail.pk)
    return True


def _claim(mails: QuerySet[M], mail_id: int) -> M | None:
    """The row, ours for LEASE; `attempts` tells our claim from a later one."""
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
    """A mail as text and HTML, from the templates `mail/<template>.txt` and `.html`, times by the team's clock.

    `subject` may hold what people wrote: it becomes one line. Equal `template`, `identity` and `recipient` make an
    equal Message-ID.
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
    """`text` without line breaks and other characters that do not print: no header can be smuggled in."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
