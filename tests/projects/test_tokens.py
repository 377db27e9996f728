"""Creating, revoking and listing tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import orjson
from django.core.exceptions import ValidationError
from django.utils import timezone

from backend.projects.access import ANONYMOUS, SYSTEM, UNRESTRICTED, Viewer, viewer_for
from backend.projects.authentication import digest_of, viewer_by_token
from backend.projects.cache import versions
from backend.projects.cache.versions import GLOBAL_TAG, access_tag
from backend.projects.errors import InvalidCredential, MissingScope, NotAllowed, NotSignedIn, TokenNotFound
from backend.projects.models import AuditEntry, Event, Scope, Token, User
from backend.projects.resolvers.page import PageRequest
from backend.projects.resolvers.token import count_tokens, list_tokens
from backend.projects.rows import TokenRow
from backend.projects.services.token import create_token, revoke_token
from tests.cases import Case, token_of
from tests.factories import TokenFactory, UserFactory


class TokenCase(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory(first_name="Ada", last_name="Lovelace")
        cls.other = UserFactory()
        cls.actor = viewer_for(cls.ada)

    def audit(self) -> list[dict[str, Any]]:
        return list(AuditEntry.objects.order_by("pk").values())

    @contextmanager
    def refused(self, error: type[Exception]) -> Iterator[None]:
        """Assert that the block raises `error` and changes nothing."""
        with self.nothing_changes(), self.assertRaises(error):
            yield


class CreateTests(TokenCase):
    def create(self, actor: Viewer | None = None, **overrides: Any) -> tuple[Token, str]:
        arguments: Any = {"user_id": self.ada.pk, "name": "laptop", "scope": "write", "days": 90, **overrides}
        return create_token(actor=actor or self.actor, **arguments)

    def test_a_token_belongs_to_its_user_and_expires_after_its_days(self) -> None:
        before = timezone.now()
        token, secret = self.create(name=" laptop ")
        after = timezone.now()
        stored = Token.objects.get()
        self.assertEqual(token, stored)
        self.assertEqual((stored.user, stored.name, stored.scope), (self.ada, "laptop", "write"))
        self.assertTrue(before + timedelta(days=90) <= stored.expires_at <= after + timedelta(days=90))
        self.assertIsNone(stored.last_used_at)
        viewer = viewer_by_token(secret, address="")
        self.assertEqual((viewer.user_id, viewer.scope, viewer.token_id), (self.ada.pk, Scope.WRITE, token.pk))

    def test_a_token_without_days_does_not_expire(self) -> None:
        token, secret = self.create(days=None)
        self.assertIsNone(Token.objects.get(pk=token.pk).expires_at)
        self.assertIsNone(viewer_by_token(secret, address="").expires_at)

    def test_the_secret_is_not_stored(self) -> None:
        token, secret = self.create()
        self.assertEqual(token.digest, digest_of(secret))
        stored = str([list(model.objects.values()) for model in (Token, AuditEntry, Event, User)])
        self.assertNotIn(secret, stored)
        self.assertNotIn(secret.removeprefix("tw_"), stored)
        self.assertNotIn(token.digest, str(self.audit()))

    def test_no_two_tokens_are_the_same(self) -> None:
        self.assertNotEqual(self.create()[1], self.create()[1])

    def test_creating_is_recorded_in_the_audit_log_and_takes_no_position(self) -> None:
        self.create()
        [entry] = self.audit()
        del entry["id"], entry["at"]
        self.assertEqual(
            entry,
            {
                "action": "token_created",
                "actor_id": self.ada.pk,
                "actor_name": "Ada Lovelace",
                "actor_token_id": None,
                "address": "",
                "user_id": self.ada.pk,
                "user_name": "Ada Lovelace",
                "project_id": None,
                "detail": "laptop (write)",
            },
        )
        self.assertEqual(Event.objects.count(), 0)

    def test_an_invalid_name_is_refused(self) -> None:
        for name, code in (
            ("", "BLANK"),
            (" ", "BLANK"),
            (None, "NULL"),
            ("x" * 101, "MAX_LENGTH"),
            ("a\x00b", "NULL_CHARACTERS"),
            ("a\ud800b", "SURROGATES"),
        ):
            with self.subTest(name=name), self.nothing_changes(), self.assertRaises(ValidationError) as refused:
                self.create(name=name)
            self.assertEqual([error.code for error in refused.exception.error_dict["name"]], [code])

    def test_an_unknown_scope_is_refused(self) -> None:
        for scope in ("all", "", "READ", None):
            with self.subTest(scope), self.nothing_changes(), self.assertRaises(ValidationError) as refused:
                self.create(scope=scope)
            self.assertEqual(list(refused.exception.error_dict), ["scope"])

    def test_a_token_lasts_1_to_3660_days(self) -> None:
        for days in (1, 3660):
            self.create(days=days)
        for days in (0, -1, 3661, 2**31, 10**30):
            with self.subTest(days), self.nothing_changes(), self.assertRaises(ValidationError) as refused:
                self.create(days=days)
            self.assertEqual([error.code for error in refused.exception.error_dict["days"]], ["OUT_OF_RANGE"])

    def test_even_staff_may_not_create_a_token_for_another_user(self) -> None:
        for actor in (viewer_for(self.other), viewer_for(UserFactory(is_staff=True))):
            with self.refused(NotAllowed):
                self.create(actor)

    def test_a_management_command_creates_a_token_for_any_active_user(self) -> None:
        token, _ = self.create(SYSTEM)
        self.assertEqual(token.user, self.ada)
        User.objects.filter(pk=self.other.pk).update(is_active=False)
        for user_id in (self.other.pk, 999999, None):
            with self.subTest(user_id), self.refused(NotSignedIn):
                self.create(SYSTEM, user_id=user_id)

    def test_a_viewer_without_an_account_creates_no_token(self) -> None:
        for actor in (ANONYMOUS, UNRESTRICTED):
            with self.refused(NotSignedIn):
                self.create(actor, user_id=None)

    def test_creating_requires_the_admin_scope(self) -> None:
        for scope in (Scope.READ, Scope.WRITE):
            actor = viewer_by_token(token_of(self.ada, scope), address="")
            with self.subTest(scope), self.refused(MissingScope):
                self.create(actor, scope="read")

    def test_the_audit_log_records_the_creating_token_and_its_address(self) -> None:
        actor = viewer_by_token(token_of(self.ada), address="203.0.113.7")
        self.create(actor)
        last = self.audit()[-1]
        self.assertEqual((last["actor_token_id"], last["address"]), (actor.token_id, "203.0.113.7"))

    def test_a_revoked_token_creates_no_token(self) -> None:
        actor = viewer_by_token(token_of(self.ada), address="")
        revoke_token(actor=actor, token_id=actor.token_id)
        with self.refused(InvalidCredential):
            self.create(actor)

    def test_a_token_does_not_outlive_the_token_that_created_it(self) -> None:
        actor = viewer_by_token(token_of(self.ada, days=1), address="")
        self.create(actor)
        self.assertEqual(Token.objects.latest("pk").expires_at, actor.expires_at)


class RevokeTests(TokenCase):
    def setUp(self) -> None:
        self.token, self.secret = create_token(
            actor=self.actor, user_id=self.ada.pk, name="laptop", scope="read", days=None
        )

    def test_a_revoked_token_is_returned_and_invalid_at_once(self) -> None:
        viewer_by_token(self.secret, address="")
        self.token.refresh_from_db()
        with self.committed():
            row = revoke_token(actor=self.actor, token_id=self.token.pk)
        self.assertEqual(row, TokenRow.of(self.token))
        self.assertEqual(Token.objects.count(), 0)
        with self.assertRaises(InvalidCredential):
            viewer_by_token(self.secret, address="")

    def test_revoking_takes_a_position_and_bumps_the_access_tag_of_the_user(self) -> None:
        tags = [GLOBAL_TAG, access_tag(self.ada.pk), access_tag(self.other.pk)]
        versions.bump(dict.fromkeys(tags, 0))  # so that each version is known
        versions_by_tag = {tag: versions.versions_at([tag], Event.head()) for tag in tags}
        with self.committed():
            revoke_token(actor=self.actor, token_id=self.token.pk)
        event = Event.objects.get()
        self.assertEqual((event.kind, event.project_id, event.actor_id), ("access.changed", None, self.ada.pk))
        self.assertEqual(orjson.loads(event.payload)["users"], [self.ada.pk])
        current = [tag for tag, tag_versions in versions_by_tag.items() if versions.is_current(tag_versions)]
        self.assertEqual(current, [GLOBAL_TAG, access_tag(self.other.pk)])

    def test_revoking_is_recorded_in_the_audit_log_without_the_digest(self) -> None:
        actor = viewer_by_token(token_of(self.ada), address="203.0.113.7")
        revoke_token(actor=actor, token_id=self.token.pk)
        last = self.audit()[-1]
        self.assertEqual(
            (last["action"], last["actor_id"], last["actor_token_id"], last["address"], last["user_id"]),
            ("token_revoked", self.ada.pk, actor.token_id, "203.0.113.7", self.ada.pk),
        )
        self.assertEqual(last["detail"], "laptop (read)")
        self.assertNotIn(self.token.digest, str(self.audit()))

    def test_a_token_may_revoke_itself(self) -> None:
        secret = token_of(self.ada)
        actor = viewer_by_token(secret, address="")
        revoke_token(actor=actor, token_id=actor.token_id)
        self.assertEqual(Token.objects.get(), self.token)

    def test_the_token_of_another_user_is_like_an_absent_one(self) -> None:
        for token_id in (self.token.pk, 999999, None):
            with self.subTest(token_id), self.refused(TokenNotFound):
                revoke_token(actor=viewer_for(self.other), token_id=token_id)

    def test_staff_and_commands_may_revoke_any_token(self) -> None:
        for actor in (viewer_for(UserFactory(is_staff=True)), UNRESTRICTED, SYSTEM):
            token = TokenFactory(user=self.ada)
            with self.subTest(actor):
                revoke_token(actor=actor, token_id=token.pk)
                self.assertFalse(Token.objects.filter(pk=token.pk).exists())
                with self.refused(TokenNotFound):
                    revoke_token(actor=actor, token_id=token.pk)

    def test_revoking_requires_the_admin_scope(self) -> None:
        with self.refused(MissingScope):
            revoke_token(actor=viewer_by_token(self.secret, address=""), token_id=self.token.pk)

    def test_an_anonymous_viewer_may_not_revoke(self) -> None:
        with self.refused(NotSignedIn):
            revoke_token(actor=ANONYMOUS, token_id=self.token.pk)


class ListTests(TokenCase):
    def test_the_tokens_of_the_viewer_are_listed_newest_first(self) -> None:
        tokens = TokenFactory.create_batch(3, user=self.ada)
        TokenFactory(user=self.other)
        page = list_tokens(self.actor, page=PageRequest(default_size=2))
        self.assertEqual(page.rows, [TokenRow.of(token) for token in (tokens[2], tokens[1])])
        self.assertEqual((page.has_next, count_tokens(self.actor)), (True, 3))

    def test_staff_see_only_their_own_tokens_and_a_viewer_without_an_account_sees_none(self) -> None:
        TokenFactory(user=self.ada)
        for viewer in (viewer_for(UserFactory(is_staff=True)), UNRESTRICTED):
            self.assertEqual(list_tokens(viewer, page=PageRequest(default_size=2)).rows, [])
            self.assertEqual(count_tokens(viewer), 0)

    def test_listing_requires_the_admin_scope(self) -> None:
        writer = viewer_by_token(token_of(self.ada, Scope.WRITE), address="")
        for viewer, error in ((writer, MissingScope), (ANONYMOUS, NotSignedIn)):
            with self.assertRaises(error):
                list_tokens(viewer, page=PageRequest(default_size=2))
            with self.assertRaises(error):
                count_tokens(viewer)
