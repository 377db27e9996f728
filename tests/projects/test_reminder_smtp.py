"""Reminders over real SMTP: accepted, refused temporarily or permanently, and without a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email import message_from_bytes
from email.message import Message

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from django.test.utils import override_settings
from django.utils import timezone

from backend.projects import services
from backend.projects.models import Reminder
from tests.cases import Case
from tests.factories import MembershipFactory, TaskFactory

MINUTE = timedelta(minutes=1)


class Mailbox:
    """The handler of a mail server. It sends `replies`, then accepts everything. It stores every message."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.messages: list[Message] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.messages.append(message_from_bytes(envelope.content))
        return self.replies.pop(0) if self.replies else "250 Taken"


class AnyPort(Controller):
    """A controller on a free port, which the kernel chooses."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def mail_server(*replies: str) -> Iterator[Mailbox]:
    mailbox = Mailbox(*replies)
    controller = AnyPort(mailbox, hostname="127.0.0.1", port=0)
    controller.start()
    try:
        with smtp_at(controller.port):
            yield mailbox
    finally:
        controller.stop()


def smtp_at(port: int) -> override_settings:
    backend = "django.core.mail.backends.smtp.EmailBackend"
    return override_settings(EMAIL_BACKEND=backend, EMAIL_HOST="127.0.0.1", EMAIL_PORT=port)


class SmtpTests(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        member = MembershipFactory(user__email="ada@example.org")
        TaskFactory(
            project=member.project, assignee=member.user, title="Größe messen", due_date=timezone.now() + 60 * MINUTE
        )

    def remind(self) -> list[bool]:
        return [services.reminder.send(pk) for pk in services.reminder.scan(now=timezone.now())]

    def assert_waits(self, wait: timedelta) -> None:
        """Assert that the reminder waits this long, then end its wait."""
        reminder = Reminder.objects.get()
        self.assertIsNone(reminder.sent_at)
        self.assertAlmostEqual(reminder.not_before, timezone.now() + wait, delta=timedelta(seconds=10))
        self.assertEqual(self.remind(), [])
        Reminder.objects.update(not_before=timezone.now())

    def test_a_reminder_goes_out_over_smtp(self) -> None:
        with mail_server() as mailbox:
            self.assertEqual(self.remind(), [True])
        (message,) = mailbox.messages
        self.assertEqual(message["To"], "ada@example.org")
        self.assertEqual(message.get_content_type(), "multipart/alternative")
        self.assertEqual([part.get_content_type() for part in message.walk()][1:], ["text/plain", "text/html"])

    def test_a_refused_mail_waits_longer_each_time_and_keeps_its_message_id(self) -> None:
        with mail_server("451 Later", "550 Never") as mailbox, self.assertLogs("backend.projects", "WARNING"):
            self.assertEqual(self.remind(), [False])
            self.assert_waits(MINUTE)
            self.assertEqual(self.remind(), [False])
            self.assert_waits(2 * MINUTE)
            self.assertEqual(self.remind(), [True])
            self.assertEqual(self.remind(), [])
        self.assertEqual(len(mailbox.messages), 3)
        self.assertEqual(len({message["Message-ID"] for message in mailbox.messages}), 1)

    def test_a_mail_sent_again_after_a_crash_keeps_its_message_id(self) -> None:
        with mail_server() as mailbox:
            self.remind()
            Reminder.objects.update(sent_at=None, not_before=timezone.now())
            self.remind()
        self.assertEqual(len(mailbox.messages), 2)
        self.assertEqual(mailbox.messages[0]["Message-ID"], mailbox.messages[1]["Message-ID"])

    def test_without_a_mail_server_the_reminder_waits(self) -> None:
        with smtp_at(1), self.assertLogs("backend.projects", "WARNING"):
            self.assertEqual(self.remind(), [False])
        self.assert_waits(MINUTE)
