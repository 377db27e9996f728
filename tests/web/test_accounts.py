"""The pages on which people get in and out, what they leave behind, and how many tries they have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from threading import Barrier
from typing import Any

from asgiref.sync import async_to_sync
from axes.models import AccessAttempt, AccessLog
from django.contrib.auth.hashers import make_password
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, override_settings
from django.utils import timezone

from backend.projects import services
from backend.projects.access import SYSTEM, viewer_for
from backend.projects.authentication import current_viewer
from backend.projects.errors import InvalidCredential
from backend.projects.models import AuditEntry, Event, User
from backend.web import accounts
from tests.cases import Case, CommittingCase, token_of
from tests.factories import UserFactory

PASSWORD = "correct horse battery"
SIGN_IN = "/accounts/sign-in/"
SIGN_OUT = "/accounts/sign-out/"
CHANGE_PASSWORD = "/accounts/password/"
LOCKED = "Too many tries with this user name."
# What is slow about Django's own is nothing that these tests are about.
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
        """Statuses of so many tries with a wrong password."""
        return [self.sign_in(username, "wrong", **request).status_code for _ in range(times)]

    def is_signed_in(self, client: Any = None) -> bool:
        status: int = (client or self.client).get("/projects/").status_code
        return status == 200

    def audit(self) -> list[tuple[str, str, str, str]]:
        """(action, actor, user, detail) of each entry, oldest first."""
        return list(AuditEntry.objects.order_by("id").values_list("action", "actor_name", "user_name", "detail"))

    def access_changes(self) -> list[str]:
        changes = Event.objects.filter(kind="access.changed").order_by("position")
        return list(changes.values_list("payload", flat=True))


class SignInTests(AccountCase):
    def test_whoever_knows_the_password_is_in_and_where_they_wanted_to_be(self) -> None:
        answer = self.sign_in(next="/docs/?x=1", REMOTE_ADDR="192.0.2.7")
        self.assertRedirects(answer, "/docs/?x=1", fetch_redirect_response=False)
        self.assertTrue(self.is_signed_in())
        self.assertEqual(self.audit(), [("signed_in", "Ada", "Ada", "")])
        self.assertEqual(AuditEntry.objects.get().address, "192.0.2.7")
        self.assertFalse(AccessLog.objects.exists())  # one log is enough

    def test_without_a_wish_they_are_at_graphiql(self) -> None:
        self.assertRedirects(self.sign_in(), "/graphql/", fetch_redirect_response=False)

    def test_nobody_is_sent_to_another_host(self) -> None:
        for goal in ("https://evil.example/", "//evil.example/", r"\\evil.example", "javascript:alert(1)"):
            with self.subTest(goal):
                self.assertRedirects(self.sign_in(next=goal), "/graphql/", fetch_redirect_response=False)
                self.assertNotContains(self.client.get(SIGN_IN, {"next": goal}), "evil")

    def test_the_name_may_be_written_in_any_case(self) -> None:
        self.sign_in("ADA")
        self.assertTrue(self.is_signed_in())

    def test_the_cookie_is_for_our_pages_alone(self) -> None:
        self.sign_in()
        cookie = self.client.cookies["sessionid"]
        self.assertEqual((cookie["httponly"], cookie["samesite"], cookie["secure"]), (True, "Lax", True))

    def test_a_wrong_password_is_said_and_recorded_at_the_account(self) -> None:
        answer = self.sign_in(password="wrong", REMOTE_ADDR="192.0.2.7")
        self.assertContains(answer, "There is no account with this user name and password.")
        self.assertContains(answer, 'value="ada"')
        self.assertFalse(self.is_signed_in())
        entry = AuditEntry.objects.get()
        self.assertEqual((entry.action, entry.user_id, entry.address), ("sign_in_failed", self.ada.pk, "192.0.2.7"))
        self.assertEqual((entry.actor_id, entry.actor_name, entry.detail), (None, "", ""))

    def test_an_account_that_is_not_active_lets_nobody_in_and_is_told_of_to_nobody(self) -> None:
        User.objects.filter(pk=self.ada.pk).update(is_active=False)
        self.assertContains(self.sign_in(), "There is no account with this user name and password.")
        self.assertEqual(self.audit(), [("sign_in_failed", "", "Ada", "")])

    def test_a_name_of_nobody_is_kept_nowhere(self) -> None:
        with self.assertNoLogs(level="INFO"):
            self.assertEqual(self.guess(1, "my secret password"), [200])
        self.assertEqual(self.audit(), [("sign_in_failed", "", "", "")])
        kept = [*AuditEntry.objects.values(), *AccessAttempt.objects.values(), *Session.objects.values()]
        self.assertEqual(len(kept), 2)
        self.assertNotIn("secret", str(kept))

    def test_a_form_that_is_not_filled_in_is_no_try(self) -> None:
        for username, password in (("", "x"), ("ada", ""), ("a\x00da", "x")):
            with self.subTest(username=username, password=password), self.nothing_changes():
                self.assertEqual(self.sign_in(username, password).status_code, 200)
        self.assertFalse(AccessAttempt.objects.exists())

    def test_signing_in_as_somebody_else_ends_the_session_before(self) -> None:
        self.client.force_login(self.bob)
        before = self.client.cookies["sessionid"].value
        self.sign_in()
        self.assertEqual(self.client.get(SIGN_IN).context["user"], self.ada)
        self.assertFalse(Session.objects.filter(pk=before).exists())
        self.assertEqual(self.audit(), [("signed_out", "Ada", "bob", ""), ("signed_in", "Ada", "Ada", "")])
        self.assertEqual(self.access_changes(), [f'{{"users":[{self.bob.pk}],"projects":[]}}'])

    def test_a_token_that_comes_along_changes_nothing(self) -> None:
        secret = token_of(self.bob)
        AuditEntry.objects.all().delete()
        for header in (f"Bearer {secret}", "Basic YWRhOng="):
            self.sign_in(headers={"authorization": header})
        self.assertEqual(self.audit(), [("signed_in", "Ada", "Ada", "")] * 2)


class PageTests(AccountCase):
    def test_browsers_can_fill_it_in_and_scripts_have_no_place_in_it(self) -> None:
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

    def test_who_is_signed_in_sees_where_to_go(self) -> None:
        self.client.force_login(self.ada)
        page = self.client.get(SIGN_IN, {"next": "/graphql/?query=x"})
        self.assertContains(page, "You are signed in as <strong>Ada</strong>.")
        for link in ("/graphql/", "/docs/", CHANGE_PASSWORD, "/graphql/?query=x"):
            self.assertContains(page, f'<a href="{link}">')
        self.assertContains(page, f'<form method="post" action="{SIGN_OUT}">')
        self.assertNotContains(page, 'href="/admin/"')
        self.assertNotContains(page, "is not staff")

    def test_the_docs_lead_there_for_who_has_a_session(self) -> None:
        self.client.force_login(self.ada)
        self.assertContains(self.client.get("/docs/"), f'href="{SIGN_IN}"')


class AdminDoorTests(AccountCase):
    """The admin's own pages for signing in and out are not to be met."""

    def test_the_admin_sends_people_to_our_page_and_remembers_where_they_were_going(self) -> None:
        goal = "/admin/projects/task/?q=draw"
        answer = self.client.get(goal, follow=True)
        self.assertEqual(answer.redirect_chain[-1], ("/accounts/sign-in/?next=/admin/projects/task/%3Fq%3Ddraw", 302))
        self.assertEqual(answer.context["next"], goal)
        self.assertRedirects(self.client.get("/admin/login/"), "/accounts/sign-in/?next=/admin/")

    def test_nobody_gets_in_by_the_admins_own_page(self) -> None:
        User.objects.filter(pk=self.ada.pk).update(is_staff=True)
        for password in (PASSWORD, "wrong"):
            answer = self.client.post("/admin/login/", {"username": "ada", "password": password, "next": "/admin/"})
            self.assertRedirects(answer, "/accounts/sign-in/?next=/admin/")
        self.assertFalse(self.is_signed_in())

    def test_who_is_no_staff_is_told_so(self) -> None:
        self.client.force_login(self.ada)
        page = self.client.get("/admin/", follow=True)
        self.assertContains(page, "The admin is for staff, and this account is not staff.")
        self.assertNotContains(page, "Go on")

    def test_staff_are_not(self) -> None:
        User.objects.filter(pk=self.ada.pk).update(is_staff=True)
        self.client.force_login(self.ada)
        page = self.client.get("/admin/login/", {"next": "/admin/"}, follow=True)
        self.assertContains(page, '<a href="/admin/">Go on to /admin/</a>')
        self.assertNotContains(page, "is not staff")

    def test_its_sign_out_and_password_pages_are_ours(self) -> None:
        self.client.force_login(self.ada)
        self.assertRedirects(self.client.get("/admin/password_change/"), CHANGE_PASSWORD)
        self.assertRedirects(self.client.post("/admin/logout/"), SIGN_IN)
        self.assertEqual(self.audit(), [("signed_out", "Ada", "Ada", "")])


class SignOutTests(AccountCase):
    def test_it_ends_this_session_and_tells_whoever_listens_by_it(self) -> None:
        elsewhere = Client()
        elsewhere.force_login(self.ada)
        self.client.force_login(self.ada)
        self.assertRedirects(self.client.post(SIGN_OUT), SIGN_IN)
        self.assertEqual((self.is_signed_in(), self.is_signed_in(elsewhere)), (False, True))
        self.assertEqual(self.audit(), [("signed_out", "Ada", "Ada", "")])
        self.assertEqual(self.access_changes(), [f'{{"users":[{self.ada.pk}],"projects":[]}}'])

    def test_what_was_opened_with_the_session_is_no_longer_good(self) -> None:
        self.client.force_login(self.ada)
        viewer = replace(viewer_for(self.ada), session_key=self.client.cookies["sessionid"].value)
        self.assertEqual(current_viewer(viewer).user_id, self.ada.pk)
        self.client.post(SIGN_OUT)
        with self.assertRaises(InvalidCredential):
            current_viewer(viewer)

    def test_where_they_were_is_remembered_if_it_is_ours(self) -> None:
        self.client.force_login(self.ada)
        self.assertRedirects(self.client.post(SIGN_OUT, {"next": "/admin/"}), "/accounts/sign-in/?next=/admin/")
        self.assertRedirects(self.client.post(SIGN_OUT, {"next": "//evil.example/"}), SIGN_IN)

    def test_a_link_signs_nobody_out(self) -> None:
        self.client.force_login(self.ada)
        with self.nothing_changes():
            self.assertEqual(self.client.get(SIGN_OUT).status_code, 405)
        self.assertTrue(self.is_signed_in())

    def test_another_sites_form_signs_nobody_out(self) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(self.ada)
        with self.nothing_changes():
            self.assertEqual(strict.post(SIGN_OUT).status_code, 403)
        self.assertTrue(self.is_signed_in(strict))

    def test_who_is_not_signed_in_leaves_no_trace(self) -> None:
        with self.nothing_changes():
            self.assertRedirects(self.client.post(SIGN_OUT), SIGN_IN)


class PasswordTests(AccountCase):
    NEW = "staple battery horse"

    def setUp(self) -> None:
        self.client.force_login(self.ada)

    def change(self, old: str = PASSWORD, new: str = NEW, again: str | None = None) -> Any:
        form = {"old_password": old, "new_password1": new, "new_password2": again or new}
        return self.client.post(CHANGE_PASSWORD, form, follow=True)

    def test_it_is_for_who_is_signed_in(self) -> None:
        self.assertRedirects(Client().get(CHANGE_PASSWORD), f"{SIGN_IN}?next={CHANGE_PASSWORD}")

    def test_a_new_one_ends_every_other_session(self) -> None:
        elsewhere = Client()
        elsewhere.force_login(self.ada)
        self.assertContains(self.change(), "Your password is changed.")
        self.assertEqual((self.is_signed_in(), self.is_signed_in(elsewhere)), (True, False))
        self.assertEqual(self.audit(), [("password_changed", "Ada", "Ada", "")])
        self.assertEqual(self.access_changes(), [f'{{"users":[{self.ada.pk}],"projects":[]}}'])
        self.assertEqual(self.sign_in(client=elsewhere).status_code, 200)
        self.assertEqual(self.sign_in(password=self.NEW, client=elsewhere).status_code, 302)

    def test_what_is_refused_is_said_and_changes_nothing(self) -> None:
        for fields, said in (
            ({"again": "another one"}, "The two password fields didn"),
            ({"new": "short"}, "This password is too short."),
        ):
            with self.subTest(fields), self.nothing_changes():
                self.assertContains(self.change(**fields), said)

    def test_a_wrong_old_one_is_a_try_like_any_other(self) -> None:
        for _ in range(4):
            self.assertContains(self.change(old="wrong"), "Your old password was entered incorrectly.")
        for old in ("wrong", PASSWORD):
            self.assertEqual(self.change(old=old).status_code, 429)
        self.assertEqual(
            self.audit(), [("sign_in_failed", "Ada", "Ada", "")] * 4 + [("sign_in_failed", "Ada", "Ada", "Locked out")]
        )
        self.assertTrue(User.objects.get(pk=self.ada.pk).check_password(PASSWORD))

    def test_browsers_can_fill_it_in(self) -> None:
        page = self.client.get(CHANGE_PASSWORD)
        self.assertContains(page, 'autocomplete="current-password"', count=1)
        self.assertContains(page, 'autocomplete="new-password"', count=2)
        self.assertContains(page, 'value="ada" autocomplete="username"')
        self.assertContains(page, "autofocus", count=1)

    def test_rights_that_were_taken_meanwhile_stay_taken(self) -> None:
        boss = UserFactory(is_staff=True)
        User.objects.filter(pk=boss.pk).update(is_staff=False)
        boss.set_password(self.NEW)
        services.user.save_user(actor=SYSTEM, user=boss, fields=["password"])
        stored = User.objects.get(pk=boss.pk)
        self.assertEqual((stored.is_staff, stored.check_password(self.NEW)), (False, True))


class TriesTests(AccountCase):
    def move_back(self, **ago: int) -> None:
        """Let so much time pass since every try."""
        AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(**ago))

    def test_five_wrong_ones_lock_the_name_for_this_address(self) -> None:
        self.assertEqual(self.guess(5), [200] * 4 + [429])
        answer = self.sign_in()
        self.assertContains(answer, f"{LOCKED} Try again in 15 minutes.", status_code=429)
        self.assertContains(answer, '<input type="hidden" name="csrfmiddlewaretoken"', status_code=429)
        self.assertTrue(890 < int(answer["Retry-After"]) <= 900, answer["Retry-After"])
        self.assertFalse(self.is_signed_in())
        self.guess(3)  # are not checked, and leave nothing
        self.assertEqual(
            self.audit(), [("sign_in_failed", "", "Ada", "")] * 4 + [("sign_in_failed", "", "Ada", "Locked out")]
        )

    def test_other_names_and_other_addresses_are_free(self) -> None:
        self.guess(5)
        self.assertEqual(self.sign_in("bob").status_code, 302)
        self.assertEqual(self.sign_in(REMOTE_ADDR="192.0.2.7").status_code, 302)

    def test_a_name_of_nobody_is_locked_like_any_other(self) -> None:
        self.assertEqual(self.guess(6, "nobody"), [200] * 4 + [429] * 2)

    def test_one_name_is_one_in_whichever_case_and_with_whichever_browser(self) -> None:
        names = ("ada", "ADA", "Ada", " ada", "\uff41da")  # the last with a wide "a", which Django reads as "a"
        statuses = [
            self.guess(1, name, headers={"user-agent": f"browser {number}"})[0] for number, name in enumerate(names)
        ]
        self.assertEqual(statuses, [200] * 4 + [429])

    def test_a_success_forgets_the_failures_before(self) -> None:
        self.guess(4)
        self.sign_in("ADA")
        self.assertEqual(self.guess(4), [200] * 4)

    def test_trying_while_locked_makes_it_no_longer(self) -> None:
        self.guess(5)
        self.move_back(minutes=10)
        before = list(AccessAttempt.objects.values())
        answer = self.sign_in(password="wrong")
        self.assertContains(answer, f"{LOCKED} Try again in 5 minutes.", status_code=429)
        self.assertTrue(290 < int(answer["Retry-After"]) <= 300, answer["Retry-After"])
        self.assertEqual(list(AccessAttempt.objects.values()), before)

    def test_after_fifteen_minutes_all_is_forgotten(self) -> None:
        self.guess(5)
        self.move_back(minutes=15)
        self.assertEqual(self.guess(4), [200] * 4)
        self.assertEqual(self.sign_in().status_code, 302)

    def test_the_wait_ends_when_there_is_a_try_left(self) -> None:
        self.guess(4, headers={"user-agent": "one"})
        self.move_back(minutes=14)
        answer = self.sign_in(password="wrong", headers={"user-agent": "another"})
        self.assertContains(answer, f"{LOCKED} Try again in 1 minute.", status_code=429)
        self.assertTrue(50 < int(answer["Retry-After"]) <= 60, answer["Retry-After"])

    def test_of_ipv6_the_network_counts(self) -> None:
        same = [self.guess(1, REMOTE_ADDR=f"2001:db8:1:2::{number}")[0] for number in range(5)]
        self.assertEqual(same, [200] * 4 + [429])
        self.assertEqual(self.sign_in(REMOTE_ADDR="2001:db8:1:3::1").status_code, 302)

    def test_ipv4_within_ipv6_counts_as_itself(self) -> None:
        self.guess(5, REMOTE_ADDR="::ffff:192.0.2.7")
        self.assertEqual(self.sign_in(REMOTE_ADDR="::ffff:192.0.2.8").status_code, 302)
        self.assertEqual(self.sign_in(REMOTE_ADDR="192.0.2.7").status_code, 429)

    def test_behind_our_proxy_the_address_is_what_it_says(self) -> None:
        with override_settings(TLS_PROXY=True):
            self.guess(5, headers={"x-forwarded-for": "198.51.100.1, 192.0.2.7"})
            self.assertEqual(self.sign_in(headers={"x-forwarded-for": "192.0.2.7"}).status_code, 429)
            self.assertEqual(self.sign_in(headers={"x-forwarded-for": "192.0.2.8"}).status_code, 302)

    def test_without_one_nobody_gets_more_tries_by_claiming_another_address(self) -> None:
        claims = [self.guess(1, headers={"x-forwarded-for": f"192.0.2.{number}"})[0] for number in range(5)]
        self.assertEqual(claims, [200] * 4 + [429])

    def test_what_is_no_address_counts_too(self) -> None:
        with override_settings(TLS_PROXY=True):
            for claim in ("unknown", "192.0.2.7:4711"):
                statuses = self.guess(5, "bob", headers={"x-forwarded-for": claim})
        self.assertEqual(statuses, [429] * 5)

    def test_they_count_while_redis_is_down(self) -> None:
        with self.redis_down():
            self.assertEqual(self.guess(5), [200] * 4 + [429])
            self.assertEqual(self.sign_in().status_code, 429)

    def test_the_page_is_the_same_under_asgi(self) -> None:
        self.guess(5)
        form = {"username": "ada", "password": "wrong", "next": "/docs/"}
        answer = async_to_sync(self.async_client.post)(SIGN_IN, form)
        self.assertContains(answer, LOCKED, status_code=429)
        self.assertContains(answer, 'name="next" value="/docs/"', status_code=429)
        self.assertTrue(890 < int(answer["Retry-After"]) <= 900, answer["Retry-After"])


class ParallelTriesTests(CommittingCase):
    def test_of_twenty_at_once_five_are_checked(self) -> None:
        UserFactory(username="ada", password=make_password(PASSWORD))
        together = Barrier(20)

        def guess(number: int) -> int:
            together.wait()
            try:
                return Client().post(SIGN_IN, {"username": "ada", "password": f"guess {number}"}).status_code
            finally:
                connection.close()

        with ThreadPoolExecutor(20) as pool:
            statuses = sorted(pool.map(guess, range(20)))
        self.assertEqual(statuses, [200] * 4 + [429] * 16)
        self.assertEqual(AccessAttempt.objects.get().failures_since_start, 5)
        self.assertEqual(AuditEntry.objects.filter(action="sign_in_failed").count(), 5)


class CrowdTests(AccountCase):
    def test_no_more_passwords_are_checked_at_once_than_there_are_connections_to_spare(self) -> None:
        self.addCleanup(setattr, accounts, "_PATIENCE_S", accounts._PATIENCE_S)
        accounts._PATIENCE_S = 0.01
        with ExitStack() as checks:
            while accounts._checks.acquire(blocking=False):
                checks.callback(accounts._checks.release)
            answer = self.sign_in()
        self.assertEqual((answer.status_code, answer["Retry-After"]), (503, "10"))
        self.assertEqual(self.sign_in().status_code, 302)


class NameTests(AccountCase):
    """Two accounts never differ by the case of their names alone."""

    def setUp(self) -> None:
        self.boss = UserFactory(is_staff=True, is_superuser=True)
        self.client.force_login(self.boss)

    def test_the_admin_refuses_a_second_one(self) -> None:
        form = {"username": "ADA", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
        with self.nothing_changes():
            answer = self.client.post("/admin/projects/user/add/", form)
            self.assertContains(answer, "A user with that username already exists.")

    def test_the_admin_refuses_a_change_into_one(self) -> None:
        page = f"/admin/projects/user/{self.bob.pk}/change/"
        initial = self.client.get(page).context["adminform"].form.initial
        form = {name: value for name, value in initial.items() if value not in (None, False)}
        del form["date_joined"]
        form |= {"username": "aDa", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
        with self.nothing_changes():
            answer = self.client.post(page, form)
            self.assertContains(answer, "A user with that name already exists, in this case or another.")

    def test_createsuperuser_refuses_one(self) -> None:
        with self.nothing_changes(), self.assertRaisesMessage(CommandError, "That username is already taken."):
            call_command("createsuperuser", username="ADA", email="a@example.org", interactive=False)
