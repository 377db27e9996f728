"""Nested fields, batched: one query for all parents that ask the same, whatever their number.

Nothing is kept from one batch to the next, unless asked for. A socket's loaders live as long as the socket, and what
they kept would be stale by the next event.
"""

from __future__ import annotations

import asyncio
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

PAGE_SIZE = 50


class Loader(DataLoader[A, T]):
    """Who asks may be cancelled, by graphql-core where a sibling field failed; what others wait for as well is not."""

    def load(self, key: A) -> Awaitable[T]:
        return asyncio.shield(super().load(key))


@dataclass(frozen=True, slots=True)
class Nested(Generic[A]):
    """What one parent asks for: parents with equal arguments share a query."""

    parent_id: int
    arguments: A


@dataclass(frozen=True, slots=True)
class TaskPage:
    filter: TaskFilter
    order: Order
    page: PageRequest


class Loaders:
    """`call` runs a function in the thread that has the database. Who `keeps` what was read reads nothing twice."""

    def __init__(self, viewer: Viewer, call: Callable[..., Awaitable[Any]], *, keeps: bool = False) -> None:
        projects_by_id = partial(call, resolvers.project.projects_by_id, viewer)
        tasks_by_id = partial(call, resolvers.task.tasks_by_id, viewer)
        self.project: DataLoader[int, ProjectRow | None] = _by_id(projects_by_id, keeps)
        self.task: DataLoader[int, TaskRow | None] = _by_id(tasks_by_id, keeps)
        self.user: DataLoader[int, UserRow | None] = _by_id(partial(call, resolvers.user.users_by_id, viewer), keeps)
        self.tasks: DataLoader[Nested[TaskPage], Page[TaskRow]] = _by_parent(partial(call, _task_pages, viewer), keeps)
        self.task_count: DataLoader[Nested[TaskFilter], int] = _by_parent(
            partial(call, resolvers.task.count_tasks_of_projects, viewer), keeps
        )
        self.comments: DataLoader[Nested[PageRequest], Page[CommentRow]] = _by_parent(
            partial(call, _comment_pages, viewer), keeps
        )
        self.comment_count: DataLoader[Nested[None], int] = _by_parent(partial(call, _comment_counts, viewer), keeps)
        self.members: DataLoader[Nested[PageRequest], Page[MemberRow]] = _by_parent(
            partial(call, _member_pages, viewer), keeps
        )
        self.member_count: DataLoader[Nested[None], int] = _by_parent(partial(call, _member_counts, viewer), keeps)


def _task_pages(viewer: Viewer, project_ids: Sequence[int], asked: TaskPage) -> dict[int, Page[TaskRow]]:
    return resolvers.task.list_tasks_of_projects(
        viewer, project_ids, filter=asked.filter, order=asked.order, page=asked.page, default_size=PAGE_SIZE
    )


def _comment_pages(viewer: Viewer, task_ids: Sequence[int], page: PageRequest) -> dict[int, Page[CommentRow]]:
    return resolvers.comment.list_comments_of_tasks(viewer, task_ids, page=page, default_size=PAGE_SIZE)


def _comment_counts(viewer: Viewer, task_ids: Sequence[int], _: None) -> dict[int, int]:
    return resolvers.comment.count_comments_of_tasks(viewer, task_ids)


def _member_pages(viewer: Viewer, project_ids: Sequence[int], page: PageRequest) -> dict[int, Page[MemberRow]]:
    return resolvers.membership.list_members_of_projects(viewer, project_ids, page=page, default_size=PAGE_SIZE)


def _member_counts(viewer: Viewer, project_ids: Sequence[int], _: None) -> dict[int, int]:
    return resolvers.membership.count_members_of_projects(viewer, project_ids)


def _by_id(read: Callable[[Sequence[int]], Awaitable[dict[int, T]]], keeps: bool) -> DataLoader[int, T | None]:
    async def load(ids: list[int]) -> list[T | None]:
        found = await read(ids)
        return [found.get(pk) for pk in ids]

    return Loader(load_fn=load, cache=keeps)


def _by_parent(read: Callable[[Sequence[int], A], Awaitable[dict[int, T]]], keeps: bool) -> DataLoader[Nested[A], T]:
    async def load(asked: list[Nested[A]]) -> list[T]:
        parents: defaultdict[A, list[int]] = defaultdict(list)
        for one in asked:
            parents[one.arguments].append(one.parent_id)
        found = {arguments: await read(sorted(set(ids)), arguments) for arguments, ids in parents.items()}
        return [found[one.arguments][one.parent_id] for one in asked]

    return Loader(load_fn=load, cache=keeps)
