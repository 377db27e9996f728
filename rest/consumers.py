"""`/ws/notifications/`: sends events as the frames that the journal's reader has encoded."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from backend.projects import live, threads
from backend.projects.access import Viewer, parse_id_filter
from backend.projects.authentication import viewer_by_token, viewer_of_socket
from backend.projects.errors import (
    BadArgument,
    InvalidCredential,
    NotFound,
    NotSignedIn,
    ResumeRefused,
    TooManyConnections,
    is_unavailable,
)
from backend.projects.journal import JournalEvent
from backend.projects.resolvers.event import parse_position
from backend.projects.visibility import EventFilter
from backend.web.waiting import stop_waiting

BAD_REQUEST, UNAUTHORIZED, NO_ACCESS, RESYNC, TOO_MANY, FAILED = 4400, 4401, 4403, 4410, 4429, 4500
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013

logger = logging.getLogger(__name__)


class NotificationConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Parameters: `after`, `project`, `kinds` (separated by commas).

    A client without a session that cannot set headers, such as a browser's script, sends its token in the first frame:
    `{"type": "authenticate", "token": "..."}`. A client has nothing else to send: a second frame closes the socket.

    Close codes: 1008 (a second frame), 4400 (invalid parameters or first frame), 4401 (token or session invalid,
    expired or revoked), 4403 (no access), 4410 (resync), 4429 (too many connections of the account). The last frame has
    the reason, except for 1008. 4500 is an internal error, and 1013 a database that cannot be reached: the client
    resumes after both.
    """

    # A socket gets its events from `live`. Without a channel layer it opens even while Redis is down.
    channel_layer_alias = "none"
    _relay_task: asyncio.Task[None] | None = None
    _first_frame: asyncio.Future[str | None]
    _is_refused = False

    async def connect(self) -> None:
        self._first_frame = asyncio.get_running_loop().create_future()
        await self.accept()
        self._relay_task = asyncio.create_task(self._relay())

    async def disconnect(self, code: int) -> None:
        await self._end_relay()

    async def _end_relay(self) -> None:
        """Cancel the relay once, and wait for its end: a second cancellation would interrupt its cleanup."""
        relay_task, self._relay_task = self._relay_task, None
        if relay_task is not None:
            relay_task.cancel()
            await asyncio.gather(relay_task, return_exceptions=True)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if not self._first_frame.done():
            self._first_frame.set_result(text_data)
        elif not self._is_refused:
            self._is_refused = True
            await self._end_relay()
            await self.close(code=POLICY_VIOLATION)

    async def _relay(self) -> None:
        try:
            viewer = await self._viewer()
            stop_waiting(self.scope)
            after, event_filter = _parse_parameters(self.scope["query_string"])
            with live.connection(viewer):
                async with live.listen(viewer, after=after, filter=event_filter, try_send=self._try_send()) as listener:
                    await self._send_frame({"type": "ready", "cursor": str(listener.start)})
                    idle_s: float = settings.LIVE_IDLE_S
                    while True:
                        event = await listener.next(idle_s)
                        if event is None:
                            await self._send_frame({"type": "cursor", "cursor": str(listener.position)})
                        else:
                            # Bypasses two layers of Channels, which would make a send 50% slower.
                            await self.base_send({"type": "websocket.send", "text": event.frame})
        except BadArgument as error:
            await self._end(BAD_REQUEST, {"type": "error", "message": f"{error.argument}: {error.text}"})
        except InvalidCredential as error:
            await self._end(UNAUTHORIZED, {"type": "error", "message": str(error)})
        except (NotSignedIn, NotFound) as error:
            await self._end(NO_ACCESS, {"type": "error", "message": str(error)})
        except TooManyConnections as error:
            await self._end(TOO_MANY, {"type": "error", "message": str(error)})
        except ResumeRefused as error:
            await self._end(RESYNC, {"type": "resync", "oldest": str(error.oldest)})
        except Exception as error:
            if is_unavailable(error):
                await self.close(code=TRY_AGAIN_LATER)
                return
            # An open socket without a relay would look like an idle one.
            logger.exception("A socket's relay failed.")
            await self.close(code=FAILED)

    def _try_send(self) -> Callable[[JournalEvent], bool] | None:
        """A function that sends a frame without waiting; None if the server has none (`backend/server/`)."""
        extension = self.scope.get("extensions", {}).get("taskwire.try_send")
        if extension is None:
            return None
        send: Callable[[str], bool] = extension["send"]
        return lambda event: send(event.frame)

    async def _viewer(self) -> Viewer:
        """Raises InvalidCredential; NotSignedIn after a timeout; BadArgument if the first frame contains no token."""
        viewer = await threads.requests.call(viewer_of_socket, self.scope)
        if viewer.may_see_anything:
            return viewer
        try:
            async with asyncio.timeout(settings.SOCKET_INIT_S):
                frame = await self._first_frame
        except TimeoutError:
            raise NotSignedIn from None
        return await threads.requests.call(viewer_by_token, _token_in(frame), address=viewer.address)

    async def _send_frame(self, frame: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(frame, separators=(",", ":")))

    async def _end(self, code: int, frame: dict[str, Any]) -> None:
        await self._send_frame(frame)
        await self.close(code=code)


def _token_in(frame: str | None) -> str:
    """Raises BadArgument."""
    try:
        message = json.loads(frame or "")
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, dict) and message.get("type") == "authenticate" and isinstance(message.get("token"), str):
        return str(message["token"])
    raise BadArgument("first frame", 'It must be {"type": "authenticate", "token": "..."}.')


def _parse_parameters(query_string: bytes) -> tuple[int | None, EventFilter]:
    """Raises BadArgument."""
    after: int | None = None
    project_id: int | None = None
    kinds: frozenset[str] | None = None
    parameters = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    for name, value in parameters:
        if [other for other, _ in parameters].count(name) > 1:
            raise BadArgument(name, "It is given more than once.")
        match name:
            case "after":
                after = parse_position(value)
            case "project":
                project_id = parse_id_filter(value)
            case "kinds":
                kinds = frozenset(value.split(","))
            case _:
                raise BadArgument(name, "There is no such parameter.")
    return after, EventFilter(project_id=project_id, kinds=kinds)
