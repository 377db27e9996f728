"""How lists are executed: row after row by graphql-core, or, where nothing but rows is shown, column after column.

graphql-core makes a path, an info and often a coroutine for each field of each row. Most of what a list shows needs
none of them: a field without a resolver is an attribute, and one that leads to a single row shows the same to all who
lead there. Such a list is shown at once (`_Columns`). Whatever is out of the ordinary (a field with arguments, a value
of another kind than its type promises, an error) is graphql-core's, from the beginning of the list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from graphql import (
    GraphQLBoolean,
    GraphQLField,
    GraphQLID,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLString,
    get_nullable_type,
    is_leaf_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetailsList
from graphql.pyutils import Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger(__name__)

_INT = range(-(2**31), 2**31)
_KINDS: dict[Any, type] = {GraphQLBoolean: bool, GraphQLID: str, GraphQLInt: int, GraphQLString: str}


def leads_to_one(loader: str, attribute: str) -> Callable[[F], F]:
    """Says of a resolver that it shows what this loader has for the id in this attribute, or null."""

    def set_loader(resolver: F) -> F:
        resolver.leads_to_one = (loader, attribute)  # type: ignore[attr-defined]
        return resolver

    return set_loader


class _Unusual(Exception):
    """graphql-core is to say what becomes of it."""


class _Column(Protocol):
    """One field of all rows, as it is in the answer. Raises _Unusual."""

    async def show(self, rows: Sequence[Any], loaders: Any) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class _Name:
    """`__typename`."""

    name: str

    async def show(self, rows: Sequence[Any], loaders: Any) -> Sequence[Any]:
        return [self.name] * len(rows)


@dataclass(frozen=True, slots=True)
class _Leaf:
    attribute: str
    type: GraphQLLeafType
    can_be_null: bool

    async def show(self, rows: Sequence[Any], loaders: Any) -> Sequence[Any]:
        return list(map(self._shown, map(attrgetter(self.attribute), rows)))

    def _shown(self, value: Any) -> Any:
        kind, expected = type(value), _KINDS.get(self.type)
        if kind is expected and (kind is not int or value in _INT):
            return value
        if value is None and self.can_be_null:
            return None
        if self.type is GraphQLID and kind is int:
            return str(value)
        shown = self.type.coerce_output_value(value) if expected is None else None  # a moment, or a word of ours
        if shown is None:
            raise _Unusual
        return shown


@dataclass(frozen=True, slots=True)
class _Object:
    """What an attribute holds: an edge's node."""

    attribute: str
    columns: _Columns

    async def show(self, rows: Sequence[Any], loaders: Any) -> Sequence[Any]:
        return await self.columns.show([getattr(row, self.attribute) for row in rows], loaders)


@dataclass(frozen=True, slots=True)
class _ToOne:
    """What an attribute has the id of: loaded for all rows together, and shown once."""

    loader: str
    attribute: str
    columns: _Columns

    async def show(self, rows: Sequence[Any], loaders: Any) -> Sequence[Any]:
        ids = [getattr(row, self.attribute) for row in rows]
        wanted = list(dict.fromkeys(pk for pk in ids if pk is not None))
        loaded = await asyncio.gather(*map(getattr(loaders, self.loader).load, wanted))
        found = {pk: row for pk, row in zip(wanted, loaded, strict=True) if row is not None}
        shown = dict(zip(found, await self.columns.show(list(found.values()), loaders), strict=True))
        return [shown.get(pk) for pk in ids]


@dataclass(frozen=True, slots=True)
class _Columns:
    """What is asked of each row of one type."""

    type: GraphQLObjectType
    named: list[tuple[str, _Column]]

    async def show(self, rows: Sequence[Any], loaders: Any) -> list[dict[str, Any]]:
        is_of_type = self.type.is_type_of
        if is_of_type is not None and not all(is_of_type(row, None) for row in rows):  # type: ignore[arg-type]
            raise _Unusual
        names = [name for name, _ in self.named]
        columns = [await column.show(rows, loaders) for _, column in self.named]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


_LOGGED_DOCUMENTS = 1_000
_logged: set[int] = set()


def _log_fault(info: GraphQLResolveInfo[Any]) -> None:
    """Log the exception, once per document: the answer is right all the same, only slower."""
    location = info.operation.loc
    document = hash(location.source.body if location else None)
    if document in _logged:
        return
    if len(_logged) >= _LOGGED_DOCUMENTS:
        _logged.clear()
    _logged.add(document)
    path = ".".join(str(key) for key in info.path.as_list())
    logger.exception("The columns of %s could not be read; it is completed row by row.", path)


class Executor(StrawberryGraphQLCoreExecutionContext):
    """Strawberry's, for the schema's `execution_context_class`."""

    def complete_iterable_value(
        self,
        item_type: GraphQLOutputType,
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Any],
        path: Path,
        items: Iterable[Any],
        position_context: Any,
    ) -> Any:
        def by_rows() -> Any:
            return super(Executor, self).complete_iterable_value(
                item_type, field_details_list, info, path, items, position_context
            )

        async def by_columns(columns: _Columns, rows: list[Any]) -> Any:
            try:
                return await columns.show(rows, self.context_value.loaders)
            except Exception as error:
                if not isinstance(error, _Unusual):
                    _log_fault(info)
                completed = by_rows()
                return await completed if isinstance(completed, Awaitable) else completed

        columns = self._columns(item_type, field_details_list) if isinstance(items, list) else None
        return by_rows() if columns is None else by_columns(columns, items)  # type: ignore[arg-type]

    def _columns(self, output_type: GraphQLOutputType, details: FieldDetailsList) -> _Columns | None:
        """None where something is asked for that takes more than rows."""
        row_type = get_nullable_type(output_type)
        if not is_object_type(row_type):
            return None
        collected = self.collect_subfields(row_type, details)
        if collected.new_defer_usages:
            return None
        named = []
        for name, field_details in collected.grouped_field_set.items():
            column = self._column(row_type, field_details)
            if column is None:
                return None
            named.append((name, column))
        return _Columns(row_type, named) if named else None  # a directive may leave out every field

    def _column(self, row_type: GraphQLObjectType, details: FieldDetailsList) -> _Column | None:
        name = details[0].node.name.value
        if name == "__typename":
            return _Name(row_type.name)
        field: GraphQLField | None = row_type.fields.get(name)
        definition = field and field.extensions.get("strawberry-definition")
        if field is None or not isinstance(definition, StrawberryField):
            return None
        shown_type = get_nullable_type(field.type)
        can_be_null = shown_type is field.type
        if definition.is_basic_field and is_leaf_type(shown_type):
            return _Leaf(definition.python_name, shown_type, can_be_null)
        columns = self._columns(field.type, details)
        if columns is None:
            return None
        if definition.base_resolver is None:
            return None if can_be_null else _Object(definition.python_name, columns)
        leads_to_one = getattr(definition.base_resolver.wrapped_func, "leads_to_one", None)
        if leads_to_one is None or not can_be_null:
            return None
        loader, attribute = leads_to_one
        return _ToOne(loader, attribute, columns)
