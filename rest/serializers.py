"""Serializers of query strings, bodies and responses. None queries the database.

Fields accept their exact JSON type: no number for text, no text for a number. A field's `source` is its name in the
domain, so `validated_data` can be passed to services.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import Any, Self, cast

from django.conf import settings
from django.http import QueryDict
from drf_spectacular.drainage import set_override
from rest_framework import serializers

from backend.projects import access
from backend.projects.events import EventKind
from backend.projects.models import Role, Scope, Status
from backend.projects.resolvers import event as event_resolver
from backend.projects.resolvers.page import MAX_PAGE, Order, PageRequest
from backend.projects.resolvers.project import ProjectFilter
from backend.projects.resolvers.report import ReportFilter
from backend.projects.resolvers.search import MIN_LETTERS
from backend.projects.resolvers.task import ORDER_FIELDS, TaskFilter
from backend.projects.rows import parse_moment
from backend.projects.visibility import EventFilter


# --- Fields ----------------------------------------------------------------------------------------------
class Text(serializers.CharField):
    """Text that is not trimmed by default."""

    def __init__(self, *, trim_whitespace: bool = False, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=trim_whitespace, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class LongText(Text):
    """Text whose greatest length the document states and the services check: an older longer text may be repeated."""

    def __init__(self, *, max_characters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        set_override(self, "field", {"type": "string", "maxLength": max_characters})


class Moment(serializers.DateTimeField):
    """ISO 8601. A date without a time is midnight; a time without an offset is UTC."""

    default_error_messages = {"invalid": "A time is written in ISO 8601: 2027-03-01T09:30:00Z."}

    def to_internal_value(self, data: Any) -> datetime:
        try:
            return parse_moment(data if isinstance(data, str) else "")
        except ValueError:
            self.fail("invalid")


class Id(serializers.IntegerField):
    """An id in a body: a JSON integer. One that no row can have is valid."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return access.parse_id_filter(data)


class IdParameter(serializers.IntegerField):
    """An id in a query string: digits. A number that no row can have is valid."""

    def to_internal_value(self, data: Any) -> int:
        if not re.fullmatch(r"-?[0-9]+", data):
            self.fail("invalid")
        return access.parse_id_filter(data)


class NumberParameter(serializers.IntegerField):
    """ASCII digits only: `int` would accept `1_0` and ` 5` too."""

    def to_internal_value(self, data: Any) -> int:
        if not re.fullmatch(r"-?[0-9]+", data):
            self.fail("invalid")
        return super().to_internal_value(data)


# --- Query strings ---------------------------------------------------------------------------------------
class Parameters(serializers.Serializer[Any]):
    """A query string. Rejects unknown, empty and repeated parameters. The base class has no parameters."""

    @classmethod
    def parse(cls, query: QueryDict) -> Self:
        """Raises ValidationError. An empty query string gets a shared instance: creating fields is the main cost."""
        return cls._validate(query) if query else cast(Self, _defaults(cast(Any, cls)))

    @classmethod
    def _validate(cls, query: QueryDict) -> Self:
        parameters = cls(data=query)
        parameters.is_valid(raise_exception=True)
        return parameters

    def to_internal_value(self, data: QueryDict) -> Any:
        errors = {}
        for name, values in data.lists():
            if name not in self.fields:
                errors[name] = ["There is no such parameter."]
            elif len(values) > 1:
                errors[name] = ["Give this parameter once."]
            elif not values[0]:
                errors[name] = ["This parameter is empty."]
        if errors:
            raise serializers.ValidationError(errors)
        return super().to_internal_value(data.dict())

    def present(self, *names: str) -> dict[str, Any]:
        """The named arguments that the query string contains, keyed by the domain's names."""
        return {name: self.validated_data[name] for name in names if name in self.validated_data}


@cache
def _defaults(parameters: Any) -> Parameters:
    return parameters._validate(QueryDict())  # type: ignore[no-any-return]


class PageParameters(Parameters):
    page_size = NumberParameter(min_value=1, max_value=MAX_PAGE, default=MAX_PAGE)
    cursor = Text(required=False, help_text="From the `Link` header of the previous page.")
    count = serializers.ChoiceField(["0", "1"], default="0", help_text="1 adds `X-Total-Count`.")

    def page(self) -> PageRequest:
        return PageRequest(first=self.validated_data["page_size"], after=self.validated_data.get("cursor"))

    @property
    def page_size_asked(self) -> int:
        return int(self.validated_data["page_size"])

    @property
    def includes_count(self) -> bool:
        return bool(self.validated_data["count"] == "1")


def _search(of: str) -> Text:
    return Text(required=False, help_text=f"A substring of {of}, at least {MIN_LETTERS} letters.")


class ProjectParameters(PageParameters):
    search = _search("name or description")

    def filter(self) -> ProjectFilter:
        return ProjectFilter(**self.present("search"))


class TaskParameters(PageParameters):
    project = IdParameter(required=False, source="project_id")
    status = serializers.ChoiceField(Status.choices, required=False)
    assignee = IdParameter(required=False, source="assignee_id")
    due_after = Moment(required=False, help_text="Due at this time or later.")
    due_before = Moment(required=False, help_text="Due before this time.")
    search = _search("title or description")
    ordering = serializers.ChoiceField(
        [sign + field for field in ORDER_FIELDS for sign in ("", "-")],
        default="-id",
        help_text="`-` sorts in descending order.",
    )

    def filter(self) -> TaskFilter:
        return TaskFilter(**self.present("project_id", "status", "assignee_id", "due_after", "due_before", "search"))

    def order(self) -> Order:
        ordering: str = self.validated_data["ordering"]
        return Order(ordering.removeprefix("-"), is_descending=ordering.startswith("-"))


class ReportParameters(PageParameters):
    project = IdParameter(required=False, source="project_id")

    def filter(self) -> ReportFilter:
        return ReportFilter(**self.present("project_id"))


class EventParameters(Parameters):
    after = Text(
        required=False,
        help_text="A position: the `cursor` of a response. Without it: no events, but the current position.",
    )
    project = IdParameter(required=False, source="project_id")
    kinds = Text(required=False, help_text=f"Kinds separated by commas: {', '.join(EventKind.values)}.")
    page_size = NumberParameter(min_value=1, max_value=MAX_PAGE, default=MAX_PAGE)

    def after_position(self) -> int | None:
        after = self.validated_data.get("after")
        return None if after is None else event_resolver.parse_position(after)

    def filter(self) -> EventFilter:
        kinds = self.validated_data.get("kinds")
        return EventFilter(**self.present("project_id"), kinds=None if kinds is None else frozenset(kinds.split(",")))


# --- Bodies ----------------------------------------------------------------------------------------------
def _description() -> LongText:
    return LongText(
        max_characters=settings.DESCRIPTION_CHARACTERS,
        required=False,
        allow_null=True,
        allow_blank=True,
        help_text=f"At most {settings.DESCRIPTION_CHARACTERS:,} characters.",
    )


class ProjectInput(serializers.Serializer[Any]):
    name = Text(max_length=255, trim_whitespace=True)
    description = _description()


class TaskUpdate(serializers.Serializer[Any]):
    project = Id(required=False, source="project_id", help_text="The task's own project; it cannot move to another.")
    title = Text(max_length=255, trim_whitespace=True)
    description = _description()
    status = serializers.ChoiceField(Status.choices, required=False)
    assignee = Id(required=False, allow_null=True, source="assignee_id")
    due_date = Moment()


class TaskInput(TaskUpdate):
    project = Id(source="project_id")


class CommentInput(serializers.Serializer[Any]):
    content = LongText(
        max_characters=settings.COMMENT_CHARACTERS, help_text=f"At most {settings.COMMENT_CHARACTERS:,} characters."
    )
    author = Text(
        required=False,
        max_length=255,
        trim_whitespace=True,
        help_text="Required if you are not signed in. A signed-in user comments under their own name, and another one"
        " is refused. The exception is an `admin` token of a staff member: it imports comments, which is audited.",
    )


class MemberInput(serializers.Serializer[Any]):
    username = Text(allow_blank=True, help_text="The name that the user signs in with, ignoring case.")
    role = serializers.ChoiceField(Role.choices, default=Role.EDITOR.value)


class NoInput(serializers.Serializer[Any]):
    """For a POST without a body."""


class RoleInput(serializers.Serializer[Any]):
    role = serializers.ChoiceField(Role.choices)


# --- Responses: the shapes of `backend.projects.rows`, for the OpenAPI document --------------------------
class Project(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField(max_length=255)
    description = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    version = serializers.IntegerField(min_value=1)


class Task(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    project = serializers.IntegerField()
    title = serializers.CharField(max_length=255)
    description = serializers.CharField()
    status = serializers.ChoiceField(Status.choices)
    assignee = serializers.IntegerField(allow_null=True)
    due_date = serializers.DateTimeField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    version = serializers.IntegerField(min_value=1)


class Comment(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    task = serializers.IntegerField()
    author = serializers.CharField(max_length=255)
    content = serializers.CharField()
    created_at = serializers.DateTimeField()


class Member(serializers.Serializer[Any]):
    user = serializers.IntegerField()
    name = serializers.CharField()
    role = serializers.ChoiceField(Role.choices)


class Actor(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()


class Invitation(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    project = serializers.IntegerField()
    project_name = serializers.CharField()
    user = serializers.IntegerField()
    user_name = serializers.CharField()
    role = serializers.ChoiceField(Role.choices)
    invited_by = Actor(allow_null=True, help_text="Null if the account of the sender is deleted.")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(help_text="The invitation cannot be accepted from this moment on.")


class SummaryReport(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    project = serializers.IntegerField()
    date = serializers.DateField()
    generated_at = serializers.DateTimeField()
    figures = serializers.DictField()


class Event(serializers.Serializer[Any]):
    type = serializers.ChoiceField(EventKind.choices)
    cursor = serializers.CharField(help_text="The event's position, in decimal digits.")
    at = serializers.DateTimeField()
    actor = Actor(allow_null=True)
    project = serializers.IntegerField(allow_null=True)
    task = Task(required=False)
    comment = Comment(required=False)
    report = SummaryReport(required=False)
    object = Project(required=False)
    changes = serializers.ListField(child=serializers.CharField(), required=False)
    truncated = serializers.BooleanField(
        required=False, help_text="True if the event is too large to be sent whole: long texts are cut. Else absent."
    )
    url = serializers.CharField(
        required=False, allow_null=True, help_text="With `truncated`: where the object is whole. Null if it is deleted."
    )


class EventPage(serializers.Serializer[Any]):
    events = Event(many=True)
    cursor = serializers.CharField(help_text="The `after` of the next request.")
    more = serializers.BooleanField()


class Refusal(serializers.Serializer[Any]):
    detail = serializers.CharField()


class RefusedAction(Refusal):
    scope = serializers.ChoiceField(Scope.choices, required=False, help_text="The token scope that is required.")


class RefusedResume(Refusal):
    code = serializers.ChoiceField(["CURSOR_EXPIRED", "RESYNC"])
    oldest = serializers.CharField(help_text="The oldest position to resume from.")
