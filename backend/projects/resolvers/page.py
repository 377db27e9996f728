"""Keyset pages: page 9,000 costs what page 1 costs, and rows that come and go between two pages move nothing.

A page cursor is opaque outside: the key of the row it stands at, and a digest of the list, filter and order that it
belongs to. Another list's cursor is refused.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import orjson
from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection
from django.db.models import BooleanField, F, Func, IntegerField, Model, OuterRef, Q, QuerySet, Window
from django.db.models.expressions import RawSQL
from django.db.models.functions import RowNumber

from ..errors import BadArgument
from ..rows import Row

R = TypeVar("R", bound=Row)
M = TypeVar("M", bound=Model)

MAX_PAGE = 100
# Characters; ours have some 80.
_MOST_CURSOR = 200


@dataclass(frozen=True, slots=True)
class Order:
    """By one field, ended by the id in the same direction: every order is total."""

    field: str = "id"
    is_descending: bool = True

    @property
    def columns(self) -> list[str]:
        sign = "-" if self.is_descending else ""
        return [f"{sign}id"] if self.field == "id" else [f"{sign}{self.field}", f"{sign}id"]

    def reversed(self) -> Order:
        return replace(self, is_descending=not self.is_descending)

    def beyond(self, key: Key) -> Q:
        """Rows that come after `key` in this order."""
        side = "lt" if self.is_descending else "gt"
        if self.field == "id":
            return Q(**{f"id__{side}": key.id})
        # The first condition says nothing new, but it is one an index can start from.
        return Q(**{f"{self.field}__{side}e": key.value}) & (
            Q(**{f"{self.field}__{side}": key.value}) | Q(**{self.field: key.value, f"id__{side}": key.id})
        )

    def key_of(self, row: Row) -> Key:
        return Key(getattr(row, self.field), row.id)


@dataclass(frozen=True, slots=True)
class Key:
    """Where a row stands in an order: the value of the order's field, and the id."""

    value: Any
    id: int


@dataclass(frozen=True, slots=True)
class PageRequest:
    """`first` rows after `after`, or `last` rows before `before`; cursors as the client sent them."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None

    @property
    def is_backward(self) -> bool:
        return self.last is not None or (self.before is not None and self.first is None)

    def size(self, default: int) -> int:
        """Rows asked for. Raises BadArgument where that is not 1 to 100, or asked for from both ends."""
        if self.first is not None and self.last is not None:
            raise BadArgument("last", "Ask for the first or for the last rows, not for both.")
        argument, size = ("last", self.last) if self.last is not None else ("first", self.first)
        if size is None:
            return default
        if not 1 <= size <= MAX_PAGE:
            raise BadArgument(argument, f"A page has 1 to {MAX_PAGE} rows.")
        return size


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Rows in the order of the list. `cursor_of` is where the page after (or before) a row starts."""

    rows: Sequence[R]
    has_next: bool
    has_previous: bool
    listing: Listing

    def cursor_of(self, row: Row) -> str:
        return self.listing.cursor_of(row)


@dataclass(frozen=True, slots=True)
class Listing:
    """One list as it can be asked for: its name, what narrows it, its order."""

    name: str
    filter: Any
    order: Order

    @property
    def _digest(self) -> str:
        identity = orjson.dumps([self.name, self.filter, self.order])
        return hashlib.sha256(identity).hexdigest()[:12]

    def cursor_of(self, row: Row) -> str:
        key = self.order.key_of(row)
        return base64.urlsafe_b64encode(orjson.dumps([self._digest, key.value, key.id])).decode().rstrip("=")

    def key_at(self, cursor: str | None, argument: str) -> Key | None:
        """Raises BadArgument where the cursor is broken, or another list's."""
        if cursor is None:
            return None
        is_ours = False
        try:
            if len(cursor) > _MOST_CURSOR:
                raise ValueError
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            digest, value, pk = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            if self.order.field != "id":
                value = datetime.fromisoformat(value).astimezone(UTC)
            elif type(value) is not int or value != pk:
                raise ValueError
            is_ours = digest == self._digest and type(pk) is int
        except (ValueError, TypeError, OverflowError):
            pass
        if not is_ours:
            raise BadArgument(argument, "This is no cursor of this list with this filter and order.")
        return Key(value, pk)

    def check(self, request: PageRequest, default_size: int) -> None:
        """Raises BadArgument where `request` makes no sense here, before a row is read."""
        self._cut(request, default_size)

    def page(
        self, rows: QuerySet[Any] | Shares[Any], request: PageRequest, read: type[R], *, default_size: int
    ) -> Page[R]:
        """One page of `rows`, in one query."""
        cut = self._cut(request, default_size)
        if isinstance(rows, Shares):
            found = read.of_values(_merged_values(rows, cut, read.__struct_fields__))
        else:
            found = read.read(cut.apply(rows)[: cut.size + 1])
        return cut.page(found)

    def page_of_many(
        self,
        parents: QuerySet[Any],
        rows: QuerySet[Any],
        request: PageRequest,
        read: type[R],
        *,
        default_size: int,
        parent: str,
    ) -> Page[R]:
        """One page of the rows of all these parents, in one query: of each no more rows are read than a page takes."""
        cut = self._cut(request, default_size)
        found = read.read(cut.of_each(parents, rows, parent).order_by(*cut.order.columns)[: cut.size + 1])
        return cut.page(found)

    def pages(
        self,
        parents: QuerySet[Any],
        rows: QuerySet[Any],
        request: PageRequest,
        read: type[R],
        *,
        default_size: int,
        parent: str,
        parent_ids: Sequence[int],
    ) -> dict[int, Page[R]]:
        """The same page of each parent's share of `rows`, in one query for all of them.

        `parents` are those of `parent_ids` whose rows are shown. Of each no more rows are read than a page takes.
        """
        cut = self._cut(request, default_size)
        return self._by_parent(cut, cut.of_each(parents, rows, parent), read, parent, parent_ids)

    def pages_of_few(
        self,
        rows: QuerySet[Any],
        request: PageRequest,
        read: type[R],
        *,
        default_size: int,
        parent: str,
        parent_ids: Sequence[int],
    ) -> dict[int, Page[R]]:
        """As `pages`, for `rows` that are few enough to be read all."""
        cut = self._cut(request, default_size)
        number = Window(RowNumber(), partition_by=[F(parent)], order_by=cut.order.columns)
        windowed = cut.apply(rows).annotate(number=number).filter(number__lte=cut.size + 1)
        return self._by_parent(cut, windowed, read, parent, parent_ids)

    def _by_parent(
        self, cut: _Cut[R], rows: QuerySet[Any], read: type[R], parent: str, parent_ids: Sequence[int]
    ) -> dict[int, Page[R]]:
        found: dict[int, list[R]] = {parent_id: [] for parent_id in parent_ids}
        for row in read.read(rows.order_by(*cut.order.columns)):
            found[getattr(row, parent)].append(row)
        return {parent_id: cut.page(of_parent) for parent_id, of_parent in found.items()}

    def _cut(self, request: PageRequest, default_size: int) -> _Cut[Any]:
        return _Cut(
            listing=self,
            order=self.order.reversed() if request.is_backward else self.order,
            size=request.size(default_size),
            is_backward=request.is_backward,
            after=self.key_at(request.after, "after"),
            before=self.key_at(request.before, "before"),
        )


@dataclass(frozen=True, slots=True)
class Shares(Generic[M]):
    """Rows in parts that have an index in every order: `of` gives those of one key. No row is in two parts."""

    of: Callable[[Any], QuerySet[M]]
    keys: Sequence[int]


def _merged_values(shares: Shares[Any], cut: _Cut[Any], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The first rows of all shares together; of each no more are read than that takes, and nothing is sorted.

    One share is compiled and stands for all: Django takes a millisecond for each that it compiles.
    """
    slot = object()
    limit = cut.size + 1
    one = cut.apply(shares.of(RawSQL("%s", [slot]))).values_list(*names)[:limit]
    sql, parameters = one.query.sql_with_params()
    order = (f"{names.index(column.lstrip('-')) + 1}{' DESC' * column.startswith('-')}" for column in cut.order.columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT * FROM ({' UNION ALL '.join([f'({sql})'] * len(shares.keys))}) AS shares"
            f" ORDER BY {', '.join(order)} LIMIT {limit}",
            [key if given is slot else given for key in shares.keys for given in parameters],
        )
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def merged(shares: Sequence[QuerySet[M]], order: Sequence[str], size: int) -> QuerySet[M]:
    """The first `size` rows of several querysets together; of each no more are read than that takes."""
    ordered = [rows.order_by(*order)[:size] for rows in shares]
    if len(ordered) == 1:
        return ordered[0]
    return ordered[0].union(*ordered[1:], all=True).order_by(*order)[:size]


class _Among(Func):
    arg_joiner = " = ANY("
    template = "%(expressions)s)"
    output_field = BooleanField()


def among(ids: Any) -> Func:
    """That the id is in an array. Each is looked up by the primary key, however many the planner expects."""
    return _Among(F("pk"), ids)


@dataclass(frozen=True, slots=True)
class _Cut(Generic[R]):
    """A page request made ready: read in `order`, one row more than `size` tells whether there is more."""

    listing: Listing
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

    def of_each(self, parents: QuerySet[Any], rows: QuerySet[M], parent: str) -> QuerySet[M]:
        """The first rows of each parent, one more than `size`: found by an index that starts with the parent."""
        of_parent = self.apply(rows.filter(**{parent: OuterRef("pk")})).values("pk")[: self.size + 1]
        ids = Func(ArraySubquery(of_parent), function="unnest", set_returning=True, output_field=IntegerField())
        return rows.filter(among(ArraySubquery(parents.order_by().values_list(ids))))

    def page(self, found: list[R]) -> Page[R]:
        has_more = len(found) > self.size
        rows = found[: self.size]
        if self.is_backward:
            return Page(rows[::-1], self.before is not None, has_more or self.after is not None, self.listing)
        return Page(rows, has_more or self.before is not None, self.after is not None, self.listing)
