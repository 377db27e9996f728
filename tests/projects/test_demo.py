from io import StringIO

import pytest
from django.core import mail
from django.core.management import call_command
from django.db.models import Count
from django.utils import timezone

from backend.projects import services
from backend.projects.management.commands import demo
from backend.projects.models import Comment, Event, Project, Status, SummaryReport, Task, User
from tests.cases import Case
from tests.factories import ProjectFactory


class DemoTests(Case):
    def load(self, **options: int) -> str:
        output = StringIO()
        call_command("demo", stdout=output, **options)
        return output.getvalue()

    def test_the_first_run_creates_and_reports_users_projects_tasks_and_comments(self) -> None:
        output = self.load()
        self.assertEqual((User.objects.count(), Project.objects.count(), Task.objects.count()), (3, 3, 60))
        self.assertEqual(set(Task.objects.values_list("status", flat=True)), set(Status.values))
        self.assertTrue(Comment.objects.exists())
        self.assertIn("20 of 20 tasks", output)
        self.assertFalse(any(user.has_usable_password() for user in User.objects.all()))

    def test_all_demo_data_is_in_the_journal(self) -> None:
        self.load()
        events = self.events()
        self.assertEqual(
            (events.count("project.created"), events.count("task.created"), events.count("report.generated")),
            (3, 60, 3),
        )
        self.assertEqual(events.count("task.commented"), Comment.objects.count())
        self.assertEqual(SummaryReport.objects.count(), 3)

    def test_some_demo_tasks_are_due_for_reminders_at_once(self) -> None:
        self.load()
        self.assertTrue(all(services.reminder.send(pk) for pk in services.reminder.scan(now=timezone.now())))
        self.assertTrue(mail.outbox)

    def test_nothing_is_created_if_a_project_exists(self) -> None:
        ProjectFactory()
        self.load()
        self.assertEqual((Project.objects.count(), Event.objects.count()), (1, 0))

    def test_another_run_with_a_number_of_tasks_adds_that_many(self) -> None:
        self.load()
        self.load(tasks=10)
        self.assertEqual((User.objects.count(), Project.objects.count(), Task.objects.count()), (3, 6, 70))


@pytest.mark.slow
class ManyTests(Case):
    def test_many_tasks_are_spread_over_hundreds_of_projects_and_each_task_has_an_event(self) -> None:
        # A lower limit, so that the test does not take a minute.
        self.addCleanup(setattr, demo, "MANY", demo.MANY)
        demo.MANY = 2_000
        output = StringIO()
        call_command("demo", stdout=output, tasks=2_000)
        self.assertEqual((Project.objects.count(), Task.objects.count()), (403, 2_000))
        self.assertEqual(self.events().count("task.created"), 2_000)
        self.assertEqual(Event.head(), Event.objects.count())
        shares = Project.objects.annotate(share=Count("tasks")).order_by("pk").values_list("share", flat=True)
        self.assertEqual(list(shares[:3]), [600, 400, 200])
        self.assertEqual(set(Task.objects.values_list("status", flat=True)), set(Status.values))
        for word, count in (("together", 1_000), ("drawings", 200), ("permission", 20), ("scaffolding", 2)):
            self.assertEqual(Task.objects.filter(description__contains=word).count(), count)
        self.assertIn("2,000 of 2,000 tasks", output.getvalue())
