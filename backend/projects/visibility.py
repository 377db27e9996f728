"""The events that a listener requests (`EventFilter`), and those that its viewer may see (`EventVisibility`)."""

from __future__ import annotations

from dataclasses import dataclass

from .access import Viewer, project, visible_project_ids, visible_tasks
from .errors import BadArgument, ProjectNotFound, TaskNotFound
from .events import ACCESS_CHANGED, EventKind
from .journal import JournalEvent
from .models import Event


@dataclass(frozen=True)
class EventFilter:
    """The events that a listener requests. None means any. Raises BadArgument for an unknown kind."""

    project_id: int | None = None
    task_id: int | None = None
    kinds: frozenset[str] | None = None

    def __post_init__(self) -> None:
        unknown = (self.kinds or frozenset()) - set(EventKind.values)
        if unknown:
            raise BadArgument("kinds", f"The kinds are {', '.join(EventKind.values)}.")

    @property
    def names_object(self) -> bool:
        """Whether the filter names a project or task, to which the viewer may lose access."""
        return self.project_id is not None or self.task_id is not None

    def passes(self, event: JournalEvent) -> bool:
        return (
            event.kind != ACCESS_CHANGED
            and self.project_id in (None, event.project_id)
            and self.task_id in (None, event.task_id)
            and (self.kinds is None or event.kind in self.kinds)
        )


@dataclass(frozen=True)
class EventVisibility:
    """The events that a viewer may see. A member may read all retained events, even those from before they joined."""

    viewer: Viewer
    project_ids: frozenset[int]

    @classmethod
    def since(cls, viewer: Viewer, position: int | None) -> EventVisibility:
        """The viewer's present projects, and the projects deleted after `position`, if it is not None.

        For a viewer who sees all projects, only the deleted ones. Memberships are read first: a project that is deleted
        between the two reads is found by its event.
        """
        project_ids = frozenset() if viewer.sees_all else visible_project_ids(viewer)
        if position is None:
            return cls(viewer, project_ids)
        deleted = Event.objects.filter(position__gt=position, kind=EventKind.PROJECT_DELETED)
        if not viewer.sees_all:
            deleted = deleted.filter(audience__contains=[viewer.user_id])
        gone = (pk for pk in deleted.values_list("project_id", flat=True) if pk is not None)
        return cls(viewer, project_ids.union(gone))

    def shows(self, event: JournalEvent) -> bool:
        if self.viewer.sees_all:
            return True
        if event.audience is not None:
            return self.viewer.user_id in event.audience
        return event.project_id in self.project_ids

    def require_shown(self, filter: EventFilter, position: int) -> None:
        """Raise ProjectNotFound or TaskNotFound where the viewer cannot see the project or task of `filter`.

        One deleted after `position` is accepted: a listener that resumes there receives the deletion.
        """
        project_id, task_id = filter.project_id, filter.task_id
        if project_id is not None and project_id not in self.project_ids:
            try:
                project(self.viewer, project_id)
            except ProjectNotFound:
                # It may have been deleted since the memberships were read.
                if project_id not in EventVisibility.since(self.viewer, position).project_ids:
                    raise
        if task_id is not None and not visible_tasks(self.viewer).filter(pk=task_id).exists():
            mentions = Event.objects.filter(position__gt=position, task_id=task_id)
            if not self.viewer.sees_all:
                mentions = mentions.filter(project_id__in=self.project_ids)
            if not mentions.exists():
                raise TaskNotFound
