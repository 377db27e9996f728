from django.db import IntegrityError, transaction

from backend.projects.models import Membership, Project, Role, Task
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
