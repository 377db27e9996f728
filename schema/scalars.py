"""Custom scalars. In Python a DateTime is a `datetime`, or the ISO 8601 text in a row."""

from datetime import date, datetime
from typing import NewType

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

from backend.projects.errors import BadArgument
from backend.projects.resolvers.event import parse_position
from backend.projects.rows import iso, parse_moment

Cursor = NewType("Cursor", int)


def _parse_datetime(value: object) -> datetime:
    try:
        return parse_moment(value if isinstance(value, str) else "")
    except ValueError:
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
        description="A date and time in ISO 8601, UTC: `2027-03-01T09:30:00.000000Z`.",
        serialize=_serialize_datetime,
        parse_value=_parse_datetime,
    ),
    date: strawberry.scalar(
        name="Date",
        description="A local date in ISO 8601: `2027-03-01`.",
        serialize=str,
        parse_value=date.fromisoformat,
    ),
    Cursor: strawberry.scalar(
        name="Cursor",
        description="A position in the journal, as a string of decimal digits.",
        serialize=str,
        parse_value=_parse_cursor,
    ),
}
