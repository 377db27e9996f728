"""Every list there is, at the top and nested: the same number of SQL statements for one row and for a hundred.

The documents are made from the schema, so a connection or an object's field that is added to it is asked for as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLUnionType,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    is_required_argument,
)

from backend.projects.models import User
from schema.schema import schema
from tests.factories import UserFactory
from tests.rows import SIZES, Grown, counts_in, grown, statements_where_nothing_is_cached
from tests.schema.cases import ClosedCase

GRAPHQL = schema._schema
# Fields below one another that bring objects.
DEPTH = 3
# Rows asked for of the first list on the way down, of a list in it, and so on.
FIRST = (100, 5, 2)
# What a field is given so that it has rows, beside what it requires.
GIVEN = {"events": 'after: "0"'}


# --- Ways ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Step:
    """One field on the way down that brings an object or several. `on` is the type that has it, of an interface."""

    name: str
    field: GraphQLField
    on: str | None

    @property
    def type(self) -> GraphQLNamedType:
        return get_named_type(self.field.type)

    @property
    def page(self) -> dict[str, GraphQLField]:
        """The fields of a page of objects; empty where the field brings none."""
        fields = _fields(self.type)
        return fields if "nodes" in fields else {}

    @property
    def is_list(self) -> bool:
        return bool(self.page) or is_list_type(get_nullable_type(self.field.type))

    @property
    def brings(self) -> GraphQLNamedType:
        return get_named_type(self.page["nodes"].type) if self.page else self.type


Way = tuple[Step, ...]


def ways(start: GraphQLNamedType, depth: int = DEPTH) -> Iterator[Way]:
    """Every way down from a type, the shorter ones too; what the types of an interface share below it, once."""
    if not depth:
        return
    brought = set()
    for step in _steps(start):
        yield (step,)
        if step.on is None or step.brings not in brought:
            brought.add(step.brings)
            for way in ways(step.brings, depth - 1):
                yield (step, *way)


def _steps(start: GraphQLNamedType) -> Iterator[Step]:
    shared = _fields(start)
    kinds = [start]
    if isinstance(start, GraphQLInterfaceType | GraphQLUnionType):
        kinds += GRAPHQL.get_possible_types(start)
    for kind in kinds:
        for name, field in _fields(kind).items():
            if not is_leaf_type(get_named_type(field.type)) and (kind is start or name not in shared):
                yield Step(name, field, None if kind is start else kind.name)


def _fields(kind: GraphQLNamedType) -> dict[str, GraphQLField]:
    return kind.fields if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) else {}


assert GRAPHQL.query_type is not None
WAYS = [way for way in ways(GRAPHQL.query_type) if any(step.is_list for step in way)]
COUNTED = [way for way in WAYS if "totalCount" in way[-1].page]


# --- Documents -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Form:
    """How a document asks for the lists on its way; `end` is what of the last one, instead of its rows."""

    name: str
    rows: str = "nodes"
    says_first: bool = True
    is_twice: bool = False
    end: str | None = None


ROWS = Form("nodes")
FORMS = [ROWS, Form("edges", rows="edges"), Form("no first", says_first=False), Form("two aliases", is_twice=True)]
COUNT = Form("count alone", end="totalCount")
COUNT_AND_ROWS = Form("count and rows", end="totalCount nodes { __typename }")


def document(way: Way, form: Form, ids: dict[str, int]) -> str:
    lists = [step.is_list for step in way]
    text = form.end or _rows(way[-1], form, _leaves(way[-1].brings))
    for depth, step in reversed(list(enumerate(way))):
        is_last = depth == len(way) - 1
        if not is_last:
            text = _rows(step, form, text)
        first = f"first: {FIRST[sum(lists[:depth])]}" if form.says_first else None
        field = _asked(step, ids, first, text)
        if is_last and form.is_twice:
            field = f"a: {field} b: {_asked(step, ids, 'first: 2', text)}"
        text = f"... on {step.on} {{ {field} }}" if step.on else field
    return f"{{ {text} }}"


def _asked(step: Step, ids: dict[str, int], first: str | None, inner: str) -> str:
    given = [GIVEN[step.name]] if step.name in GIVEN else []
    if first is not None and "first" in step.field.args:
        given.append(first)
    for name, argument in step.field.args.items():
        if is_required_argument(argument):
            assert name == "id", f"Say here what {step.name}({name}:) is given."
            given.append(f"id: {ids[step.type.name]}")
    arguments = f"({', '.join(given)})" if given else ""
    return f"{step.name}{arguments} {{ {inner} }}"


def _rows(step: Step, form: Form, inner: str) -> str:
    if not step.page:
        return inner
    by_edges = form.rows == "edges" and "edges" in step.page
    return f"edges {{ node {{ {inner} }} }}" if by_edges else f"nodes {{ {inner} }}"


def _leaves(kind: GraphQLNamedType) -> str:
    """Everything of an object that is no object."""
    names = [name for name, field in _fields(kind).items() if is_leaf_type(get_named_type(field.type))]
    return " ".join(["__typename", *names])


def found(answer: Any, way: Way) -> int:
    """How many objects the end of the way has brought."""
    level = [answer]
    for depth, step in enumerate(way):
        names = [step.name, "a"] if depth == len(way) - 1 else [step.name]
        level = [item[name] for item in level for name in names if item.get(name) is not None]
        if step.page:
            level = [row for page in level for row in _rows_of(page)]
        elif step.is_list:
            level = [row for rows in level for row in rows]
    return len(level)


def _rows_of(page: dict[str, Any]) -> list[Any]:
    return page["nodes"] if "nodes" in page else [edge["node"] for edge in page["edges"]]


def named(way: Way) -> str:
    return ".".join(step.name if step.on is None else f"({step.on}).{step.name}" for step in way)


# --- What they cost --------------------------------------------------------------------------------------
# By session: two statements of every operation.
WHO_ASKS = ["session", "user"]


@pytest.mark.slow
class _Walk(ClosedCase):
    reader: User
    # Fields of the query that are not for them.
    unseen: set[str] = set()

    def setUp(self) -> None:
        self.client.force_login(self.reader)

    def seen(self, every: list[Way]) -> list[Way]:
        return [way for way in every if way[0].name not in self.unseen]

    def asked(self, way: Way, form: Form, made: Grown) -> tuple[dict[str, Any], list[str]]:
        """The data, and the SQL of it."""
        ids = {"Project": made.project.pk, "Task": made.task.pk, "SummaryReport": made.report.pk}
        with statements_where_nothing_is_cached() as statements:
            answer = self.data(document(way, form, ids))
        return answer, statements

    def assert_costs_do_not_grow(self, forms: list[Form]) -> None:
        asked = [(way, form) for way in self.seen(WAYS) for form in forms]
        asked += [(way, COUNT) for way in self.seen(COUNTED)]
        costs, rows = defaultdict(list), defaultdict(list)
        for size in SIZES:
            with grown(size, reader=self.reader) as made:
                for way, form in asked:
                    answer, statements = self.asked(way, form, made)
                    costs[way, form].append(len(statements))
                    if form is not COUNT:
                        rows[way, form].append(found(answer, way))
        for (way, form), brought in rows.items():
            with self.subTest(way=named(way), form=form.name):
                few, more, most = brought
                self.assertTrue(0 < few < min(more, most), f"tests.rows.grow() makes too few of these: {brought}")
        for (way, form), cost in costs.items():
            with self.subTest(way=named(way), form=form.name):
                self.assertEqual(cost, cost[:1] * len(SIZES), f"SQL statements for {SIZES} rows")

    def assert_counted_only_when_asked_for(self) -> None:
        with grown(20, reader=self.reader) as made:
            for way in self.seen(COUNTED):
                above = self.asked(way[:-1], ROWS, made)[1] if way[1:] else WHO_ASKS
                of_rows, alone, beside = (self.asked(way, form, made)[1] for form in (ROWS, COUNT, COUNT_AND_ROWS))
                with self.subTest(way=named(way)):
                    self.assertEqual([counts_in(sql) for sql in (of_rows, alone, beside)], [0, 1, 1])
                    self.assertEqual(len(alone), len(above) + 1, alone)
                    self.assertEqual(len(beside), len(of_rows) + 1, beside)


class StaffWalkTests(_Walk):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.reader = UserFactory(is_staff=True)

    def test_no_list_costs_more_statements_for_more_rows_however_it_is_asked_for(self) -> None:
        self.assert_costs_do_not_grow(FORMS)

    def test_rows_are_counted_in_one_statement_where_that_is_asked_for_and_only_then(self) -> None:
        self.assert_counted_only_when_asked_for()


class MemberWalkTests(_Walk):
    """Somebody who is a member of every project."""

    unseen = {"auditLog"}

    @classmethod
    def setUpTestData(cls) -> None:
        cls.reader = UserFactory()

    def test_no_list_costs_a_member_more_statements_for_more_rows(self) -> None:
        self.assert_costs_do_not_grow([ROWS])

    def test_rows_are_counted_in_one_statement_where_that_is_asked_for_and_only_then(self) -> None:
        self.assert_counted_only_when_asked_for()
