"""Changes to accounts by services and commands."""

from io import StringIO
from unittest.mock import patch

from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.cache import versions
from backend.projects.models import AuditEntry, Event, Task, User
from tests.cases import Case
from tests.factories import MembershipFactory, TaskFactory, UserFactory


class SaveTests(Case):
    def save(self, user: User, *fields: str) -> User:
        return services.user.save_user(actor=SYSTEM, user=user, fields=fields or None)

    def audit(self) -> list[tuple[str, str]]:
        return list(AuditEntry.objects.order_by("pk").values_list("action", "detail"))

    def test_a_field_that_is_not_named_keeps_its_current_value(self) -> None:
        user = UserFactory(email="old@example.org")
        User.objects.filter(pk=user.pk).update(password="meanwhile")
        user.email = "new@example.org"
        self.save(user, "email")
        user.refresh_from_db()
        self.assertEqual((user.email, user.password), ("new@example.org", "meanwhile"))
        self.assertEqual((self.audit(), Event.objects.count()), ([], 0))

    def test_saving_a_deleted_account_does_not_recreate_it(self) -> None:
        user = UserFactory()
        User.objects.filter(pk=user.pk).delete()
        with self.nothing_changes(), self.assertRaises(User.DoesNotExist):
            self.save(user)

    def test_changes_of_permissions_and_user_name_are_recorded(self) -> None:
        user = UserFactory(username="ada")
        user.is_staff = user.is_superuser = True
        user.username = "countess"
        self.save(user)
        self.assertEqual(
            self.audit(),
            [("account_changed", "ada to countess"), ("account_changed", "no staff, active to superuser, active")],
        )

    def test_a_change_of_any_flag_bumps_the_access_tag(self) -> None:
        """A superuser who is no longer staff stays a superuser, but sees less."""
        user = UserFactory(is_staff=True, is_superuser=True)
        tag = versions.access_tag(user.pk)
        versions.bump({tag: 0})
        for flag, value, detail in (
            ("is_staff", False, "superuser, active to superuser, no staff, active"),
            ("is_superuser", False, "superuser, no staff, active to no staff, active"),
            ("is_staff", True, "no staff, active to staff, active"),
            ("is_superuser", True, "staff, active to superuser, active"),
            ("is_active", False, "superuser, active to superuser, not active"),
            ("is_active", True, "superuser, not active to superuser, active"),
        ):
            with self.subTest(flag, value=value):
                known = versions.versions_at([tag], Event.head())
                assert known is not None
                setattr(user, flag, value)
                with self.committed():
                    self.save(user, flag)
                self.assertFalse(versions.is_current(known))
                self.assertEqual(self.audit()[-1], ("account_changed", detail))

    def test_a_new_name_bumps_only_the_project_and_global_tags(self) -> None:
        member = MembershipFactory()
        other = MembershipFactory(project=member.project).user
        tags = [versions.project_tag(member.project_id), versions.GLOBAL_TAG, versions.access_tag(other.pk)]
        versions.bump(dict.fromkeys(tags, 0))  # so that each version is known
        versions_by_tag = {tag: versions.versions_at([tag], 0) for tag in tags}
        member.user.first_name = "Ada"
        with self.committed():
            self.save(member.user, "first_name")
        self.assertEqual(
            [tag for tag, tag_versions in versions_by_tag.items() if not versions.is_current(tag_versions)],
            tags[:2],
        )


class DeletionTests(Case):
    def test_deleting_an_account_takes_as_many_statements_for_fifty_tasks_as_for_one(self) -> None:
        counts = []
        for tasks in (1, 50):
            membership = MembershipFactory()
            TaskFactory.create_batch(tasks, project=membership.project, assignee=membership.user)
            head = Event.head()
            with CaptureQueriesContext(connection) as captured:
                services.user.delete_user(actor=SYSTEM, user_id=membership.user_id)
            counts.append(len(captured))
            self.assertEqual(
                list(Event.objects.filter(position__gt=head).order_by("position").values_list("kind", flat=True)),
                ["access.changed", *["task.updated"] * tasks],
            )
        self.assertEqual(counts[0], counts[1])
        self.assertEqual(set(Task.objects.values_list("assignee", "version")), {(None, 2)})


class CommandTests(Case):
    def test_changepassword_ends_the_sessions_of_the_old_password(self) -> None:
        user = UserFactory(username="ada")
        with patch("getpass.getpass", return_value="Analytical Engine"):
            call_command("changepassword", "ada", stdout=StringIO())
        self.assertTrue(User.objects.get().check_password("Analytical Engine"))
        event = Event.objects.get()
        self.assertEqual((event.kind, event.payload), ("access.changed", f'{{"users":[{user.pk}],"projects":[]}}'))
        self.assertEqual(AuditEntry.objects.get().action, "password_changed")
