"""The pages for signing in, signing out and the password: their audit entries, and the limit of failed attempts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.client import HTTPConnection
from threading import Barrier
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

from asgiref.sync import async_to_sync
from axes.models import AccessAttempt, AccessLog
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.hashers import make_password
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client, override_settings
from django.utils import timezone

from backend.projects import services
from backend.projects.access import SYSTEM, viewer_for
from backend.projects.authentication import current_viewer
from backend.projects.cache.redis import server
from backend.projects.errors import InvalidCredential
from backend.projects.models import AuditEntry, Event, User
from backend.web import password_slots
from tests.cases import Case, CommittingCase, ServerCase, token_of
from tests.factories import UserFactory
from tests.schema.test_budget import fresh_budgets

PASSWORD = "correct horse battery"
SIGN_IN = "/accounts/sign-in/"
SIGN_OUT = "/accounts/sign-out/"
CHANGE_PASSWORD = "/accounts/password/"
LOCKED = "Too many attempts."
# Django's default hasher is slow on purpose.
FAST = override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])


@FAST
class AccountCase(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory(username="ada", first_name="Ada", password=make_password(PASSWORD))
        cls.bob = UserFactory(username="bob", password=make_password(PASSWORD))

    def sign_in(self, username: str = "ada", password: str = PASSWORD, client: Any = None, **request: Any) -> Any:
        form = {"username": username, "password": password, "next": request.pop("next", "")}
        return (client or self.client).post(SIGN_IN, form, **request)

    def guess(self, times: int, username: str = "ada", **request: Any) -> list[int]:
        """Attempt to sign in with a wrong password several times, and return the statuses."""
        return [self.sign_in(username, "wrong", **request).status_code for _ in range(times)]

    def is_signed_in(self, client: Any = None) -> bool:
        status: int = (client or self.client).get("/projects/").status_code
        return status == 200

    def audit(self) -> list[tuple[str, str, str, str]]:
        """Return (action, actor, user, detail) of each entry, oldest first."""
        return list(AuditEntry.objects.order_by("id").values_list("action", "actor_name", "user_name", "detail"))

    def access_changes(self) -> list[str]:
        changes = Event.objects.filter(kind="access.changed").order_by("position")
        return list(changes.values_list("payload", flat=True))


class SignInTests(AccountCase):
    def test_signing_in_redirects_to_next_and_is_recorded(self) -> None:
        response = self.sign_in(next="/docs/?x=1", REMOTE_ADDR="192.0.2.7")
        self.assertRedirects(response, "/docs/?x=1", fetch_redirect_response=False)
        self.assertTrue(self.is_signed_in())
        self.assertEqual(self.audit(), [("signed_in", "Ada", "Ada", "")])
        self.assertEqual(AuditEntry.objects.get().address, "192.0.2.7")
        self.assertFalse(AccessLog.objects.exists())  # the audit log is enough

    def test_signing_in_without_next_redirects_to_graphiql(self) -> None:
        self.assertRedirects(self.sign_in(), "/graphql/", fetch_redirect_response=False)

    def test_signing_in_never_redirects_to_another_host(self) -> None:
        for next_url in ("https://evil.example/", "//evil.example/", r"\\evil.example", "javascript:alert(1)"):
            with self.subTest(next_url):
                self.assertRedirects(self.sign_in(next=next_url), "/graphql/", fetch_redirect_response=False)
                self.assertNotContains(self.client.get(SIGN_IN, {"next": next_url}), "evil")

    def test_the_user_name_is_case_insensitive(self) -> None:
        self.sign_in("ADA")
        self.assertTrue(self.is_signed_in())

    def test_the_session_cookie_is_http_only_same_site_and_secure(self) -> None:
        self.sign_in()
        cookie = self.client.cookies["sessionid"]
        self.assertEqual((cookie["httponly"], cookie["samesite"], cookie["secure"]), (True, "Lax", True))

    def test_a_wrong_password_is_reported_and_recorded_for_the_account(self) -> None:
        response = self.sign_in(password="wrong", REMOTE_ADDR="192.0.2.7")
        self.assertContains(response, "There is no account with this user name and password.")
        self.assertContains(response, 'value="ada"')
        self.assertFalse(self.is_signed_in())
        entry = AuditEntry.objects.get()
        self.assertEqual((entry.action, entry.user_id, entry.address), ("sign_in_failed", self.ada.pk, "192.0.2.7"))
        self.assertEqual((entry.actor_id, entry.actor_name, entry.detail), (None, "", ""))

    def test_an_inactive_account_is_refused_like_a_missing_one(self) -> None:
        User.objects.filter(pk=self.ada.pk).update(is_active=False)
        self.assertContains(self.sign_in(), "There is no account with this user name and password.")
        self.assertEqual(self.audit(), [("sign_in_failed", "", "Ada", "")])

    def test_an_unknown_user_name_is_not_stored(self) -> None:
        with self.assertNoLogs(level="INFO"):
            self.assertEqual(self.guess(1, "my secret password"), [200])
        self.assertEqual(self.audit(), [("sign_in_failed", "", "", "")])
        rows = [*AuditEntry.objects.values(), *AccessAttempt.objects.values(), *Session.objects.values()]
        self.assertEqual(len(rows), 2)
        self.assertNotIn("secret", str(rows))

    def test_an_invalid_form_is_not_counted_as_an_attempt(self) -> None:
        for username, password in (("", "x"), ("ada", ""), ("a\x00da", "x")):
            with self.subTest(username=username, password=password), self.nothing_changes():
                self.assertEqual(self.sign_in(username, password).status_code, 200)
        self.assertFalse(AccessAttempt.objects.exists())

    def test_signing_in_as_another_user_ends_the_previous_session(self) -> None:
        self.client.force_login(self.bob)
        previous = self.client.cookies["sessionid"].value
        self.sign_in()
        self.assertEqual(self.client.get(SIGN_IN).context["user"], self.ada)
        self.assertFalse(Session.objects.filter(pk=previous).exists())
        self.assertEqual(self.audit(), [("signed_out", "Ada", "bob", ""), ("signed_in", "Ada", "Ada", "")])
        self.assertEqual(self.access_changes(), [f'{{"users":[{self.bob.pk}],"projects":[]}}'])

    def test_an_authorization_header_is_ignored(self) -> None:
        secret = token_of(self.bob)
        AuditEntry.objects.all().delete()
        for header in (f"Bearer {secret}", "Basic YWRhOng="):
            self.sign_in(headers={"authorization": header})
        self.assertEqual(self.audit(), [("signed_in", "Ada", "Ada", "")] * 2)


class PageTests(AccountCase):
    def test_browsers_can_fill_in_the_form_and_the_page_has_no_scripts(self) -> None:
        page = self.client.get(SIGN_IN)
        for part in (
            '<label for="id_username">Username:</label>',
            '<label for="id_password">Password:</label>',
            '<input type="text" name="username" autofocus autocapitalize="none" autocomplete="username" maxlength="150"'
            ' required id="id_username">',
            '<input type="password" name="password" autocomplete="current-password" required id="id_password">',
        ):
            self.assertContains(page, part, html=True)
        self.assertNotContains(page, "<script")
        self.assertNotContains(page, "style=")

    def test_a_signed_in_user_gets_links(self) -> None:
        self.client.force_login(self.ada)
        page = self.client.get(SIGN_IN, {"next": "/graphql/?query=x"})
        self.assertContains(page, "You are signed in as <strong>Ada</strong>.")
        for link in ("/graphql/", "/docs/", CHANGE_PASSWORD, "/graphql/?query=x"):
            self.assertContains(page, f'<a href="{link}">')
        self.assertContains(page, f'<form method="post" action="{SIGN_OUT}">')
        self.assertNotContains(page, 'href="/admin/"')
        self.assertNotContains(page, "is not staff")

    def test_the_docs_link_to_the_sign_in_page(self) -> None:
        self.client.force_login(self.ada)
        self.assertContains(self.client.get("/docs/"), f'href="{SIGN_IN}"')


class AdminPageTests(AccountCase):
    """Our pages for accounts replace those of the admin."""

    def test_the_admin_redirects_to_our_sign_in_page_with_next(self) -> None:
        next_url = "/admin/projects/task/?q=draw"
        response = self.client.get(next_url, follow=True)
        self.assertEqual(response.redirect_chain[-1], ("/accounts/sign-in/?next=/admin/projects/task/%3Fq%3Ddraw", 302))
        self.assertEqual(response.context["next"], next_url)
        self.assertRedirects(self.client.get("/admin/login/"), "/accounts/sign-in/?next=/admin/")

    def test_the_login_page_of_the_admin_signs_no_one_in(self) -> None:
        User.objects.filter(pk=self.ada.pk).update(is_staff=True)
        for password in (PASSWORD, "wrong"):
            response = self.client.post("/admin/login/", {"username": "ada", "password": password, "next": "/admin/"})
            self.assertRedirects(response, "/accounts/sign-in/?next=/admin/")
        self.assertFalse(self.is_signed_in())

    def test_a_user_who_is_not_staff_gets_an_explanation(self) -> None:
        self.client.force_login(self.ada)
        page = self.client.get("/admin/", follow=True)
        self.assertContains(page, "The admin is for staff, and this account is not staff.")
        self.assertNotContains(page, "Go on")

    def test_staff_get_a_link_to_the_admin(self) -> None:
        User.objects.filter(pk=self.ada.pk).update(is_staff=True)
        self.client.force_login(self.ada)
        page = self.client.get("/admin/login/", {"next": "/admin/"}, follow=True)
        self.assertContains(page, '<a href="/admin/">Go on to /admin/</a>')
        self.assertNotContains(page, "is not staff")

    def test_the_logout_and_password_pages_of_the_admin_redirect_to_ours(self) -> None:
        self.client.force_login(self.ada)
        self.assertRedirects(self.client.get("/admin/password_change/"), CHANGE_PASSWORD)
        self.assertRedirects(self.client.post("/admin/logout/"), SIGN_IN)
        self.assertEqual(self.audit(), [("signed_out", "Ada", "Ada", "")])


class SignOutTests(AccountCase):
    def test_signing_out_ends_only_this_session_and_records_an_event(self) -> None:
        elsewhere = Client()
        elsewhere.force_login(self.ada)
        self.client.force_login(self.ada)
        self.assertRedirects(self.client.post(SIGN_OUT), SIGN_IN)
        self.assertEqual((self.is_signed_in(), self.is_signed_in(elsewhere)), (False, True))
        self.assertEqual(self.audit(), [("signed_out", "Ada", "Ada", "")])
        self.assertEqual(self.access_changes(), [f'{{"users":[{self.ada.pk}],"projects":[]}}'])

    def test_a_viewer_is_no_longer_valid_after_its_session_ends(self) -> None:
        self.client.force_login(self.ada)
        viewer = replace(viewer_for(self.ada), session_key=self.client.cookies["sessionid"].value)
        self.assertEqual(current_viewer(viewer).user_id, self.ada.pk)
        self.client.post(SIGN_OUT)
        with self.assertRaises(InvalidCredential):
            current_viewer(viewer)

    def test_next_is_passed_on_if_it_is_on_our_host(self) -> None:
        self.client.force_login(self.ada)
        self.assertRedirects(self.client.post(SIGN_OUT, {"next": "/admin/"}), "/accounts/sign-in/?next=/admin/")
        self.assertRedirects(self.client.post(SIGN_OUT, {"next": "//evil.example/"}), SIGN_IN)

    def test_a_get_does_not_sign_out(self) -> None:
        self.client.force_login(self.ada)
        with self.nothing_changes():
            self.assertEqual(self.client.get(SIGN_OUT).status_code, 405)
        self.assertTrue(self.is_signed_in())

    def test_a_form_of_another_site_does_not_sign_out(self) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(self.ada)
        with self.nothing_changes():
            self.assertEqual(strict.post(SIGN_OUT).status_code, 403)
        self.assertTrue(self.is_signed_in(strict))

    def test_signing_out_without_a_session_changes_nothing(self) -> None:
        with self.nothing_changes():
            self.assertRedirects(self.client.post(SIGN_OUT), SIGN_IN)


class PasswordTests(AccountCase):
    NEW = "staple battery horse"

    def setUp(self) -> None:
        self.client.force_login(self.ada)

    def change(self, old: str = PASSWORD, new: str = NEW, again: str | None = None) -> Any:
        form = {"old_password": old, "new_password1": new, "new_password2": again or new}
        return self.client.post(CHANGE_PASSWORD, form, follow=True)

    def test_the_page_requires_a_session(self) -> None:
        self.assertRedirects(Client().get(CHANGE_PASSWORD), f"{SIGN_IN}?next={CHANGE_PASSWORD}")

    def test_changing_the_password_ends_every_other_session(self) -> None:
        elsewhere = Client()
        elsewhere.force_login(self.ada)
        self.assertContains(self.change(), "Your password has been changed.")
        self.assertEqual((self.is_signed_in(), self.is_signed_in(elsewhere)), (True, False))
        self.assertEqual(self.audit(), [("password_changed", "Ada", "Ada", "")])
        self.assertEqual(self.access_changes(), [f'{{"users":[{self.ada.pk}],"projects":[]}}'])
        self.assertEqual(self.sign_in(client=elsewhere).status_code, 200)
        self.assertEqual(self.sign_in(password=self.NEW, client=elsewhere).status_code, 302)

    def test_an_invalid_new_password_is_refused_and_changes_nothing(self) -> None:
        for fields, message in (
            ({"again": "another one"}, "The two password fields didn"),
            ({"new": "short"}, "This password is too short."),
        ):
            with self.subTest(fields), self.nothing_changes():
                self.assertContains(self.change(**fields), message)

    def test_a_wrong_old_password_counts_as_a_failed_attempt(self) -> None:
        for _ in range(4):
            self.assertContains(self.change(old="wrong"), "Your old password was entered incorrectly.")
        for old in ("wrong", PASSWORD):
            self.assertEqual(self.change(old=old).status_code, 429)
        self.assertEqual(
            self.audit(), [("sign_in_failed", "Ada", "Ada", "")] * 4 + [("sign_in_failed", "Ada", "Ada", "Locked out")]
        )
        self.assertTrue(User.objects.get(pk=self.ada.pk).check_password(PASSWORD))

    def test_browsers_can_fill_in_the_form(self) -> None:
        page = self.client.get(CHANGE_PASSWORD)
        self.assertContains(page, 'autocomplete="current-password"', count=1)
        self.assertContains(page, 'autocomplete="new-password"', count=2)
        self.assertContains(page, 'value="ada" autocomplete="username"')
        self.assertContains(page, "autofocus", count=1)

    def test_saving_a_password_does_not_restore_a_lost_permission(self) -> None:
        boss = UserFactory(is_staff=True)
        User.objects.filter(pk=boss.pk).update(is_staff=False)
        boss.set_password(self.NEW)
        services.user.save_user(actor=SYSTEM, user=boss, fields=["password"])
        stored = User.objects.get(pk=boss.pk)
        self.assertEqual((stored.is_staff, stored.check_password(self.NEW)), (False, True))


class AttemptTests(AccountCase):
    def move_back(self, **ago: int) -> None:
        """Move all attempts into the past."""
        AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(**ago))

    def test_five_failures_lock_the_name_for_this_address(self) -> None:
        self.assertEqual(self.guess(5), [200] * 4 + [429])
        response = self.sign_in()
        self.assertContains(response, f"{LOCKED} Try again in 15 minutes.", status_code=429)
        self.assertContains(response, '<input type="hidden" name="csrfmiddlewaretoken"', status_code=429)
        self.assertTrue(890 < int(response["Retry-After"]) <= 900, response["Retry-After"])
        self.assertFalse(self.is_signed_in())
        self.guess(3)  # not checked, not recorded
        self.assertEqual(
            self.audit(), [("sign_in_failed", "", "Ada", "")] * 4 + [("sign_in_failed", "", "Ada", "Locked out")]
        )

    def test_other_names_and_other_addresses_are_not_locked(self) -> None:
        self.guess(5)
        self.assertEqual(self.sign_in("bob").status_code, 302)
        self.assertEqual(self.sign_in(REMOTE_ADDR="192.0.2.7").status_code, 302)

    def test_an_unknown_name_is_locked_like_a_known_one(self) -> None:
        self.assertEqual(self.guess(6, "nobody"), [200] * 4 + [429] * 2)

    def test_attempts_with_one_name_count_together_in_any_case_and_browser(self) -> None:
        names = ("ada", "ADA", "Ada", " ada", "\uff41da")  # the last has a fullwidth "a", which Django normalizes
        statuses = [
            self.guess(1, name, headers={"user-agent": f"browser {number}"})[0] for number, name in enumerate(names)
        ]
        self.assertEqual(statuses, [200] * 4 + [429])

    def test_a_success_resets_the_count(self) -> None:
        self.guess(4)
        self.sign_in("ADA")
        self.assertEqual(self.guess(4), [200] * 4)

    def test_an_attempt_during_a_lockout_does_not_extend_it(self) -> None:
        self.guess(5)
        self.move_back(minutes=10)
        before = list(AccessAttempt.objects.values())
        response = self.sign_in(password="wrong")
        self.assertContains(response, f"{LOCKED} Try again in 5 minutes.", status_code=429)
        self.assertTrue(290 < int(response["Retry-After"]) <= 300, response["Retry-After"])
        self.assertEqual(list(AccessAttempt.objects.values()), before)

    def test_failures_expire_after_fifteen_minutes(self) -> None:
        self.guess(5)
        self.move_back(minutes=15)
        self.assertEqual(self.guess(4), [200] * 4)
        self.assertEqual(self.sign_in().status_code, 302)

    def test_the_wait_ends_when_the_oldest_failures_expire(self) -> None:
        self.guess(4, headers={"user-agent": "one"})
        self.move_back(minutes=14)
        response = self.sign_in(password="wrong", headers={"user-agent": "another"})
        self.assertContains(response, f"{LOCKED} Try again in 1 minute.", status_code=429)
        self.assertTrue(50 < int(response["Retry-After"]) <= 60, response["Retry-After"])

    def test_ipv6_addresses_are_counted_by_network(self) -> None:
        statuses = [self.guess(1, REMOTE_ADDR=f"2001:db8:1:2::{number}")[0] for number in range(5)]
        self.assertEqual(statuses, [200] * 4 + [429])
        self.assertEqual(self.sign_in(REMOTE_ADDR="2001:db8:1:3::1").status_code, 302)

    def test_an_ipv4_mapped_address_counts_as_ipv4(self) -> None:
        self.guess(5, REMOTE_ADDR="::ffff:192.0.2.7")
        self.assertEqual(self.sign_in(REMOTE_ADDR="::ffff:192.0.2.8").status_code, 302)
        self.assertEqual(self.sign_in(REMOTE_ADDR="192.0.2.7").status_code, 429)

    def test_behind_our_proxy_the_forwarded_address_counts(self) -> None:
        with override_settings(TLS_PROXY=True):
            self.guess(5, headers={"x-forwarded-for": "198.51.100.1, 192.0.2.7"})
            self.assertEqual(self.sign_in(headers={"x-forwarded-for": "192.0.2.7"}).status_code, 429)
            self.assertEqual(self.sign_in(headers={"x-forwarded-for": "192.0.2.8"}).status_code, 302)

    def test_without_a_proxy_the_forwarded_address_is_ignored(self) -> None:
        statuses = [self.guess(1, headers={"x-forwarded-for": f"192.0.2.{number}"})[0] for number in range(5)]
        self.assertEqual(statuses, [200] * 4 + [429])

    def test_malformed_addresses_count_as_one_address(self) -> None:
        with override_settings(TLS_PROXY=True):
            for address in ("unknown", "192.0.2.7:4711"):
                statuses = self.guess(5, "bob", headers={"x-forwarded-for": address})
        self.assertEqual(statuses, [429] * 5)

    def test_attempts_are_counted_while_redis_is_down(self) -> None:
        with self.redis_down():
            self.assertEqual(self.guess(5), [200] * 4 + [429])
            self.assertEqual(self.sign_in().status_code, 429)

    def test_the_lockout_page_is_the_same_under_asgi(self) -> None:
        self.guess(5)
        form = {"username": "ada", "password": "wrong", "next": "/docs/"}
        response = async_to_sync(self.async_client.post)(SIGN_IN, form)
        self.assertContains(response, LOCKED, status_code=429)
        self.assertContains(response, 'name="next" value="/docs/"', status_code=429)
        self.assertTrue(890 < int(response["Retry-After"]) <= 900, response["Retry-After"])


class ConcurrentAttemptTests(CommittingCase):
    @override_settings(PASSWORD_CHECKS=40)
    def test_five_of_twenty_concurrent_attempts_are_checked(self) -> None:
        UserFactory(username="ada", password=make_password(PASSWORD))
        barrier = Barrier(20)

        def guess(number: int) -> int:
            barrier.wait()
            try:
                return Client().post(SIGN_IN, {"username": "ada", "password": f"guess {number}"}).status_code
            finally:
                connection.close()

        with ThreadPoolExecutor(20) as pool:
            statuses = sorted(pool.map(guess, range(20)))
        self.assertEqual(statuses, [200] * 4 + [429] * 16)
        self.assertEqual(AccessAttempt.objects.get().failures_since_start, 5)
        self.assertEqual(AuditEntry.objects.filter(action="sign_in_failed").count(), 5)


class ConcurrencyLimitTests(AccountCase):
    def test_too_many_concurrent_password_checks_give_a_503(self) -> None:
        with self.occupied_slots("192.0.2.7", "192.0.2.7", "192.0.2.8", "192.0.2.8"), self.nothing_changes():
            response = self.sign_in()
        self.assertEqual((response.status_code, response["Retry-After"]), (503, "5"))
        self.assertEqual(self.sign_in().status_code, 302)

    def test_one_address_gets_at_most_half_of_the_slots(self) -> None:
        with self.occupied_slots("192.0.2.7", "192.0.2.7"):
            self.assertEqual(self.sign_in(REMOTE_ADDR="192.0.2.7").status_code, 503)
            self.assertEqual(self.sign_in(REMOTE_ADDR="192.0.2.8").status_code, 302)

    @contextmanager
    def occupied_slots(self, *addresses: str) -> Iterator[None]:
        """Occupy a slot for each address, as its requests would."""
        slots = [password_slots._take(address) for address in addresses]
        self.assertNotIn(None, slots)
        yield
        for slot in slots:
            assert slot is not None
            slot.leave()


class PerAddressAndPerNameTests(AccountCase):
    """Failures from one address with many names, and from many addresses with one name."""

    @override_settings(SIGN_IN_FAILURES_PER_ADDRESS=7)
    def test_an_address_is_locked_for_all_names(self) -> None:
        statuses = [self.guess(1, f"name {number}")[0] for number in range(8)]
        self.assertEqual(statuses, [200] * 6 + [429] * 2)
        response = self.sign_in()
        self.assertContains(response, f"{LOCKED} Try again in 15 minutes.", status_code=429)
        self.assertTrue(890 < int(response["Retry-After"]) <= 900, response["Retry-After"])
        self.assertEqual(self.sign_in(REMOTE_ADDR="192.0.2.7").status_code, 302)
        self.assertEqual([entry[3] for entry in self.audit()], [""] * 6 + ["Locked out", ""])

    @override_settings(SIGN_IN_FAILURES_PER_NAME=7)
    def test_a_name_is_locked_for_all_addresses(self) -> None:
        for name in ("ada", "nobody"):
            with self.subTest(name):
                statuses = [self.guess(1, name, REMOTE_ADDR=f"192.0.2.{number}")[0] for number in range(8)]
                self.assertEqual(statuses, [200] * 6 + [429] * 2)
                response = self.sign_in(name, REMOTE_ADDR="192.0.2.77")
                self.assertContains(response, f"{LOCKED} Try again in 15 minutes.", status_code=429)
        self.assertEqual(self.sign_in("bob", REMOTE_ADDR="192.0.2.77").status_code, 302)

    @override_settings(SIGN_IN_FAILURES_PER_ADDRESS=7)
    def test_a_success_with_an_account_does_not_reset_the_failures_of_its_address(self) -> None:
        for number in range(6):
            self.guess(1, f"name {number}")
        self.sign_in("bob")
        self.assertEqual(self.guess(1, "another"), [429])

    @override_settings(SIGN_IN_FAILURES_PER_ADDRESS=7, SIGN_IN_FAILURES_PER_NAME=7)
    def test_the_lock_ends_when_the_failures_expire(self) -> None:
        for number in range(7):
            self.guess(1, f"name {number}")
        AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=15))
        self.assertEqual(self.sign_in().status_code, 302)


@override_settings(SIGN_INS_PER_HOUR=2)
class BudgetTests(AccountCase):
    """Sign-ins with one name, each with the right password."""

    def setUp(self) -> None:
        fresh_budgets(self)

    def spend(self) -> None:
        self.assertEqual([self.sign_in(name).status_code for name in ("ada", "ADA")], [302, 302])

    def test_an_account_signs_in_a_bounded_number_of_times(self) -> None:
        self.spend()
        sessions = Session.objects.count()
        with self.nothing_changes():
            response = self.sign_in(client=Client(), REMOTE_ADDR="192.0.2.7")
        self.assertContains(response, f"{LOCKED} Try again in 30 minutes.", status_code=429)
        self.assertTrue(1790 < int(response["Retry-After"]) <= 1800, response["Retry-After"])
        self.assertEqual(Session.objects.count(), sessions)
        self.assertEqual(self.sign_in("bob").status_code, 302)

    def test_a_refusal_is_the_same_for_a_wrong_password_and_checks_neither(self) -> None:
        self.spend()
        with patch.object(ModelBackend, "authenticate", side_effect=AssertionError("checked")):
            right, wrong = (self.sign_in(password=password, client=Client()) for password in (PASSWORD, "wrong"))
        self.assertEqual((right.status_code, wrong.status_code), (429, 429))
        without_token = [re.sub(r'value="\w{64}"', "", page.content.decode()) for page in (right, wrong)]
        self.assertEqual(*without_token)
        self.assertFalse(AccessAttempt.objects.exists())

    def test_failures_are_not_charged(self) -> None:
        self.assertEqual(self.guess(4), [200] * 4)
        self.spend()

    def test_an_unknown_name_takes_as_many_commands_as_a_known_one(self) -> None:
        self.sign_in()
        for name in ("ada", "nobody"):
            with self.subTest(name), patch.object(server, "call", wraps=server.call) as call:
                self.assertEqual(self.guess(1, name), [200])
                self.assertEqual(call.call_count, 1)

    def test_the_password_page_is_charged_to_the_same_budget(self) -> None:
        self.sign_in()
        form = {"old_password": PASSWORD, "new_password1": "short", "new_password2": "short"}
        for status in (200, 429):
            with self.nothing_changes():
                response = self.client.post(CHANGE_PASSWORD, form)
            self.assertEqual(response.status_code, status)
        self.assertTrue(1790 < int(response["Retry-After"]) <= 1800, response["Retry-After"])

    def test_each_process_has_its_own_budgets_while_redis_is_down(self) -> None:
        with self.redis_down():
            self.spend()
            self.assertEqual(self.sign_in().status_code, 429)

    @override_settings(COST_MODE="measure")
    def test_nothing_is_refused_while_costs_are_only_measured(self) -> None:
        self.spend()
        self.spend()


class FloodCase(ServerCase):
    """Sign-ins at a running server. The test blocks their password checks with the lock that attempts wait for."""

    environment = {"ACCESS": "closed", "DATABASE_CONNECTIONS": "4"}

    def begin_sign_in(self, csrf: str) -> HTTPConnection:
        """Send a form, without waiting for the response."""
        http = self.http()
        form = urlencode({"username": "ada", "password": "wrong", "csrfmiddlewaretoken": csrf})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": f"csrftoken={csrf}"}
        http.request("POST", SIGN_IN, form, headers)
        return http

    def http(self) -> HTTPConnection:
        http = HTTPConnection(self.base_url.partition("//")[2], timeout=20)
        self.addCleanup(http.close)
        return http

    @contextmanager
    def blocked_checks(self) -> Iterator[None]:
        with transaction.atomic():
            services.session.serialize_attempts(keys=["address 127.0.0.1"])
            yield

    def wait_for_checks(self, count: int) -> None:
        """Wait until this many checks wait for the lock."""
        query = (
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE datname = current_database() AND locktype = 'advisory' AND objsubid = 2 AND NOT granted"
        )
        for _ in range(100_000):
            with connection.cursor() as cursor:
                cursor.execute(query)
                if cursor.fetchone() == (count,):
                    return
        self.fail(f"There never were {count} checks.")


class Floods:
    """Tests of both servers."""

    def test_sign_ins_without_a_slot_get_a_503_and_other_requests_are_served(self) -> None:
        csrf = "a" * 32
        with self.blocked_checks():
            checked = [self.begin_sign_in(csrf) for _ in range(2)]
            self.wait_for_checks(2)
            refused = [self.begin_sign_in(csrf).getresponse() for _ in range(20)]
            health = self.http()
            health.request("GET", "/healthz")
            self.assertEqual(health.getresponse().status, 200)
        self.assertEqual({(response.status, response.headers["Retry-After"]) for response in refused}, {(503, "5")})
        self.assertEqual([http.getresponse().status for http in checked], [200, 200])
        self.assertEqual(AuditEntry.objects.filter(action="sign_in_failed").count(), 2)
        self.assertEqual(self.begin_sign_in(csrf).getresponse().status, 200)

    def test_no_password_is_checked_for_a_client_that_has_disconnected(self) -> None:
        csrf = "a" * 32
        with self.blocked_checks():
            disconnecting = [self.begin_sign_in(csrf) for _ in range(2)]
            self.wait_for_checks(2)
            for http in disconnecting:
                http.close()
            # The server responds to a later request only after it has noticed that they disconnected.
            health = self.http()
            health.request("GET", "/healthz")
            health.getresponse().read()
        self.wait_for_checks(0)
        response = self.begin_sign_in(csrf).getresponse()
        self.assertEqual(response.status, 200)
        self.assertEqual(AuditEntry.objects.filter(action="sign_in_failed").count(), 1)
        self.assertEqual(AccessAttempt.objects.get().failures_since_start, 1)


class DaphneFloodTests(Floods, FloodCase):
    environment = {**FloodCase.environment, "SERVER": "daphne"}


class UvicornFloodTests(Floods, FloodCase):
    environment = {**FloodCase.environment, "SERVER": "uvicorn"}


class UserNameTests(AccountCase):
    """User names are unique regardless of case."""

    def setUp(self) -> None:
        self.boss = UserFactory(is_staff=True, is_superuser=True)
        self.client.force_login(self.boss)

    def test_the_admin_refuses_to_add_a_name_in_another_case(self) -> None:
        form = {"username": "ADA", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
        with self.nothing_changes():
            response = self.client.post("/admin/projects/user/add/", form)
            self.assertContains(response, "A user with that username already exists.")

    def test_the_admin_refuses_to_change_to_a_name_in_another_case(self) -> None:
        page = f"/admin/projects/user/{self.bob.pk}/change/"
        initial = self.client.get(page).context["adminform"].form.initial
        form = {name: value for name, value in initial.items() if value not in (None, False)}
        del form["date_joined"]
        form |= {"username": "aDa", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
        with self.nothing_changes():
            response = self.client.post(page, form)
            self.assertContains(response, "A user with that name already exists, in this case or another.")

    def test_createsuperuser_refuses_a_name_in_another_case(self) -> None:
        with self.nothing_changes(), self.assertRaisesMessage(CommandError, "That username is already taken."):
            call_command("createsuperuser", username="ADA", email="a@example.org", interactive=False)
