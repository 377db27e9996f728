"""The price of an operation: the server charges what the SDL says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import SimpleTestCase
from django.test.utils import override_settings
from graphql import GraphQLSchema, build_schema, get_introspection_query, parse, validate
from graphql.utilities import get_operation_ast

import schema as schema_package
from schema.execution.cost import Price, TooComplex, price_of
from schema.schema import schema
from tests.factories import CommentFactory, ProjectFactory, TaskFactory
from tests.schema.cases import OpenCase
from tests.schema.execution.pricing import DocumentGenerator, price_from_sdl

SDL = Path(schema_package.__file__).with_name("schema.graphql").read_text()

BOARD = """{ project(id: 1) { id name ...Pending ...Started ...Completed } }
fragment Pending on Project { pending: tasks(first: 50, filter: {status: PENDING}) { nodes { ...Card } } }
fragment Started on Project { started: tasks(first: 50, filter: {status: IN_PROGRESS}) { nodes { ...Card } } }
fragment Completed on Project { completed: tasks(first: 50, filter: {status: COMPLETED}) { nodes { ...Card } } }
fragment Card on Task { id title status dueDate assignee { id name } comments { totalCount } }"""

ROOT_BOARD = """{
  pending: tasks(first: 50, filter: {projectId: 1, status: PENDING}) { ...Column }
  started: tasks(first: 50, filter: {projectId: 1, status: IN_PROGRESS}) { ...Column }
  completed: tasks(first: 50, filter: {projectId: 1, status: COMPLETED}) { ...Column }
}
fragment Column on TaskConnection { totalCount pageInfo { endCursor hasNextPage } edges { cursor node { ...Card } } }
fragment Card on Task { id title status dueDate assignee { id name } comments { totalCount } }"""
# The numbers of tasks of each project that are open, completed and overdue.
OVERVIEW = """{ projects { nodes { id name
  open: tasks(filter: {status: PENDING}) { totalCount }
  completed: tasks(filter: {status: COMPLETED}) { totalCount }
  overdue: tasks(filter: {status: PENDING, dueBefore: "2030-01-01T00:00:00Z"}) { totalCount }
} } }"""


def price(document: str, **variables: Any) -> Price:
    parsed = parse(document)
    operation = get_operation_ast(parsed, None)
    assert operation is not None
    errors = validate(schema._schema, parsed)
    assert errors == [], (errors, document)
    return price_of(schema._schema, parsed, operation, variables)


class PriceTests(SimpleTestCase):
    def assert_prices(self, prices: dict[str, int], **variables: Any) -> None:
        for document, total in prices.items():
            with self.subTest(document, variables=variables):
                self.assertEqual(price(document, **variables).total, total)

    def test_an_object_costs_1_and_a_scalar_nothing(self) -> None:
        self.assert_prices(
            {
                "{ cursor }": 1,
                "{ me { id name } }": 1,
                "{ task(id: 1) { id title project { id name } assignee { name } } }": 20 + 2,
                "{ task(id: 1) { id } other: task(id: 2) { id } }": 20 + 20,
            }
        )

    def test_a_list_costs_the_rows_that_are_asked_for(self) -> None:
        self.assert_prices(
            {
                "{ tasks { nodes { id } } }": 100 + 50,
                "{ tasks(first: 7) { nodes { id } } }": 100 + 7,
                "{ tasks(last: 7) { nodes { id } } }": 100 + 7,
                "{ tasks(first: null) { nodes { id } } }": 100 + 50,
                "{ tasks(first: 7) { edges { cursor node { id project { id } } } pageInfo { endCursor } } }": 100
                + 21
                + 3,
                "{ tasks(first: 7) { totalCount } }": 100 + 30,
                "{ projects(first: 7) { totalCount } }": 100 + 3,
                "{ task(id: 1) { comments { totalCount } } }": 20 + 1 + 1,
                '{ tasks(first: 7, filter: {search: "sink"}) { nodes { id } } }': 100 + 1_200 + 7,
                '{ projects(first: 7, filter: {search: "sink"}) { nodes { id } } }': 100 + 100 + 7,
                "{ projects(first: 7) { nodes { tasks(first: 3) { nodes { id } } } } }": 100 + 7 * (1 + 10 + 3),
                '{ projects(first: 2) { nodes { tasks(first: 3, filter: {search: "sink"}) { nodes { id } } } } }': 100
                + 2 * (1 + 10 + 1_200 + 3),
                "{ events(first: 7) { nodes { cursor } } }": 100 + 7,
                "{ events { nodes { cursor } } }": 100 + 100,
            }
        )

    def test_an_invalid_page_size_costs_the_largest_page(self) -> None:
        for first in (0, -1, 101, 2**31 - 1):
            self.assert_prices({f"{{ tasks(first: {first}) {{ nodes {{ id }} }} }}": 200})
        for value in (0, "x", True, 1.5, [], {}):
            self.assert_prices({"query ($first: Int) { tasks(first: $first) { nodes { id } } }": 200}, first=value)

    def test_variables_and_their_defaults_are_substituted(self) -> None:
        document = "query ($first: Int = 7) { tasks(first: $first) { nodes { id } } }"
        self.assert_prices({document: 107})
        self.assert_prices({document: 103}, first=3)
        self.assert_prices({document: 150}, first=None)
        self.assert_prices({"query ($filter: TaskFilter) { tasks(first: 1, filter: $filter) { nodes { id } } }": 101})
        document = "query ($filter: TaskFilter) { tasks(first: 1, filter: $filter) { nodes { id } } }"
        self.assert_prices({document: 1_301}, filter={"search": "sink"})
        document = "query ($search: String) { tasks(first: 1, filter: {search: $search}) { nodes { id } } }"
        self.assert_prices({document: 101})
        self.assert_prices({document: 1_301}, search="sink")

    def test_fields_with_the_same_response_key_are_charged_once(self) -> None:
        self.assert_prices(
            {
                "{ me { id } me { name } ... { me { isStaff } } ...F } fragment F on Query { me { id } }": 1,
                """{ tasks(first: 7) { nodes { project { id } } ...F } }
                fragment F on TaskConnection { nodes { project { name } assignee { id } } }""": 100 + 7 * 3,
            }
        )

    def test_excluded_fields_cost_nothing(self) -> None:
        document = """query ($with: Boolean!) {
          cursor
          me @include(if: $with) { id }
          ... @skip(if: $with) { task(id: 1) { id project { id } } }
        }"""
        self.assert_prices({document: 1}, **{"with": True})
        self.assert_prices({document: 20 + 1}, **{"with": False})

    def test_an_abstract_type_costs_its_dearest_type(self) -> None:
        events = (
            "cursor actor { id } ... on TaskCreated { task { id } } ... on TaskCommented { task { id } comment { id } }"
        )
        self.assert_prices(
            {
                f"{{ events(first: 7) {{ nodes {{ {events} }} }} }}": 100 + 7 * 4,
                f"subscription {{ events {{ {events} }} }}": 4,
                "subscription { events { cursor } }": 1,
                """mutation { deleteTask(input: {id: 1}) {
                  ... on Task { id project { id } assignee { id } } ... on OperationInfo { messages { code } }
                } }""": 12,
            }
        )

    def test_fragments_that_double_at_each_level_are_priced_once(self) -> None:
        """Pricing each path would take 2 ** 100 steps."""
        doubling = [f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(100)]
        self.assert_prices({f"{{ ...F0 }} {' '.join(doubling)} fragment F100 on Query {{ me {{ id }} }}": 1})
        nested = "tasks(first: 1) { nodes { ...F%d } edges { node { ...F%d } } }"
        fragments = []
        for n in range(3):
            fragments.append(f"fragment F{n} on Task {{ project {{ {nested % (n + 1, n + 1)} }} }}")
        document = f"{{ task(id: 1) {{ ...F0 }} }} {' '.join(fragments)} fragment F3 on Task {{ id }}"
        self.assert_prices({document: 118})

    def test_an_operation_that_cannot_be_priced_quickly_is_too_complex(self) -> None:
        selections = " ".join(["a"] * 600)
        spreads = " ".join(f"... on Query {{ {selections} }}" for _ in range(100))
        parsed = parse(f"{{ {spreads} }}")
        operation = get_operation_ast(parsed, None)
        assert operation is not None
        with self.assertRaises(TooComplex):
            price_of(schema._schema, parsed, operation, {})

    def test_the_introspection_query_of_tools_costs_far_less_than_the_maximum(self) -> None:
        for levels in (7, 9, 20):
            total = price(get_introspection_query(type_depth=levels, input_value_deprecation=True)).total
            self.assertGreater(total, 100)
            self.assertLess(total, settings.COST_MAX / 4)

    def test_the_budget_pays_for_more_than_fifty_boards_per_minute(self) -> None:
        self.assertEqual(price(BOARD).total, 20 + 3 * (10 + 50 * (1 + 1 + 1 + 1)))
        self.assertEqual(price(ROOT_BOARD).total, 3 * (100 + 30 + 3 + 50 * (1 + 1 + 1 + 1 + 1)))
        for board in (BOARD, ROOT_BOARD):
            self.assertLess(price(board).total, 60_000 / 50)

    def test_three_counts_of_each_project_are_below_the_maximum(self) -> None:
        self.assertEqual(price(OVERVIEW).total, 100 + 50 * (1 + 3 * (10 + 30)))
        self.assertLess(price(OVERVIEW).total, settings.COST_MAX)

    def test_the_dearest_field_is_the_innermost_that_causes_most_of_the_price(self) -> None:
        for document, dearest in (
            (
                "{ projects(first: 9) { nodes { tasks(first: 80) { nodes { id } } } } }",
                ("projects.nodes.tasks.nodes", 720),
            ),
            ("{ task(id: 1) { id } all: tasks(first: 99) { edges { node { id } } } }", ("all.edges", 198)),
        ):
            self.assertEqual(price(document).dearest(), dearest)


@pytest.mark.slow
class GeneratedTests(SimpleTestCase):
    """The price charged equals the price that a client computes from the printed SDL."""

    def test_a_thousand_documents_cost_what_the_sdl_says(self) -> None:
        seed = random.randrange(2**32)
        sdl: GraphQLSchema = build_schema(SDL)
        generator = DocumentGenerator(sdl, random.Random(seed))
        totals = set()
        for number in range(1_000):
            document, variables = generator.document()
            total = price(document, **variables).total
            described = f"document {number} of seed {seed}: {document} {variables}"
            self.assertEqual(total, price_from_sdl(sdl, document, variables), described)
            totals.add(total)
        self.assertGreater(len(totals), 100)


class ActualTests(OpenCase):
    """The cost of the rows in a response."""

    def actual(self, document: str, **variables: Any) -> int:
        return price(document, **variables).actual(self.data(document, **variables))

    def test_rows_that_do_not_exist_cost_nothing(self) -> None:
        self.assertEqual(self.actual("{ projects { nodes { id } } }"), 100)
        task = TaskFactory()
        CommentFactory(task=task)
        TaskFactory()
        self.assertEqual(self.actual("{ tasks { nodes { id project { id } } totalCount } }"), 100 + 2 * 2 + 30)
        self.assertEqual(self.actual("{ tasks { edges { node { comments { nodes { id } } } } } }"), 100 + 2 * 3 + 1)
        self.assertEqual(self.actual("{ task(id: 999999) { id project { id } } }"), 20)

    def test_the_actual_cost_of_a_full_page_is_its_price(self) -> None:
        ProjectFactory.create_batch(3)
        document = "{ projects(first: 3) { nodes { id members { totalCount } } } }"
        self.assertEqual(self.actual(document), price(document).total)


class RefusalTests(OpenCase):
    DOCUMENT = "{ projects(first: 9) { nodes { tasks(first: 80) { nodes { id } } } } }"

    def test_an_operation_over_the_maximum_is_not_executed(self) -> None:
        total = price(self.DOCUMENT).total
        with override_settings(COST_MAX=total):
            self.data(self.DOCUMENT)
        with override_settings(COST_MAX=total - 1), self.assertNumQueries(0):
            error = self.request_error(self.DOCUMENT)
        self.assertEqual(
            error["message"],
            "The operation costs 919, and 918 is the maximum."
            " Its dearest field, `projects.nodes.tasks.nodes`, costs 720: ask for fewer rows.",
        )
        self.assertEqual(
            error["extensions"],
            {
                "code": "COST_LIMIT_EXCEEDED",
                "cost": 919,
                "maximum": 918,
                "field": "projects.nodes.tasks.nodes",
                "fieldCost": 720,
            },
        )

    def test_a_mutation_over_the_maximum_changes_nothing(self) -> None:
        names = [f'p{n}: createProject(input: {{name: "{n}"}}) {{ __typename }}' for n in range(9)]
        with override_settings(COST_MAX=89), self.nothing_changes():
            self.assertEqual(self.request_error_code(f"mutation {{ {' '.join(names)} }}"), "COST_LIMIT_EXCEEDED")

    @override_settings(COST_MAX=10, COST_MODE="measure")
    def test_no_operation_is_refused_while_costs_are_only_measured(self) -> None:
        self.data(self.DOCUMENT)
