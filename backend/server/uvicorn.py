"""uvicorn, with documented options and a protocol in front of each of its own (docs/decisions/0006-servers.md)."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import struct
import sys
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import uvicorn
from django.conf import settings
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from . import (
    INTERNAL_ERROR,
    MESSAGE_BYTES,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    POLICY_VIOLATION,
    REST_S,
    STOP_S,
    Application,
    Refused,
    parse_target,
    too_large,
    too_slow,
)
from .connections import ConnectionMeter
from .frames import FrameMeter
from .handshake import check_handshake

# Seconds without a request before a connection is closed, and the most bytes of a request's head.
IDLE_S, HEAD_BYTES = 60, 16 * 1024
# websockets, which uvicorn uses, does not respond to a handshake with a longer line or more of them.
LINE_BYTES, LINES = 8000, 128
# The longest reason of a close frame.
REASON_BYTES = 123
# The keys of a connection and of a socket in the state of a scope.
CONNECTION, SOCKET = "taskwire.connection", "taskwire.socket"
STREAM = b"text/event-stream"
# A close frame, and seconds that a client has for reading it once it has sent too many frames.
_REFUSAL, REFUSED_S = b"\x88\x02" + struct.pack("!H", POLICY_VIOLATION), 1.0

logger = logging.getLogger(__name__)
_meter = ConnectionMeter()


class Relay(asyncio.Protocol):
    """Stands between a connection and uvicorn's own protocol, and passes on what asyncio reports."""

    _protocol: Any

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)


class TimedConnection(Relay):
    """Refuses a head that does not arrive within `REQUEST_HEAD_S`, and closes a connection that sends nothing.

    Closes a connection at once where its address opens too many.

    Is in the state of each ASGI scope, so that `Guard` can report that a head has arrived.
    """

    def __init__(self, app_state: dict[str, Any], **options: Any) -> None:
        self._protocol = H11Protocol(app_state={**app_state, CONNECTION: self}, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_receiving_head = False
        self._is_refused = False
        self._running = 0  # applications: one may still run when the next request arrives

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if not _meter.admits((transport.get_extra_info("peername") or [""])[0]):
            self._is_refused = True
            self._protocol = asyncio.Protocol()
            transport.abort()
            return
        self._deadline = asyncio.get_running_loop().call_later(IDLE_S, transport.abort)
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if not self._running and not self._is_receiving_head:
            self._is_receiving_head = True
            self._cancel_deadline()
            self._deadline = asyncio.get_running_loop().call_later(settings.REQUEST_HEAD_S, self._refuse)
        self._protocol.data_received(data)

    def begin_request(self) -> None:
        """A head has arrived."""
        self._cancel_deadline()
        self._is_receiving_head = False
        self._running += 1

    def end_request(self) -> None:
        self._running -= 1

    def connection_lost(self, error: Exception | None) -> None:
        self._cancel_deadline()
        self._protocol.connection_lost(error)

    def _refuse(self) -> None:
        self._is_refused = True
        self._transport.write(too_slow().response())
        self._transport.write_eof()
        self._deadline = asyncio.get_running_loop().call_later(REST_S, self._transport.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class MeteredSocket(Relay):
    """Refuses a malformed handshake, and closes the socket of a client that sends too many frames.

    Calls only those methods of uvicorn's own protocol that asyncio calls. Passes itself on in the state of the ASGI
    scope: `Guard` asks it whether the connection is still open.
    """

    def __init__(self, app_state: dict[str, Any], **options: Any) -> None:
        app_state.pop(CONNECTION).begin_request()  # the handshake is its last request
        self._protocol = WebSocketsSansIOProtocol(app_state={**app_state, SOCKET: self}, **options)
        self._meter = FrameMeter()
        self._is_in_head = True
        self._is_refused = False

    @property
    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return  # unread bytes would make the kernel reset the connection, and the client would miss the close code
        if self._is_in_head:
            self._is_in_head = False
            try:
                _check_head(data)
            except Refused as refused:
                self._is_refused = True
                self._transport.write(refused.response())
                self._transport.close()
                return
        if self._meter.admits(data):
            self._protocol.data_received(data)
            return
        self._is_refused = True
        self._transport.write(_REFUSAL)
        asyncio.get_running_loop().call_later(REFUSED_S, self._transport.abort)


class Body:
    """The body of one request, bounded in size and time, and the response to it."""

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive = receive
        self._send = send
        self._deadline = asyncio.get_running_loop().time() + settings.REQUEST_BODY_S
        self._size = 0
        self._is_complete = False
        self._is_refused = False
        self._has_response_begun = False
        # Whether the last message of the response waits for the rest of the body.
        self._is_response_open = False

    async def receive(self) -> dict[str, Any]:
        """The next message for the application: a disconnect once the body is refused."""
        if self._is_refused:
            return {"type": "http.disconnect"}
        if self._is_complete:
            return await self._receive()  # type: ignore[no-any-return]
        try:
            async with asyncio.timeout_at(self._deadline):
                message: dict[str, Any] = await self._receive()
        except TimeoutError:
            return await self.refuse(too_slow())
        self._size += len(message.get("body", b""))
        if self._size > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return await self.refuse(too_large())
        self._is_complete = not message.get("more_body")  # or a disconnect
        return message

    async def send(self, message: dict[str, Any]) -> None:
        """Send a message of the response. A response that begins before the end of the body closes the connection."""
        if self._is_refused:
            return
        if not self._has_response_begun:
            self._has_response_begun = True
            if not self._is_complete:
                self._is_response_open = True
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        if self._is_response_open and message["type"] == "http.response.body":
            message = {**message, "more_body": True}
        await self._send(message)

    async def refuse(self, refused: Refused) -> dict[str, Any]:
        """Respond, unless the application has begun to. Returns the message that the application receives."""
        if not self._has_response_begun:
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(refused.body)).encode())]
            await self.send({"type": "http.response.start", "status": refused.status, "headers": headers})
            await self.send({"type": "http.response.body", "body": refused.body})
        self._is_refused = True
        return {"type": "http.disconnect"}

    async def end(self) -> None:
        """End a response that began before the end of the body: when the body has arrived, or after `REST_S`."""
        if not self._is_response_open:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                while not self._is_complete:
                    message = await self._receive()
                    self._is_complete = not message.get("more_body")
        await self._send({"type": "http.response.body"})


class Guard:
    """Adds what daphne does and uvicorn has no option for.

    Refuses bodies that are too large or too slow, treats targets and methods as RFC 9112 requires, ends streams when
    the server stops, and closes a socket if its application raises.
    """

    def __init__(self, application: Application, listener: socket.socket) -> None:
        self._application = application
        self._listener = listener

    @property
    def is_stopping(self) -> bool:
        """uvicorn closes the listening socket before anything else."""
        return self._listener.fileno() == -1

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        connection: TimedConnection | None = scope["state"].pop(CONNECTION, None)
        if connection is None:  # a socket
            await self._call(scope, receive, send)
            return
        connection.begin_request()
        try:
            await self._call(scope, receive, send)
        finally:
            connection.end_request()

    async def _call(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            scope = _with_host_of_target(scope)
        except Refused as refused:
            body = Body(receive, send)
            await body.refuse(refused)
            await body.end()
            return
        try:
            await (self._http if scope["type"] == "http" else self._websocket)(scope, receive, send)
        except asyncio.CancelledError:
            if not self.is_stopping:
                raise

    async def _http(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        size = _announced_size(scope)
        if size == 0:
            await self._exchange(scope, receive, send)
            return
        body = Body(receive, send)
        if size is not None and size > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            await body.refuse(too_large())
        else:
            await self._exchange(scope, body.receive, body.send)
        await body.end()

    async def _exchange(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        ending: asyncio.Task[None] | None = None

        async def end() -> None:
            while not self.is_stopping:
                await asyncio.sleep(0.5)
            await send({"type": "http.response.body"})

        async def send_and_watch(message: dict[str, Any]) -> None:
            nonlocal ending
            await send(message)
            if any(name.lower() == b"content-type" and value == STREAM for name, value in message.get("headers", ())):
                ending = asyncio.create_task(end())

        try:
            await self._application(scope, receive, send_and_watch)
        finally:
            if ending is not None:
                ending.cancel()

    async def _websocket(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        connection: MeteredSocket = scope["state"].pop(SOCKET)
        is_closed = False

        async def send_while_open(message: dict[str, Any]) -> None:
            nonlocal is_closed
            if not is_closed:
                is_closed = message["type"] == "websocket.close"
                if is_closed:  # Strawberry's reasons contain text of the client, such as a lone surrogate
                    reason = (message.get("reason") or "").encode(errors="replace")[:REASON_BYTES]
                    message = {**message, "reason": reason.decode(errors="ignore")}
                try:
                    await send(message)
                except OSError:  # the ASGI spec lets `send` raise it once the client is gone
                    pass
                except RuntimeError:  # uvicorn raises it between a frame that breaks the protocol and the end
                    if not connection.is_closing:
                        raise

        try:
            await self._application(scope, receive, send_while_open)
        except Exception:
            logger.exception("Exception inside application.")
            await send_while_open({"type": "websocket.close", "code": INTERNAL_ERROR})


def _check_head(head: bytes) -> None:
    """Check the head of a handshake, which uvicorn passes on as a whole. Raises Refused."""
    request, *lines = head.rstrip(b"\r\n").split(b"\r\n")
    method, target, _ = request.split(b" ")
    if len(lines) > LINES or max(map(len, (request, *lines))) > LINE_BYTES:
        raise Refused(431, f"A WebSocket handshake has at most {LINES} headers of {LINE_BYTES} bytes.")
    parse_target(method, target)
    check_handshake(method, target, ((name, value) for name, _, value in (line.partition(b":") for line in lines)))


def _announced_size(scope: dict[str, Any]) -> int | None:
    """The size of the body; None where it is chunked."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            return int(value)
    return 0


def _with_host_of_target(scope: dict[str, Any]) -> dict[str, Any]:
    """The scope with the host of an absolute target in place of its header. Raises Refused."""
    raw_path = scope["raw_path"]
    host, path = parse_target(scope.get("method", "GET").encode(), raw_path)
    if host is None:
        return scope
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    return {**scope, "raw_path": path, "path": unquote(path.decode("ascii")), "headers": [(b"host", host), *headers]}


def run(application: Application) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code: 1 where it cannot listen."""
    family = socket.AF_INET6 if ":" in settings.BIND else socket.AF_INET
    try:
        listener = socket.create_server((settings.BIND, settings.PORT), family=family)
    except OSError as error:
        logger.critical("Listen failure: %s", error)
        return 1
    # Connections inherit it. Otherwise a body waits until the client acknowledges the head, for up to 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises the signal again once it has stopped
        signal.signal(number, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        Guard(application, listener),
        interface="asgi3",
        lifespan="off",
        loop="asyncio",
        http=TimedConnection,  # h11: httptools limits no head, and takes lines after a chunked body for headers
        h11_max_incomplete_event_size=HEAD_BYTES,
        ws=MeteredSocket,
        ws_max_size=MESSAGE_BYTES,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        ws_per_message_deflate=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=int(STOP_S),
        log_config=None,
        proxy_headers=False,
        reset_contextvars=True,  # a request sees no context of an earlier one on its connection
    )
    logger.info("Listening on TCP address %s:%s", *listener.getsockname()[:2])
    uvicorn.Server(config).run(sockets=[listener])
    return 0
