"""Deletion of old rows: in batches, oldest first, concurrent with writers and other runs."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

from axes.models import AccessAttempt
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from backend.projects import journal, services
from backend.projects.access import SYSTEM
from backend.projects.errors import ResumeRefused
from backend.projects.journal import Retained
from backend.projects.models import (
    AuditAction,
    AuditEntry,
    Event,
    MailDigest,
    Project,
    Reminder,
    ReportMail,
    SummaryReport,
)
from backend.projects.services import retention
from tasks.retention import trim
from tests.cases import Case, CommittingCase
from tests.factories import ProjectFactory, TaskFactory, UserFactory


def write_events(*days: float) -> None:
    """Create an event of each age in days, the first at position 1."""
    now = timezone.now()
    Event.objects.bulk_create(
        Event(position=position, kind="project.updated", at=now - timedelta(days=age), payload="{}")
        for position, age in enumerate(days, start=1)
    )


def write_entries(*days: float) -> None:
    for age in days:
        entry = AuditEntry.objects.create(action=AuditAction.SIGNED_IN)
        AuditEntry.objects.filter(pk=entry.pk).update(at=timezone.now() - timedelta(days=age))


def write_sessions(*days: float) -> None:
    """Replace all sessions: one for each number of days until it expires. The key begins with that number."""
    Session.objects.all().delete()
    now = timezone.now()
    Session.objects.bulk_create(
        Session(session_key=f"{rest}" if rest > 0 else f"{rest} {number}", expire_date=now + timedelta(days=rest))
        for number, rest in enumerate(days)
    )


def write_attempts(*minutes: float) -> None:
    """Replace all failed attempts: one of each age in minutes. The user name is that age."""
    AccessAttempt.objects.all().delete()
    for number, age in enumerate(minutes):
        attempt = AccessAttempt.objects.create(
            username=f"{age}", ip_address="192.0.2.1", user_agent=f"{number}", failures_since_start=1
        )
        AccessAttempt.objects.filter(pk=attempt.pk).update(attempt_time=timezone.now() - timedelta(minutes=age))


def sessions() -> list[str]:
    return list(Session.objects.order_by("session_key").values_list("session_key", flat=True))


def attempts() -> list[str]:
    return list(AccessAttempt.objects.order_by("username").values_list("username", flat=True))


def positions() -> list[int]:
    return list(Event.objects.values_list("position", flat=True))


def entries() -> list[int]:
    """Ages in days, oldest first."""
    return [(timezone.now() - at).days for at in AuditEntry.objects.order_by("id").values_list("at", flat=True)]


class BatchCase:
    addCleanup: Any  # noqa: N815

    def set_batch_size(self, size: int) -> None:
        self.addCleanup(setattr, retention, "BATCH", retention.BATCH)
        retention.BATCH = size


class JournalTests(BatchCase, Case):
    def test_only_events_older_than_the_limit_are_deleted(self) -> None:
        write_events(31, 30.01, 29.99, 1)
        self.assertEqual(services.retention.trim_journal(now=timezone.now()), 2)
        self.assertEqual(positions(), [3, 4])
        self.assertEqual(journal.retained(), Retained(oldest=2, head=4))

    @override_settings(JOURNAL_DAYS=10)
    def test_the_limit_is_a_setting(self) -> None:
        write_events(11, 9, 0)
        self.assertEqual(services.retention.trim_journal(now=timezone.now()), 1)

    def test_any_number_of_rows_is_deleted_in_batches(self) -> None:
        self.set_batch_size(3)
        for old in range(8):
            with self.subTest(old):
                Event.objects.all().delete()
                write_events(*[40] * old, 1, 1)
                self.assertEqual(services.retention.trim_journal(now=timezone.now()), old)
                self.assertEqual(positions(), [old + 1, old + 2])

    def test_a_batch_takes_two_queries(self) -> None:
        write_events(*[40] * 2500, 1)
        with self.assertNumQueries(6):  # three batches
            services.retention.trim_journal(now=timezone.now())

    def test_the_newest_event_is_never_deleted_and_positions_continue(self) -> None:
        self.set_batch_size(3)
        for old in range(1, 8):
            with self.subTest(old):
                Event.objects.all().delete()
                write_events(*[40] * old)
                self.assertEqual(services.retention.trim_journal(now=timezone.now()), old - 1)
                self.assertEqual(journal.retained(), Retained(oldest=old - 1, head=old))
        services.project.create_project(actor=SYSTEM, name="New")
        self.assertEqual(positions(), [7, 8])

    def test_trimming_an_empty_journal_deletes_nothing(self) -> None:
        self.assertEqual(services.retention.trim_journal(now=timezone.now()), 0)

    def test_events_with_times_out_of_order_leave_no_gap_and_no_recent_event_is_deleted(self) -> None:
        write_events(40, 40, 5, 40, 40, 1)
        self.assertEqual(services.retention.trim_journal(now=timezone.now()), 2)
        self.assertEqual(positions(), [3, 4, 5, 6])

    def test_a_second_run_deletes_nothing(self) -> None:
        write_events(40, 40, 1)
        self.assertEqual([services.retention.trim_journal(now=timezone.now()) for _ in range(2)], [2, 0])
        self.assertEqual(positions(), [3])

    def test_reading_from_before_the_retained_events_is_refused(self) -> None:
        write_events(40, 40, 40, 1, 1)
        services.retention.trim_journal(now=timezone.now())
        self.assertEqual([event.position for event in journal.read_after(3, limit=9).events], [4, 5])
        for position in (0, 2):
            with self.assertRaises(ResumeRefused) as refused:
                journal.read_after(position, limit=9)
            self.assertEqual((refused.exception.code, refused.exception.oldest), ("CURSOR_EXPIRED", 3))


class AuditTests(BatchCase, Case):
    def test_entries_older_than_the_limit_are_deleted_including_the_newest(self) -> None:
        write_entries(366, 365.01, 364, 31)
        self.assertEqual(services.retention.trim_audit(now=timezone.now()), 2)
        self.assertEqual(entries(), [364, 31])
        with override_settings(AUDIT_DAYS=30):
            self.assertEqual([services.retention.trim_audit(now=timezone.now()) for _ in range(2)], [2, 0])
        self.assertEqual(entries(), [])

    def test_any_number_of_rows_is_deleted_in_batches(self) -> None:
        self.set_batch_size(3)
        for old in range(8):
            with self.subTest(old):
                AuditEntry.objects.all().delete()
                write_entries(*[400] * old, 1)
                self.assertEqual(services.retention.trim_audit(now=timezone.now()), old)
                self.assertEqual(entries(), [1])


class SessionTests(BatchCase, Case):
    def test_expired_sessions_are_deleted_in_batches(self) -> None:
        self.set_batch_size(3)
        for expired in range(8):
            with self.subTest(expired):
                write_sessions(*[-1] * expired, 1, 14)
                cleared = [services.retention.clear_sessions(now=timezone.now()) for _ in range(2)]
                self.assertEqual(cleared, [expired, 0])
                self.assertEqual(sessions(), ["1", "14"])

    def test_a_session_that_is_not_expired_stays_usable(self) -> None:
        self.client.force_login(UserFactory())
        services.retention.clear_sessions(now=timezone.now())
        self.assertEqual(self.client.get("/projects/").status_code, 200)


class AttemptTests(BatchCase, Case):
    def test_failed_attempts_older_than_a_lockout_are_deleted_in_batches(self) -> None:
        self.set_batch_size(3)
        for expired in range(8):
            with self.subTest(expired):
                write_attempts(*[15.1] * expired, 14.9, 1)
                cleared = [services.retention.clear_attempts(now=timezone.now()) for _ in range(2)]
                self.assertEqual(cleared, [expired, 0])
                self.assertEqual(attempts(), ["1", "14.9"])

    def test_a_lockout_lasts_its_full_time(self) -> None:
        form = {"username": "alice", "password": "wrong"}
        for status in (200, 200, 200, 200, 429):
            self.assertEqual(self.client.post("/accounts/sign-in/", form).status_code, status)
        self.assertEqual(services.retention.clear_attempts(now=timezone.now()), 0)
        self.assertEqual(self.client.post("/accounts/sign-in/", form).status_code, 429)


class JobTests(Case):
    def setUp(self) -> None:
        write_events(40, 40, 1)
        write_entries(400, 1)
        write_sessions(-1, -2, 1)
        write_attempts(60, 1)

    def test_the_job_trims_everything_and_a_second_run_changes_nothing(self) -> None:
        for _ in range(2):
            trim()
            self.assertEqual((positions(), entries(), sessions(), attempts()), ([3], [1], ["1"], ["1"]))
        with self.nothing_changes():
            trim()

    def test_tasks_reports_and_mail_records_are_not_deleted(self) -> None:
        long_ago = timezone.now() - timedelta(days=900)
        task = TaskFactory(due_date=long_ago)
        report = SummaryReport.objects.create(
            project=task.project, date=long_ago.date(), figures={}, generated_at=long_ago
        )
        Reminder.objects.create(task=task, recipient="a@localhost", due_date=long_ago, created_at=long_ago)
        ReportMail.objects.create(report=report, recipient="a@localhost", created_at=long_ago)
        trim()
        self.assertEqual(positions(), [3])
        self.assertEqual([model.objects.count() for model in (SummaryReport, Reminder, ReportMail)], [1, 1, 1])

    def test_the_command_trims_and_reports_the_numbers(self) -> None:
        MailDigest.objects.create(recipient="ada@example.org", sent_at=timezone.now() - timedelta(days=60))
        stdout = StringIO()
        call_command("trim", stdout=stdout)
        self.assertEqual((positions(), entries()), ([3], [1]))
        self.assertEqual(
            stdout.getvalue(),
            "2 events older than 30 days are deleted.\n1 entries of the audit log older than 365 days are deleted.\n"
            "2 expired sessions and 1 old failed sign-ins are deleted.\n0 expired invitations are deleted.\n"
            "1 old digests and quotas of mail are deleted.\n",
        )


class SummaryTests(Case):
    """Figures come from the journal. A day whose events are deleted must not get a summary without them."""

    def setUp(self) -> None:
        self.project: Project = ProjectFactory()
        write_events(40, 40, 20)

    def generate(self, days_ago: int) -> SummaryReport:
        day: datetime = timezone.now() - timedelta(days=days_ago)
        return services.report.generate(self.project.pk, day.date())

    def test_a_day_that_is_no_longer_retained_is_refused_and_its_summary_is_unchanged(self) -> None:
        self.generate(25)
        services.retention.trim_journal(now=timezone.now())
        with self.nothing_changes(), self.assertRaises(ValidationError) as refused:
            self.generate(25)
        self.assertEqual(refused.exception.error_dict["date"][0].code, "TOO_OLD")

    def test_a_retained_day_is_regenerated(self) -> None:
        first = self.generate(10)
        services.retention.trim_journal(now=timezone.now())
        self.assertEqual(self.generate(10).pk, first.pk)


class ConcurrencyTests(BatchCase, CommittingCase):
    def test_a_writer_does_not_wait_for_a_running_batch(self) -> None:
        project = ProjectFactory()
        write_events(*[40] * 5, 1)
        trimmed, may_commit = threading.Event(), threading.Event()

        def trim_slowly() -> None:
            with transaction.atomic():
                services.retention.trim_journal(now=timezone.now())
                trimmed.set()
                may_commit.wait(20)
            connection.close()

        trimming = threading.Thread(target=trim_slowly)
        trimming.start()
        try:
            self.assertTrue(trimmed.wait(10))
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL lock_timeout = '500ms'")
                services.project.update_project(actor=SYSTEM, project_id=project.pk, changes={"name": "New"})
            self.assertEqual(positions(), [1, 2, 3, 4, 5, 6, 7])  # the batch has not committed yet
        finally:
            may_commit.set()
            trimming.join(10)
        self.assertEqual(journal.retained(), Retained(oldest=5, head=7))

    def test_two_concurrent_runs_and_a_writer_leave_no_gap(self) -> None:
        self.set_batch_size(7)
        project = ProjectFactory()
        write_events(*[40] * 500)
        deleted: list[int] = []

        def trim_all() -> None:
            deleted.append(services.retention.trim_journal(now=timezone.now()))

        def write() -> None:
            for number in range(20):
                services.project.update_project(actor=SYSTEM, project_id=project.pk, changes={"name": f"Name {number}"})

        self.assertEqual(self.run_together(trim_all, trim_all, write), [])
        retained = journal.retained()
        self.assertEqual(positions(), list(range(retained.oldest + 1, 521)))
        self.assertEqual((sum(deleted), retained.head), (retained.oldest, 520))
        self.assertGreaterEqual(retained.oldest, 499)
