"""The limit of mails per recipient and hour, and the digests of reminders and summaries over the limit."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core import mail
from django.db.models.functions import Now
from django.test import override_settings
from django.utils import timezone

from backend.projects import services
from backend.projects.access import SYSTEM, viewer_for
from backend.projects.models import MailDigest, MailQuota, Reminder, ReportMail, Role, Status, Task, User
from backend.projects.services import digest as digests
from backend.projects.services.mail import DIGEST_WAIT, LEASE
from tasks.retention import trim
from tests.cases import Case, CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, SummaryReportFactory, TaskFactory, UserFactory
from tests.projects.test_reminder_smtp import mail_server

HOUR = timedelta(hours=1)


def run_jobs() -> int:
    """Run the jobs of one minute, as Beat and the worker do. Return the number of mails sent."""
    now = timezone.now()
    sent = [services.reminder.send(pk) for pk in services.reminder.scan(now=now)]
    sent += [services.report.send_mail(pk) for pk in services.report.mails_to_send(now=now)]
    sent += [services.digest.send(pk) for pk in services.digest.scan()]
    return sum(sent)


def make_digests_due() -> None:
    """End the time in which digests collect entries."""
    MailDigest.objects.filter(sent_at=None).update(not_before=Now())


def pass_an_hour() -> None:
    """Make all mails sent so far an hour old, and digests due."""
    long_ago = timezone.now() - HOUR
    for quota in MailQuota.objects.all():
        quota.claimed_at = [long_ago] * len(quota.claimed_at)
        quota.digest_at = quota.digest_at and long_ago
        quota.save()
    make_digests_due()


def bodies() -> list[str]:
    return [str(message.body) for message in mail.outbox]


class DigestCase(Case):
    ada: User

    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory(name="Relaunch")
        cls.owner = MembershipFactory(project=cls.project, role=Role.OWNER).user
        cls.ada = MembershipFactory(project=cls.project, user__email="Ada@example.org").user
        cls.other_project = MembershipFactory(user=cls.ada, project__name="Garden").project

    def create_due_tasks(self, count: int, **fields: Any) -> list[Task]:
        defaults = {"project": self.project, "assignee": self.ada, "due_date": timezone.now() + HOUR}
        return TaskFactory.create_batch(count, **defaults | fields)


class LimitTests(DigestCase):
    def test_assigning_100_due_tasks_causes_20_mails_and_one_digest_in_an_hour(self) -> None:
        actor = viewer_for(self.owner)
        due: datetime = timezone.now() + HOUR
        MembershipFactory(project=self.other_project, user=self.owner)
        for n in range(100):
            services.task.create_task(
                actor=actor,
                project_id=(self.project, self.other_project)[n % 2].pk,
                changes={"title": f"Task number {n:02}", "due_date": due, "assignee_id": self.ada.pk},
            )
        self.assertEqual(run_jobs(), settings.MAILS_PER_HOUR)
        for _ in range(3):
            make_digests_due()
            run_jobs()
        self.assertEqual(len(mail.outbox), settings.MAILS_PER_HOUR + 1)
        text = "\n".join(bodies())
        for n in range(100):
            self.assertEqual(text.count(f"Task number {n:02}"), 1, n)
        self.assertFalse(Reminder.objects.filter(sent_at=None).exists())
        self.assertEqual(Reminder.objects.count(), 100)
        self.assertEqual(mail.outbox[-1].subject, "80 more reminders")

    @override_settings(MAILS_PER_HOUR=5)
    def test_one_project_causes_half_of_the_mails_and_those_of_others_are_not_delayed(self) -> None:
        self.create_due_tasks(9, due_date=timezone.now() + timedelta(minutes=5))
        self.create_due_tasks(1, project=self.other_project)
        self.assertEqual(run_jobs(), 3 + 1)
        self.create_due_tasks(1, project=self.other_project)
        self.assertEqual(run_jobs(), 1)
        self.create_due_tasks(2, project=self.other_project)  # over the limit of the recipient
        self.assertEqual(run_jobs(), 0)
        make_digests_due()
        self.assertEqual(run_jobs(), 1)
        self.assertEqual(mail.outbox[-1].subject, "8 more reminders")
        self.assertFalse(Reminder.objects.filter(sent_at=None).exists())

    @override_settings(MAILS_PER_HOUR=3)
    def test_only_mails_of_the_project_over_its_half_are_put_into_the_digest(self) -> None:
        self.create_due_tasks(3)
        self.create_due_tasks(1, project=self.other_project)
        reports = [SummaryReportFactory(project=project) for project in (self.project, self.other_project)]
        for report in reports:
            ReportMail.objects.create(report=report, recipient=self.ada.email)
        for pk in services.reminder.scan(now=timezone.now())[:3]:
            services.reminder.send(pk)
        digest = MailDigest.objects.get()
        self.assertEqual(
            list(Reminder.objects.filter(digest=digest).values_list("task__project", flat=True)), [self.project.pk]
        )
        self.assertEqual(ReportMail.objects.get(digest=digest).report, reports[0])

    @override_settings(MAILS_PER_HOUR=2)
    def test_reminders_and_summaries_of_a_project_count_together(self) -> None:
        self.create_due_tasks(1)
        self.assertEqual(run_jobs(), 1)
        ReportMail.objects.create(report=SummaryReportFactory(project=self.project), recipient=self.ada.email)
        self.assertEqual(run_jobs(), 0)
        self.assertEqual(ReportMail.objects.exclude(digest=None).count(), 1)

    @override_settings(MAILS_PER_HOUR=3)
    def test_a_second_digest_follows_an_hour_after_the_first(self) -> None:
        self.create_due_tasks(3)
        self.assertEqual(run_jobs(), 2)
        make_digests_due()
        self.assertEqual(run_jobs(), 1)
        self.create_due_tasks(5)
        run_jobs()
        self.assertGreater(MailDigest.objects.get(sent_at=None).not_before, timezone.now() + 0.9 * HOUR)
        for _ in range(3):
            self.assertEqual(run_jobs(), 0)
        make_digests_due()  # a digest waits even if it is tried too early
        self.assertEqual(run_jobs(), 0)
        pass_an_hour()
        self.assertEqual(run_jobs(), 1)
        self.assertEqual([message.subject for message in mail.outbox[2:]], ["1 more reminder", "5 more reminders"])
        self.assertEqual(run_jobs(), 0)

    @override_settings(MAILS_PER_HOUR=3)
    def test_the_limit_is_per_recipient_and_per_hour(self) -> None:
        self.create_due_tasks(2)
        self.create_due_tasks(2, assignee=self.owner)
        self.assertEqual(run_jobs(), 4)
        self.create_due_tasks(1)
        self.assertEqual(run_jobs(), 0)
        pass_an_hour()
        self.create_due_tasks(2)
        self.assertEqual(run_jobs(), 3)  # the digest and two mails

    @override_settings(MAILS_PER_HOUR=3)
    def test_deleting_tasks_or_changing_the_case_of_the_address_does_not_reset_the_limit(self) -> None:
        for task in self.create_due_tasks(2):
            run_jobs()
            services.task.delete_task(actor=SYSTEM, task_id=task.pk)
        self.assertEqual((len(mail.outbox), Reminder.objects.count()), (2, 0))
        User.objects.filter(pk=self.ada.pk).update(email="ADA@EXAMPLE.ORG")
        self.create_due_tasks(1)
        self.assertEqual(run_jobs(), 0)

    @override_settings(MAILS_PER_HOUR=1)
    def test_summaries_over_the_limit_are_in_the_digest(self) -> None:
        self.create_due_tasks(1)
        self.assertEqual(run_jobs(), 1)
        figures = {"created": 1, "completed": 2, "overdue": 3, "due_in_24_hours": 4}
        report = SummaryReportFactory(project=self.project, date=date(2026, 3, 1), figures=figures)
        ReportMail.objects.create(report=report, recipient=self.ada.email)
        self.create_due_tasks(1, title="Ship it")
        self.assertEqual(run_jobs(), 0)
        make_digests_due()
        self.assertEqual(run_jobs(), 1)
        message = mail.outbox[-1]
        self.assertEqual(message.subject, "2 more reminders and summaries")
        self.assertIn("1 Mar 2026  Relaunch: 1 created, 2 completed, 3 overdue, 4 due in 24 h", bodies()[-1])
        self.assertIn("Ship it  (Relaunch, task ", bodies()[-1])
        self.assertFalse(ReportMail.objects.filter(sent_at=None).exists())

    @override_settings(MAILS_PER_HOUR=1)
    def test_user_text_is_escaped_in_the_html_of_a_digest(self) -> None:
        self.create_due_tasks(2, title="<b>R&D</b>")
        run_jobs()
        make_digests_due()
        run_jobs()
        message = mail.outbox[-1]
        assert isinstance(message, mail.EmailMultiAlternatives)
        self.assertIn("&lt;b&gt;R&amp;D&lt;/b&gt;", str(message.alternatives[0][0]))
        self.assertIn("<b>R&D</b>", str(message.body))


class ContentTests(DigestCase):
    def create_tasks_in_digest(self, count: int = 3) -> list[Task]:
        """Create tasks whose reminders are in a digest."""
        self.create_due_tasks(1, title="First", due_date=timezone.now() + timedelta(minutes=1))
        tasks = self.create_due_tasks(count)
        with override_settings(MAILS_PER_HOUR=1):
            run_jobs()
        self.assertEqual(Reminder.objects.exclude(digest=None).count(), count)
        make_digests_due()
        mail.outbox.clear()
        return tasks

    def test_obsolete_reminders_are_left_out_of_a_digest_and_deleted(self) -> None:
        done, moved, current = self.create_tasks_in_digest()
        services.task.update_task(actor=SYSTEM, task_id=done.pk, changes={"status": Status.COMPLETED})
        later = timezone.now() + timedelta(days=3)
        services.task.update_task(actor=SYSTEM, task_id=moved.pk, changes={"due_date": later})
        self.assertEqual(run_jobs(), 1)
        self.assertEqual(mail.outbox[0].subject, "1 more reminder")
        self.assertIn(current.title, bodies()[0])
        self.assertEqual(set(Reminder.objects.values_list("task", flat=True)) & {done.pk, moved.pk}, set())

    def test_an_assignee_who_left_the_project_gets_neither_reminder_nor_digest(self) -> None:
        self.create_tasks_in_digest()
        reminder = Reminder.objects.filter(sent_at=None).first()
        assert reminder is not None
        services.membership.remove_member(actor=SYSTEM, project_id=self.project.pk, user_id=self.ada.pk)
        (digest_id,) = services.digest.scan()
        self.assertFalse(services.digest.send(digest_id))
        self.assertEqual(mail.outbox, [])
        self.assertFalse(MailDigest.objects.exists() or Reminder.objects.filter(sent_at=None).exists())

    def test_entries_over_the_maximum_of_a_digest_are_sent_in_the_next_one(self) -> None:
        self.addCleanup(setattr, digests, "MAX_ENTRIES", digests.MAX_ENTRIES)
        digests.MAX_ENTRIES = 2
        self.create_tasks_in_digest()
        with override_settings(MAILS_PER_HOUR=1):
            self.assertEqual(run_jobs(), 1)
            run_jobs()
            pass_an_hour()
            run_jobs()
        self.assertEqual([message.subject for message in mail.outbox], ["2 more reminders", "1 more reminder"])
        self.assertEqual(Reminder.objects.filter(sent_at=None).count(), 0)

    def test_sending_a_digest_again_sends_no_second_mail(self) -> None:
        self.create_tasks_in_digest()
        (digest_id,) = services.digest.scan()
        self.assertEqual([services.digest.send(digest_id) for _ in range(3)], [True, False, False])

    def test_the_digest_of_a_killed_worker_is_resent_under_the_same_message_id(self) -> None:
        self.create_tasks_in_digest()
        (digest_id,) = services.digest.scan()
        services.digest.send(digest_id)
        MailDigest.objects.update(sent_at=None, is_in_doubt=True, not_before=timezone.now())
        Reminder.objects.filter(digest=digest_id).update(sent_at=None)
        self.assertEqual(run_jobs(), 1)
        first, second = (message.extra_headers["Message-ID"] for message in mail.outbox)
        self.assertEqual(first, second)

    def test_a_refused_digest_keeps_its_contents_and_its_message_id(self) -> None:
        tasks = self.create_tasks_in_digest()
        with mail_server("451 Later") as mailbox, self.assertLogs("backend.projects", "WARNING"):
            self.assertEqual(run_jobs(), 0)
            with override_settings(MAILS_PER_HOUR=1):
                self.create_due_tasks(1, title="Too late for the digest")
                run_jobs()
            MailDigest.objects.filter(attempts=1).update(not_before=timezone.now())
            self.assertEqual(run_jobs(), 1)
        first, second = mailbox.messages
        self.assertEqual(first["Message-ID"], second["Message-ID"])
        text = second.get_payload()[0].get_payload(decode=True).decode()  # type: ignore[union-attr,index]
        self.assertNotIn("Too late for the digest", text)
        for task in tasks:
            self.assertIn(task.title, text)


class DeliveryTests(DigestCase):
    @override_settings(MAILS_PER_HOUR=1)
    def test_a_refused_mail_does_not_count_towards_the_limit(self) -> None:
        self.create_due_tasks(2)
        with mail_server("451 Later") as mailbox, self.assertLogs("backend.projects", "WARNING"):
            self.assertEqual(run_jobs(), 1)  # the first is refused, the second is accepted
        self.assertEqual(len(mailbox.messages), 2)
        self.assertEqual([len(quota.claimed_at) for quota in MailQuota.objects.all()], [1, 1])

    @override_settings(MAILS_PER_HOUR=1)
    def test_a_mail_of_a_killed_worker_is_resent_under_its_message_id_despite_the_limit(self) -> None:
        self.create_due_tasks(1)
        self.assertEqual(run_jobs(), 1)
        Reminder.objects.update(sent_at=None, is_in_doubt=True, not_before=timezone.now())
        self.create_due_tasks(1)
        self.assertEqual(run_jobs(), 1)
        first, second = (message.extra_headers["Message-ID"] for message in mail.outbox)
        self.assertEqual(first, second)
        self.assertEqual(Reminder.objects.exclude(digest=None).count(), 1)

    @override_settings(MAILS_PER_HOUR=1)
    def test_an_obsolete_mail_does_not_count_towards_the_limit(self) -> None:
        (task,) = self.create_due_tasks(1)
        (reminder_id,) = services.reminder.scan(now=timezone.now())
        services.task.update_task(actor=SYSTEM, task_id=task.pk, changes={"status": Status.COMPLETED})
        self.assertFalse(services.reminder.send(reminder_id))
        self.create_due_tasks(1)
        self.assertEqual(run_jobs(), 1)

    def test_a_claimed_reminder_is_not_moved_to_a_digest(self) -> None:
        self.create_due_tasks(1)
        services.reminder.scan(now=timezone.now())
        Reminder.objects.update(attempts=1, is_in_doubt=True, not_before=timezone.now() + LEASE)
        self.create_due_tasks(2)
        with override_settings(MAILS_PER_HOUR=1):
            self.assertEqual(run_jobs(), 1)
        self.assertEqual(Reminder.objects.get(attempts=1, sent_at=None).digest, None)

    def test_a_digest_waits_for_the_reminders_of_the_next_scans(self) -> None:
        self.create_due_tasks(2)
        with override_settings(MAILS_PER_HOUR=1):
            run_jobs()
        wait = MailDigest.objects.get().not_before - timezone.now()
        self.assertAlmostEqual(wait, DIGEST_WAIT, delta=timedelta(seconds=30))

    def test_the_retention_job_deletes_old_digests_and_unused_quotas(self) -> None:
        now = timezone.now()
        task = self.create_due_tasks(1)[0]
        for days in (31, 29):
            digest = MailDigest.objects.create(recipient=f"{days}@example.org", sent_at=now - timedelta(days=days))
            Reminder.objects.create(
                task=task, due_date=now, recipient=digest.recipient, sent_at=digest.sent_at, digest=digest
            )
            MailQuota.objects.create(
                recipient=digest.recipient, claimed_at=[], updated_at=now - timedelta(days=days - 29)
            )
        trim()
        self.assertEqual(MailDigest.objects.get().recipient, "29@example.org")
        self.assertEqual(MailQuota.objects.get().recipient, "29@example.org")
        self.assertEqual(Reminder.objects.exclude(sent_at=None).count(), 2)


class SubjectTests(DigestCase):
    def test_a_long_title_is_truncated_in_the_subject_and_complete_in_the_body(self) -> None:
        title = "x" * 255
        self.create_due_tasks(1, title=title)
        run_jobs()
        self.assertTrue(mail.outbox[0].subject.endswith(f": {'x' * 79}…"))
        self.assertIn(title, bodies()[0])

    def test_control_characters_are_removed_from_a_subject(self) -> None:
        self.create_due_tasks(1, title="Ship\x07 \u202eti\u2028now\ttoday")
        run_jobs()
        self.assertTrue(mail.outbox[0].subject.endswith(": Ship ti now today"))


class ConcurrentTests(CommittingCase):
    @override_settings(MAILS_PER_HOUR=3)
    def test_concurrent_workers_together_keep_the_limit(self) -> None:
        user = UserFactory()
        for member in MembershipFactory.create_batch(2, user=user):
            TaskFactory.create_batch(6, project=member.project, assignee=user, due_date=timezone.now() + HOUR)
        ids = services.reminder.scan(now=timezone.now())
        jobs = [lambda mine=ids[n::4]: [services.reminder.send(pk) for pk in mine] for n in range(4)]
        self.assertEqual(self.run_together(*jobs), [])
        self.assertEqual(len(mail.outbox), 3)
        self.assertEqual(Reminder.objects.exclude(digest=None).count(), 9)
        self.assertEqual(MailDigest.objects.count(), 1)

    @override_settings(MAILS_PER_HOUR=1)
    def test_deleting_the_project_of_reminders_being_sent_causes_no_deadlock(self) -> None:
        for _ in range(5):
            member = MembershipFactory(user__email="shared@example.org")
            TaskFactory.create_batch(10, project=member.project, assignee=member.user, due_date=timezone.now() + HOUR)
            ids = services.reminder.scan(now=timezone.now())
            raised = self.run_together(
                lambda ids=ids: [services.reminder.send(pk) for pk in ids],
                lambda member=member: services.project.delete_project(actor=SYSTEM, project_id=member.project_id),
            )
            self.assertEqual(raised, [])
