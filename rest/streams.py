"""`GET /events/` as a JSON page or as server-sent events. Both send the encoded frames of the journal unchanged."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson
from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from backend.projects import live, prices, resolvers
from backend.projects.access import Viewer
from backend.projects.errors import NotFound, NotSignedIn, ResumeRefused, is_unavailable
from backend.projects.resolvers.event import EventPage, parse_position
from backend.projects.visibility import EventFilter

from . import serializers
from .base import View
from .openapi import DescribedEvents
from .renderers import JSONRenderer


class EventStreamRenderer(BaseRenderer):
    """Represents the stream in content negotiation. It renders nothing."""

    media_type = "text/event-stream"
    format = "events"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> Any:
        raise NotImplementedError


class Events(View):
    parameters = serializers.EventParameters
    shape = serializers.EventPage
    renderer_classes = [JSONRenderer, EventStreamRenderer]
    schema = DescribedEvents()

    query: serializers.EventParameters

    @property
    def price(self) -> int:
        """The events of a page, and a fixed price for the list. Those of a stream cost nothing."""
        is_stream = isinstance(self.request.accepted_renderer, EventStreamRenderer)
        is_page = self.request.method in SAFE_METHODS and not is_stream
        return self.query.validated_data["page_size"] + prices.LIST if is_page else super().price

    def get(self, request: Request) -> HttpResponseBase:
        """List the events after a position, oldest first, as a JSON page; or stream them and all later events.

        A page of large events may be short while `more` is true. An event that is too large is truncated.

        A stream resumes from `Last-Event-ID`, else from `after`, else starts now. Its first frame is
        `{"type": "ready", "cursor": ...}`. While idle it regularly sends its position as
        `{"type": "cursor", "cursor": ...}`. If it falls behind it ends with `{"type": "resync", "oldest": ...}`.
        """
        after, event_filter = self.query.after_position(), self.query.filter()
        if isinstance(request.accepted_renderer, EventStreamRenderer) and request.method == "GET":
            if "Last-Event-ID" in request.headers:
                after = parse_position(request.headers["Last-Event-ID"], "Last-Event-ID")
            return _stream(self.viewer, after, event_filter)
        page = resolvers.event.list_events(
            self.viewer, after=after, filter=event_filter, size=self.query.validated_data["page_size"]
        )
        return HttpResponse(_page_json(page), content_type="application/json", headers={"X-Cursor": str(page.cursor)})

    def handle_exception(self, exc: Exception) -> Response:
        """Render errors as JSON, also those of a stream."""
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().handle_exception(exc)


def _page_json(page: EventPage) -> str:
    frames = ",".join(event.frame for event in page.events)
    return f'{{"events":[{frames}],"cursor":"{page.cursor}","more":{"true" if page.has_more else "false"}}}'


def _stream(viewer: Viewer, after: int | None, filter: EventFilter) -> StreamingHttpResponse:
    """A response that lasts until the client disconnects.

    Raises the errors of `live.connection` and `live.listen` before the response starts.
    """
    return EventStream(async_to_sync(_start)(_chunks(viewer, after, filter)))


class EventStream(StreamingHttpResponse):
    def __init__(self, content: AsyncGenerator[str]) -> None:
        super().__init__(
            content,
            content_type=EventStreamRenderer.media_type,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._content = content

    async def aclose(self) -> None:
        """End a stream that is not sent. Closing an iteration of the response would leave it to garbage collection."""
        await self._content.aclose()


async def _start(chunks: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """Produce the first chunk, and return a generator of all chunks that has begun: closing it closes `chunks`."""
    first = await anext(chunks)

    async def all_chunks() -> AsyncGenerator[str]:
        try:
            yield ""
            yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    started = all_chunks()
    await anext(started)
    return started


async def _chunks(viewer: Viewer, after: int | None, filter: EventFilter) -> AsyncGenerator[str]:
    with live.connection(viewer):
        async with live.listen(viewer, after=after, filter=filter) as listener:
            yield _position_frame("ready", listener.start)
            try:
                while True:
                    event = await listener.next(settings.LIVE_IDLE_S)
                    if event is None:
                        yield _position_frame("cursor", listener.position)
                    else:
                        yield f"id: {event.position}\ndata: {event.frame}\n\n"
            except ResumeRefused as error:
                yield f"data: {_json(type='resync', oldest=str(error.oldest))}\n\n"
            except (NotSignedIn, NotFound):
                return  # the client reconnects and gets the error
            except (DatabaseError, InterfaceError) as error:
                if not is_unavailable(error):
                    raise
                return  # the client reconnects, and resumes once the database answers


def _position_frame(type: str, position: int) -> str:
    return f"id: {position}\ndata: {_json(type=type, cursor=str(position))}\n\n"


def _json(**frame: str) -> str:
    return orjson.dumps(frame).decode()
