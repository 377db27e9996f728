from datetime import UTC, datetime

from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, models, transaction

from backend.projects import rows, services
from backend.projects.access import MAX_ID, SYSTEM, parse_id
from backend.projects.models import (
    AuditEntry,
    Comment,
    Event,
    Membership,
    Project,
    Reminder,
    ReportMail,
    Role,
    SummaryReport,
    Task,
    Token,
    User,
)
from backend.projects.resolvers.comment import list_comments
from backend.projects.resolvers.page import PageRequest
from tests.cases import Case
from tests.factories import MembershipFactory, SummaryReportFactory, TaskFactory, UserFactory


class ConstraintTests(Case):
    """The database refuses what the services refuse."""

    def test_invalid_rows_are_refused(self) -> None:
        membership = MembershipFactory()
        rows = [
            Project(name=""),
            Project(name="x", version=0),
            Membership(user=UserFactory(), project=membership.project, role="king"),
            Membership(user=membership.user, project=membership.project, role=Role.OWNER),
            Task(project=membership.project, title="", due_date="2027-01-01T00:00Z"),
            Task(project=membership.project, title="x", status="done", due_date="2027-01-01T00:00Z"),
            Task(project=membership.project, title="x"),
        ]
        for row in rows:
            with self.subTest(row=row), self.assertRaises(IntegrityError), transaction.atomic():
                row.save(force_insert=True)


class BigIdTests(Case):
    """Tables that grow without bound have ids of 64 bits."""

    def test_rows_get_ids_beyond_32_bits(self) -> None:
        task, report, beyond = TaskFactory(), SummaryReportFactory(), 2**31 + 5
        moment = datetime(2027, 3, 1, tzinfo=UTC)
        Event.objects.create(position=beyond, kind="task.updated", at=moment, payload="{}")
        with connection.cursor() as cursor:
            for model in (AuditEntry, Comment, Reminder, ReportMail):
                cursor.execute(f"SELECT setval(pg_get_serial_sequence('{model._meta.db_table}', 'id'), {beyond})")
        for content in ("One", "Two"):
            services.comment.add_comment(actor=SYSTEM, task_id=task.pk, content=content, author="Ada")
        services.token.create_token(actor=SYSTEM, user_id=UserFactory().pk, name="script", scope="read", days=None)
        reminder = Reminder.objects.create(task=task, recipient="ada@example.org", due_date=moment)
        mail = ReportMail.objects.create(report=report, recipient="ada@example.org")
        self.assertEqual({reminder.pk, mail.pk, AuditEntry.objects.get().pk}, {beyond + 1})
        self.assertEqual(Event.head(), beyond + 2)
        newest = list_comments(SYSTEM, task.pk, page=PageRequest(first=1)).page
        after = newest.page_cursor(newest.rows[0])
        oldest = list_comments(SYSTEM, task.pk, page=PageRequest(first=1, after=after)).page
        self.assertEqual([row.id for page in (newest, oldest) for row in page.rows], [beyond + 2, beyond + 1])

    def test_max_id_of_a_row_class_is_the_largest_id_of_its_table(self) -> None:
        for row, model in (
            (rows.ProjectRow, Project),
            (rows.TaskRow, Task),
            (rows.CommentRow, Comment),
            (rows.MemberRow, Membership),
            (rows.TokenRow, Token),
            (rows.AuditRow, AuditEntry),
            (rows.ReportRow, SummaryReport),
        ):
            with self.subTest(row.__name__):
                is_big = isinstance(model._meta.pk, models.BigAutoField)
                self.assertEqual(row.max_id, 2**63 - 1 if is_big else 2**31 - 1)

    def test_an_id_has_at_most_64_bits(self) -> None:
        self.assertEqual([parse_id(str(number)) for number in (2**31, MAX_ID)], [2**31, MAX_ID])
        self.assertEqual([parse_id(text) for text in (str(MAX_ID + 1), "9" * 19, "9" * 20, "0")], [None] * 4)

    def test_no_migration_is_missing(self) -> None:
        call_command("makemigrations", check=True, dry_run=True, verbosity=0)


class UserNameTests(Case):
    def test_a_user_name_is_unique_in_any_case(self) -> None:
        UserFactory(username="alice")
        with self.assertRaises(IntegrityError), transaction.atomic():
            UserFactory(username="Alice")
        with self.assertRaises(ValidationError):
            User(username="ALICE", password="x").full_clean()

    def test_a_user_is_found_by_name_in_any_case(self) -> None:
        alice = UserFactory(username="Alice")
        self.assertEqual(User.objects.get_by_natural_key("aLICE"), alice)

    def test_an_overlong_name_is_not_found_without_normalizing_it(self) -> None:
        # Normalizing a million combining marks would block the whole process for minutes.
        with self.assertNumQueries(0), self.assertRaises(User.DoesNotExist):
            User.objects.get_by_natural_key("a" + "\u0300\u0316" * 500_000)
