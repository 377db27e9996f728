"""Event types over the journal's rows. An event's object comes from its payload: its state at that moment."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import strawberry
from strawberry.utils.str_converters import to_camel_case

from backend.projects.events import EventKind as DomainEventKind
from backend.projects.journal import JournalEvent
from backend.projects.rows import CommentRow, ProjectRow, ReportRow, TaskRow, UserRow

from .enums import EventKind
from .scalars import Cursor
from .types import Comment, Project, SummaryReport, Task, User

_Event = strawberry.Parent[JournalEvent]


def _cursor(root: _Event) -> Cursor:
    return Cursor(root.position)


def _actor(root: _Event) -> User | None:
    return None if root.actor_id is None else UserRow(root.actor_id, root.actor_name)  # type: ignore[return-value]


def _task(root: _Event) -> Task:
    return TaskRow.from_json(root.data["task"])  # type: ignore[return-value]


def _comment(root: _Event) -> Comment:
    return CommentRow.from_json(root.data["comment"])  # type: ignore[return-value]


def _project(root: _Event) -> Project:
    return ProjectRow.from_json(root.data["object"])  # type: ignore[return-value]


def _report(root: _Event) -> SummaryReport:
    return ReportRow.from_json(root.data["report"])  # type: ignore[return-value]


def _changes(root: _Event) -> list[str]:
    return [to_camel_case(name) for name in root.data["changes"]]


def _truncated(root: _Event) -> bool:
    return root.is_truncated


@strawberry.interface(description="A change, as recorded in the journal.")
class Event:
    of_kind: ClassVar[DomainEventKind]

    cursor: Cursor = strawberry.field(resolver=_cursor, description="The event's position. Resume with it as `after`.")
    kind: EventKind
    at: datetime
    actor: User | None = strawberry.field(resolver=_actor, description="Null if the actor was not signed in.")
    project_id: strawberry.ID
    truncated: bool = strawberry.field(
        resolver=_truncated,
        description="True if the event is too large to be sent whole: descriptions and comments in it may be shortened"
        " to their beginnings. Query the object for the rest.",
    )

    @classmethod
    def is_type_of(cls, obj: Any, info: Any) -> bool:
        return isinstance(obj, JournalEvent) and obj.kind == cls.of_kind


@strawberry.type
class TaskCreated(Event):
    of_kind = DomainEventKind.TASK_CREATED
    task: Task = strawberry.field(resolver=_task)


@strawberry.type
class TaskUpdated(Event):
    of_kind = DomainEventKind.TASK_UPDATED
    task: Task = strawberry.field(resolver=_task)
    changes: list[str] = strawberry.field(resolver=_changes, description="The names of the changed fields.")


@strawberry.type
class TaskDeleted(Event):
    of_kind = DomainEventKind.TASK_DELETED
    task: Task = strawberry.field(resolver=_task, description="As it was.")


@strawberry.type
class TaskCommented(Event):
    of_kind = DomainEventKind.TASK_COMMENTED
    task: Task = strawberry.field(resolver=_task)
    comment: Comment = strawberry.field(resolver=_comment)


@strawberry.type
class ProjectCreated(Event):
    of_kind = DomainEventKind.PROJECT_CREATED
    project: Project = strawberry.field(resolver=_project)


@strawberry.type
class ProjectUpdated(Event):
    of_kind = DomainEventKind.PROJECT_UPDATED
    project: Project = strawberry.field(resolver=_project)
    changes: list[str] = strawberry.field(resolver=_changes, description="The names of the changed fields.")


@strawberry.type
class ProjectDeleted(Event):
    of_kind = DomainEventKind.PROJECT_DELETED
    project: Project = strawberry.field(resolver=_project, description="As it was.")


@strawberry.type
class ReportGenerated(Event):
    of_kind = DomainEventKind.REPORT_GENERATED
    report: SummaryReport = strawberry.field(resolver=_report)


EVENT_TYPES = [
    TaskCreated,
    TaskUpdated,
    TaskDeleted,
    TaskCommented,
    ProjectCreated,
    ProjectUpdated,
    ProjectDeleted,
    ReportGenerated,
]


@strawberry.type
class EventPage:
    nodes: list[Event]
    cursor: Cursor = strawberry.field(description="The `after` of the next page, even if this page is empty.")
    has_more: bool
