"""Every list, top-level or nested, costs the same number of SQL statements for one row and for a hundred.

The documents are generated from the schema, so a new connection or object field is tested too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest
from django.test.utils import override_settings
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
from schema.execution import documents
from schema.schema import schema
from tests.factories import UserFactory
from tests.rows import FORGED_IDS, SIZES, Created, counts_in, forge, temporary_rows, uncached_statements
from tests.schema.cases import ClosedCase

GRAPHQL = schema._schema
# The maximum number of nested fields that return objects.
DEPTH = 3
# `first` of the outermost list, of a list in it, and so on.
FIRST = (100, 5, 2)
# Optional arguments that a field needs to have rows.
EXTRA_ARGUMENTS = {"events": 'after: "0"'}


# --- Paths -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Step:
    """One field that returns objects. `on` is the type that defines it, if its parent is an interface."""

    name: str
    field: GraphQLField
    on: str | None

    @property
    def type(self) -> GraphQLNamedType:
        return get_named_type(self.field.type)

    @property
    def page(self) -> dict[str, GraphQLField]:
        """The fields of a connection or page type; empty for another type."""
        fields = _fields(self.type)
        return fields if "nodes" in fields else {}

    @property
    def is_list(self) -> bool:
        return bool(self.page) or is_list_type(get_nullable_type(self.field.type))

    @property
    def object_type(self) -> GraphQLNamedType:
        return get_named_type(self.page["nodes"].type) if self.page else self.type


Path = tuple[Step, ...]


def paths(start: GraphQLNamedType, depth: int = DEPTH) -> Iterator[Path]:
    """Every path from a type, and its prefixes. Only one of the types of an interface is followed to a common type."""
    if not depth:
        return
    visited = set()
    for step in _steps(start):
        yield (step,)
        if step.on is None or step.object_type not in visited:
            visited.add(step.object_type)
            for path in paths(step.object_type, depth - 1):
                yield (step, *path)


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
PATHS = [path for path in paths(GRAPHQL.query_type) if any(step.is_list for step in path)]
CONNECTIONS = [path for path in PATHS if "pageInfo" in path[-1].page and len(path) < DEPTH]
COUNTED = [path for path in PATHS if "totalCount" in path[-1].page]


# --- Documents -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Form:
    """How a document selects the lists of a path. `end` replaces the rows of the last list."""

    name: str
    rows: str = "nodes"
    has_first: bool = True
    has_two_aliases: bool = False
    end: str | None = None
    # The page cursor that the last list starts after.
    after: str | None = None


ROWS = Form("nodes")
FORMS = [
    ROWS,
    Form("edges", rows="edges"),
    Form("no first", has_first=False),
    Form("two aliases", has_two_aliases=True),
]
COUNT = Form("count alone", end="totalCount")
END_CURSOR = Form("end of the page", end="pageInfo { endCursor }")
COUNT_AND_ROWS = Form("count and rows", end="totalCount nodes { __typename }")


def document(path: Path, form: Form) -> str:
    """Return the operation. Ids are variables, so that the server validates a document once for all sizes."""
    lists = [step.is_list for step in path]
    text = form.end or _rows(path[-1], form, _leaves(path[-1].object_type))
    for depth, step in reversed(list(enumerate(path))):
        is_last = depth == len(path) - 1
        if not is_last:
            text = _rows(step, form, text)
        first = f"first: {FIRST[sum(lists[:depth])]}" if form.has_first else None
        if is_last and form.after is not None:
            first = f'{first} after: "{form.after}"'
        field = _selection(step, first, text)
        if is_last and form.has_two_aliases:
            field = f"a: {field} b: {_selection(step, 'first: 2', text)}"
        text = f"... on {step.on} {{ {field} }}" if step.on else field
    variables = ", ".join(f"${_id_variable(step)}: ID!" for step in path if _has_id(step))
    return f"query({variables}) {{ {text} }}" if variables else f"{{ {text} }}"


def _selection(step: Step, first: str | None, inner: str) -> str:
    arguments = [EXTRA_ARGUMENTS[step.name]] if step.name in EXTRA_ARGUMENTS else []
    if first is not None and "first" in step.field.args:
        arguments.append(first)
    if _has_id(step):
        arguments.append(f"id: ${_id_variable(step)}")
    argument_list = f"({', '.join(arguments)})" if arguments else ""
    return f"{step.name}{argument_list} {{ {inner} }}"


def _has_id(step: Step) -> bool:
    required = {name for name, argument in step.field.args.items() if is_required_argument(argument)}
    assert required <= {"id"}, f"Add a value for the arguments of {step.name} here: {required}"
    return bool(required)


def _id_variable(step: Step) -> str:
    return step.type.name.lower()


def _rows(step: Step, form: Form, inner: str) -> str:
    if not step.page:
        return inner
    by_edges = form.rows == "edges" and "edges" in step.page
    return f"edges {{ node {{ {inner} }} }}" if by_edges else f"nodes {{ {inner} }}"


def _leaves(kind: GraphQLNamedType) -> str:
    """All leaf fields of an object."""
    names = [name for name, field in _fields(kind).items() if is_leaf_type(get_named_type(field.type))]
    return " ".join(["__typename", *names])


def count_objects(data: Any, path: Path) -> int:
    """The number of objects at the end of the path."""
    level = [data]
    for depth, step in enumerate(path):
        names = [step.name, "a"] if depth == len(path) - 1 else [step.name]
        level = [item[name] for item in level for name in names if item.get(name) is not None]
        if step.page:
            level = [row for page in level for row in _rows_of(page)]
        elif step.is_list:
            level = [row for rows in level for row in rows]
    return len(level)


def _rows_of(page: dict[str, Any]) -> list[Any]:
    return page["nodes"] if "nodes" in page else [edge["node"] for edge in page["edges"]]


def _end_cursors(data: Any) -> Iterator[str | None]:
    """Every `endCursor` in the data."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from [value] if name == "endCursor" else _end_cursors(value)
    elif isinstance(data, list):
        for value in data:
            yield from _end_cursors(value)


def label(path: Path) -> str:
    return ".".join(step.name if step.on is None else f"({step.on}).{step.name}" for step in path)


# --- Costs -----------------------------------------------------------------------------------------------
# The statements of every operation with a session.
AUTHENTICATION = ["session", "user"]


@pytest.mark.slow
@override_settings(COST_MODE="measure")
class _Walk(ClosedCase):
    reader: User
    # Fields of the query that the reader may not see.
    hidden_fields: set[str] = set()

    def setUp(self) -> None:
        self.client.force_login(self.reader)
        # Every document is validated once, and executed once for each size.
        self.enterContext(patch.object(documents, "_MAX_DOCUMENTS", len(PATHS) * len(FORMS) * 2))

    def visible(self, every: list[Path]) -> list[Path]:
        return [path for path in every if path[0].name not in self.hidden_fields]

    def ids(self, created: Created) -> dict[str, int]:
        """The value of each variable that a document may have."""
        return {"project": created.project.pk, "task": created.task.pk, "summaryreport": created.report.pk}

    def run_document(self, path: Path, form: Form, created: Created) -> tuple[dict[str, Any], list[str]]:
        """The data, and its SQL statements."""
        with uncached_statements() as statements:
            data = self.data(document(path, form), **self.ids(created))
        return data, statements

    def assert_costs_do_not_rise(self, forms: list[Form]) -> None:
        documents = [(path, form) for path in self.visible(PATHS) for form in forms]
        documents += [(path, COUNT) for path in self.visible(COUNTED)]
        costs, rows = defaultdict(list), defaultdict(list)
        for size in SIZES:
            with temporary_rows(size, reader=self.reader) as created:
                for path, form in documents:
                    data, statements = self.run_document(path, form, created)
                    costs[path, form].append(len(statements))
                    if form is not COUNT:
                        rows[path, form].append(count_objects(data, path))
        for (path, form), counts in rows.items():
            with self.subTest(path=label(path), form=form.name):
                few, more, most = counts
                self.assertTrue(0 < few < min(more, most), f"tests.rows.create_rows() creates too few: {counts}")
        for (path, form), cost in costs.items():
            with self.subTest(path=label(path), form=form.name):
                self.assertEqual(cost, cost[:1] * len(SIZES), f"SQL statements for {SIZES} rows")

    def assert_forged_cursors_are_refused(self) -> None:
        """Test two sizes: the query for the tasks of a member depends on the number of their projects."""
        for size in SIZES[1:]:
            with temporary_rows(size, reader=self.reader) as created:
                for path in self.visible(CONNECTIONS):
                    data, _ = self.run_document(path, END_CURSOR, created)
                    cursor = next(end for end in _end_cursors(data) if end is not None)
                    has_big_ids = path[-1].object_type.name in ("Comment", "AuditEntry")
                    for number in FORGED_IDS:
                        if has_big_ids and abs(number) < 2**63:
                            continue
                        with self.subTest(path=label(path), number=number):
                            forgery = replace(END_CURSOR, after=forge(cursor, number))
                            result = self.gql(document(path, forgery), **self.ids(created))
                            codes = {(error["extensions"]["code"], error["extensions"].get("argument"))
                                     for error in result["errors"]}  # fmt: skip
                            self.assertEqual(codes, {("BAD_USER_INPUT", "after")})

    def assert_counted_only_if_selected(self) -> None:
        with temporary_rows(20, reader=self.reader) as created:
            for path in self.visible(COUNTED):
                above = self.run_document(path[:-1], ROWS, created)[1] if path[1:] else AUTHENTICATION
                of_rows, alone, beside = (
                    self.run_document(path, form, created)[1] for form in (ROWS, COUNT, COUNT_AND_ROWS)
                )
                with self.subTest(path=label(path)):
                    self.assertEqual([counts_in(sql) for sql in (of_rows, alone, beside)], [0, 1, 1])
                    self.assertEqual(len(alone), len(above) + 1, alone)
                    self.assertEqual(len(beside), len(of_rows) + 1, beside)


class StaffWalkTests(_Walk):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.reader = UserFactory(is_staff=True)

    def test_no_list_costs_more_statements_for_more_rows_in_any_form(self) -> None:
        self.assert_costs_do_not_rise(FORMS)

    def test_rows_are_counted_in_one_statement_and_only_if_selected(self) -> None:
        self.assert_counted_only_if_selected()

    def test_a_cursor_with_an_id_that_no_row_can_have_is_refused(self) -> None:
        self.assert_forged_cursors_are_refused()


class MemberWalkTests(_Walk):
    """The reader is a member of every project."""

    hidden_fields = {"auditLog"}

    @classmethod
    def setUpTestData(cls) -> None:
        cls.reader = UserFactory()

    def test_no_list_costs_a_member_more_statements_for_more_rows(self) -> None:
        self.assert_costs_do_not_rise([ROWS])

    def test_rows_are_counted_in_one_statement_and_only_if_selected(self) -> None:
        self.assert_counted_only_if_selected()

    def test_a_cursor_with_an_id_that_no_row_can_have_is_refused(self) -> None:
        self.assert_forged_cursors_are_refused()
