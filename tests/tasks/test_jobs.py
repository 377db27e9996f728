"""The jobs. Each runs twice, in this process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.core import mail
from django.utils import timezone

from backend.projects import services
from backend.projects.models import ReportMail, Role, SummaryReport
from tasks import JOB, digests, reminders, reports
from tests.cases import Case
from tests.factories import MembershipFactory, TaskFactory

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()


class JobTests(Case):
    def test_two_messages_for_a_reminder_send_one_mail(self) -> None:
        member = MembershipFactory()
        TaskFactory(project=member.project, assignee=member.user, due_date=timezone.now() + timedelta(hours=1))
        (reminder_id,) = services.reminder.scan(now=timezone.now())
        self.assertEqual([reminders.send(reminder_id), reminders.send(reminder_id)], [True, False])
        self.assertEqual(len(mail.outbox), 1)

    def test_two_messages_for_a_summary_create_one_report_and_send_one_mail(self) -> None:
        member = MembershipFactory(role=Role.OWNER)
        for _ in range(2):
            reports.generate(member.project.pk, YESTERDAY.isoformat())
        self.assertEqual(SummaryReport.objects.get().date, YESTERDAY)
        mail_id = ReportMail.objects.get().pk
        self.assertEqual([reports.mail(mail_id), reports.mail(mail_id)], [True, False])
        self.assertEqual(len(mail.outbox), 1)

    def test_a_job_does_nothing_for_a_missing_row(self) -> None:
        self.assertFalse(reminders.send(1))
        self.assertFalse(reports.mail(1))
        self.assertFalse(digests.send(1))
        reports.generate(1, YESTERDAY.isoformat())
        self.assertFalse(SummaryReport.objects.exists())

    def test_the_time_limit_of_a_job_is_shorter_than_the_lease_of_a_mail(self) -> None:
        self.assertLess(JOB["time_limit"], services.mail.LEASE.total_seconds())
