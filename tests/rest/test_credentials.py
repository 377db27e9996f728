"""Tokens and sessions on REST."""

from __future__ import annotations

from typing import Any

from django.test import Client

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import AuditEntry, Comment, Membership, Role, Scope, Token
from tests.cases import token_of
from tests.factories import MembershipFactory, TaskFactory, UserFactory
from tests.rest.cases import RestCase


class BearerCase(RestCase):
    membership: Membership

    @classmethod
    def setUpTestData(cls) -> None:
        cls.membership = MembershipFactory(role=Role.OWNER)

    def get(self, path: str, token: str, **headers: str) -> Any:
        return self.client.get(path, headers={"Authorization": f"Bearer {token}", **headers})

    def bearer(self, scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token_of(self.membership.user, scope)}"}


class BearerTests(BearerCase):
    def test_a_token_sees_what_its_user_sees(self) -> None:
        MembershipFactory()
        response = self.get("/projects/", token_of(self.membership.user, Scope.READ))
        self.assertEqual([project["id"] for project in response.json()], [self.membership.project_id])

    def test_a_cached_list_requested_with_a_checked_token_costs_no_sql(self) -> None:
        token = token_of(self.membership.user)
        first = self.get("/projects/", token)
        with self.assertNumQueries(0):
            self.assertEqual(self.get("/projects/", token).content, first.content)

    def test_a_token_needs_no_csrf_token(self) -> None:
        self.client = Client(enforce_csrf_checks=True)
        response = self.send("POST", "/projects/", {"name": "New"}, **self.bearer(Scope.WRITE))
        self.assertEqual(response.status_code, 201)

    def test_an_invalid_token_is_refused_even_with_a_session(self) -> None:
        self.client.force_login(self.membership.user)
        for header in ("", "Bearer", "Bearer x", "Basic eDp5", f"Bearer {'x' * 10_240}", "Bearer tw_" + "A" * 43):
            with self.subTest(header[:20]):
                response = self.client.get("/projects/", headers={"Authorization": header})
                self.assert_refused(response, 401, "detail")
                self.assertTrue(
                    response["WWW-Authenticate"].startswith('Bearer realm="Taskwire", error="invalid_token"')
                )

    def test_the_refusal_of_a_write_beyond_the_scope_names_the_required_scope(self) -> None:
        task = TaskFactory(project=self.membership.project)
        for method, path, body in (
            ("POST", "/projects/", {"name": "New"}),
            ("PATCH", f"/projects/{task.project_id}/", {"name": "New"}),
            ("DELETE", f"/projects/{task.project_id}/", None),
            ("PATCH", f"/tasks/{task.pk}/", {"title": "New"}),
            ("DELETE", f"/tasks/{task.pk}/", None),
            ("DELETE", "/tasks/999999/", None),
            ("PUT", "/tasks/999999/", {"project": task.project_id}),
            ("PUT", f"/tasks/{task.pk}/", {"project": 999999}),
            ("POST", "/tasks/", {}),
            ("POST", f"/tasks/{task.pk}/comments/", {"content": "Fine."}),
        ):
            bearer = self.bearer(Scope.READ)
            with self.subTest(method=method, path=path), self.nothing_changes():
                Token.objects.update(last_used_at=None)
                response = self.send(method, path, body, **bearer)
                self.assert_refused(response, 403, "detail", "scope")
                self.assertEqual(response.json()["scope"], "write")
                self.assertIn('error="insufficient_scope"', response["WWW-Authenticate"])

    def test_the_token_of_a_deactivated_account_is_invalid(self) -> None:
        token = token_of(self.membership.user)
        self.membership.user.is_active = False
        with self.committed():
            services.user.save_user(actor=SYSTEM, user=self.membership.user)
        self.assertEqual(self.get("/projects/", token).status_code, 401)


class CommentAuthorTests(BearerCase):
    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()
        cls.task = TaskFactory(project=cls.membership.project)
        cls.staff = UserFactory(is_staff=True)

    def comment(self, headers: dict[str, str], **body: str) -> Any:
        return self.send("POST", f"/tasks/{self.task.pk}/comments/", {"content": "Fine.", **body}, **headers)

    def author(self, headers: dict[str, str], **body: str) -> str:
        response = self.comment(headers, **body)
        self.assertEqual(response.status_code, 201, response.content)
        return Comment.objects.get(pk=response.json()["id"]).author

    def test_a_comment_has_the_name_of_the_signed_in_user(self) -> None:
        own_name = self.membership.user.display_name
        for body in ({}, {"author": own_name}, {"author": f" {own_name} "}):
            with self.subTest(body):
                self.assertEqual(self.author(self.bearer(Scope.WRITE), **body), own_name)
                self.assertEqual(self.author(self.bearer(Scope.ADMIN), **body), own_name)
        self.client.force_login(self.membership.user)
        self.assertEqual(self.author({}), own_name)
        self.assertEqual(AuditEntry.objects.filter(action="comment_imported").count(), 0)

    def test_only_an_admin_token_of_staff_may_name_another_author(self) -> None:
        staff_write = {"Authorization": f"Bearer {token_of(self.staff, Scope.WRITE)}"}
        for headers in (self.bearer(Scope.WRITE), self.bearer(Scope.ADMIN), staff_write):
            with self.subTest(headers), self.nothing_changes():
                response = self.comment(headers, author="Bob")
                self.assert_refused(response, 403, "detail")
                self.assertIn("another author", response.json()["detail"])
        for user in (self.membership.user, self.staff):
            self.client.force_login(user)
            with self.subTest(user), self.nothing_changes():
                self.assert_refused(self.comment({}, author="Bob"), 403, "detail")

    def test_an_import_of_a_comment_by_an_admin_token_of_staff_is_audited(self) -> None:
        headers = {"Authorization": f"Bearer {token_of(self.staff, Scope.ADMIN)}"}
        self.assertEqual(self.author(headers, author=" Bob "), "Bob")
        comment = Comment.objects.get()
        entry = AuditEntry.objects.get(action="comment_imported")
        self.assertEqual(
            (entry.actor_id, entry.actor_token_id, entry.project_id, entry.detail),
            (self.staff.pk, Token.objects.get().pk, self.task.project_id, f"Comment {comment.pk} as Bob"),
        )


class ForeignOriginTests(RestCase):
    def test_a_page_of_another_origin_cannot_use_a_session(self) -> None:
        self.client.force_login(UserFactory())
        for path in ("/projects/", "/events/"):
            for origin, status in (
                ("https://evil.example.org", 403),
                ("null", 403),
                ("http://testserver.evil.example.org", 403),
                ("http://testserver:8000", 403),
                ("http://testserver", 200),
            ):
                with self.subTest(path=path, origin=origin):
                    self.assertEqual(self.client.get(path, headers={"Origin": origin}).status_code, status)

    def test_a_token_may_be_used_by_a_page_of_any_origin(self) -> None:
        token = token_of(UserFactory())
        headers = {"Authorization": f"Bearer {token}", "Origin": "https://app.example.org"}
        response = self.client.get("/projects/", headers=headers)
        self.assertEqual((response.status_code, response.json()), (200, []))
