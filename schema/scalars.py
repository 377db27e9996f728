"""Scalars of our own; in Python a moment is a `datetime`, or the text of it that rows carry."""

import re
from datetime import UTC, date, datetime
from typing import NewType

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

from backend.projects.errors import BadArgument
from backend.projects.resolvers.event import parse_position
from backend.projects.rows import iso

Cursor = NewType("Cursor", int)

# `fromisoformat` takes any character between date and time, and a NUL at the end.
_MOMENT = re.compile(r"[0-9W-]+([Tt ][0-9:.,]+([Zz]|[+-][0-9:]+)?)?")


def _parse_datetime(value: object) -> datetime:
    """A moment, in UTC; without an offset it is taken for UTC."""
    try:
        if not isinstance(value, str) or not _MOMENT.fullmatch(value):
            raise TypeError
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise GraphQLError("A DateTime is an ISO 8601 date and time, such as 2027-03-01T09:30:00Z.") from None


def _serialize_datetime(value: datetime | str) -> str:
    return value if isinstance(value, str) else iso(value)


def _parse_cursor(value: object) -> int:
    try:
        return parse_position(value if isinstance(value, str) else "")
    except BadArgument as error:
        raise GraphQLError(error.text) from None


SCALARS: dict[object, ScalarDefinition] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment as ISO 8601, UTC: `2027-03-01T09:30:00.000000Z`.",
        serialize=_serialize_datetime,
        parse_value=_parse_datetime,
    ),
    date: strawberry.scalar(
        name="Date",
        description="A local date as ISO 8601: `2027-03-01`.",
        serialize=str,
        parse_value=date.fromisoformat,
    ),
    Cursor: strawberry.scalar(
        name="Cursor",
        description="A position in the journal: decimal digits as a string.",
        serialize=str,
        parse_value=_parse_cursor,
    ),
}
