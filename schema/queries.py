from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import strawberry
from strawberry import ID

from backend.projects import access, resolvers
from backend.projects.access import Viewer as DomainViewer
from backend.projects.access import parse_id, parse_id_filter
from backend.projects.errors import NotFound
from backend.projects.resolvers.cached import CachedPage
from backend.projects.resolvers.page import Page, PageRequest
from backend.projects.resolvers.project import ProjectFilter as DomainProjectFilter
from backend.projects.resolvers.report import ReportFilter
from backend.projects.resolvers.task import TaskFilter as DomainTaskFilter
from backend.projects.visibility import EventFilter

from .connections import Connection, PageArguments
from .context import Info, viewer
from .directives import EVENT_PAGE, LIST, OBJECT
from .events import Event, EventPage
from .execution.position import cursor_before_rows
from .inputs import ProjectFilter, ProjectOrder, TaskFilter, TaskOrder, domain_order, id_filter
from .scalars import Cursor
from .types import (
    AuditEntryConnection,
    Invitation,
    Project,
    SummaryReport,
    Task,
    TaskConnection,
    Token,
    Viewer,
)

R = TypeVar("R")


async def _find(info: Info, get: Callable[[DomainViewer, int | None], R], id: ID) -> R | None:
    try:
        return await info.context.in_database(get, viewer(info), parse_id(id))
    except NotFound:
        return None


def _connection(info: Info, read: Callable[..., Page[Any]], count: Callable[..., int]) -> Connection[Any]:
    """A connection over a list. `read` and `count` take the viewer."""
    current, call = viewer(info), info.context.in_database
    return Connection(load_page=lambda: call(read, current), load_count=lambda: call(count, current))


def _cached_connection(info: Info, read: Callable[..., CachedPage[Any]], count: Callable[..., int]) -> Connection[Any]:
    """As `_connection`, over a cached list that is at least as new as the operation's `cursor`."""
    return _connection(info, _page_reader(read), count)


def _page_reader(read: Callable[..., CachedPage[Any]]) -> Callable[[DomainViewer], Page[Any]]:
    position = cursor_before_rows()

    def read_page(current: DomainViewer) -> Page[Any]:
        return read(current, min_position=position).page

    return read_page


@strawberry.type
class Query:
    @strawberry.field(directives=[OBJECT], description="Null if it does not exist or is not visible to you.")
    async def project(self, info: Info, id: ID) -> Project | None:
        return cast(Project | None, await _find(info, resolvers.project.get_project, id))

    @strawberry.field(
        extensions=[PageArguments()], directives=[LIST], description="Newest first, unless `order` is set."
    )
    async def projects(
        self,
        info: Info,
        page: PageRequest,
        filter: ProjectFilter | None = None,
        order: ProjectOrder | None = None,
    ) -> Connection[Project]:
        domain_filter = filter.to_domain() if filter else DomainProjectFilter()
        ordering = domain_order(order)
        resolvers.project.projects_listing(domain_filter, ordering).check(page)
        read = partial(resolvers.project.list_projects, filter=domain_filter, order=ordering, page=page)
        return _cached_connection(info, read, partial(resolvers.project.count_projects, filter=domain_filter))

    @strawberry.field(directives=[OBJECT], description="Null if it does not exist or is not visible to you.")
    async def task(self, info: Info, id: ID) -> Task | None:
        return cast(Task | None, await _find(info, resolvers.task.get_task, id))

    @strawberry.field(
        extensions=[PageArguments()], directives=[LIST], description="Newest first, unless `order` is set."
    )
    async def tasks(
        self,
        info: Info,
        page: PageRequest,
        filter: TaskFilter | None = None,
        order: TaskOrder | None = None,
    ) -> TaskConnection:
        domain_filter = filter.to_domain() if filter else DomainTaskFilter()
        ordering = domain_order(order)
        resolvers.task.tasks_listing(domain_filter, ordering).check(page)
        read = _page_reader(partial(resolvers.task.list_tasks, filter=domain_filter, order=ordering, page=page))
        return TaskConnection(
            load_page=partial(info.context.in_database, read, viewer(info)),
            load_count=partial(info.context.loaders.all_task_count.load, domain_filter),
        )

    @strawberry.field(directives=[OBJECT], description="Null if it does not exist or is not visible to you.")
    async def report(self, info: Info, id: ID) -> SummaryReport | None:
        return cast(SummaryReport | None, await _find(info, resolvers.report.get_report, id))

    @strawberry.field(extensions=[PageArguments()], directives=[LIST], description="Newest first.")
    async def reports(
        self, info: Info, project_id: ID | None = None, *, page: PageRequest
    ) -> Connection[SummaryReport]:
        domain_filter = ReportFilter(id_filter(project_id))
        resolvers.report.reports_listing(domain_filter).check(page)
        read = partial(resolvers.report.list_reports, filter=domain_filter, page=page)
        return _cached_connection(info, read, partial(resolvers.report.count_reports, filter=domain_filter))

    @strawberry.field(
        extensions=[PageArguments()],
        directives=[LIST],
        description="Your open invitations; with `projectId` those to a project that you own. Newest first.",
    )
    async def invitations(
        self, info: Info, project_id: ID | None = None, *, page: PageRequest
    ) -> Connection[Invitation]:
        if project_id is None:
            resolvers.invitation.invitations_listing(None).check(page)
            read: Callable[..., Page[Any]] = partial(resolvers.invitation.list_invitations, page=page)
            return _connection(info, read, resolvers.invitation.count_invitations)
        pk = parse_id_filter(project_id)
        resolvers.invitation.invitations_listing(pk).check(page)
        # Checked here, so that the error has the same path whichever field of the connection is completed first.
        await info.context.in_database(access.invitations_to, viewer(info), pk)
        return _connection(
            info,
            partial(resolvers.invitation.list_project_invitations, project_id=pk, page=page),
            partial(resolvers.invitation.count_project_invitations, project_id=pk),
        )

    @strawberry.field(extensions=[PageArguments()], directives=[LIST], description="Your tokens, newest first.")
    async def tokens(self, info: Info, page: PageRequest) -> Connection[Token]:
        resolvers.token.TOKENS.check(page)
        return _connection(info, partial(resolvers.token.list_tokens, page=page), resolvers.token.count_tokens)

    @strawberry.field(
        extensions=[PageArguments()],
        directives=[LIST],
        description="Sign-ins, changes of access and imported comments, newest first. For staff only.",
    )
    async def audit_log(self, info: Info, page: PageRequest) -> AuditEntryConnection:
        resolvers.audit.AUDIT_LOG.check(page)
        current, call = viewer(info), info.context.in_database
        return AuditEntryConnection(
            load_page=partial(call, resolvers.audit.list_entries, current, page=page),
            load_count=partial(call, resolvers.audit.count_entries, current),
        )

    @strawberry.field(
        directives=[LIST, EVENT_PAGE],
        description="The events after a position, oldest first. Without `after`: no events, but the current position.",
    )
    async def events(
        self, info: Info, after: Cursor | None = None, project_id: ID | None = None, first: int | None = None
    ) -> EventPage:
        page = await info.context.in_database(
            resolvers.event.list_events,
            viewer(info),
            after=after,
            filter=EventFilter(project_id=id_filter(project_id)),
            size=first,
        )
        return EventPage(nodes=cast(list[Event], page.events), cursor=Cursor(page.cursor), has_more=page.has_more)

    @strawberry.field(
        description="The rows of this response are at least as new as this position."
        " Subscribe `after` it to miss no event."
    )
    async def cursor(self, info: Info) -> Cursor:
        return cast(Cursor, cursor_before_rows())

    @strawberry.field(description="Null if you are not signed in.")
    async def me(self, info: Info) -> Viewer | None:
        current = viewer(info)
        if not current.is_signed_in:
            return None
        return Viewer(id=ID(str(current.user_id)), name=current.name, is_staff=current.sees_all)
