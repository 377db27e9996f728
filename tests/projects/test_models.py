from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from backend.projects.models import Membership, Project, Role, Task, User
from tests.cases import Case
from tests.factories import MembershipFactory, UserFactory


class ConstraintTests(Case):
    """The database itself refuses what the services refuse."""

    def test_rows_that_make_no_sense(self) -> None:
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
    def test_a_name_is_taken_in_every_case(self) -> None:
        UserFactory(username="alice")
        with self.assertRaises(IntegrityError), transaction.atomic():
            UserFactory(username="Alice")
        with self.assertRaises(ValidationError):
            User(username="ALICE", password="x").full_clean()

    def test_somebody_is_found_by_their_name_in_whichever_case(self) -> None:
        alice = UserFactory(username="Alice")
        self.assertEqual(User.objects.get_by_natural_key("aLICE"), alice)

    def test_what_is_too_long_for_a_name_is_nobody_before_it_is_even_normalized(self) -> None:
        # A million combining marks would take minutes, and the whole process with them.
        with self.assertNumQueries(0), self.assertRaises(User.DoesNotExist):
            User.objects.get_by_natural_key("a" + "\u0300\u0316" * 500_000)
