"""Daily summaries: figures, due times, uniqueness and mails."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.core import mail
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import override_settings
from django.utils import timezone

from backend.projects import access, services
from backend.projects.errors import ProjectNotFound
from backend.projects.models import Comment, Event, Project, ReportMail, Role, Status, SummaryReport, Task
from backend.projects.services.clock import Day
from tests.cases import Case, CommittingCase
from tests.factories import CommentFactory, MembershipFactory, ProjectFactory, TaskFactory

HOUR = timedelta(hours=1)
BERLIN = override_settings(SUMMARY_TIME_ZONE="Europe/Berlin")
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
NOON = Day.of(YESTERDAY).start + 12 * HOUR


@BERLIN
class DayTests(Case):
    def hours(self, year: int, month: int, day: int) -> float:
        local = Day.of(date(year, month, day))
        return (local.end - local.start) / HOUR

    def test_a_day_lasts_from_local_midnight_to_local_midnight(self) -> None:
        day = Day.of(date(2026, 1, 15))
        self.assertEqual(day.start, datetime(2026, 1, 14, 23, tzinfo=UTC))
        self.assertEqual(day.end, datetime(2026, 1, 15, 23, tzinfo=UTC))

    def test_the_day_the_clock_goes_forward_has_23_hours(self) -> None:
        self.assertEqual(self.hours(2026, 3, 29), 23)
        self.assertEqual(Day.of(date(2026, 3, 29)).end, datetime(2026, 3, 29, 22, tzinfo=UTC))

    def test_the_day_the_clock_goes_back_has_25_hours(self) -> None:
        self.assertEqual(self.hours(2026, 10, 25), 25)
        self.assertEqual(Day.of(date(2026, 10, 25)).end, datetime(2026, 10, 25, 23, tzinfo=UTC))


class FigureTests(Case):
    """Figures of yesterday, in UTC."""

    project: Project

    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory()

    def figures(self, day: date = YESTERDAY) -> dict[str, Any]:
        return services.report.figures(self.project.pk, Day.of(day), now=timezone.now())

    def task(self, created_at: datetime = NOON, **fields: Any) -> Task:
        """Create a task through the service, as if at `created_at`."""
        changes = {"title": "Task", "due_date": NOON + timedelta(days=30), **fields}
        task = services.task.create_task(actor=access.SYSTEM, project_id=self.project.pk, changes=changes)  # type: ignore[arg-type]
        Task.objects.filter(pk=task.pk).update(created_at=created_at, updated_at=created_at)
        Event.objects.filter(task_id=task.pk).update(at=created_at)
        return task

    def change(self, task: Task, at: datetime, **changes: Any) -> None:
        """Change a task through the service, as if at `at`."""
        services.task.update_task(actor=access.SYSTEM, task_id=task.pk, changes=changes)  # type: ignore[arg-type]
        Event.objects.filter(position=Event.head()).update(at=at)

    def test_an_empty_day_is_all_zeros(self) -> None:
        self.assertEqual(
            self.figures(),
            {
                "time_zone": "UTC",
                "tasks": {"pending": 0, "in_progress": 0, "completed": 0},
                "created": 0,
                "completed": 0,
                "overdue": 0,
                "due_in_24_hours": 0,
                "most_commented": [],
            },
        )

    def test_tasks_are_counted_by_their_status_at_the_end_of_the_day(self) -> None:
        self.task()
        changed_in_time, changed_later = self.task(), self.task()
        self.change(changed_in_time, NOON + HOUR, status=Status.IN_PROGRESS)
        self.change(changed_later, timezone.now(), status=Status.COMPLETED)
        self.task(created_at=timezone.now())
        self.assertEqual(self.figures()["tasks"], {"pending": 2, "in_progress": 1, "completed": 0})

    def test_a_task_deleted_after_the_day_counts(self) -> None:
        task = self.task()
        services.task.delete_task(actor=access.SYSTEM, task_id=task.pk)
        figures = self.figures()
        self.assertEqual((figures["tasks"]["pending"], figures["created"]), (1, 1))

    def test_a_task_deleted_on_the_day_counts_only_as_created(self) -> None:
        task = self.task()
        services.task.delete_task(actor=access.SYSTEM, task_id=task.pk)
        Event.objects.filter(position=Event.head()).update(at=NOON + HOUR)
        figures = self.figures()
        self.assertEqual((figures["tasks"]["pending"], figures["created"]), (0, 1))

    def test_a_task_without_events_counts_with_its_current_status(self) -> None:
        task = TaskFactory(project=self.project, status=Status.IN_PROGRESS)
        Task.objects.filter(pk=task.pk).update(created_at=NOON)
        self.assertEqual(self.figures()["tasks"]["in_progress"], 1)

    def test_a_task_completed_on_the_day_counts_once_even_if_reopened(self) -> None:
        task = self.task(created_at=NOON - timedelta(days=3))
        for hour, status in enumerate([Status.COMPLETED, Status.PENDING, Status.COMPLETED, Status.PENDING]):
            self.change(task, NOON + hour * HOUR, status=status)
        self.change(self.task(created_at=NOON - timedelta(days=3)), NOON - timedelta(days=1), status=Status.COMPLETED)
        self.assertEqual(self.figures()["completed"], 1)

    def test_changing_a_completed_task_does_not_count_as_completing_it(self) -> None:
        task = self.task(created_at=NOON - timedelta(days=3), status=Status.COMPLETED)
        self.change(task, NOON, title="status")
        self.assertEqual(self.figures()["completed"], 0)

    def test_overdue_and_due_in_24_hours_are_counted_from_the_end_of_the_day(self) -> None:
        end = Day.of(YESTERDAY).end
        self.task(due_date=end - timedelta(seconds=1))
        self.task(due_date=end)
        self.task(due_date=end + 23 * HOUR)
        self.task(due_date=end + 24 * HOUR)
        self.task(due_date=end - HOUR, status=Status.COMPLETED)
        figures = self.figures()
        self.assertEqual((figures["overdue"], figures["due_in_24_hours"]), (1, 2))

    def test_the_five_tasks_with_the_most_comments_of_the_day_are_listed(self) -> None:
        tasks = [self.task(title=f"Task {number}") for number in range(6)]
        for number, task in enumerate(tasks):
            CommentFactory.create_batch(number, task=task)
        Comment.objects.update(created_at=NOON)
        CommentFactory.create_batch(9, task=tasks[0])
        self.assertEqual(
            self.figures()["most_commented"],
            [{"id": tasks[count].pk, "title": f"Task {count}", "comments": count} for count in range(5, 0, -1)],
        )

    def test_another_project_does_not_count(self) -> None:
        other = ProjectFactory()
        self.task()
        figures = services.report.figures(other.pk, Day.of(YESTERDAY), now=timezone.now())
        self.assertEqual((figures["tasks"]["pending"], figures["created"]), (0, 0))

    @BERLIN
    def test_the_repeated_hour_of_a_clock_change_belongs_to_its_day(self) -> None:
        for created_at in [
            datetime(2026, 10, 24, 21, 59, tzinfo=UTC),
            datetime(2026, 10, 24, 22, 0, tzinfo=UTC),
            datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
            datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
            datetime(2026, 10, 25, 22, 59, tzinfo=UTC),
            datetime(2026, 10, 25, 23, 0, tzinfo=UTC),
        ]:
            self.task(created_at=created_at)
        self.assertEqual(self.figures(date(2026, 10, 25))["created"], 4)


@override_settings(SUMMARY_HOUR=6)
class DueTests(Case):
    """Summaries that are due on 10 June 2026."""

    project: Project

    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory()
        Project.objects.update(created_at=datetime(2026, 6, 9, 21, tzinfo=UTC))

    def due(self, hour: int, minute: int = 0) -> list[tuple[int, date]]:
        return services.report.due(now=datetime(2026, 6, 10, hour, minute, tzinfo=UTC))

    def test_the_summary_of_yesterday_is_due_from_the_configured_hour_on(self) -> None:
        self.assertEqual(self.due(5, 59), [])
        self.assertEqual(self.due(6), [(self.project.pk, date(2026, 6, 9))])
        self.assertEqual(self.due(23), [(self.project.pk, date(2026, 6, 9))])

    @BERLIN
    def test_the_configured_hour_is_local_time(self) -> None:
        self.assertEqual(self.due(3, 59), [])
        self.assertEqual(self.due(4), [(self.project.pk, date(2026, 6, 9))])

    def test_a_project_has_no_summary_of_a_day_before_its_creation(self) -> None:
        Project.objects.update(created_at=datetime(2026, 6, 10, tzinfo=UTC))
        self.assertEqual(self.due(7), [])

    def test_a_late_start_catches_up_on_seven_days_oldest_first(self) -> None:
        Project.objects.update(created_at=datetime(2026, 1, 1, tzinfo=UTC))
        self.assertEqual([day for _, day in self.due(7)], [date(2026, 6, number) for number in range(3, 10)])

    def test_a_generated_summary_is_not_due(self) -> None:
        services.report.generate(self.project.pk, YESTERDAY)
        at = datetime.combine(YESTERDAY + timedelta(days=1), datetime.min.time(), UTC) + 7 * HOUR
        Project.objects.update(created_at=NOON)
        self.assertEqual(services.report.due(now=at), [])

    def test_a_summary_generated_before_the_end_of_its_day_is_due_again(self) -> None:
        SummaryReport.objects.create(
            project=self.project, date=date(2026, 6, 9), figures={}, generated_at=datetime(2026, 6, 9, 12, tzinfo=UTC)
        )
        self.assertEqual(self.due(6), [(self.project.pk, date(2026, 6, 9))])


class GenerateTests(Case):
    project: Project

    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory()
        Project.objects.update(created_at=NOON)

    def test_generating_the_same_summary_again_stores_and_records_nothing(self) -> None:
        first = services.report.generate(self.project.pk, YESTERDAY)
        second = services.report.generate(self.project.pk, YESTERDAY)
        self.assertEqual(first.pk, second.pk)
        self.assertEqual(SummaryReport.objects.count(), 1)
        self.assertEqual(self.events(), ["report.generated"])

    def test_regenerating_a_summary_updates_its_figures_and_records_an_event(self) -> None:
        first = services.report.generate(self.project.pk, YESTERDAY)
        TaskFactory(project=self.project)
        Task.objects.update(created_at=NOON)
        second = services.report.generate(self.project.pk, YESTERDAY)
        self.assertEqual((first.pk, second.figures["created"]), (second.pk, 1))
        self.assertEqual(self.events(), ["report.generated"] * 2)

    def test_a_day_that_has_not_begun_is_refused(self) -> None:
        with self.assertRaises(ValidationError):
            services.report.generate(self.project.pk, timezone.now().date() + timedelta(days=2))
        self.assertFalse(SummaryReport.objects.exists())
        self.assertEqual(self.events(), [])

    def test_an_absent_project_is_refused(self) -> None:
        with self.assertRaises(ProjectNotFound):
            services.report.generate(self.project.pk + 1, YESTERDAY)

    def test_the_command_regenerates_a_past_date_without_a_duplicate(self) -> None:
        for _ in range(2):
            call_command("summary", date=YESTERDAY, verbosity=0)
        self.assertEqual(SummaryReport.objects.get().project_id, self.project.pk)

    def test_the_command_reports_an_absent_project(self) -> None:
        with self.assertRaisesMessage(CommandError, "There is no such project."):
            call_command("summary", date=YESTERDAY, project=self.project.pk + 1)


class MailTests(Case):
    project: Project

    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory(name="R&D\nBcc: x@example.org")
        MembershipFactory(project=cls.project, role=Role.OWNER, user__email="ada@example.org")
        MembershipFactory(project=cls.project, role=Role.EDITOR, user__email="grace@example.org")
        MembershipFactory(project=cls.project, role=Role.VIEWER)

    def send(self, day: date = YESTERDAY) -> list[str]:
        services.report.generate(self.project.pk, day)
        for mail_id in services.report.mails_to_send(now=timezone.now()):
            services.report.send_mail(mail_id)
        return sorted(address for message in mail.outbox for address in message.to)

    def test_owners_and_editors_get_one_mail_each(self) -> None:
        self.assertEqual(self.send(), ["ada@example.org", "grace@example.org"])
        self.assertEqual(self.send(), ["ada@example.org", "grace@example.org"])

    def test_sending_a_mail_again_sends_no_second_one(self) -> None:
        services.report.generate(self.project.pk, YESTERDAY)
        first, _ = services.report.mails_to_send(now=timezone.now())
        self.assertEqual([services.report.send_mail(first) for _ in range(3)], [True, False, False])

    def test_a_regenerated_summary_is_not_mailed_to_new_members(self) -> None:
        self.send()
        MembershipFactory(project=self.project, role=Role.OWNER)
        TaskFactory(project=self.project)
        Task.objects.update(created_at=NOON)
        self.assertEqual(len(self.send()), 2)

    def test_a_summary_of_the_current_day_is_not_mailed_yet(self) -> None:
        self.assertEqual(self.send(timezone.now().date()), [])
        self.assertFalse(ReportMail.objects.exists())

    def test_a_former_member_gets_no_mail(self) -> None:
        services.report.generate(self.project.pk, YESTERDAY)
        self.project.memberships.filter(user__email="ada@example.org").delete()
        self.assertEqual(self.send(), ["grace@example.org"])

    @override_settings(NOTIFY_EMAIL="team@example.org")
    def test_the_configured_address_gets_the_mail_if_there_is_no_other(self) -> None:
        self.project.memberships.all().delete()
        self.assertEqual(self.send(), ["team@example.org"])

    def test_without_any_address_no_mail_is_sent(self) -> None:
        self.project.memberships.all().delete()
        self.assertEqual(self.send(), [])

    def test_a_summary_is_not_mailed_after_three_days(self) -> None:
        services.report.generate(self.project.pk, YESTERDAY)
        self.assertEqual(services.report.mails_to_send(now=timezone.now() + timedelta(days=4)), [])

    def test_the_mail_has_html_with_a_chart_and_plain_text(self) -> None:
        for status in [Status.PENDING, Status.PENDING, Status.COMPLETED]:
            TaskFactory(project=self.project, status=status, title="<Fix>")
        Task.objects.update(created_at=NOON)
        CommentFactory(task=Task.objects.first())
        Comment.objects.update(created_at=NOON)
        self.send()
        message = mail.outbox[0]
        assert isinstance(message, mail.EmailMultiAlternatives)
        html = str(message.alternatives[0][0])
        self.assertEqual(message.subject, f"Summary of {YESTERDAY:%d %b %Y}, project {self.project.pk}")
        self.assertIn('<td width="100%" bgcolor="#2f81f7"', html)
        self.assertIn('<td width="50%" bgcolor="#2f81f7"', html)
        self.assertIn("&lt;Fix&gt;", html)
        self.assertNotIn("<script", html)
        self.assertIn("Pending      2", str(message.body))
        self.assertIn("<Fix>", str(message.body))


class ConcurrentReportTests(CommittingCase):
    def test_two_workers_generating_one_day_store_one_report_and_one_event(self) -> None:
        member = MembershipFactory(role=Role.OWNER)
        barrier = threading.Barrier(2)
        report_ids: list[int] = []

        def work() -> None:
            try:
                barrier.wait(timeout=10)
                report_ids.append(services.report.generate(member.project.pk, YESTERDAY).pk)
            finally:
                connection.close()

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=10)
        report = SummaryReport.objects.get()
        self.assertEqual(report_ids, [report.pk] * 2)
        self.assertEqual(self.events(), ["report.generated"])
        self.assertEqual(ReportMail.objects.count(), 1)
