"""The cost of an operation, the report of it in the response, and the budget of the viewer."""

from __future__ import annotations

from typing import Any

from django.test import Client
from django.test.utils import override_settings

from backend.projects import budget
from backend.projects.access import viewer_for
from backend.projects.models import Role, Token
from backend.projects.services.project import update_project
from tests.cases import CommittingCase, token_of
from tests.factories import MembershipFactory, TaskFactory, UserFactory
from tests.schema.cases import ClosedCase
from tests.schema.sockets import ready
from tests.schema.test_subscription import LISTEN, head, write

TASKS = "{ tasks(first: 20) { nodes { id project { id } } } }"
GRAPHQL_RESPONSE = "application/graphql-response+json"


def fresh_budgets(test: Any) -> None:
    """Forget the charges that other tests have made in this process."""
    for buckets in (budget._unused, budget._local, budget._blocked):
        buckets.clear()
        test.addCleanup(buckets.clear)


@override_settings(COST_MAX=100, COST_BUDGET=100, COST_RESTORE_RATE=1)
class BudgetTests(ClosedCase):
    def setUp(self) -> None:
        fresh_budgets(self)
        self.member = MembershipFactory(role=Role.OWNER)
        TaskFactory.create_batch(2, project=self.member.project)
        self.client = Client(headers={"Authorization": f"Bearer {token_of(self.member.user)}"})

    def cost(self, query: str, **variables: Any) -> dict[str, Any]:
        response = self.post(query, variables)
        self.assertEqual(response.status_code, 200, response.content)
        cost: dict[str, Any] = response.json()["extensions"]["cost"]
        return cost

    @override_settings(COST_MAX=1000, COST_BUDGET=1000)
    def test_a_response_reports_its_cost_and_the_rest_of_the_budget(self) -> None:
        response = self.post(TASKS)
        self.assertEqual(
            response.json()["extensions"],
            {"cost": {"requested": 140, "actual": 104, "restoreRate": 1, "available": 896}},
        )
        self.assertEqual(response["RateLimit"], '"cost";r=860;t=140')
        self.assertEqual(response["RateLimit-Policy"], '"cost";q=1000;w=1000')
        # The second charge gives back the units that the first operation was charged and did not use.
        self.assertEqual(self.cost("{ cursor }"), {"requested": 1, "actual": 1, "restoreRate": 1, "available": 895})

    @override_settings(COST_BUDGET=250)
    def test_refused_documents_are_charged_and_not_validated_once_the_budget_is_spent(self) -> None:
        self.cost("{ cursor }")
        for document in ("{ nothing }", "{", "{ tasks(first: 100) { nodes { id title project { id } } } }"):
            with self.subTest(document):
                response = self.post(document)
                self.assertNotEqual(response.json()["errors"][0].get("extensions", {}).get("code"), "RATE_LIMITED")
        response = self.post("{ nothing }")
        self.assertEqual([error["extensions"]["code"] for error in response.json()["errors"]], ["RATE_LIMITED"])
        self.assertGreater(int(response["Retry-After"]), 0)
        # A document that was valid before is not parsed again.
        self.assertEqual(self.cost("{ cursor }")["requested"], 1)

    @override_settings(COST_MAX=200, COST_BUDGET=250)
    def test_a_new_document_that_is_over_the_budget_is_not_charged_for_its_validation(self) -> None:
        budget.charge(viewer_for(self.member.user), [(budget.cost_policy(), 130)])
        response = self.post(TASKS)
        self.assertEqual([error["extensions"]["code"] for error in response.json()["errors"]], ["RATE_LIMITED"])
        self.assertEqual(self.cost("{ cursor }")["available"], 119)

    def test_an_operation_is_not_executed_once_the_budget_is_spent(self) -> None:
        create = 'mutation { a: createProject(input: {name: "A"}) { __typename } }'
        for left in (90, 80, 70, 60, 50, 40, 30, 20, 10, 0):
            self.assertEqual(self.cost(create)["available"], left)
        with self.nothing_changes():
            response = self.post(create, Accept=GRAPHQL_RESPONSE)
        self.assertEqual(response.status_code, 429)
        [error] = response.json()["errors"]
        self.assertEqual(error["extensions"], {"code": "RATE_LIMITED", "retryAfter": 10})
        self.assertEqual(response["Retry-After"], "10")
        self.assertIn('"cost";r=0;t=100', response["RateLimit"])
        self.assertNotIn("data", response.json())

    def test_in_plain_json_a_spent_budget_has_the_status_200(self) -> None:
        with override_settings(COST_BUDGET=1, COST_MAX=1):
            self.cost("{ cursor }")
            response = self.post("{ cursor }", Accept="application/json")
        self.assertEqual((response.status_code, response["Retry-After"]), (200, "1"))
        self.assertEqual(response.json()["errors"][0]["extensions"]["code"], "RATE_LIMITED")

    @override_settings(WRITES_PER_MINUTE=2)
    def test_writes_have_a_budget_of_their_own(self) -> None:
        create = 'mutation { a: createProject(input: {name: "A"}) { __typename } }'
        self.assertEqual(self.post(create)["RateLimit-Policy"], '"cost";q=100;w=100, "writes";q=2;w=60')
        self.cost(create)
        with self.nothing_changes():
            response = self.post(create)
        self.assertEqual((response.status_code, response["Retry-After"]), (429, "30"))
        self.assertEqual(self.cost("{ cursor }")["actual"], 1)

    @override_settings(TOKENS_PER_HOUR=2)
    def test_an_account_creates_a_bounded_number_of_tokens(self) -> None:
        create = 'mutation { createToken(input: {name: "a", scope: READ}) { __typename } }'
        self.data(create)
        self.data(create)
        stored = Token.objects.count()
        response = self.post(create)
        self.assertEqual((response.status_code, response["Retry-After"]), (429, "1800"))
        self.assertEqual(response.json()["errors"][0]["extensions"]["code"], "RATE_LIMITED")
        self.assertIn('"tokens";q=2;w=3600', response["RateLimit-Policy"])
        self.assertEqual(Token.objects.count(), stored)

    @override_settings(INVITATIONS_PER_HOUR=2)
    def test_an_account_sends_a_bounded_number_of_invitations(self) -> None:
        invite = """mutation ($project: ID!, $name: String!) {
          inviteMember(input: {projectId: $project, username: $name}) { __typename }
        }"""
        project, name = str(self.member.project_id), UserFactory().username
        self.data(invite, project=project, name=name)
        self.data(invite, project=project, name="nobody")  # a refused invitation counts too
        for project_id in (project, "999999"):
            with self.subTest(project_id), self.nothing_changes():
                response = self.post(invite, {"project": project_id, "name": name})
                self.assertEqual((response.status_code, response["Retry-After"]), (429, "1800"))
                self.assertEqual(response.json()["errors"][0]["extensions"]["code"], "RATE_LIMITED")
                self.assertIn('"invitations";q=2;w=3600', response["RateLimit-Policy"])

    @override_settings(COST_BUDGET=500)
    def test_a_refused_operation_costs_its_validation_alone(self) -> None:
        for query in ("{ nothing }", "{ tasks(first: 100) { nodes { id } } }", "{ tasks {"):
            self.assertEqual(self.post(query).status_code, 400)
        self.assertEqual(self.cost("{ cursor }")["available"], 500 - 3 * 100 - 1)

    @override_settings(COST_MODE="measure")
    def test_no_operation_is_refused_while_costs_are_only_measured(self) -> None:
        for _ in range(3):
            self.assertEqual(self.cost("{ tasks(first: 100) { totalCount nodes { id } } }")["requested"], 230)


@override_settings(COST_MAX=100, COST_BUDGET=100, COST_RESTORE_RATE=1)
class SocketTests(CommittingCase):
    NESTED = """subscription ($after: Cursor) {
      events(after: $after) { ... on ProjectUpdated { project { name members(first: 20) { totalCount } } } }
    }"""

    def setUp(self) -> None:
        fresh_budgets(self)
        self.member = MembershipFactory(role=Role.OWNER)
        self.token = token_of(self.member.user)

    def socket(self) -> Any:
        return ready(Authorization=f"Bearer {self.token}")

    def rename(self, name: str) -> Any:
        return write(update_project, project_id=self.member.project.pk, changes={"name": name})

    async def test_an_operation_on_a_socket_reports_its_cost(self) -> None:
        async with self.socket() as socket:
            await socket.subscribe("{ cursor }")
            message = await socket.receive()
        self.assertEqual(
            message["payload"]["extensions"],
            {"cost": {"requested": 1, "actual": 1, "restoreRate": 1, "available": 99}},
        )

    async def test_an_operation_on_a_socket_is_refused_once_the_budget_is_spent(self) -> None:
        budget.charge(viewer_for(self.member.user), [(budget.cost_policy(), 100)])
        async with self.socket() as socket:
            await socket.subscribe("{ cursor }")
            self.assertEqual((await socket.error())["code"], "RATE_LIMITED")

    async def test_a_subscription_is_refused_where_an_event_costs_too_much(self) -> None:
        async with self.socket() as socket:
            await socket.subscribe(
                "subscription { events { ... on TaskCreated { task { comments { nodes { id } } } } } }"
            )
            await socket.subscribe(
                "subscription { events { ... on TaskCreated { task { comments(first: 99) { nodes { id } } } } } }", "2"
            )
            error = await socket.error("2")
        self.assertEqual((error["code"], error["cost"]), ("COST_LIMIT_EXCEEDED", 102))
        self.assertEqual(error["field"], "events.task.comments.nodes")

    async def test_a_subscription_that_reads_other_rows_is_charged_per_event_and_ends_with_the_budget(self) -> None:
        """Each event costs 15, and the budget of 100 pays for 6."""
        async with self.socket() as socket:
            after = await head()
            await socket.subscribe(self.NESTED, after=after)
            await socket.subscribe(LISTEN, "plain", after=after)
            plain = 0
            for number in range(7):
                await self.rename(f"name {number}")
            received = []
            while True:
                message = await socket.receive()
                if message["id"] == "plain":
                    plain += 1
                    continue
                received.append(message)
                if message["type"] == "error":
                    break
            while plain < 7:
                await socket.next("plain")
                plain += 1
        self.assertEqual([message["type"] for message in received], ["next"] * 6 + ["error"])
        self.assertEqual(received[-1]["payload"][0]["extensions"]["code"], "RATE_LIMITED")

    @override_settings(COST_BUDGET=1000)
    async def test_units_charged_for_events_that_are_not_sent_are_given_back(self) -> None:
        async with self.socket() as socket:
            after = await head()
            await self.rename("other")
            await socket.subscribe(self.NESTED, after=after)
            await socket.next()
        [balance] = budget.charge(viewer_for(self.member.user), [(budget.cost_policy(), 1)])
        self.assertEqual(balance.available, 1000 - 15 - 1)
