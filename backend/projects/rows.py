"""Frozen rows: what lists, caches and events are made of.

A row is an object as it was read: numbers, text, and times in ISO 8601, UTC. `as_json` is its shape in REST and in
every event; `from_json` reads that back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Self, cast

import orjson
from django.db.models import Model, QuerySet

# How orjson writes a moment in UTC: as `iso` does, but for a whole second.
_ISO_WIDTH = len("2027-03-01T09:30:00.000000Z")
_WHOLE_SECOND_WIDTH = len("2027-03-01T09:30:00Z")


def iso(moment: datetime) -> str:
    """`2027-03-01T09:30:00.000000Z`: of fixed width, so that text sorts as time does."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


# `fromisoformat` takes any character between date and time, and a NUL at the end.
_MOMENT = re.compile(r"[0-9W-]+([Tt ][0-9:.,]+([Zz]|[+-][0-9:]+)?)?")


def parse_moment(text: str) -> datetime:
    """What ISO 8601 `text` says, in UTC; a date alone is its midnight, and what names no offset is UTC.

    Raises ValueError, also for a moment that UTC has no year for.
    """
    if not _MOMENT.fullmatch(text):
        raise ValueError(f"{text!r} is no moment in ISO 8601")
    moment = datetime.fromisoformat(text)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    return value


def _plain_column(values: tuple[Any, ...]) -> Iterable[Any]:
    """One field of many rows: only times have to be made plain, and whether it is one the first value tells."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, datetime):
        return _iso_column(values)
    return map(_plain, values) if isinstance(first, date) else values


def _iso_column(moments: tuple[datetime | None, ...]) -> list[str | None]:
    """`iso` of each, by orjson in a tenth of its time."""
    texts = orjson.loads(orjson.dumps(moments, option=orjson.OPT_UTC_Z))
    return [text if moment is None else _completed(text, moment) for text, moment in zip(texts, moments, strict=True)]


def _completed(text: str, moment: datetime) -> str:
    width = len(text)
    if width == _ISO_WIDTH:
        return text
    return f"{text[:-1]}.000000Z" if width == _WHOLE_SECOND_WIDTH else iso(moment)


@dataclass(frozen=True, slots=True)
class Row:
    """Fields are named as the model's attributes; `JSON_NAMES` has those that REST calls otherwise."""

    id: int

    JSON_NAMES: ClassVar[dict[str, str]] = {}

    @classmethod
    def of(cls, instance: Model) -> Self:
        return cls(*map(_plain, shape_of(cls).values_of(instance)))

    @classmethod
    def read(cls, rows: QuerySet[Any]) -> list[Self]:
        return cls.of_values(rows.values_list(*shape_of(cls).names))

    @classmethod
    def of_values(cls, rows: Iterable[tuple[Any, ...]]) -> list[Self]:
        """Of what the database has for the fields, in their order."""
        columns = zip(*rows, strict=True)
        return [cls(*values) for values in zip(*map(_plain_column, columns), strict=True)]

    def as_json(self) -> dict[str, Any]:
        shape = shape_of(type(self))
        return dict(zip(shape.json_names, shape.values_of(self), strict=True))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(*(data[name] for name in shape_of(cls).json_names))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is the same for all rows of a class."""

    names: tuple[str, ...]
    json_names: tuple[str, ...]
    values_of: Callable[[Any], tuple[Any, ...]]


@cache
def _shape(row: Any) -> _Shape:
    names = tuple(field.name for field in fields(row))
    return _Shape(names, tuple(row.JSON_NAMES.get(name, name) for name in names), attrgetter(*names))


def shape_of(row: type[Row]) -> _Shape:
    return _shape(cast(Any, row))  # no row is a key here, but its class


@dataclass(frozen=True, slots=True)
class UserRow:
    """Somebody as others see them."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class ProjectRow(Row):
    name: str
    description: str
    created_at: str
    updated_at: str
    version: int


@dataclass(frozen=True, slots=True)
class TaskRow(Row):
    project_id: int
    title: str
    description: str
    status: str
    assignee_id: int | None
    due_date: str
    created_at: str
    updated_at: str
    version: int

    JSON_NAMES: ClassVar[dict[str, str]] = {"project_id": "project", "assignee_id": "assignee"}


@dataclass(frozen=True, slots=True)
class CommentRow(Row):
    task_id: int
    author: str
    content: str
    created_at: str

    JSON_NAMES: ClassVar[dict[str, str]] = {"task_id": "task"}


@dataclass(frozen=True, slots=True)
class MemberRow(Row):
    """A membership, with the name of its user as others see it."""

    project_id: int
    user_id: int
    name: str
    role: str

    @classmethod
    def of(cls, membership: Any) -> Self:
        return cls(
            membership.pk,
            membership.project_id,
            membership.user_id,
            membership.user.display_name,
            membership.role,
        )

    @classmethod
    def read(cls, rows: QuerySet[Any]) -> list[Self]:
        names = ("user__first_name", "user__last_name", "user__username")
        return [cls.of(row) for row in rows.select_related("user").only("project", "user", "role", *names)]

    def as_json(self) -> dict[str, Any]:
        return {"user": self.user_id, "name": self.name, "role": self.role}


@dataclass(frozen=True, slots=True)
class TokenRow(Row):
    name: str
    scope: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None


@dataclass(frozen=True, slots=True)
class AuditRow(Row):
    at: str
    action: str
    actor_id: int | None
    actor_name: str
    actor_token_id: int | None
    address: str
    user_id: int | None
    user_name: str
    project_id: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class ReportRow(Row):
    project_id: int
    date: str
    generated_at: str
    figures: dict[str, Any]

    JSON_NAMES: ClassVar[dict[str, str]] = {"project_id": "project"}
