"""Tokens on GraphQL."""

from __future__ import annotations

from typing import Any

from django.test import Client

from backend.projects.models import Project, Role, Scope
from tests.cases import token_of
from tests.factories import MembershipFactory, UserFactory
from tests.schema.cases import ClosedCase, mutation

ME = "{ me { name } }"
JSON = "application/json"


class BearerTests(ClosedCase):
    def setUp(self) -> None:
        self.membership = MembershipFactory(role=Role.OWNER)
        self.user = self.membership.user

    def ask(self, token: str, query: str = ME, variables: Any = None, **headers: str) -> Any:
        return self.post(query, variables, Authorization=f"Bearer {token}", **headers)

    def test_a_token_is_its_user(self) -> None:
        response = self.ask(token_of(self.user, Scope.READ))
        self.assertEqual(response.json(), {"data": {"me": {"name": self.user.username}}})

    def test_it_wins_over_a_session_and_needs_no_csrf_token(self) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.client.force_login(UserFactory())
        response = self.ask(token_of(self.user))
        self.assertEqual(response.json(), {"data": {"me": {"name": self.user.username}}})

    def test_one_that_is_no_good_is_refused_though_there_is_a_session(self) -> None:
        self.client.force_login(self.user)
        for token in ("", "x", "tw_" + "A" * 43, "x" * 10_240):
            with self.subTest(token[:10]):
                response = self.ask(token)
                self.assertEqual(response.status_code, 401)
                self.assertEqual(response.json()["errors"][0]["extensions"], {"code": "UNAUTHENTICATED"})
                self.assertIn('error="invalid_token"', response["WWW-Authenticate"])

    def test_a_mutation_beyond_its_scope_is_403_and_names_the_scope(self) -> None:
        token = token_of(self.user, Scope.READ)
        self.ask(token)
        with self.nothing_changes():
            response = self.ask(token, mutation("createProject"), {"input": {"name": "New"}})
        self.assertEqual(response.status_code, 403)
        self.assertIn('error="insufficient_scope"', response["WWW-Authenticate"])
        [error] = response.json()["errors"]
        self.assertEqual(error["extensions"], {"code": "INSUFFICIENT_SCOPE", "scope": "write"})

    def test_whoever_asks_for_plain_json_is_told_in_the_body_alone(self) -> None:
        token = token_of(self.user, Scope.READ)
        response = self.ask(token, mutation("createProject"), {"input": {"name": "New"}}, Accept=JSON)
        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json()["errors"][0]["extensions"]["scope"], "write")
        self.assertEqual(Project.objects.count(), 1)
