"""Shapes: query strings, bodies, and the objects that answers are made of. No queries.

Fields take their type and nothing like it: no number for a text, no text for a number. Their `source` is the domain's
name of them, so that `validated_data` is what services take.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import Any, Self, cast

from django.http import QueryDict
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
    """As it was sent, spaces and all, unless told otherwise."""

    def __init__(self, *, trim_whitespace: bool = False, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=trim_whitespace, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Moment(serializers.DateTimeField):
    """ISO 8601; a date alone is its midnight, and what names no offset is UTC."""

    default_error_messages = {"invalid": "A time is written in ISO 8601: 2027-03-01T09:30:00Z."}

    def to_internal_value(self, data: Any) -> datetime:
        try:
            return parse_moment(data if isinstance(data, str) else "")
        except ValueError:
            self.fail("invalid")


class Id(serializers.IntegerField):
    """An id in a body: a JSON integer, whether a row can have it or not."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return access.parse_id_filter(data)


class IdParameter(serializers.IntegerField):
    """An id in a query string: digits, whether a row can have it or not."""

    def to_internal_value(self, data: Any) -> int:
        if not re.fullmatch(r"-?[0-9]+", data):
            self.fail("invalid")
        return access.parse_id_filter(data)


class NumberParameter(serializers.IntegerField):
    """ASCII digits alone: `int` would take `1_0` and ` 5` too."""

    def to_internal_value(self, data: Any) -> int:
        if not re.fullmatch(r"-?[0-9]+", data):
            self.fail("invalid")
        return super().to_internal_value(data)


# --- Query strings ---------------------------------------------------------------------------------------
class Parameters(serializers.Serializer[Any]):
    """A query string: no parameter that is unknown, empty or given twice. By itself, none at all."""

    @classmethod
    def checked(cls, given: QueryDict) -> Self:
        """Raises ValidationError. Without a query string it is the same for all: to make the fields costs the most."""
        return cls._check(given) if given else cast(Self, _without(cast(Any, cls)))

    @classmethod
    def _check(cls, given: QueryDict) -> Self:
        parameters = cls(data=given)
        parameters.is_valid(raise_exception=True)
        return parameters

    def to_internal_value(self, data: QueryDict) -> Any:
        refused = {}
        for name, values in data.lists():
            if name not in self.fields:
                refused[name] = ["There is no such parameter."]
            elif len(values) > 1:
                refused[name] = ["Give this parameter once."]
            elif not values[0]:
                refused[name] = ["This parameter is empty."]
        if refused:
            raise serializers.ValidationError(refused)
        return super().to_internal_value(data.dict())

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the named arguments that the query string has, under the domain's names."""
        return {name: self.validated_data[name] for name in names if name in self.validated_data}


@cache
def _without(parameters: Any) -> Parameters:
    return parameters._check(QueryDict())  # type: ignore[no-any-return]


class PageParameters(Parameters):
    page_size = NumberParameter(min_value=1, max_value=MAX_PAGE, default=MAX_PAGE)
    cursor = Text(required=False, help_text="From the `Link` header of the page before.")
    count = serializers.ChoiceField(["0", "1"], default="0", help_text="1 adds `X-Total-Count`.")

    def page(self) -> PageRequest:
        return PageRequest(first=self.validated_data["page_size"], after=self.validated_data.get("cursor"))

    @property
    def wants_count(self) -> bool:
        return bool(self.validated_data["count"] == "1")


def _search(of: str) -> Text:
    return Text(required=False, help_text=f"A substring of {of}, {MIN_LETTERS} letters at least.")


class ProjectParameters(PageParameters):
    search = _search("name or description")

    def filter(self) -> ProjectFilter:
        return ProjectFilter(**self.given("search"))


class TaskParameters(PageParameters):
    project = IdParameter(required=False, source="project_id")
    status = serializers.ChoiceField(Status.choices, required=False)
    assignee = IdParameter(required=False, source="assignee_id")
    due_after = Moment(required=False, help_text="Due then or later.")
    due_before = Moment(required=False, help_text="Due earlier than that.")
    search = _search("title or description")
    ordering = serializers.ChoiceField(
        [sign + field for field in ORDER_FIELDS for sign in ("", "-")],
        default="-id",
        help_text="`-` puts the greatest first.",
    )

    def filter(self) -> TaskFilter:
        return TaskFilter(**self.given("project_id", "status", "assignee_id", "due_after", "due_before", "search"))

    def order(self) -> Order:
        ordering: str = self.validated_data["ordering"]
        return Order(ordering.removeprefix("-"), is_descending=ordering.startswith("-"))


class ReportParameters(PageParameters):
    project = IdParameter(required=False, source="project_id")

    def filter(self) -> ReportFilter:
        return ReportFilter(**self.given("project_id"))


class EventParameters(Parameters):
    after = Text(
        required=False,
        help_text="A position, as answers call it `cursor`. Without it there are no events, but the present position.",
    )
    project = IdParameter(required=False, source="project_id")
    kinds = Text(required=False, help_text=f"Some of {', '.join(EventKind.values)}.")
    page_size = NumberParameter(min_value=1, max_value=MAX_PAGE, default=MAX_PAGE)

    def after_position(self) -> int | None:
        after = self.validated_data.get("after")
        return None if after is None else event_resolver.parse_position(after)

    def filter(self) -> EventFilter:
        kinds = self.validated_data.get("kinds")
        return EventFilter(**self.given("project_id"), kinds=None if kinds is None else frozenset(kinds.split(",")))


# --- Bodies ----------------------------------------------------------------------------------------------
class ProjectInput(serializers.Serializer[Any]):
    name = Text(max_length=255, trim_whitespace=True)
    description = Text(required=False, allow_null=True, allow_blank=True)


class TaskUpdate(serializers.Serializer[Any]):
    project = Id(required=False, source="project_id", help_text="The task's own: it cannot move to another.")
    title = Text(max_length=255, trim_whitespace=True)
    description = Text(required=False, allow_null=True, allow_blank=True)
    status = serializers.ChoiceField(Status.choices, required=False)
    assignee = Id(required=False, allow_null=True, source="assignee_id")
    due_date = Moment()


class TaskInput(TaskUpdate):
    project = Id(source="project_id")


class CommentInput(serializers.Serializer[Any]):
    content = Text()
    author = Text(
        required=False,
        max_length=255,
        trim_whitespace=True,
        help_text="Who is signed in comments under their own name, whatever this says.",
    )


class MemberInput(serializers.Serializer[Any]):
    username = Text(allow_blank=True, help_text="What they sign in with, in whichever case.")
    role = serializers.ChoiceField(Role.choices, default=Role.EDITOR.value)


class RoleInput(serializers.Serializer[Any]):
    role = serializers.ChoiceField(Role.choices)


# --- Answers: the shapes of `backend.projects.rows`, for the OpenAPI document ----------------------------
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


class SummaryReport(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    project = serializers.IntegerField()
    date = serializers.DateField()
    generated_at = serializers.DateTimeField()
    figures = serializers.DictField()


class Actor(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()


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


class EventPage(serializers.Serializer[Any]):
    events = Event(many=True)
    cursor = serializers.CharField(help_text="Where to go on: the next request's `after`.")
    more = serializers.BooleanField()


class Refusal(serializers.Serializer[Any]):
    detail = serializers.CharField()


class RefusedAction(Refusal):
    scope = serializers.ChoiceField(Scope.choices, required=False, help_text="What a token for this must be for.")


class RefusedResume(Refusal):
    code = serializers.ChoiceField(["CURSOR_EXPIRED", "RESYNC"])
    oldest = serializers.CharField(help_text="The oldest position to resume from.")
