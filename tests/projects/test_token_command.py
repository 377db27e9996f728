"""`manage.py token`."""

from __future__ import annotations

import re
from datetime import timedelta
from io import StringIO

from django.core.management import CommandError, call_command

from backend.projects.authentication import viewer_by_token
from backend.projects.errors import InvalidCredential
from backend.projects.models import AuditEntry, Scope, Token, User
from tests.cases import Case
from tests.factories import TokenFactory, UserFactory


class TokenCommandCase(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.alice = UserFactory(username="alice")

    def run_command(self, *arguments: str) -> tuple[str, str]:
        """Return the output to stdout and to stderr."""
        stdout, stderr = StringIO(), StringIO()
        call_command("token", *arguments, stdout=stdout, stderr=stderr)
        return stdout.getvalue(), stderr.getvalue()

    def assert_refused(self, message: str, *arguments: str) -> None:
        with self.subTest(arguments), self.nothing_changes(), self.assertRaises(CommandError) as refused:
            self.run_command(*arguments)
        self.assertEqual(str(refused.exception), message)


def days_of(token: Token) -> int:
    """Return the lifetime in days, rounded: the two timestamps were taken one after the other."""
    return round((token.expires_at - token.created_at) / timedelta(days=1))


class CreateTests(TokenCommandCase):
    def test_stdout_is_only_the_token_and_it_authenticates_its_user(self) -> None:
        stdout, _ = self.run_command("create", "alice", "--scope", "write")
        token = Token.objects.get()
        viewer = viewer_by_token(stdout.removesuffix("\n"), address="")
        self.assertEqual((viewer.user_id, viewer.scope, viewer.token_id), (self.alice.pk, Scope.WRITE, token.pk))

    def test_stderr_says_that_the_token_is_shown_once_and_when_it_expires(self) -> None:
        stdout, stderr = self.run_command("create", "alice", "--scope", "read", "--days", "7")
        token = Token.objects.get()
        self.assertEqual(days_of(token), 7)
        self.assertEqual(
            stderr,
            f"Token {token.pk} of alice expires at {token.expires_at:%Y-%m-%d %H:%M} UTC."
            " Store it now: it is not shown again.\n",
        )
        self.assertNotIn(stdout.strip(), stderr)

    def test_a_token_lasts_90_days_by_default(self) -> None:
        self.run_command("create", "alice", "--scope", "read")
        token = Token.objects.get()
        self.assertEqual(days_of(token), 90)

    def test_a_token_may_never_expire(self) -> None:
        _, stderr = self.run_command("create", "alice", "--scope", "read", "--never-expires")
        self.assertIsNone(Token.objects.get().expires_at)
        self.assertIn("never expires", stderr)

    def test_a_token_has_the_given_name_or_a_default(self) -> None:
        self.run_command("create", "alice", "--scope", "read", "--name", "laptop")
        self.run_command("create", "alice", "--scope", "read")
        self.assertEqual(
            list(Token.objects.order_by("pk").values_list("name", flat=True)), ["laptop", "made with manage.py"]
        )

    def test_a_user_is_found_by_name_in_any_case(self) -> None:
        self.run_command("create", "ALICE", "--scope", "read")
        self.assertEqual(Token.objects.get().user, self.alice)

    def test_the_audit_log_records_the_creation_without_an_actor(self) -> None:
        self.run_command("create", "alice", "--scope", "admin", "--name", "laptop")
        entry = AuditEntry.objects.get()
        self.assertEqual(
            (entry.action, entry.actor_id, entry.actor_name, entry.address, entry.user_id, entry.detail),
            ("token_created", None, "", "", self.alice.pk, "laptop (admin)"),
        )

    def test_invalid_values_are_refused_with_one_line(self) -> None:
        self.assert_refused("There is no user 'bob'.", "create", "bob", "--scope", "read")
        self.assert_refused("There is no user 'a\\x00'.", "create", "a\x00", "--scope", "read")
        self.assert_refused("There is no user '\\udcff'.", "create", "\udcff", "--scope", "read")
        for days in ("0", "-1", "3661"):
            self.assert_refused("A token lasts 1 to 3660 days.", "create", "alice", "--scope", "read", "--days", days)
        self.assert_refused("This field cannot be blank.", "create", "alice", "--scope", "read", "--name", "")

    def test_invalid_arguments_are_refused_with_one_line(self) -> None:
        for arguments in (
            ["create"],
            ["create", "alice"],
            ["create", "alice", "--scope", "all"],
            ["create", "alice", "--scope", "read", "--days", "week"],
            ["create", "alice", "--scope", "read", "--days", "5", "--never-expires"],
        ):
            with self.subTest(arguments), self.nothing_changes():
                with self.assertRaises(CommandError) as refused:
                    self.run_command(*arguments)
                self.assertRegex(str(refused.exception), r"\AError: [^\n]+\Z")  # argparse's own message

    def test_a_deactivated_account_gets_no_token(self) -> None:
        User.objects.update(is_active=False)
        self.assert_refused("alice is not active.", "create", "alice", "--scope", "read")


class ListTests(TokenCommandCase):
    def test_the_tokens_of_all_users_are_listed_oldest_first(self) -> None:
        first = TokenFactory(user=self.alice, name="laptop", scope=Scope.READ)
        second = TokenFactory(user__username="bob", name="robot", scope=Scope.ADMIN)
        stdout, _ = self.run_command("list")
        heading, *lines = stdout.splitlines()
        self.assertEqual(
            re.split("  +", heading),
            ["id", "user", "name", "scope", "created (UTC)", "expires (UTC)", "last use (UTC)"],
        )
        self.assertEqual(
            [line.split() for line in lines],
            [
                [str(token.pk), user, name, scope, *f"{token.created_at:%Y-%m-%d %H:%M}".split(), "never", "never"]
                for token, user, name, scope in (
                    (first, "alice", "laptop", "read"),
                    (second, "bob", "robot", "admin"),
                )
            ],
        )

    def test_expiry_and_last_use_are_shown(self) -> None:
        secret = self.run_command("create", "alice", "--scope", "read", "--name", "laptop")[0].strip()
        viewer_by_token(secret, address="")
        token = Token.objects.get()
        line = self.run_command("list")[0].splitlines()[1]
        self.assertIn(f"{token.expires_at:%Y-%m-%d %H:%M}", line)
        self.assertIn(f"{token.last_used_at:%Y-%m-%d %H:%M}", line)
        self.assertNotIn(secret, line)

    def test_the_tokens_of_one_user_are_listed_by_name_in_any_case(self) -> None:
        TokenFactory(user=self.alice, name="laptop")
        TokenFactory(name="robot")
        stdout, _ = self.run_command("list", "Alice")
        self.assertIn("laptop", stdout)
        self.assertNotIn("robot", stdout)

    def test_control_characters_in_a_name_are_not_printed(self) -> None:
        TokenFactory(user=self.alice, name="a\n\x1b[31mb")
        stdout, _ = self.run_command("list")
        self.assertEqual(len(stdout.splitlines()), 2)
        self.assertNotIn("\x1b", stdout)

    def test_listing_for_an_unknown_user_is_refused(self) -> None:
        self.assert_refused("There is no user 'bob'.", "list", "bob")

    def test_listing_costs_the_same_for_one_token_and_for_twenty(self) -> None:
        for count in (1, 19):
            TokenFactory.create_batch(count)
            with self.assertNumQueries(1):
                self.run_command("list")


class RevokeTests(TokenCommandCase):
    def test_a_revoked_token_is_invalid_at_once(self) -> None:
        secret = self.run_command("create", "alice", "--scope", "read")[0].strip()
        viewer = viewer_by_token(secret, address="")
        with self.committed():
            stdout, _ = self.run_command("revoke", str(viewer.token_id))
        self.assertEqual(stdout, f"Token {viewer.token_id} is revoked.\n")
        with self.assertRaises(InvalidCredential):
            viewer_by_token(secret, address="")

    def test_an_unknown_token_is_refused_with_one_line(self) -> None:
        for absent in ("7", "0", "99999999999", "seven", ""):
            self.assert_refused("There is no such token.", "revoke", absent)
