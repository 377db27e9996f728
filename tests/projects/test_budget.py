"""Budgets: leaky buckets in Redis, and in each process while Redis does not answer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from django.test.utils import override_settings

from backend.projects import budget
from backend.projects.access import ANONYMOUS, SYSTEM, UNRESTRICTED, viewer_for
from backend.projects.budget import Balance, Policy, charge, give_back, rate_limit_headers
from backend.projects.cache.redis import server
from backend.projects.errors import RateLimited
from tests.cases import Case
from tests.factories import UserFactory

# Their rate is so low that nothing is restored during a test.
SLOW = Policy("test", 100, 0.001)
OTHER = Policy("other", 10, 0.001)


class BudgetTests(Case):
    def setUp(self) -> None:
        self.viewer = viewer_for(UserFactory())
        for buckets in (budget._unused, budget._local):
            buckets.clear()
            self.addCleanup(buckets.clear)

    def charge(self, amount: int, policy: Policy = SLOW, viewer: Any = None) -> int:
        """Charge one budget. Returns its balance."""
        [balance] = charge(viewer or self.viewer, [(policy, amount)])
        return balance.available

    def test_a_charge_reduces_the_budget_until_it_is_spent(self) -> None:
        self.assertEqual([self.charge(60), self.charge(30)], [40, 10])
        with self.assertRaises(RateLimited) as refused:
            self.charge(11)
        self.assertIn(refused.exception.retry_after_s, range(900, 1001))
        self.assertEqual(refused.exception.balances, [Balance(SLOW, 10)])
        self.assertEqual(self.charge(10), 0)

    def test_a_budget_is_restored_by_its_rate(self) -> None:
        fast = Policy("test", 100, 10_000.0)
        self.assertEqual(self.charge(100, fast), 0)
        for _ in range(10_000):
            with suppress(RateLimited):
                self.charge(100, fast)
                return
        self.fail("The budget is not restored.")

    def test_all_tokens_and_sessions_of_a_user_share_one_budget(self) -> None:
        self.assertEqual(self.charge(60), 40)
        by_token = replace(self.viewer, token_id=7, address="192.0.2.1")
        self.assertEqual(self.charge(1, viewer=by_token), 39)
        self.assertEqual(self.charge(1, viewer=viewer_for(UserFactory())), 99)

    def test_anonymous_clients_have_a_budget_per_address(self) -> None:
        for address in ("192.0.2.1", "192.0.2.2"):
            self.assertEqual(self.charge(60, viewer=replace(ANONYMOUS, address=address)), 40)
        self.assertEqual(self.charge(1, viewer=replace(ANONYMOUS, address="192.0.2.1")), 39)

    def test_open_access_has_one_budget_and_our_own_jobs_have_none(self) -> None:
        self.assertEqual(self.charge(60, viewer=replace(UNRESTRICTED, address="127.0.0.1")), 40)
        self.assertEqual(self.charge(1, viewer=UNRESTRICTED), 39)
        self.assertEqual(charge(SYSTEM, [(SLOW, 1000)]), [])

    def test_nothing_is_charged_if_one_of_two_budgets_is_spent(self) -> None:
        both = [(SLOW, 20), (OTHER, 6)]
        self.assertEqual([balance.available for balance in charge(self.viewer, both)], [80, 4])
        with self.assertRaises(RateLimited):
            charge(self.viewer, both)
        self.assertEqual(self.charge(0), 80)
        self.assertEqual(self.charge(0, OTHER), 4)

    def test_unused_units_are_given_back_with_the_next_charge(self) -> None:
        self.assertEqual(self.charge(60), 40)
        give_back(self.viewer, SLOW, 50)
        give_back(self.viewer, SLOW, 5)
        self.assertEqual(self.charge(1), 94)
        self.assertEqual(self.charge(1), 93)
        give_back(self.viewer, SLOW, 10_000)
        self.assertEqual(self.charge(1), 99)

    def test_a_charge_of_several_budgets_is_one_command(self) -> None:
        with patch.object(server, "call", wraps=server.call) as call:
            give_back(self.viewer, SLOW, 5)
            charge(self.viewer, [(SLOW, 1), (OTHER, 1)])
        self.assertEqual(call.call_count, 1)

    @override_settings(COST_MODE="measure")
    def test_nothing_is_refused_while_costs_are_only_measured(self) -> None:
        self.assertEqual([self.charge(60), self.charge(60), self.charge(60)], [40, 0, 0])

    def test_each_process_has_its_own_buckets_while_redis_is_down(self) -> None:
        with self.redis_down():
            self.assertEqual([self.charge(60), self.charge(30)], [40, 10])
            with self.assertRaises(RateLimited) as refused:
                charge(self.viewer, [(SLOW, 11), (OTHER, 1)])
            self.assertEqual([balance.available for balance in refused.exception.balances], [10, 10])
            give_back(self.viewer, SLOW, 5)
            self.assertEqual(self.charge(11), 4)
        self.assertEqual(self.charge(1), 99)

    def test_a_process_has_a_bounded_number_of_buckets(self) -> None:
        with self.redis_down(), patch.object(budget, "_MAX_LOCAL", 2):
            for user_id in (1, 2, 3):
                self.charge(60, viewer=replace(self.viewer, user_id=user_id))
                give_back(replace(self.viewer, user_id=user_id), SLOW, 1)
            self.assertEqual(len(budget._local._values), 2)
            self.assertEqual(len(budget._unused._values), 2)

    def test_the_headers_are_structured_fields(self) -> None:
        balances = [Balance(Policy("cost", 60_000, 1_000), 59_000), Balance(Policy("writes", 600, 10.0), 599)]
        self.assertEqual(
            rate_limit_headers(balances),
            {
                "RateLimit": '"cost";r=59000;t=1, "writes";r=599;t=1',
                "RateLimit-Policy": '"cost";q=60000;w=60, "writes";q=600;w=60',
            },
        )
        self.assertEqual(rate_limit_headers([]), {})
