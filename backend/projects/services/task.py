from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

from django.db import transaction
from django.db.models import QuerySet

from .. import access, journal
from ..access import Viewer
from ..errors import NotAMember, ProjectNotFound, UnknownProject
from ..events import TaskCreated, TaskDeleted, TaskUpdated
from ..models import Status, Task
from ..rows import TaskRow
from .clean import check_version, clean_fields, tidy


class TaskChanges(TypedDict, total=False):
    """What is absent stays as it is. A description of None is an empty one, an assignee of None nobody."""

    title: str | None
    description: str | None
    status: str | None
    due_date: datetime | None
    assignee_id: int | None


@transaction.atomic
def create_task(*, actor: Viewer, project_id: int | None, changes: TaskChanges) -> Task:
    """A new task; without a status it is pending.

    Holds the project. Raises UnknownProject, NotAllowed, NotAMember (assignee is outside the project),
    ValidationError.
    """
    try:
        project = access.project_to_add_to(actor, project_id)
    except ProjectNotFound:
        raise UnknownProject from None
    task = Task(project=project)
    given: TaskChanges = {"title": None, "due_date": None, "status": Status.PENDING}
    _assign(task, {**given, **changes})
    task.save(force_insert=True)
    journal.append(TaskCreated(TaskRow.of(task)), actor=actor)
    return task


@transaction.atomic
def create_tasks(*, actor: Viewer, project_id: int | None, many: Sequence[TaskChanges]) -> list[Task]:
    """As `create_task`, for many tasks of one project: all of them or none, each with its event.

    Others wait for the journal until the commit: some hundred at a time.
    """
    try:
        project = access.project_to_add_to(actor, project_id)
    except ProjectNotFound:
        raise UnknownProject from None
    tasks = [Task(project=project) for _ in many]
    given: TaskChanges = {"title": None, "due_date": None, "status": Status.PENDING}
    for task, changes in zip(tasks, many, strict=True):
        _set(task, {**given, **changes})
    for assignee_id in sorted({task.assignee_id for task in tasks if task.assignee_id is not None}):
        _require_member(project.pk, assignee_id)
    Task.objects.bulk_create(tasks)
    if tasks:
        journal.append_all([TaskCreated(TaskRow.of(task)) for task in tasks], actor=actor)
    return tasks


@transaction.atomic
def update_task(*, actor: Viewer, task_id: int | None, changes: TaskChanges, version: int | None = None) -> Task:
    """Change a task; nothing is recorded where nothing changes.

    Locks the row. Raises TaskNotFound, NotAllowed, NotAMember, ValidationError, Conflict where `version` is an old
    one.
    """
    task = access.task_for_update(actor, task_id)
    check_version(TaskRow.of(task), version)
    changed = _assign(task, changes)
    if changed:
        task.version += 1
        task.save(update_fields=[*changed, "version", "updated_at"])
        json_names = TaskRow.json_names()
        names = [json_names[name] for name in changed]
        journal.append(TaskUpdated(TaskRow.of(task), changes=names), actor=actor)
    return task


@transaction.atomic
def delete_task(*, actor: Viewer, task_id: int | None, version: int | None = None) -> TaskRow:
    """Delete a task with its comments, and return it as it was.

    Locks the row. Raises TaskNotFound, NotAllowed, Conflict.
    """
    task = access.task_to_delete(actor, task_id)
    row = TaskRow.of(task)
    check_version(row, version)
    task.delete()
    journal.append(TaskDeleted(row), actor=actor)
    return row


def take_off_tasks(tasks: QuerySet[Task]) -> list[Task]:
    """Clear the assignee of these tasks, their rows locked; `append_unassigned` is for after every other change."""
    locked = list(tasks.order_by("pk").select_for_update(of=("self",), no_key=True))
    for task in locked:
        task.assignee_id = None
        task.version += 1
        task.save(update_fields=["assignee_id", "version", "updated_at"])
    return locked


def append_unassigned(tasks: list[Task], *, actor: Viewer) -> None:
    for task in tasks:
        journal.append(TaskUpdated(TaskRow.of(task), changes=["assignee"]), actor=actor)


def _assign(task: Task, changes: TaskChanges) -> list[str]:
    """As `_set`; a new assignee is held. Raises NotAMember."""
    changed = _set(task, changes)
    if "assignee_id" in changed and task.assignee_id is not None:
        _require_member(task.project_id, task.assignee_id)
    return changed


def _set(task: Task, changes: TaskChanges) -> list[str]:
    """Set what differs, checked; return the names of what was set."""
    new = dict(changes)
    if "title" in new:
        new["title"] = tidy(new["title"])
    if "description" in new:
        new["description"] = new["description"] or ""
    changed = [name for name, value in new.items() if task.pk is None or getattr(task, name) != value]
    for name in changed:
        setattr(task, name, new[name])
    clean_fields(task, changed)
    return changed


def _require_member(project_id: int, user_id: int) -> None:
    if not access.lock_member_reference(project_id, user_id):
        raise NotAMember
