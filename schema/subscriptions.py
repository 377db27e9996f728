from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, cast

import strawberry
from strawberry import ID

from backend.projects import live
from backend.projects.visibility import EventFilter

from .context import Info, viewer
from .enums import EventKind
from .events import Event
from .inputs import id_filter
from .scalars import Cursor


@strawberry.type
class Subscription:
    @strawberry.subscription(
        description="Events from now on or, with `after`, from that position on: none is missed, none is repeated."
    )
    async def events(
        self,
        info: Info,
        after: Annotated[
            Cursor | None,
            strawberry.argument(description="The last position received, from an event or a query."),
        ] = None,
        project_id: ID | None = None,
        task_id: ID | None = None,
        kinds: list[EventKind] | None = None,
    ) -> AsyncGenerator[Event, None]:
        event_filter = EventFilter(
            project_id=id_filter(project_id),
            task_id=id_filter(task_id),
            kinds=None if kinds is None else frozenset(kind.value for kind in kinds),
        )
        async with live.listen(viewer(info), after=after, filter=event_filter) as listener:
            while True:
                event = await listener.next()
                info.context.set_viewer(listener.viewer)
                yield cast(Event, event)
