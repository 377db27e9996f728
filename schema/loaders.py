"""Loaders for nested fields: one query for all parents with equal arguments, whatever their number.

Nothing is cached from one batch to the next, except in a `RowCache`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from strawberry.dataloader import DataLoader

from backend.projects import resolvers
from backend.projects.access import Viewer
from backend.projects.resolvers.page import Order, Page, PageRequest
from backend.projects.resolvers.task import TaskFilter
from backend.projects.rows import CommentRow, MemberRow, ProjectRow, TaskRow, UserRow

A = TypeVar("A", bound=Hashable)
T = TypeVar("T")


class Loader(DataLoader[A, T]):
    """Shields a load that several callers share from the cancellation of one of them.

    graphql-core cancels a field if a sibling failed.
    """

    def load(self, key: A) -> Awaitable[T]:
        return asyncio.shield(super().load(key))


@dataclass(frozen=True, slots=True)
class Nested(Generic[A]):
    """A parent and the arguments of its field. Parents with equal arguments share a query."""

    parent_id: int
    arguments: A


@dataclass(frozen=True, slots=True)
class TaskPage:
    filter: TaskFilter
    order: Order
    page: PageRequest
    keys_only: bool = False


@dataclass(frozen=True, slots=True)
class NestedPage:
    """A page of a list that is filtered by its parent alone."""

    page: PageRequest
    keys_only: bool = False


class RowCache:
    """Rows that operations in several threads share. Each is read once, for one viewer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[Hashable, tuple[threading.Lock, dict[int, Any]]] = {}

    def read(
        self, resolver: Callable[..., dict[int, T]], viewer: Viewer, ids: Sequence[int], *args: Any
    ) -> dict[int, T]:
        """Call the resolver for the rows that are not cached. A thread waits while another reads rows of that kind."""
        with self._lock:
            lock, rows = self._rows.setdefault((resolver, args), (threading.Lock(), {}))
        with lock:
            missing = [pk for pk in ids if pk not in rows]
            if missing:
                found = resolver(viewer, missing, *args)
                rows.update((pk, found.get(pk)) for pk in missing)
            return {pk: rows[pk] for pk in ids}


class Loaders:
    """One loader per nested field. `call` runs a function in a thread with a database connection."""

    def __init__(self, viewer: Viewer, call: Callable[..., Awaitable[Any]], cache: RowCache | None = None) -> None:
        def reader(resolver: Callable[..., dict[int, T]]) -> Callable[..., Awaitable[dict[int, T]]]:
            return partial(call, resolver, viewer) if cache is None else partial(call, cache.read, resolver, viewer)

        def by_id(resolver: Callable[..., dict[int, T]]) -> DataLoader[int, T | None]:
            return _by_id(reader(resolver))

        def by_parent(resolver: Callable[..., dict[int, T]]) -> DataLoader[Nested[Any], T]:
            return _by_parent(reader(resolver))

        self.project: DataLoader[int, ProjectRow | None] = by_id(resolvers.project.projects_by_id)
        self.task: DataLoader[int, TaskRow | None] = by_id(resolvers.task.tasks_by_id)
        self.user: DataLoader[int, UserRow | None] = by_id(resolvers.user.users_by_id)
        self.tasks: DataLoader[Nested[TaskPage], Page[TaskRow]] = by_parent(_task_pages)
        self.task_count: DataLoader[Nested[TaskFilter], int] = _counts_by_parent(
            reader(resolvers.task.count_tasks_of_projects)
        )
        self.all_task_count: DataLoader[TaskFilter, int] = _counts_by_filter(
            partial(call, resolvers.task.count_tasks_by_filter, viewer)
        )
        self.comments: DataLoader[Nested[NestedPage], Page[CommentRow]] = by_parent(_comment_pages)
        self.comment_count: DataLoader[Nested[None], int] = by_parent(_comment_counts)
        self.members: DataLoader[Nested[NestedPage], Page[MemberRow]] = by_parent(_member_pages)
        self.member_count: DataLoader[Nested[None], int] = by_parent(_member_counts)


def _task_pages(viewer: Viewer, project_ids: Sequence[int], task_page: TaskPage) -> dict[int, Page[TaskRow]]:
    return resolvers.task.list_tasks_of_projects(
        viewer,
        project_ids,
        filter=task_page.filter,
        order=task_page.order,
        page=task_page.page,
        keys_only=task_page.keys_only,
    )


def _comment_pages(viewer: Viewer, task_ids: Sequence[int], nested: NestedPage) -> dict[int, Page[CommentRow]]:
    return resolvers.comment.list_comments_of_tasks(viewer, task_ids, nested.page, keys_only=nested.keys_only)


def _member_pages(viewer: Viewer, project_ids: Sequence[int], nested: NestedPage) -> dict[int, Page[MemberRow]]:
    return resolvers.membership.list_members_of_projects(viewer, project_ids, nested.page, keys_only=nested.keys_only)


def _comment_counts(viewer: Viewer, task_ids: Sequence[int], _: None) -> dict[int, int]:
    return resolvers.comment.count_comments_of_tasks(viewer, task_ids)


def _member_counts(viewer: Viewer, project_ids: Sequence[int], _: None) -> dict[int, int]:
    return resolvers.membership.count_members_of_projects(viewer, project_ids)


def _by_id(read: Callable[[Sequence[int]], Awaitable[dict[int, T]]]) -> DataLoader[int, T | None]:
    async def load(ids: list[int]) -> list[T | None]:
        rows = await read(ids)
        return [rows.get(pk) for pk in ids]

    return Loader(load_fn=load, cache=False)


def _counts_by_parent(read: Callable[..., Awaitable[dict[int, dict[A, int]]]]) -> DataLoader[Nested[A], int]:
    """Loads the counts with different arguments in one query too."""

    async def load(keys: list[Nested[A]]) -> list[int]:
        arguments = tuple(dict.fromkeys(key.arguments for key in keys))
        counts = await read(sorted({key.parent_id for key in keys}), arguments)
        return [counts[key.parent_id][key.arguments] for key in keys]

    return Loader(load_fn=load, cache=False)


def _counts_by_filter(read: Callable[[Sequence[A]], Awaitable[dict[A, int]]]) -> DataLoader[A, int]:
    async def load(filters: list[A]) -> list[int]:
        counts = await read(filters)
        return [counts[each] for each in filters]

    return Loader(load_fn=load, cache=False)


def _by_parent(read: Callable[[Sequence[int], A], Awaitable[dict[int, T]]]) -> DataLoader[Nested[A], T]:
    async def load(keys: list[Nested[A]]) -> list[T]:
        parents: defaultdict[A, list[int]] = defaultdict(list)
        for key in keys:
            parents[key.arguments].append(key.parent_id)
        loaded = {arguments: await read(sorted(set(ids)), arguments) for arguments, ids in parents.items()}
        return [loaded[key.arguments][key.parent_id] for key in keys]

    return Loader(load_fn=load, cache=False)
