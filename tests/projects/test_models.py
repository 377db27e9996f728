from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from backend.projects.models import Membership, Project, Role, Task, User
from tests.cases import Case
from tests.factories import MembershipFactory, UserFactory


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
