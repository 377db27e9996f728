"""Frozen rows: the plain data of lists, caches and events.

A row has the fields of an object as they were read: numbers, text, and times in ISO 8601, UTC. `as_json` returns the
shape that REST and events have; `from_json` parses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, ClassVar, Self

import msgspec
import orjson
from django.db.models import Model, QuerySet

# orjson writes a time in UTC as `iso` does, except that a whole second has no fraction.
_ISO_WIDTH = len("2027-03-01T09:30:00.000000Z")
_WHOLE_SECOND_WIDTH = len("2027-03-01T09:30:00Z")


def iso(moment: datetime) -> str:
    """Format as `2027-03-01T09:30:00.000000Z`. The width is fixed, so that text sorts like time."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


# `fromisoformat` accepts any character between date and time, and a NUL at the end.
_MOMENT = re.compile(r"[0-9W-]+([Tt ][0-9:.,]+([Zz]|[+-][0-9:]+)?)?")


def parse_moment(text: str) -> datetime:
    """Parse ISO 8601 to UTC. A date alone means its midnight; a time without offset is in UTC.

    Raises ValueError, also where the year is out of range in UTC.
    """
    if not _MOMENT.fullmatch(text):
        raise ValueError(f"{text!r} is no date or time in ISO 8601")
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
    """Convert one field of many rows. The first value shows whether the field is a time, a date or neither."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, datetime):
        return _iso_column(values)
    return map(_plain, values) if isinstance(first, date) else values


def _iso_column(moments: tuple[datetime | None, ...]) -> list[str | None]:
    """Apply `iso` to each. orjson needs a tenth of the time."""
    texts = orjson.loads(orjson.dumps(moments, option=orjson.OPT_UTC_Z))
    return [text if moment is None else _padded(text, moment) for text, moment in zip(texts, moments, strict=True)]


def _padded(text: str, moment: datetime) -> str:
    width = len(text)
    if width == _ISO_WIDTH:
        return text
    return f"{text[:-1]}.000000Z" if width == _WHOLE_SECOND_WIDTH else iso(moment)


class Row(msgspec.Struct, frozen=True):
    """Fields are named like the model's attributes, and renamed in JSON where REST has another name."""

    # The largest id that the model's table can have.
    max_id: ClassVar[int] = 2**31 - 1

    id: int

    @classmethod
    def of(cls, instance: Model) -> Self:
        return cls(*(_plain(getattr(instance, name)) for name in cls.__struct_fields__))

    @classmethod
    def read(cls, rows: QuerySet[Any]) -> list[Self]:
        return cls.of_values(rows.values_list(*cls.__struct_fields__))

    @classmethod
    def of_values(cls, rows: Iterable[tuple[Any, ...]]) -> list[Self]:
        """Build rows from the database's values of the fields, in the order of the fields."""
        columns = zip(*rows, strict=True)
        return [cls(*values) for values in zip(*map(_plain_column, columns), strict=True)]

    def as_json(self) -> dict[str, Any]:
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return msgspec.convert(data, cls)

    @classmethod
    def json_names(cls) -> dict[str, str]:
        """Return each field's name in JSON."""
        return dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True))


class UserRow(msgspec.Struct, frozen=True):
    """A user as others see them."""

    id: int
    name: str


class ProjectRow(Row, frozen=True):
    name: str
    description: str
    created_at: str
    updated_at: str
    version: int


class TaskRow(Row, frozen=True, rename={"project_id": "project", "assignee_id": "assignee"}):
    project_id: int
    title: str
    description: str
    status: str
    assignee_id: int | None
    due_date: str
    created_at: str
    updated_at: str
    version: int


class CommentRow(Row, frozen=True, rename={"task_id": "task"}):
    max_id = 2**63 - 1

    task_id: int
    author: str
    content: str
    created_at: str


class MemberRow(Row, frozen=True):
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


class InvitationRow(Row, frozen=True):
    """An invitation, with the names that its receiver and the owners of the project see."""

    project_id: int
    project_name: str
    user_id: int
    user_name: str
    role: str
    invited_by_id: int | None
    invited_by_name: str
    created_at: str
    expires_at: str

    @classmethod
    def of(cls, invitation: Any) -> Self:
        sender = invitation.invited_by
        return cls(
            invitation.pk,
            invitation.project_id,
            invitation.project.name,
            invitation.user_id,
            invitation.user.display_name,
            invitation.role,
            sender.pk if sender else None,
            sender.display_name if sender else "",
            iso(invitation.created_at),
            iso(invitation.expires_at),
        )

    @classmethod
    def read(cls, rows: QuerySet[Any]) -> list[Self]:
        return [cls.of(row) for row in rows.select_related("project", "user", "invited_by")]

    def as_json(self) -> dict[str, Any]:
        sender = None if self.invited_by_id is None else {"id": self.invited_by_id, "name": self.invited_by_name}
        return {
            "id": self.id,
            "project": self.project_id,
            "project_name": self.project_name,
            "user": self.user_id,
            "user_name": self.user_name,
            "role": self.role,
            "invited_by": sender,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
        }


class TokenRow(Row, frozen=True):
    name: str
    scope: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class AuditRow(Row, frozen=True):
    max_id = 2**63 - 1

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


class ReportRow(Row, frozen=True, rename={"project_id": "project"}):
    project_id: int
    date: str
    generated_at: str
    figures: dict[str, Any]
