"""Accounts as the services and commands change them."""

from io import StringIO
from unittest.mock import patch

from django.core.management import call_command

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.cache import versions
from backend.projects.models import AuditEntry, Event, User
from tests.cases import Case
from tests.factories import MembershipFactory, UserFactory


class SaveTests(Case):
    def save(self, user: User, *fields: str) -> User:
        return services.user.save_user(actor=SYSTEM, user=user, fields=fields or None)

    def audit(self) -> list[tuple[str, str]]:
        return list(AuditEntry.objects.order_by("pk").values_list("action", "detail"))

    def test_what_is_not_named_stays_as_it_is_by_now(self) -> None:
        user = UserFactory(email="old@example.org")
        User.objects.filter(pk=user.pk).update(password="meanwhile")
        user.email = "new@example.org"
        self.save(user, "email")
        user.refresh_from_db()
        self.assertEqual((user.email, user.password), ("new@example.org", "meanwhile"))
        self.assertEqual((self.audit(), Event.objects.count()), ([], 0))

    def test_one_that_is_gone_does_not_come_back(self) -> None:
        user = UserFactory()
        User.objects.filter(pk=user.pk).delete()
        with self.assertRaises(User.DoesNotExist), self.nothing_changes():
            self.save(user)

    def test_more_rights_and_another_name_to_sign_in_with_are_recorded(self) -> None:
        user = UserFactory(username="ada")
        user.is_staff = user.is_superuser = True
        user.username = "countess"
        self.save(user)
        self.assertEqual(
            self.audit(),
            [("account_changed", "ada to countess"), ("account_changed", "no staff, active to superuser, active")],
        )

    def test_another_name_moves_what_shows_it_and_nobody_elses_lists(self) -> None:
        member = MembershipFactory()
        other = MembershipFactory(project=member.project).user
        tags = [versions.project_tag(member.project_id), versions.GLOBAL_TAG, versions.access_tag(other.pk)]
        versions.bump(dict.fromkeys(tags, 0))  # so that each is known
        versions_by_tag = {tag: versions.versions_at([tag], 0) for tag in tags}
        member.user.first_name = "Ada"
        with self.committed():
            self.save(member.user, "first_name")
        self.assertEqual(
            [tag for tag, tag_versions in versions_by_tag.items() if not versions.is_current(tag_versions)],
            tags[:2],
        )


class CommandTests(Case):
    def test_changepassword_ends_the_sessions_of_the_old(self) -> None:
        user = UserFactory(username="ada")
        with patch("getpass.getpass", return_value="Analytical Engine"):
            call_command("changepassword", "ada", stdout=StringIO())
        self.assertTrue(User.objects.get().check_password("Analytical Engine"))
        event = Event.objects.get()
        self.assertEqual((event.kind, event.payload), ("access.changed", f'{{"users":[{user.pk}],"projects":[]}}'))
        self.assertEqual(AuditEntry.objects.get().action, "password_changed")
