"""Keyset pages: page 9,000 costs what page 1 costs, and rows inserted or deleted meanwhile do not shift a page.

A page cursor is opaque to clients. It contains the key of a row, and a digest of its list, filter and order. A cursor
of another list, filter or order is refused.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, reduce
from operator import or_
from typing import Any, Generic, TypeVar

import msgspec
import orjson
from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection
from django.db.models import BigIntegerField, BooleanField, Count, F, Func, Model, OuterRef, Q, QuerySet, Window
from django.db.models.expressions import RawSQL
from django.db.models.functions import RowNumber

from ..errors import BadArgument
from ..rows import Row

R = TypeVar("R", bound=Row)
M = TypeVar("M", bound=Model)

MAX_PAGE = 100
# Characters. A valid page cursor has about 80.
_MAX_PAGE_CURSOR = 200


@dataclass(frozen=True, slots=True)
class Order:
    """Orders by one field, then by id in the same direction, so every order is total."""

    field: str = "id"
    is_descending: bool = True

    @property
    def columns(self) -> list[str]:
        sign = "-" if self.is_descending else ""
        return [f"{sign}id"] if self.field == "id" else [f"{sign}{self.field}", f"{sign}id"]

    def reversed(self) -> Order:
        return replace(self, is_descending=not self.is_descending)

    def beyond(self, key: Key) -> Q:
        """The rows after `key` in this order."""
        side = "lt" if self.is_descending else "gt"
        if self.field == "id":
            return Q(**{f"id__{side}": key.id})
        # The first condition is implied by the second; an index scan can start from it.
        return Q(**{f"{self.field}__{side}e": key.value}) & (
            Q(**{f"{self.field}__{side}": key.value}) | Q(**{self.field: key.value, f"id__{side}": key.id})
        )

    def key_of(self, row: Row) -> Key:
        return Key(getattr(row, self.field), row.id)


@dataclass(frozen=True, slots=True)
class Key:
    """The place of a row in an order: the value of the order's field, and the id."""

    value: Any
    id: int


@dataclass(frozen=True, slots=True)
class PageRequest:
    """`first` rows after `after`, or `last` rows before `before`. Both are page cursors, not yet parsed."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None
    default_size: int = MAX_PAGE

    @property
    def is_backward(self) -> bool:
        return self.last is not None or (self.before is not None and self.first is None)

    @property
    def size(self) -> int:
        """Raises BadArgument where the size is not 1 to 100, or the request has both `first` and `last`."""
        if self.first is not None and self.last is not None:
            raise BadArgument("last", "Ask for the first or for the last rows, not for both.")
        argument, size = ("last", self.last) if self.last is not None else ("first", self.first)
        if size is None:
            return self.default_size
        if not 1 <= size <= MAX_PAGE:
            raise BadArgument(argument, f"A page has 1 to {MAX_PAGE} rows.")
        return size


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Rows in the order of the list."""

    rows: Sequence[R]
    has_next: bool
    has_previous: bool
    listing: Listing[R]

    def page_cursor(self, row: Row) -> str:
        """The cursor with which a client requests the page after (or before) the row."""
        return self.listing.page_cursor(row)


@dataclass(frozen=True, slots=True)
class Shares(Generic[M]):
    """Rows in disjoint querysets, each with an index for every order. `of` returns the queryset of a key."""

    of: Callable[[Any], QuerySet[M]]
    keys: Sequence[int]


@dataclass(frozen=True, slots=True)
class PerParent(Generic[M]):
    """The rows of some parents. PostgreSQL reads at most one page of each, from an index that starts with the parent.

    `parent` names the attribute of a row with the id of its parent.
    """

    parents: QuerySet[Any]
    rows: QuerySet[M]
    parent: str


@dataclass(frozen=True, slots=True)
class Listing(Generic[R]):
    """A list that clients can request: its name, row type, filter and order."""

    name: str
    row_type: type[R]
    filter: Any
    order: Order

    @property
    def _digest(self) -> str:
        identity = orjson.dumps([self.name, self.filter, self.order])
        return hashlib.sha256(identity).hexdigest()[:12]

    def cache_params(self, page: PageRequest) -> list[Any]:
        """The parts of a page's cache key besides the list's name and the viewer. Raises BadArgument."""
        return [self.row_type.__struct_fields__, self.filter, self.order, page, page.size]

    def page_cursor(self, row: Row) -> str:
        key = self.order.key_of(row)
        return base64.urlsafe_b64encode(orjson.dumps([self._digest, key.value, key.id])).decode().rstrip("=")

    def parse_page_cursor(self, page_cursor: str | None, argument: str) -> Key | None:
        """Raises BadArgument where the cursor is malformed, or of another list, or has an id that no row can have."""
        if page_cursor is None:
            return None
        is_ours = False
        try:
            if len(page_cursor) > _MAX_PAGE_CURSOR:
                raise ValueError
            padded = page_cursor.encode("ascii") + b"=" * (-len(page_cursor) % 4)
            digest, value, pk = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            if self.order.field != "id":
                value = datetime.fromisoformat(value).astimezone(UTC)
            elif type(value) is not int or value != pk:
                raise ValueError
            is_ours = digest == self._digest and type(pk) is int and abs(pk) <= self.row_type.max_id
        except (ValueError, TypeError, OverflowError):
            pass
        if not is_ours:
            raise BadArgument(argument, "This is no cursor of this list with this filter and order.")
        return Key(value, pk)

    def check(self, page: PageRequest) -> None:
        """Raise BadArgument where the request is invalid, before any row is read."""
        self._slice(page)

    def page(self, rows: QuerySet[Any] | Shares[Any] | PerParent[Any], page: PageRequest) -> Page[R]:
        """One page of `rows`, in one query. Raises BadArgument."""
        cut = self._slice(page)
        if isinstance(rows, Shares):
            return cut.page(self.row_type.of_values(_merged_values(rows, cut, self.row_type.__struct_fields__)))
        found = cut.first_of_each(rows).order_by(*cut.order.columns) if isinstance(rows, PerParent) else cut.apply(rows)
        return cut.page(self.row_type.read(found[: cut.size + 1]))

    def pages_of(
        self, rows: PerParent[Any], page: PageRequest, parent_ids: Sequence[int], *, keys_only: bool = False
    ) -> dict[int, Page[R]]:
        """The page for each parent, in one query. Raises BadArgument.

        A parent without rows has an empty page. With `keys_only`, a row has only what its page cursor contains. That
        takes a tenth of the time: PostgreSQL reads an index, and returns an array per parent.
        """
        cut = self._slice(page)
        if keys_only:
            return self._keys_by_parent(cut, rows, parent_ids)
        return self._by_parent(cut, cut.first_of_each(rows), rows.parent, parent_ids)

    def _keys_by_parent(self, cut: _Slice[R], rows: PerParent[Any], parent_ids: Sequence[int]) -> dict[int, Page[Any]]:
        row_type = _key_type(self.order.field)
        found = {
            parent_id: row_type.of_values(zip(*columns, strict=True))
            for parent_id, *columns in cut.keys_of_each(rows, row_type.__struct_fields__)
        }
        return {parent_id: cut.page(found.get(parent_id, [])) for parent_id in parent_ids}

    def pages_of_few(
        self, rows: QuerySet[Any], page: PageRequest, parent_ids: Sequence[int], *, parent: str
    ) -> dict[int, Page[R]]:
        """Like `pages_of`, where `rows` are few: PostgreSQL reads all of them."""
        cut = self._slice(page)
        number = Window(RowNumber(), partition_by=[F(parent)], order_by=cut.order.columns)
        numbered = cut.apply(rows).annotate(number=number).filter(number__lte=cut.size + 1)
        return self._by_parent(cut, numbered, parent, parent_ids)

    def _by_parent(
        self, cut: _Slice[R], rows: QuerySet[Any], parent: str, parent_ids: Sequence[int]
    ) -> dict[int, Page[R]]:
        found: dict[int, list[R]] = {parent_id: [] for parent_id in parent_ids}
        for row in self.row_type.read(rows.order_by(*cut.order.columns)):
            found[getattr(row, parent)].append(row)
        return {parent_id: cut.page(of_parent) for parent_id, of_parent in found.items()}

    def _slice(self, page: PageRequest) -> _Slice[R]:
        return _Slice(
            listing=self,
            order=self.order.reversed() if page.is_backward else self.order,
            size=page.size,
            is_backward=page.is_backward,
            after=self.parse_page_cursor(page.after, "after"),
            before=self.parse_page_cursor(page.before, "before"),
        )


@cache
def _key_type(field: str) -> type[Any]:
    """A row type with the id and this field."""
    return msgspec.defstruct("_KeyRow", [] if field == "id" else [(field, Any)], bases=(Row,), frozen=True)


def _merged_values(shares: Shares[Any], cut: _Slice[Any], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The first rows of all shares combined. PostgreSQL merges their indexes: it reads a page of each and sorts none.

    Django compiles the SQL of one share, which is repeated for the others: to compile each would take a millisecond.
    """
    placeholder = object()
    limit = cut.size + 1
    share = cut.apply(shares.of(RawSQL("%s", [placeholder]))).values_list(*names)[:limit]
    sql, parameters = share.query.sql_with_params()
    order = (f"{names.index(column.lstrip('-')) + 1}{' DESC' * column.startswith('-')}" for column in cut.order.columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT * FROM ({' UNION ALL '.join([f'({sql})'] * len(shares.keys))}) AS shares"
            f" ORDER BY {', '.join(order)} LIMIT {limit}",
            [key if value is placeholder else value for key in shares.keys for value in parameters],
        )
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def merged(shares: Sequence[QuerySet[M]], order: Sequence[str], size: int) -> QuerySet[M]:
    """The first `size` rows of several querysets combined. At most `size` rows of each are read."""
    ordered = [rows.order_by(*order)[:size] for rows in shares]
    if len(ordered) == 1:
        return ordered[0]
    return ordered[0].union(*ordered[1:], all=True).order_by(*order)[:size]


def count_by_parent(rows: QuerySet[Any], parent: str, parent_ids: Sequence[int]) -> dict[int, int]:
    """Count the rows of each parent, in one query. `parent` names the column with the parent's id."""
    return {pk: number for pk, [number] in counts_by_parent(rows, parent, parent_ids, [Q()]).items()}


def counts_by_parent(
    rows: QuerySet[Any], parent: str, parent_ids: Sequence[int], conditions: Sequence[Q]
) -> dict[int, Sequence[int]]:
    """Count the rows of each parent that meet each condition, in one query."""
    rows, counts = _counts(rows.filter(**{f"{parent}__in": parent_ids}), conditions)
    found = rows.values(parent).order_by().annotate(**counts).values_list(parent, *counts)
    return dict.fromkeys(parent_ids, (0,) * len(conditions)) | {pk: numbers for pk, *numbers in found}


def counts_of(rows: QuerySet[Any], conditions: Sequence[Q]) -> list[int]:
    """Count the rows that meet each condition, in one query: PostgreSQL reads them once."""
    rows, counts = _counts(rows, conditions)
    found = rows.aggregate(**counts)
    return [found[name] for name in counts]


def _counts(rows: QuerySet[M], conditions: Sequence[Q]) -> tuple[QuerySet[M], dict[str, Count]]:
    """The rows that meet one of the conditions, and a count for each. Every row meets an empty condition."""
    if len(conditions) == 1:
        return rows.filter(conditions[0]), {"count_0": Count("id")}
    if all(conditions):
        rows = rows.filter(reduce(or_, conditions))
    return rows, {f"count_{place}": Count("id", filter=condition) for place, condition in enumerate(conditions)}


class _Among(Func):
    arg_joiner = " = ANY("
    template = "%(expressions)s)"
    output_field = BooleanField()


def among(ids: Any, column: str = "pk") -> Func:
    """The condition `column = ANY(ids)`: one look-up in an index per id, even if the planner expects many ids.

    For the primary key, unless another column is named.
    """
    return _Among(F(column), ids)


@dataclass(frozen=True, slots=True)
class _Slice(Generic[R]):
    """A parsed page request. It reads in `order`, and one row more than `size`, to detect further rows."""

    listing: Listing[R]
    order: Order
    size: int
    is_backward: bool
    after: Key | None
    before: Key | None

    def apply(self, rows: QuerySet[M]) -> QuerySet[M]:
        if self.after:
            rows = rows.filter(self.listing.order.beyond(self.after))
        if self.before:
            rows = rows.filter(self.listing.order.reversed().beyond(self.before))
        return rows.order_by(*self.order.columns)

    def first_of_each(self, source: PerParent[M]) -> QuerySet[M]:
        """The first rows of each parent, one more than `size`."""
        first = self._column_of_parent(source, "pk")
        ids = Func(first, function="unnest", set_returning=True, output_field=BigIntegerField())
        return source.rows.filter(among(ArraySubquery(source.parents.order_by().values_list(ids))))

    def keys_of_each(self, source: PerParent[M], names: Sequence[str]) -> QuerySet[Any]:
        """Each parent's id, and a list per column of its first rows."""
        return source.parents.order_by().values_list("pk", *(self._column_of_parent(source, name) for name in names))

    def _column_of_parent(self, source: PerParent[M], name: str) -> ArraySubquery:
        of_parent = self.apply(source.rows.filter(**{source.parent: OuterRef("pk")}))
        return ArraySubquery(of_parent.values(name)[: self.size + 1])

    def page(self, found: list[R]) -> Page[R]:
        has_more = len(found) > self.size
        rows = found[: self.size]
        if self.is_backward:
            return Page(rows[::-1], self.before is not None, has_more or self.after is not None, self.listing)
        return Page(rows, has_more or self.before is not None, self.after is not None, self.listing)
