"""The events of the journal: one class per kind, each with the object as REST shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from django.db.models import TextChoices

from .rows import CommentRow, ProjectRow, ReportRow, TaskRow


class EventKind(TextChoices):
    """The kinds of events that are delivered to listeners."""

    TASK_CREATED = "task.created"
    TASK_UPDATED = "task.updated"
    TASK_DELETED = "task.deleted"
    TASK_COMMENTED = "task.commented"
    PROJECT_CREATED = "project.created"
    PROJECT_UPDATED = "project.updated"
    PROJECT_DELETED = "project.deleted"
    REPORT_GENERATED = "report.generated"


# The kind of `AccessChanged`: it takes a position, since it changes what users see, but is not delivered.
ACCESS_CHANGED = "access.changed"


@dataclass(frozen=True)
class Payload:
    """Base class of the events that services pass to `journal.append`."""

    kind: ClassVar[str]

    @property
    def project_id(self) -> int | None:
        raise NotImplementedError

    @property
    def task_id(self) -> int | None:
        return None

    @property
    def audience(self) -> list[int] | None:
        return None

    @property
    def data(self) -> dict[str, Any]:
        """The part of the frame that depends on the kind."""
        raise NotImplementedError


@dataclass(frozen=True)
class _TaskPayload(Payload):
    task: TaskRow

    @property
    def project_id(self) -> int:
        return self.task.project_id

    @property
    def task_id(self) -> int:
        return self.task.id

    @property
    def data(self) -> dict[str, Any]:
        return {"task": self.task.as_json()}


class TaskCreated(_TaskPayload):
    kind = EventKind.TASK_CREATED.value


@dataclass(frozen=True)
class TaskUpdated(_TaskPayload):
    """`changes` are the REST names of the changed fields."""

    changes: Sequence[str]

    kind = EventKind.TASK_UPDATED.value

    @property
    def data(self) -> dict[str, Any]:
        return {"task": self.task.as_json(), "changes": list(self.changes)}


class TaskDeleted(_TaskPayload):
    kind = EventKind.TASK_DELETED.value


@dataclass(frozen=True)
class TaskCommented(_TaskPayload):
    comment: CommentRow

    kind = EventKind.TASK_COMMENTED.value

    @property
    def data(self) -> dict[str, Any]:
        return {"comment": self.comment.as_json(), "task": self.task.as_json()}


@dataclass(frozen=True)
class _ProjectPayload(Payload):
    project: ProjectRow

    @property
    def project_id(self) -> int:
        return self.project.id

    @property
    def data(self) -> dict[str, Any]:
        return {"object": self.project.as_json()}


class ProjectCreated(_ProjectPayload):
    kind = EventKind.PROJECT_CREATED.value


@dataclass(frozen=True)
class ProjectUpdated(_ProjectPayload):
    changes: Sequence[str]

    kind = EventKind.PROJECT_UPDATED.value

    @property
    def data(self) -> dict[str, Any]:
        return {"object": self.project.as_json(), "changes": list(self.changes)}


@dataclass(frozen=True)
class ProjectDeleted(_ProjectPayload):
    """Delivered to staff and to `members`, which are user ids: the memberships are deleted with the project."""

    members: Sequence[int]

    kind = EventKind.PROJECT_DELETED.value

    @property
    def audience(self) -> list[int]:
        return list(self.members)


@dataclass(frozen=True)
class ReportGenerated(Payload):
    report: ReportRow

    kind = EventKind.REPORT_GENERATED.value

    @property
    def project_id(self) -> int:
        return self.report.project_id

    @property
    def data(self) -> dict[str, Any]:
        return {"report": self.report.as_json()}


@dataclass(frozen=True)
class AccessChanged(Payload):
    """A change of what `users` see or how they sign in: of a membership, role, flag, password, token or session.

    If the name of a user changed, `shown_in` are the ids of the projects that show it.
    """

    users: Sequence[int]
    of_project: int | None = None
    shown_in: Sequence[int] = ()

    kind = ACCESS_CHANGED

    @property
    def project_id(self) -> int | None:
        return self.of_project

    @property
    def data(self) -> dict[str, Any]:
        return {"users": sorted(self.users), "projects": sorted(self.shown_in)}


# --- Events that are too large to be sent whole ----------------------------------------------------------
# The text of each object in a payload that may be long.
_LONG_TEXTS = {"task": "description", "object": "description", "comment": "content"}
# Characters of such a text in a truncated event.
_EXCERPT = 1_000
_DELETED = (EventKind.TASK_DELETED, EventKind.PROJECT_DELETED)


def truncated(kind: str, data: dict[str, Any], *, max_bytes: int) -> dict[str, Any] | None:
    """Shorten the longest texts of `data` until its JSON has at most `max_bytes`. None where it has no long text.

    Adds `truncated`, and `url`: the path of the whole object in REST, null for a deleted object.
    """
    texts = {key: data[key][name] for key, name in _LONG_TEXTS.items() if key in data}
    shortened: dict[str, Any] = {"truncated": True, "url": None, **data}
    cut: list[str] = []
    for key in sorted(texts, key=lambda key: len(texts[key]), reverse=True):
        if len(texts[key]) <= _EXCERPT:
            break
        cut.append(key)
        shortened[key] = {**data[key], _LONG_TEXTS[key]: texts[key][:_EXCERPT]}
        if len(orjson.dumps(shortened)) <= max_bytes:
            break
    if not cut:
        return None
    if kind not in _DELETED:
        shortened["url"] = _url(data, cut)
    return shortened


def _url(data: dict[str, Any], cut: Sequence[str]) -> str:
    if "object" in cut:
        return f"/projects/{data['object']['id']}/"
    return f"/tasks/{data['task']['id']}/{'comments/' if 'comment' in cut else ''}"
