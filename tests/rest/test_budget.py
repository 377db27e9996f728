"""The cost of requests, and the headers that report the budget."""

from __future__ import annotations

from typing import Any

from django.test import Client
from django.test.utils import override_settings

from backend.projects.models import Role
from tests.cases import token_of
from tests.factories import MembershipFactory, TaskFactory, UserFactory
from tests.rest.cases import ClosedCase
from tests.schema.test_budget import fresh_budgets


@override_settings(COST_MAX=1000, COST_BUDGET=1000, COST_RESTORE_RATE=1)
class BudgetTests(ClosedCase):
    def setUp(self) -> None:
        fresh_budgets(self)
        self.member = MembershipFactory(role=Role.OWNER)
        self.task = TaskFactory(project=self.member.project)
        self.client = Client(headers={"Authorization": f"Bearer {token_of(self.member.user)}"})

    def balance(self, response: Any) -> int:
        return int(response["RateLimit"].partition('"cost";r=')[2].partition(";")[0])

    def test_a_response_reports_the_balance(self) -> None:
        response = self.client.get(f"/tasks/{self.task.pk}/")
        self.assertEqual(response["RateLimit"], '"cost";r=999;t=1')
        self.assertEqual(response["RateLimit-Policy"], '"cost";q=1000;w=1000')

    @override_settings(COST_BUDGET=4000)
    def test_the_price_of_a_list_depends_on_its_page_size_search_and_count(self) -> None:
        for path, price in (
            ("/tasks/", 200),
            ("/tasks/?page_size=5", 105),
            ("/tasks/?page_size=5&search=sink", 1_305),
            ("/tasks/?page_size=5&count=1", 135),
            ("/projects/?page_size=5&search=sink", 205),
            ("/projects/?page_size=5&count=1", 108),
            ("/events/", 200),
            ("/events/?page_size=5", 105),
        ):
            with self.subTest(path):
                fresh_budgets(self)
                before = self.balance(self.client.get(f"/tasks/{self.task.pk}/"))
                self.assertEqual(before - self.balance(self.client.get(path)), price)
        fresh_budgets(self)
        before = self.balance(self.client.get("/tasks/?page_size=50"))
        # The page of 50 has one row. The next charge gives the price of the other 49 back.
        self.assertEqual(self.balance(self.client.get(f"/tasks/{self.task.pk}/")), before + 49 - 1)

    def test_a_response_without_a_body_costs_1(self) -> None:
        etag = self.client.get("/tasks/")["ETag"]
        before = self.balance(self.client.get(f"/tasks/{self.task.pk}/"))
        self.assertEqual(self.client.get("/tasks/", headers={"If-None-Match": etag}).status_code, 304)
        self.assertEqual(self.balance(self.client.get(f"/tasks/{self.task.pk}/")), before - 1 - 1)

    def test_a_write_costs_10_and_counts_as_a_write(self) -> None:
        response = self.send("POST", "/projects/", {"name": "Garden"})
        self.assertEqual(response.status_code, 201)
        self.assertEqual(response["RateLimit"], '"cost";r=990;t=10, "writes";r=599;t=1')
        self.assertEqual(response["RateLimit-Policy"], '"cost";q=1000;w=1000, "writes";q=600;w=60')

    @override_settings(WRITES_PER_MINUTE=1)
    def test_a_request_is_refused_once_a_budget_is_spent(self) -> None:
        self.assertEqual(self.send("POST", "/projects/", {"name": "Garden"}).status_code, 201)
        with self.nothing_changes():
            response = self.send("POST", "/projects/", {"name": "Garden"})
        self.assertEqual((response.status_code, response["Retry-After"]), (429, "60"))
        self.assertEqual(response.json()["code"], "RATE_LIMITED")
        self.assertEqual(response["RateLimit"], '"cost";r=990;t=10, "writes";r=0;t=60')
        self.assertEqual(self.client.get("/projects/").status_code, 200)

    @override_settings(INVITATIONS_PER_HOUR=1)
    def test_an_account_sends_a_bounded_number_of_invitations(self) -> None:
        path, body = f"/projects/{self.member.project_id}/invitations/", {"username": UserFactory().username}
        self.assertEqual(self.send("POST", path, body).status_code, 201)
        with self.nothing_changes():
            response = self.send("POST", path, body)
        self.assertEqual((response.status_code, response["Retry-After"]), (429, "3600"))
        self.assertEqual(response.json()["code"], "RATE_LIMITED")
        self.assertEqual(response["RateLimit-Policy"], '"invitations";q=1;w=3600')

    def test_an_anonymous_request_has_no_budget(self) -> None:
        response = Client().get("/tasks/")
        self.assertEqual(response.status_code, 401)
        self.assertNotIn("RateLimit", response)
