"""Recipients and times of reminders; claiming, sending and resending their mails."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

from django.core import mail
from django.db import connection, transaction
from django.test.utils import override_settings
from django.utils import timezone

from backend.projects import access, services
from backend.projects.models import Project, Reminder, Role, Status, Task, User
from backend.projects.services.mail import BATCH, LEASE
from tests.cases import Case, CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory

HOUR = timedelta(hours=1)


def remind(now: datetime | None = None) -> int:
    """Scan and send once, as Beat and the worker do each minute. Return the number of mails sent."""
    return sum([services.reminder.send(pk) for pk in services.reminder.scan(now=now or timezone.now())])


def recipients() -> list[str]:
    return sorted(address for message in mail.outbox for address in message.to)


class ReminderCase(Case):
    project: Project
    ada: User
    task: Task

    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory(name="Relaunch")
        cls.ada = MembershipFactory(project=cls.project, role=Role.VIEWER).user
        cls.task = TaskFactory(project=cls.project, title="Ship it", assignee=cls.ada, due_date=timezone.now() + HOUR)

    def change(self, **changes: Any) -> None:
        services.task.update_task(actor=access.SYSTEM, task_id=self.task.pk, changes=changes)  # type: ignore[arg-type]


class DueTests(ReminderCase):
    def test_a_reminder_is_due_from_24_hours_before_the_due_date(self) -> None:
        day_ahead = self.task.due_date - timedelta(hours=24)
        self.assertEqual(services.reminder.scan(now=day_ahead - timedelta(microseconds=1)), [])
        self.assertEqual(len(services.reminder.scan(now=day_ahead)), 1)

    def test_a_completed_task_has_no_reminder(self) -> None:
        self.change(status=Status.COMPLETED)
        self.assertEqual(remind(), 0)
        self.assertFalse(Reminder.objects.exists())

    def test_a_task_that_fell_due_while_no_worker_ran_has_a_late_reminder(self) -> None:
        past = timezone.now() - HOUR
        Task.objects.filter(pk=self.task.pk).update(due_date=past, updated_at=past - HOUR)
        self.assertEqual(remind(), 1)
        self.assertIn("Was due", mail.outbox[0].subject)

    def test_a_task_with_a_new_due_date_in_the_past_has_no_reminder(self) -> None:
        self.change(due_date=timezone.now() - HOUR)
        self.assertEqual(remind(), 0)

    def test_a_task_overdue_by_a_day_has_no_reminder(self) -> None:
        self.assertEqual(services.reminder.scan(now=self.task.due_date + timedelta(hours=24)), [])

    def test_a_changed_due_date_sends_one_new_reminder(self) -> None:
        self.assertEqual(remind(), 1)
        self.change(due_date=timezone.now() + 2 * HOUR)
        self.assertEqual([remind(), remind()], [1, 0])
        self.assertEqual(len({message.extra_headers["Message-ID"] for message in mail.outbox}), 2)

    def test_scans_are_bounded_and_take_the_soonest_first(self) -> None:
        due_dates = [timezone.now() + 2 * HOUR + timedelta(seconds=second) for second in range(BATCH)]
        Task.objects.bulk_create(
            [Task(project=self.project, assignee=self.ada, title="Later", due_date=due) for due in due_dates]
        )
        self.assertEqual(len(services.reminder.scan(now=timezone.now())), BATCH)
        self.assertFalse(Reminder.objects.filter(due_date=due_dates[-1]).exists())
        services.reminder.scan(now=timezone.now())
        self.assertEqual(Reminder.objects.count(), BATCH + 1)

    def test_a_scan_costs_the_same_queries_for_one_task_and_for_twenty(self) -> None:
        with self.assertNumQueries(4):  # savepoint, insert, release, ids
            services.reminder.scan(now=timezone.now())
        for _ in range(20):
            TaskFactory(project=self.project, assignee=self.ada, due_date=timezone.now() + HOUR)
        with self.assertNumQueries(4):
            self.assertEqual(len(services.reminder.scan(now=timezone.now())), 21)


class RecipientTests(ReminderCase):
    def test_only_the_assignee_is_reminded(self) -> None:
        MembershipFactory(project=self.project, role=Role.OWNER)
        remind()
        self.assertEqual(recipients(), [self.ada.email])

    def test_without_an_assignee_owners_and_editors_are_reminded(self) -> None:
        self.change(assignee_id=None)
        owner = MembershipFactory(project=self.project, role=Role.OWNER).user
        editor = MembershipFactory(project=self.project, role=Role.EDITOR).user
        MembershipFactory(project=self.project, role=Role.OWNER, user__email="")
        MembershipFactory(role=Role.OWNER)
        remind()
        self.assertEqual(recipients(), sorted([owner.email, editor.email]))

    def test_owners_are_reminded_if_the_assignee_has_no_address(self) -> None:
        owner = MembershipFactory(project=self.project, role=Role.OWNER).user
        User.objects.filter(pk=self.ada.pk).update(email="")
        remind()
        self.assertEqual(recipients(), [owner.email])

    def test_owners_are_reminded_if_the_assignee_is_deactivated(self) -> None:
        owner = MembershipFactory(project=self.project, role=Role.OWNER).user
        User.objects.filter(pk=self.ada.pk).update(is_active=False)
        remind()
        self.assertEqual(recipients(), [owner.email])

    def test_an_assignee_who_left_the_project_is_not_reminded(self) -> None:
        owner = MembershipFactory(project=self.project, role=Role.OWNER).user
        services.membership.remove_member(actor=access.SYSTEM, project_id=self.project.pk, user_id=self.ada.pk)
        remind()
        self.assertEqual(recipients(), [owner.email])

    @override_settings(NOTIFY_EMAIL="team@example.org")
    def test_the_configured_address_is_reminded_if_there_is_no_other(self) -> None:
        self.change(assignee_id=None)
        remind()
        self.assertEqual(recipients(), ["team@example.org"])

    def test_without_any_address_no_reminder_is_stored(self) -> None:
        self.change(assignee_id=None)
        self.assertEqual(remind(), 0)
        self.assertFalse(Reminder.objects.exists())

    def test_a_new_assignee_is_reminded_too(self) -> None:
        remind()
        grace = MembershipFactory(project=self.project).user
        self.change(assignee_id=grace.pk)
        self.assertEqual([remind(), remind()], [1, 0])
        self.assertEqual(recipients(), sorted([self.ada.email, grace.email]))

    def test_two_accounts_with_one_address_get_one_mail(self) -> None:
        self.change(assignee_id=None)
        for _ in range(2):
            MembershipFactory(project=self.project, user__email="shared@example.org")
        self.assertEqual(remind(), 1)


class SendingTests(ReminderCase):
    def scan_one(self) -> Reminder:
        services.reminder.scan(now=timezone.now())
        return Reminder.objects.get()

    def test_sending_a_reminder_again_sends_no_second_mail(self) -> None:
        reminder = self.scan_one()
        self.assertEqual([services.reminder.send(reminder.pk) for _ in range(3)], [True, False, False])
        self.assertEqual(remind(), 0)
        self.assertEqual(len(mail.outbox), 1)
        reminder.refresh_from_db()
        self.assertIsNotNone(reminder.sent_at)

    def test_the_reminder_of_a_deleted_task_is_not_sent(self) -> None:
        reminder = self.scan_one()
        services.task.delete_task(actor=access.SYSTEM, task_id=self.task.pk)
        self.assertFalse(services.reminder.send(reminder.pk))
        self.assertEqual(mail.outbox, [])

    def test_an_outdated_reminder_is_deleted_and_not_sent(self) -> None:
        grace = MembershipFactory(project=self.project).user
        for changes in [
            {"assignee_id": grace.pk},
            {"due_date": timezone.now() + 2 * HOUR},
            {"status": Status.COMPLETED},
        ]:
            with self.subTest(changes):
                (reminder_id,) = services.reminder.scan(now=timezone.now())
                self.change(**changes)
                self.assertFalse(services.reminder.send(reminder_id))
                self.assertEqual(mail.outbox, [])
                self.assertFalse(Reminder.objects.exists())

    def test_a_task_reopened_after_its_reminder_was_deleted_has_a_new_one(self) -> None:
        reminder = self.scan_one()
        self.change(status=Status.COMPLETED)
        services.reminder.send(reminder.pk)
        self.change(status=Status.PENDING)
        self.assertEqual(remind(), 1)

    def test_the_reminder_of_a_killed_worker_is_sent_after_its_claim_expires(self) -> None:
        reminder = self.scan_one()
        Reminder.objects.update(attempts=1, not_before=timezone.now() + LEASE)
        self.assertEqual(remind(), 0)
        self.assertFalse(services.reminder.send(reminder.pk))
        Reminder.objects.update(not_before=timezone.now())
        self.assertEqual(remind(), 1)

    def test_an_invalid_address_is_logged_and_not_mailed(self) -> None:
        Reminder.objects.create(task=self.task, due_date=self.task.due_date, recipient="a@b\nBcc: c@example.org")
        User.objects.filter(pk=self.ada.pk).update(email="a@b\nBcc: c@example.org")
        with self.assertLogs("backend.projects.services.mail", "WARNING"):
            self.assertEqual(remind(), 0)
        self.assertEqual(mail.outbox, [])


class MessageTests(ReminderCase):
    def sent(self, **changes: Any) -> mail.EmailMultiAlternatives:
        Task.objects.filter(pk=self.task.pk).update(**changes)
        remind()
        message = mail.outbox[0]
        assert isinstance(message, mail.EmailMultiAlternatives)
        return message

    def test_a_title_of_several_lines_cannot_add_a_header(self) -> None:
        message = self.sent(title="Ship it\r\nBcc: everybody@example.org\u2028now")
        self.assertTrue(message.subject.endswith(": Ship it Bcc: everybody@example.org now"))
        self.assertIsNone(message.message()["Bcc"])

    def test_user_text_is_escaped_in_the_html_but_not_in_the_plain_text(self) -> None:
        message = self.sent(title="<b>R&D</b>")
        html, _ = message.alternatives[0]
        self.assertIn("&lt;b&gt;R&amp;D&lt;/b&gt;", str(html))
        self.assertIn("<b>R&D</b>", str(message.body))

    @override_settings(SUMMARY_TIME_ZONE="Europe/Berlin")
    def test_the_due_date_is_in_the_configured_time_zone(self) -> None:
        due_date = (timezone.now() + 3 * HOUR).replace(minute=17)
        message = self.sent(due_date=due_date)
        local = timezone.localtime(due_date, timezone=services.clock.zone())
        self.assertIn(f"{local:%H}:17 (Europe/Berlin)", str(message.body))


class ConcurrentSendingTests(CommittingCase):
    def test_one_of_two_workers_sends_a_reminder(self) -> None:
        member = MembershipFactory()
        for _ in range(5):
            TaskFactory(project=member.project, assignee=member.user, due_date=timezone.now() + HOUR)
        ids = services.reminder.scan(now=timezone.now())
        results: list[bool] = []
        barrier = threading.Barrier(2)

        def work() -> None:
            try:
                for pk in ids:
                    barrier.wait(timeout=10)
                    results.append(services.reminder.send(pk))
            finally:
                connection.close()

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=10)
        self.assertEqual(sorted(results), [False] * 5 + [True] * 5)
        self.assertEqual(len(mail.outbox), 5)

    def test_a_scan_skips_a_task_that_is_being_deleted(self) -> None:
        member = MembershipFactory()
        tasks = [
            TaskFactory(project=member.project, assignee=member.user, due_date=timezone.now() + HOUR) for _ in range(2)
        ]
        found: list[list[int]] = []

        def scan() -> None:
            try:
                found.append(services.reminder.scan(now=timezone.now()))
            finally:
                connection.close()

        with transaction.atomic():
            services.task.delete_task(actor=access.SYSTEM, task_id=tasks[0].pk)
            scanner = threading.Thread(target=scan)
            scanner.start()
            scanner.join(timeout=10)
        self.assertEqual([len(ids) for ids in found], [1])
        self.assertEqual(Reminder.objects.get().task_id, tasks[1].pk)

    def test_a_reminder_is_not_sent_inside_a_transaction(self) -> None:
        with transaction.atomic(), self.assertRaises(RuntimeError):
            services.reminder.send(1)
