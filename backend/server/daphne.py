"""daphne, made to wait for slow clients and to close every connection cleanly when it stops."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from http.client import responses
from io import BytesIO
from typing import Any

# Imported first: it installs the reactor that all of Twisted uses.
from daphne import server as daphne  # isort:skip

from autobahn.websocket.types import ConnectionDeny
from daphne.access import AccessLogGenerator
from daphne.endpoints import build_endpoint_description_strings
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from django.conf import settings
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IPushProducer
from twisted.logger import LogLevel, STDLibLogObserver, globalLogBeginner
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from backend.projects.authentication import network_of

from . import (
    CLOSE_S,
    GOING_AWAY,
    HANDSHAKE_S,
    INTERNAL_ERROR,
    MESSAGE_BYTES,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    POLICY_VIOLATION,
    REST_S,
    RESTART,
    STALLED_S,
    STOP_S,
    TRY_LATER,
    TRY_SEND,
    UNREAD_BYTES,
    UNREAD_MESSAGES,
    Application,
    Refused,
    parse_target,
    too_large,
    too_slow,
)
from .connections import ConnectionMeter
from .frames import FrameMeter
from .handshake import check_handshake

_SOCKET = "taskwire.socket"
# Connections that the kernel holds until they are accepted. The client of a further one tries again after a second.
BACKLOG = 1024
# Seconds in which the request of a new connection may arrive, however many connections wait.
PROMPT_S = 1.0

# The reactor is an object in place of a module, and the methods of the class have no annotations: neither has types.
reactor: Any = daphne.reactor
UntypedChannel: Any = HTTPChannel


@implementer(IPushProducer)
class Backpressure:
    """Makes senders wait while the buffer of a connection is over Twisted's high-water mark (64 KiB).

    Disconnects a client that reads nothing for `STALLED_S` meanwhile.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._ready = asyncio.Event()
        self._ready.set()
        self._stall_timer: Any = None

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    async def wait(self) -> None:
        """Wait until the client has read enough, or is gone."""
        await self._ready.wait()

    def pauseProducing(self) -> None:  # noqa: N802
        """Twisted calls this again with every write over the mark."""
        if self._ready.is_set():
            self._ready.clear()
            self._check_stalled()

    def resumeProducing(self) -> None:  # noqa: N802
        self._ready.set()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    # Called when the connection is lost or nothing more is sent.
    stopProducing = resumeProducing  # noqa: N815

    def _check_stalled(self, unsent_before: int | None = None) -> None:
        unsent = len(self._transport.dataBuffer) - self._transport.offset
        if unsent == unsent_before:
            self._stall_timer = None
            self._transport.abortConnection()
        else:
            self._stall_timer = reactor.callLater(STALLED_S, self._check_stalled, unsent)


class Socket(WebSocketProtocol):  # type: ignore[misc]
    """A WebSocket."""

    maxMessagePayloadSize: int  # noqa: N815

    def connectionMade(self) -> None:  # noqa: N802
        """Replace the HTTP channel as the producer: Twisted notifies only one producer of a full buffer."""
        self.backpressure = Backpressure(self.transport)
        self._abort: Any = None
        self._meter = FrameMeter()
        self._is_refused = self._is_reading_paused = False
        self._unread_bytes = 0
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.backpressure, True)
        super().connectionMade()

    def serverClose(self, code: int | None = None) -> None:  # noqa: N802
        """Also send close codes that autobahn refuses to send for an application."""
        if code in (GOING_AWAY, POLICY_VIOLATION, INTERNAL_ERROR, RESTART, TRY_LATER):
            self.sendCloseFrame(code=code)
        else:
            super().serverClose(code)

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Also refuse a handshake with another status than 403 (the ASGI extension `websocket.http.response`)."""
        if message["type"] == "websocket.http.response.start":
            status: int = message["status"]
            refusal = ConnectionDeny(status, responses.get(status, ""))  # type: ignore[no-untyped-call]
            self.handshake_deferred.errback(refusal)
            del self.handshake_deferred
            self.server.protocol_disconnected(self)
        elif message["type"] != "websocket.http.response.body":
            super().handle_reply(message)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Close the socket of a client that sends too many frames, before autobahn parses them."""
        if self._is_refused:
            return  # unread bytes would make the kernel reset the connection, and the client would miss the close code
        if self._meter.admits(data):
            super().dataReceived(data)
            return
        self._is_refused = True
        if self.state != self.STATE_OPEN:
            self.transport.abortConnection()
            return
        self.sendCloseFrame(code=POLICY_VIOLATION)  # autobahn aborts after `CLOSE_S`
        self.transport.loseWriteConnection()  # the client ends the connection on its side

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
        """Pause reading while messages wait for the application."""
        super().onMessage(payload, isBinary)
        self._unread_bytes += len(payload)
        if self._is_reading_paused or self.muted:
            return
        if self._unread_bytes >= UNREAD_BYTES or self.application_queue.qsize() >= UNREAD_MESSAGES:
            self._is_reading_paused = True
            self.transport.pauseProducing()

    def receiver(self, get: Callable[[], Awaitable[dict[str, Any]]]) -> Callable[[], Awaitable[dict[str, Any]]]:
        """Return the application's `receive`, which resumes reading once the application has received all messages."""

        async def receive() -> dict[str, Any]:
            message = await get()
            if self.application_queue.empty():
                self._unread_bytes = 0
                if self._is_reading_paused:
                    self._is_reading_paused = False
                    self.transport.resumeProducing()
            return message

        return receive

    def dropConnection(self, abort: bool = False) -> None:  # noqa: N802
        """Abort after `CLOSE_S`: Twisted closes once everything is sent, and the client may have stopped reading."""
        super().dropConnection(abort)  # unregisters the producer
        self.backpressure.stopProducing()
        if not abort and self._abort is None:
            self._abort = reactor.callLater(CLOSE_S, self.transport.abortConnection)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N802, N803
        """Tell the application, if it knows of the socket.

        autobahn may refuse the handshake before `onConnect`, and daphne forgets a socket soon after a refusal, even if
        the connection ends later.
        """
        if hasattr(self, "server") and self in self.server.connections:
            super().onClose(wasClean, code, reason)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """Cancel the timer of `dropConnection`."""
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None
        super().connectionLost(reason)

    def sendMessage(self, payload: bytes, *args: Any, **options: Any) -> None:  # noqa: N802
        """Send a message of any size, or nothing where the connection is closing.

        autobahn applies the limit on received messages to sent ones, and raises an error where the client has left.
        """
        if self.state != self.STATE_OPEN:
            return
        received_bytes, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            super().sendMessage(payload, *args, **options)
        finally:
            self.maxMessagePayloadSize = received_bytes

    def try_send(self, text: str) -> bool:
        """Send at once and return True; return False, without sending, where the client is slow or gone."""
        if self.state != self.STATE_OPEN or not self.backpressure.is_ready:
            return False
        self.sendMessage(text.encode(), False)
        return True

    def close_for_stop(self) -> None:
        """Close the socket because the server stops."""
        if self.state == self.STATE_CONNECTING:
            self.serverReject()
        else:
            self.sendCloseFrame(code=RESTART)


class WaitingChannels:
    """The connections without a complete request, the longest waiting first. Closes the first ones over the bound.

    A bound on new connections instead would let idle ones keep everybody else out.
    """

    def __init__(self) -> None:
        # The address of each, and since when it waits.
        self._waiting: dict[Channel, tuple[str | None, float]] = {}
        self._counts: Counter[str | None] = Counter()

    def add(self, channel: Channel) -> None:
        address = network_of(channel.transport.getPeer().host)
        self._waiting[channel] = address, time.monotonic()
        self._counts[address] += 1
        # All clients of a proxy have its address.
        if not settings.TLS_PROXY and self._counts[address] > settings.WAITING_CONNECTIONS_PER_ADDRESS:
            self._close_late(next(other for other, (its, _) in self._waiting.items() if its == address))
        elif len(self._waiting) > settings.WAITING_CONNECTIONS:
            self._close_late(next(iter(self._waiting)))

    def discard(self, channel: Channel) -> None:
        if channel in self._waiting:
            address, _ = self._waiting.pop(channel)
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]

    def _close_late(self, channel: Channel) -> None:
        """Close a connection, unless its request may still be on its way: `ConnectionMeter` bounds such ones."""
        _, since = self._waiting[channel]
        if time.monotonic() - since >= PROMPT_S:
            self.discard(channel)
            channel.transport.abortConnection()


class Channel(UntypedChannel):  # type: ignore[misc]
    """A connection that sends HTTP requests: each has to arrive in time, and its body within its limit."""

    def __init__(self) -> None:
        super().__init__()
        self._deadline: Any = None
        self._is_receiving_body = False
        self._is_refused = False

    def connectionMade(self) -> None:  # noqa: N802
        super().connectionMade()
        self.factory.waiting.add(self)

    def requestDone(self, request: Request) -> None:  # noqa: N802
        """Wait for the next request, which may have arrived already."""
        self.factory.waiting.add(self)
        super().requestDone(request)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Start the deadline of a request that has not arrived as a whole. Most have, and need no timer."""
        if self._is_refused:
            return
        super().dataReceived(data)
        is_incomplete = not self._handlingRequest and (self._buffer or self.requests)
        if is_incomplete and self._deadline is None and not self._is_refused:
            timeout_s = settings.REQUEST_BODY_S if self._is_receiving_body else settings.REQUEST_HEAD_S
            self._deadline = reactor.callLater(timeout_s, self._refuse_slow)

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802
        """Refuse a Content-Length with more digits than Python converts: Twisted raises a ValueError for it."""
        try:
            is_valid: bool = super().headerReceived(line)
        except ValueError:
            self._respondToBadRequestAndDisconnect()
            return False
        return is_valid

    def allHeadersReceived(self) -> None:  # noqa: N802
        self._cancel_deadline()
        self._is_receiving_body = True
        super().allHeadersReceived()

    def allContentReceived(self) -> None:  # noqa: N802
        self.factory.waiting.discard(self)
        self._cancel_deadline()
        self._is_receiving_body = False
        if not self._is_refused:
            super().allContentReceived()

    def refuse(self, refused: Refused) -> None:
        """Respond before the request has arrived, and discard the rest of it."""
        if self._is_refused:
            return
        self._is_refused = True
        self._cancel_deadline()
        self.setTimeout(None)
        self.transport.write(refused.response())
        self._networkProducer.unregisterProducer()
        self.transport.loseWriteConnection()
        self._deadline = reactor.callLater(REST_S, self.transport.abortConnection)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        self.factory.waiting.discard(self)
        self._cancel_deadline()
        super().connectionLost(reason)

    def _refuse_slow(self) -> None:
        self._deadline = None
        self.refuse(too_slow())

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Request(WebRequest):  # type: ignore[misc]
    """An HTTP request, which may be the handshake of a WebSocket."""

    uri: bytes

    def __init__(self, channel: HTTPChannel, *args: Any) -> None:
        """Leave forms to the application: Twisted would parse them, and refuse those that it cannot parse."""
        self.backpressure = Backpressure(channel.transport)
        super().__init__(channel, *args, parsePOSTFormSubmission=False)

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """Hold the body in memory. Twisted would write one of 100 KB and more, and each chunked one, to a file."""
        self.content = BytesIO()
        if length is not None and length > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            self.requestHeaders.removeHeader(b"expect")  # it gets no `100 Continue`
            self.channel.refuse(too_large())

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Receive a part of the body, up to its limit."""
        if self.content.tell() + len(data) <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            super().handleContentChunk(data)
        else:
            self.channel.refuse(too_large())

    def process(self) -> Any:
        """Respond with 503 while the server stops: open connections still send requests."""
        try:
            if self.server.is_stopping:
                raise Refused(503, "The server is stopping.")
            self.requestHeaders.removeHeader(b"daphne-root-path")  # daphne lets any client set the root path
            self._parse_target()
            if self.requestHeaders.getRawHeaders(b"upgrade", [b""])[0].lower() == b"websocket":
                headers = self.requestHeaders.getAllRawHeaders()
                check_handshake(self.method, self.uri, ((name, value) for name, values in headers for value in values))
        except Refused as refused:
            self._respond(refused)
            return None
        return super().process()

    def _parse_target(self) -> None:
        """Check the target and the host; the host in an absolute target replaces the header. Raises Refused."""
        host, target = parse_target(self.method, self.uri)
        hosts = self.requestHeaders.getRawHeaders(b"host", [])
        if len(hosts) > 1 or (not hosts and self.clientproto == b"HTTP/1.1"):
            raise Refused(400, "A request has exactly one Host header.")
        if host is not None:
            self.requestHeaders.setRawHeaders(b"host", [host])
            self.uri, self.path = target, target.partition(b"?")[0]

    def _respond(self, refused: Refused) -> None:
        self.channel.persistent = 0
        headers = [(name.encode(), value.encode()) for name, value in (*refused.headers, ("Connection", "close"))]
        self.handle_reply({"type": "http.response.start", "status": refused.status, "headers": headers})
        self.handle_reply({"type": "http.response.body", "body": refused.body})

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Register the producer before the first byte of the response."""
        if message["type"] == "http.response.start" and not self.finished and not self.producer:
            self.registerProducer(self.backpressure, True)
        super().handle_reply(message)

    def finish(self) -> None:
        """Unregister the producer; otherwise Twisted logs that it was left behind."""
        if self.producer:
            self.unregisterProducer()
        super().finish()
        self.backpressure.stopProducing()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """Release a sender that waits for this client."""
        super().connectionLost(reason)
        self.backpressure.stopProducing()

    def close_for_stop(self) -> None:
        """End a stream. Any other response ends by itself."""
        if self.channel is not None:
            self.channel.persistent = 0
        if self.responseHeaders.getRawHeaders(b"content-type") == [b"text/event-stream"]:
            self.handle_reply({"type": "http.response.body"})


class RequestFactory(HTTPFactory):  # type: ignore[misc]
    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.waiting = WaitingChannels()
        self._meter = ConnectionMeter()

    def protocol(self) -> Channel:
        """Use our channel class, directly: a server without TLS negotiates no HTTP/2."""
        return Channel()

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        """Use our request class: daphne sets its own here. Twisted closes a connection without a protocol at once."""
        if not self._meter.admits(addr.host):
            return None
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol

    def log(self, request: Request) -> None:
        """Write nothing: daphne has an access log, and Twisted would format an unread line in 5 µs."""


class SocketFactory(WebSocketFactory):  # type: ignore[misc]
    protocol = Socket


_twisted_log = STDLibLogObserver("twisted")


def _log_errors(event: dict[str, Any]) -> None:
    if event["log_level"] >= LogLevel.error:
        _twisted_log(event)


class Server(daphne.Server):  # type: ignore[misc]
    is_stopping = False

    def __init__(self, application: Application, **options: Any) -> None:
        super().__init__(self._start, **options)
        self._application = application

    def _start(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        """Call the application. `create_application` passes a socket in the scope, for its `receiver`."""
        protocol = scope.pop(_SOCKET, None)
        return self._application(scope, receive if protocol is None else protocol.receiver(receive), send)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. A copy of daphne's `run`, which has no hook, with our classes and our stop."""
        self.connections: dict[Any, dict[str, Any]] = {}
        self._ports: list[Any] = []
        self.http_factory = RequestFactory(self)
        self.ws_factory = SocketFactory(self, server=self.server_name)
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,
            openHandshakeTimeout=self.websocket_handshake_timeout,
            closeHandshakeTimeout=CLOSE_S,
            maxMessagePayloadSize=self.websocket_max_message_size,
            maxFramePayloadSize=self.websocket_max_frame_size,
        )
        globalLogBeginner.beginLoggingTo(
            [_log_errors],  # type: ignore[list-item]
            redirectStandardIO=False,
            discardBuffer=True,
        )
        reactor.callLater(1, self.application_checker)
        reactor.callLater(2, self.timeout_checker)
        for endpoint in self.endpoints:
            listening = serverFromString(reactor, endpoint).listen(self.http_factory)
            listening.addCallback(self.listen_success)
            listening.addErrback(self.listen_error)
        asyncio.set_event_loop(daphne.twisted_loop)
        reactor.addSystemEventTrigger("before", "shutdown", self._before_shutdown)
        if not self.abort_start:
            reactor.run()

    def listen_success(self, port: Any) -> None:
        """Remember the port, which a stop closes first."""
        self._ports.append(port)
        super().listen_success(port)

    def create_application(self, protocol: Socket | Request, scope: dict[str, Any]) -> Any:
        """Add `Socket.try_send` to the ASGI scope as an extension."""
        if isinstance(protocol, Socket):
            scope["extensions"] = {TRY_SEND: {"send": protocol.try_send}, "websocket.http.response": {}}
            scope[_SOCKET] = protocol
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Socket | Request, message: dict[str, Any]) -> None:
        """Make `send` wait for a slow client; daphne's own buffers without bound."""
        if not protocol.backpressure.is_ready and message.get("type") in ("websocket.send", "http.response.body"):
            await protocol.backpressure.wait()
        await super().handle_reply(protocol, message)

    def _before_shutdown(self) -> Any:
        return Deferred.fromFuture(asyncio.ensure_future(self._close_all()))

    async def _close_all(self) -> None:
        """Close every connection; cancel the applications that have not ended after `STOP_S`."""
        self.is_stopping = True
        for port in self._ports:
            port.stopListening()
        for protocol, details in list(self.connections.items()):
            if "disconnected" not in details:
                protocol.close_for_stop()
        running = self._applications()
        if running:
            _, running = await asyncio.wait(running, timeout=STOP_S)
        for application in running:
            application.cancel()
        if running:
            await asyncio.wait(running, timeout=1)

    def _applications(self) -> set[asyncio.Future[None]]:
        """The applications that have not ended."""
        found = (details.get("application_instance") for details in self.connections.values())
        return {application for application in found if application is not None and not application.done()}


def run(application: Application) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code: 1 where it cannot listen."""
    endpoints = build_endpoint_description_strings(host=settings.BIND, port=settings.PORT)
    server = Server(
        application=application,
        endpoints=[f"{endpoint}:backlog={BACKLOG}" for endpoint in endpoints],
        action_logger=AccessLogGenerator(sys.stdout),
        ping_interval=PING_INTERVAL_S,
        ping_timeout=PING_TIMEOUT_S,
        websocket_timeout=-1,  # no maximum age
        websocket_connect_timeout=HANDSHAKE_S,
        websocket_handshake_timeout=HANDSHAKE_S,
        websocket_max_message_size=MESSAGE_BYTES,
        websocket_max_frame_size=MESSAGE_BYTES,
    )
    server.run()
    return 1 if server.abort_start else 0
