"""How tokens come to be, are listed, and end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import orjson
from django.core.exceptions import ValidationError
from django.utils import timezone

from backend.projects.access import ANONYMOUS, SYSTEM, UNNAMED, Viewer, viewer_for
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
        """The block raises `error`, and leaves no trace."""
        with self.nothing_changes(), self.assertRaises(error):
            yield


class CreateTests(TokenCase):
    def create(self, actor: Viewer | None = None, **given: Any) -> tuple[Token, str]:
        wanted: Any = {"user_id": self.ada.pk, "name": "laptop", "scope": "write", "days": 90, **given}
        return create_token(actor=actor or self.actor, **wanted)

    def test_a_token_is_somebodys_and_lasts_as_long_as_it_was_told(self) -> None:
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

    def test_a_token_of_no_days_does_not_expire(self) -> None:
        token, secret = self.create(days=None)
        self.assertIsNone(Token.objects.get(pk=token.pk).expires_at)
        self.assertIsNone(viewer_by_token(secret, address="").expires_at)

    def test_what_it_is_is_kept_nowhere(self) -> None:
        token, secret = self.create()
        self.assertEqual(token.digest, digest_of(secret))
        kept = str([list(model.objects.values()) for model in (Token, AuditEntry, Event, User)])
        self.assertNotIn(secret, kept)
        self.assertNotIn(secret.removeprefix("tw_"), kept)
        self.assertNotIn(token.digest, str(self.audit()))

    def test_no_two_are_the_same(self) -> None:
        self.assertNotEqual(self.create()[1], self.create()[1])

    def test_it_is_told_to_the_audit_log_and_takes_no_position(self) -> None:
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

    def test_a_name_that_cannot_be_stored_is_refused(self) -> None:
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

    def test_it_lasts_1_to_3660_days(self) -> None:
        for days in (1, 3660):
            self.create(days=days)
        for days in (0, -1, 3661, 2**31, 10**30):
            with self.subTest(days), self.nothing_changes(), self.assertRaises(ValidationError) as refused:
                self.create(days=days)
            self.assertEqual([error.code for error in refused.exception.error_dict["days"]], ["OUT_OF_RANGE"])

    def test_nobody_makes_one_for_somebody_else_not_even_staff(self) -> None:
        for actor in (viewer_for(self.other), viewer_for(UserFactory(is_staff=True))):
            with self.refused(NotAllowed):
                self.create(actor)

    def test_a_command_makes_one_for_anybody_who_is_there(self) -> None:
        token, _ = self.create(SYSTEM)
        self.assertEqual(token.user, self.ada)
        User.objects.filter(pk=self.other.pk).update(is_active=False)
        for user_id in (self.other.pk, 999999, None):
            with self.subTest(user_id), self.refused(NotSignedIn):
                self.create(SYSTEM, user_id=user_id)

    def test_nobody_in_particular_makes_none(self) -> None:
        for actor in (ANONYMOUS, UNNAMED):
            with self.refused(NotSignedIn):
                self.create(actor, user_id=None)

    def test_a_token_for_less_than_everything_makes_none(self) -> None:
        for scope in (Scope.READ, Scope.WRITE):
            actor = viewer_by_token(token_of(self.ada, scope), address="")
            with self.subTest(scope), self.refused(MissingScope):
                self.create(actor, scope="read")

    def test_a_token_for_everything_makes_one_and_is_told_as_its_maker(self) -> None:
        actor = viewer_by_token(token_of(self.ada), address="203.0.113.7")
        self.create(actor)
        last = self.audit()[-1]
        self.assertEqual((last["actor_token_id"], last["address"]), (actor.token_id, "203.0.113.7"))

    def test_a_token_that_was_revoked_meanwhile_makes_none(self) -> None:
        actor = viewer_by_token(token_of(self.ada), address="")
        revoke_token(actor=actor, token_id=actor.token_id)
        with self.assertRaises(InvalidCredential), self.nothing_changes():
            self.create(actor)

    def test_it_does_not_outlive_the_one_that_made_it(self) -> None:
        actor = viewer_by_token(token_of(self.ada, days=1), address="")
        self.create(actor)
        self.assertEqual(Token.objects.latest("pk").expires_at, actor.expires_at)


class RevokeTests(TokenCase):
    def setUp(self) -> None:
        self.token, self.secret = create_token(
            actor=self.actor, user_id=self.ada.pk, name="laptop", scope="read", days=None
        )

    def test_it_ends_at_once_and_is_answered_as_it_was(self) -> None:
        viewer_by_token(self.secret, address="")
        self.token.refresh_from_db()
        with self.committed():
            row = revoke_token(actor=self.actor, token_id=self.token.pk)
        self.assertEqual(row, TokenRow.of(self.token))
        self.assertEqual(Token.objects.count(), 0)
        with self.assertRaises(InvalidCredential):
            viewer_by_token(self.secret, address="")

    def test_it_takes_a_position_that_bumps_what_its_user_sees(self) -> None:
        tags = [GLOBAL_TAG, access_tag(self.ada.pk), access_tag(self.other.pk)]
        versions.bump(dict.fromkeys(tags, 0))  # so that each is known
        versions_by_tag = {tag: versions.versions_at([tag], Event.head()) for tag in tags}
        with self.committed():
            revoke_token(actor=self.actor, token_id=self.token.pk)
        event = Event.objects.get()
        self.assertEqual((event.kind, event.project_id, event.actor_id), ("access.changed", None, self.ada.pk))
        self.assertEqual(orjson.loads(event.payload)["users"], [self.ada.pk])
        current = [tag for tag, tag_versions in versions_by_tag.items() if versions.is_current(tag_versions)]
        self.assertEqual(current, [GLOBAL_TAG, access_tag(self.other.pk)])

    def test_it_is_told_to_the_audit_log_without_what_it_was(self) -> None:
        actor = viewer_by_token(token_of(self.ada), address="203.0.113.7")
        revoke_token(actor=actor, token_id=self.token.pk)
        last = self.audit()[-1]
        self.assertEqual(
            (last["action"], last["actor_id"], last["actor_token_id"], last["address"], last["user_id"]),
            ("token_revoked", self.ada.pk, actor.token_id, "203.0.113.7", self.ada.pk),
        )
        self.assertEqual(last["detail"], "laptop (read)")
        self.assertNotIn(self.token.digest, str(self.audit()))

    def test_a_token_may_end_itself(self) -> None:
        secret = token_of(self.ada)
        actor = viewer_by_token(secret, address="")
        revoke_token(actor=actor, token_id=actor.token_id)
        self.assertEqual(Token.objects.get(), self.token)

    def test_anothers_token_is_like_one_that_is_not_there(self) -> None:
        for token_id in (self.token.pk, 999999, None):
            with self.subTest(token_id), self.refused(TokenNotFound):
                revoke_token(actor=viewer_for(self.other), token_id=token_id)

    def test_staff_and_commands_end_anybodys(self) -> None:
        for actor in (viewer_for(UserFactory(is_staff=True)), UNNAMED, SYSTEM):
            token = TokenFactory(user=self.ada)
            with self.subTest(actor):
                revoke_token(actor=actor, token_id=token.pk)
                self.assertFalse(Token.objects.filter(pk=token.pk).exists())
                with self.refused(TokenNotFound):
                    revoke_token(actor=actor, token_id=token.pk)

    def test_a_token_for_less_than_everything_ends_none(self) -> None:
        with self.refused(MissingScope):
            revoke_token(actor=viewer_by_token(self.secret, address=""), token_id=self.token.pk)

    def test_who_is_not_signed_in_ends_none(self) -> None:
        with self.refused(NotSignedIn):
            revoke_token(actor=ANONYMOUS, token_id=self.token.pk)


class ListTests(TokenCase):
    def test_ones_own_come_newest_first(self) -> None:
        tokens = TokenFactory.create_batch(3, user=self.ada)
        TokenFactory(user=self.other)
        page = list_tokens(self.actor, page=PageRequest(default_size=2))
        self.assertEqual(page.rows, [TokenRow.of(token) for token in (tokens[2], tokens[1])])
        self.assertEqual((page.has_next, count_tokens(self.actor)), (True, 3))

    def test_staff_see_their_own_alone_and_who_has_no_account_none(self) -> None:
        TokenFactory(user=self.ada)
        for viewer in (viewer_for(UserFactory(is_staff=True)), UNNAMED):
            self.assertEqual(list_tokens(viewer, page=PageRequest(default_size=2)).rows, [])
            self.assertEqual(count_tokens(viewer), 0)

    def test_it_is_for_those_who_may_do_everything_that_their_account_may(self) -> None:
        viewer = viewer_by_token(token_of(self.ada, Scope.WRITE), address="")
        for asking, error in ((viewer, MissingScope), (ANONYMOUS, NotSignedIn)):
            with self.assertRaises(error):
                list_tokens(asking, page=PageRequest(default_size=2))
            with self.assertRaises(error):
                count_tokens(asking)
