from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypedDict

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from .. import access, journal
from ..access import Viewer
from ..errors import NotAMember, ProjectNotFound, UnknownProject
from ..events import TaskCreated, TaskDeleted, TaskUpdated
from ..models import Status, Task
from ..rows import TaskRow
from .validation import check_version, set_fields

# Tasks that `unassigned_events` has in memory at once.
_CHUNK = 500


class TaskChanges(TypedDict, total=False):
    """An absent field stays unchanged. None stores an empty description, and clears the assignee."""

    title: str | None
    description: str | None
    status: str | None
    due_date: datetime | None
    assignee_id: int | None


def create_task(*, actor: Viewer, project_id: int | None, changes: TaskChanges) -> Task:
    """Create a task. Its status is pending by default. For locks and errors see `create_tasks`."""
    return create_tasks(actor=actor, project_id=project_id, new_tasks=[changes])[0]


@transaction.atomic
def create_tasks(*, actor: Viewer, project_id: int | None, new_tasks: Sequence[TaskChanges]) -> list[Task]:
    """Create tasks in one project, all or none, each with its event. Returns them in the order of `new_tasks`.

    Locks references to the project and the assignees. Other writers wait for the journal until the commit: pass a few
    hundred tasks at most. Raises UnknownProject, NotAllowed, NotAMember (assignee is no member), ValidationError.
    """
    try:
        project = access.project_to_add_to(actor, project_id)
    except ProjectNotFound:
        raise UnknownProject from None
    tasks = [Task(project=project) for _ in new_tasks]
    defaults: TaskChanges = {"title": None, "due_date": None, "status": Status.PENDING}
    for task, changes in zip(tasks, new_tasks, strict=True):
        set_fields(task, {**defaults, **changes})
    for assignee_id in sorted({task.assignee_id for task in tasks if task.assignee_id is not None}):
        _lock_member(project.pk, assignee_id)
    Task.objects.bulk_create(tasks)
    if tasks:
        journal.append_all([TaskCreated(TaskRow.of(task)) for task in tasks], actor=actor)
    return tasks


@transaction.atomic
def update_task(*, actor: Viewer, task_id: int | None, changes: TaskChanges, version: int | None = None) -> Task:
    """Change a task. Records no event where nothing changes.

    Locks the row, and a reference to a new assignee. Raises TaskNotFound, NotAllowed, NotAMember, ValidationError,
    Conflict where `version` is an old one.
    """
    task = access.task_for_update(actor, task_id)
    check_version(TaskRow.of(task), version)
    changed = set_fields(task, changes)
    if "assignee_id" in changed and task.assignee_id is not None:
        _lock_member(task.project_id, task.assignee_id)
    if changed:
        task.version += 1
        task.save(update_fields=[*changed, "version", "updated_at"])
        json_names = TaskRow.json_names()
        names = [json_names[name] for name in changed]
        journal.append(TaskUpdated(TaskRow.of(task), changes=names), actor=actor)
    return task


@transaction.atomic
def delete_task(*, actor: Viewer, task_id: int | None, version: int | None = None) -> TaskRow:
    """Delete a task with its comments, and return its last state.

    Locks the row. Raises TaskNotFound, NotAllowed, Conflict.
    """
    task = access.task_to_delete(actor, task_id)
    row = TaskRow.of(task)
    check_version(row, version)
    task.delete()
    journal.append(TaskDeleted(row), actor=actor)
    return row


def unassign_tasks(tasks: QuerySet[Task]) -> list[int]:
    """Clear the assignee of these tasks and return their ids. Locks the rows in order of id.

    The caller appends the events of `unassigned_events`, after all its other changes.
    """
    ids = list(tasks.order_by("pk").select_for_update(of=("self",), no_key=True).values_list("pk", flat=True))
    Task.objects.filter(pk__in=ids).update(assignee=None, version=F("version") + 1, updated_at=timezone.now())
    return ids


def unassigned_events(ids: Sequence[int]) -> Iterator[TaskUpdated]:
    """The events of `unassign_tasks`. Reads the tasks, which the caller has locked, during the iteration."""
    tasks = Task.objects.filter(pk__in=ids).order_by("pk").values_list(*TaskRow.__struct_fields__)
    for values in tasks.iterator(chunk_size=_CHUNK):
        yield TaskUpdated(TaskRow.of_values([values])[0], changes=["assignee"])


def _lock_member(project_id: int, user_id: int) -> None:
    """Raises NotAMember."""
    if not access.lock_member_reference(project_id, user_id):
        raise NotAMember
