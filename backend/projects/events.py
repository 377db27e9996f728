"""What can happen, as the journal tells it: one class per kind, each with the object as REST shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db.models import TextChoices

from .rows import CommentRow, ProjectRow, ReportRow, TaskRow


class EventKind(TextChoices):
    """What listeners hear of."""

    TASK_CREATED = "task.created"
    TASK_UPDATED = "task.updated"
    TASK_DELETED = "task.deleted"
    TASK_COMMENTED = "task.commented"
    PROJECT_CREATED = "project.created"
    PROJECT_UPDATED = "project.updated"
    PROJECT_DELETED = "project.deleted"
    REPORT_GENERATED = "report.generated"


# Takes a position like any change, since it changes what somebody sees, but is delivered to nobody.
ACCESS_CHANGED = "access.changed"


@dataclass(frozen=True)
class Payload:
    """What a service hands to `journal.append`."""

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
        """What is particular to this kind, as it goes out in the frame."""
        raise NotImplementedError


@dataclass(frozen=True)
class _OfTask(Payload):
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


class TaskCreated(_OfTask):
    kind = EventKind.TASK_CREATED.value


@dataclass(frozen=True)
class TaskUpdated(_OfTask):
    """`changes` are the names of the fields that changed, as REST has them."""

    changes: Sequence[str]

    kind = EventKind.TASK_UPDATED.value

    @property
    def data(self) -> dict[str, Any]:
        return {"task": self.task.as_json(), "changes": list(self.changes)}


class TaskDeleted(_OfTask):
    kind = EventKind.TASK_DELETED.value


@dataclass(frozen=True)
class TaskCommented(_OfTask):
    comment: CommentRow

    kind = EventKind.TASK_COMMENTED.value

    @property
    def data(self) -> dict[str, Any]:
        return {"comment": self.comment.as_json(), "task": self.task.as_json()}


@dataclass(frozen=True)
class _OfProject(Payload):
    project: ProjectRow

    @property
    def project_id(self) -> int:
        return self.project.id

    @property
    def data(self) -> dict[str, Any]:
        return {"object": self.project.as_json()}


class ProjectCreated(_OfProject):
    kind = EventKind.PROJECT_CREATED.value


@dataclass(frozen=True)
class ProjectUpdated(_OfProject):
    changes: Sequence[str]

    kind = EventKind.PROJECT_UPDATED.value

    @property
    def data(self) -> dict[str, Any]:
        return {"object": self.project.as_json(), "changes": list(self.changes)}


@dataclass(frozen=True)
class ProjectDeleted(_OfProject):
    """Goes to those who could see the project: `members` holds their ids, since memberships go with it."""

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
    """What `users` see has changed, or how they get in: a membership, a role, staff, active, a token, a session.

    `shown_in` are the projects in which their name is shown, where that has changed.
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
