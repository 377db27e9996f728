"""Viewers by token, header and session, and the end of their validity."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.test import RequestFactory, override_settings
from django.utils import timezone

from backend.projects import authentication, services
from backend.projects.access import SYSTEM, Viewer
from backend.projects.authentication import current_viewer, viewer_by_header, viewer_by_token
from backend.projects.cache import versions
from backend.projects.errors import InvalidCredential
from backend.projects.models import Scope, Token, User
from backend.projects.services.token import revoke_token
from tests.cases import Case, token_of
from tests.factories import UserFactory


class TokenCase(Case):
    user: User

    @classmethod
    def setUpTestData(cls) -> None:
        cls.user = UserFactory(username="ada", first_name="Ada")

    def viewer(self, token: str) -> Viewer:
        return viewer_by_token(token, address="192.0.2.7")

    def assert_invalid(self, token: str) -> None:
        with self.assertRaises(InvalidCredential):
            self.viewer(token)


class TokenTests(TokenCase):
    def test_a_token_authenticates_its_user_with_its_scope(self) -> None:
        viewer = self.viewer(token_of(self.user, Scope.READ))
        token = Token.objects.get()
        self.assertEqual((viewer.user_id, viewer.name, viewer.is_signed_in), (self.user.pk, "Ada", True))
        self.assertEqual((viewer.scope, viewer.token_id, viewer.address), (Scope.READ, token.pk, "192.0.2.7"))

    def test_only_the_digest_of_a_token_is_stored(self) -> None:
        secret = token_of(self.user)
        [stored] = Token.objects.values()
        self.assertNotIn(secret, str(stored))
        self.assertEqual(stored["digest"], authentication.digest_of(secret))

    def test_a_token_that_was_just_checked_costs_no_sql(self) -> None:
        secret = token_of(self.user)
        first = self.viewer(secret)
        with self.assertNumQueries(0):
            self.assertEqual(self.viewer(secret), first)

    def test_a_malformed_token_is_refused_without_a_query(self) -> None:
        secret = token_of(self.user)
        for text in (
            "",
            "x",
            secret[:-1],
            f"{secret}x",
            secret.upper()[:3] + secret[3:],
            "tw_" + "é" * 43,
            "x" * 10_240,
        ):
            with self.subTest(text[:50]), self.assertNumQueries(0):
                self.assert_invalid(text)

    def test_an_unknown_token_is_refused(self) -> None:
        self.assert_invalid(authentication.new_token())

    def test_a_revoked_token_is_invalid_in_the_next_request(self) -> None:
        secret = token_of(self.user)
        viewer = self.viewer(secret)
        with self.committed():
            revoke_token(actor=SYSTEM, token_id=viewer.token_id)
        self.assert_invalid(secret)

    def test_the_token_of_a_deactivated_account_is_invalid(self) -> None:
        secret = token_of(self.user)
        self.viewer(secret)
        self.user.is_active = False
        with self.committed():
            services.user.save_user(actor=SYSTEM, user=self.user)
        self.assert_invalid(secret)

    def test_a_change_of_the_account_shows_in_the_next_request(self) -> None:
        secret = token_of(self.user)
        self.assertFalse(self.viewer(secret).sees_all)
        self.user.is_staff = True
        with self.committed():
            services.user.save_user(actor=SYSTEM, user=self.user)
        self.assertTrue(self.viewer(secret).sees_all)

    def test_an_expired_token_is_invalid_even_if_it_was_just_checked(self) -> None:
        secret = token_of(self.user)
        expires_at = timezone.now() + timedelta(seconds=1)
        Token.objects.update(expires_at=expires_at)
        self.viewer(secret)
        while timezone.now() < expires_at:
            pass
        self.assert_invalid(secret)

    def test_without_redis_every_check_costs_a_query(self) -> None:
        secret = token_of(self.user)
        with self.redis_down():
            viewer = self.viewer(secret)
            with self.assertNumQueries(1):
                self.assertEqual(self.viewer(secret), viewer)
            Token.objects.all().delete()
            self.assert_invalid(secret)

    def test_a_token_revoked_while_redis_was_down_stays_invalid(self) -> None:
        secret = token_of(self.user)
        viewer = self.viewer(secret)
        with self.redis_down(), self.committed():
            revoke_token(actor=SYSTEM, token_id=viewer.token_id)
        self.assert_invalid(secret)

    def test_a_token_read_before_a_known_bump_is_not_cached(self) -> None:
        secret = token_of(self.user)
        versions.bump({versions.access_tag(self.user.pk): 7})  # its event committed just after the row was read
        self.viewer(secret)
        with self.assertNumQueries(2):  # the row is read twice: the journal has no event at position 7
            self.viewer(secret)

    def test_a_check_on_an_open_socket_updates_the_last_use(self) -> None:
        viewer = self.viewer(token_of(self.user))
        Token.objects.update(last_used_at=None)
        current_viewer(viewer)
        self.assertIsNotNone(Token.objects.get().last_used_at)

    def test_the_last_use_is_stored_at_most_once_a_minute(self) -> None:
        secret = token_of(self.user)
        self.viewer(secret)
        used = Token.objects.get().last_used_at
        self.assertIsNotNone(used)
        authentication._checked_tokens.clear()
        with self.assertNumQueries(1):
            self.viewer(secret)
        Token.objects.update(last_used_at=timezone.now() - timedelta(seconds=61))
        authentication._checked_tokens.clear()
        self.viewer(secret)
        self.assertGreaterEqual(Token.objects.get().last_used_at, used)


class HeaderTests(TokenCase):
    def test_the_scheme_is_bearer_in_any_case(self) -> None:
        secret = token_of(self.user)
        for header in (f"Bearer {secret}", f"bearer {secret}", f"BEARER   {secret} "):
            with self.subTest(header[:10]):
                self.assertEqual(viewer_by_header(header, address="").user_id, self.user.pk)

    def test_any_other_header_is_refused(self) -> None:
        secret = token_of(self.user)
        for header in ("", " ", "Bearer", secret, f"Token {secret}", f"Basic {secret}", f"Bearer {secret} {secret}"):
            with self.subTest(header[:10]), self.assertRaises(InvalidCredential):
                viewer_by_header(header, address="")

    def test_the_header_takes_precedence_over_the_session(self) -> None:
        other = UserFactory()
        self.client.force_login(other)
        response = self.client.get("/events/", headers={"Authorization": f"Bearer {token_of(self.user)}"})
        self.assertEqual(response.wsgi_request.user.pk, other.pk)
        viewer = authentication.viewer_of_request(response.wsgi_request)
        self.assertEqual((viewer.user_id, viewer.session_key), (self.user.pk, None))


class CurrentViewerTests(TokenCase):
    def assert_not_valid(self, viewer: Viewer) -> None:
        with self.assertRaises(InvalidCredential):
            current_viewer(viewer)

    def by_session(self) -> Viewer:
        self.client.force_login(self.user)
        return authentication.viewer_of_request(self.client.get("/events/").wsgi_request)

    def test_a_revoked_token_is_invalid(self) -> None:
        viewer = self.viewer(token_of(self.user))
        self.assertEqual(current_viewer(viewer), viewer)
        revoke_token(actor=SYSTEM, token_id=viewer.token_id)
        self.assert_not_valid(viewer)

    def test_a_signed_out_session_is_invalid(self) -> None:
        viewer = self.by_session()
        now = current_viewer(viewer)
        self.assertEqual((now.user_id, now.session_key), (viewer.user_id, viewer.session_key))
        self.assertIsNotNone(now.expires_at)
        self.client.logout()
        self.assert_not_valid(viewer)

    def test_a_session_is_invalid_after_a_change_of_the_password(self) -> None:
        viewer = self.by_session()
        self.user.set_password("another one")
        self.user.save()
        self.assert_not_valid(viewer)

    def test_the_session_of_a_deleted_account_is_invalid(self) -> None:
        viewer = self.by_session()
        self.user.delete()
        self.assert_not_valid(viewer)


class OriginTests(Case):
    def are_ours(self, *origins: str) -> list[bool]:
        return [authentication.is_our_origin(origin, "tasks.example.org") for origin in origins]

    def test_our_origin_is_the_requested_host(self) -> None:
        ours = ("http://tasks.example.org", "https://tasks.example.org", "HTTPS://TASKS.example.org")
        self.assertEqual(self.are_ours(*ours), [True] * 3)
        others = ("https://example.org", "https://tasks.example.org.evil.org", "https://tasks.example.org:8443", "null")
        self.assertEqual(self.are_ours(*others, ""), [False] * 5)

    def test_without_a_host_no_origin_is_ours(self) -> None:
        self.assertFalse(authentication.is_our_origin("null", ""))

    @override_settings(TLS_PROXY=True)
    def test_behind_a_tls_proxy_an_http_page_has_another_origin(self) -> None:
        self.assertEqual(self.are_ours("https://tasks.example.org", "http://tasks.example.org"), [True, False])

    @override_settings(CSRF_TRUSTED_ORIGINS=["https://*.example.com"], CORS_ALLOWED_ORIGINS=["http://localhost:3000"])
    def test_origins_that_the_settings_trust_are_ours(self) -> None:
        self.assertEqual(self.are_ours("https://app.example.com", "http://localhost:3000"), [True] * 2)
        self.assertEqual(self.are_ours("http://app.example.com", "https://localhost:3000", "https://com"), [False] * 3)


class AddressTests(Case):
    def address(self, **headers: Any) -> str:
        request = RequestFactory().get("/", headers=headers, REMOTE_ADDR="192.0.2.1")
        return authentication.address_of_request(request)

    def test_the_forwarded_address_of_a_client_is_not_trusted(self) -> None:
        self.assertEqual(self.address(x_forwarded_for="203.0.113.9"), "192.0.2.1")

    @override_settings(TLS_PROXY=True)
    def test_only_the_address_that_our_own_proxy_adds_is_trusted(self) -> None:
        self.assertEqual(self.address(x_forwarded_for="198.51.100.1, 203.0.113.9"), "203.0.113.9")
        self.assertEqual(self.address(), "192.0.2.1")
