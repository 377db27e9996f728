"""daphne, made to wait for clients that read slowly and to take leave of all when it stops."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

# First, since it installs the reactor that everything of Twisted is bound to.
from daphne import server as daphne  # isort:skip

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

from . import (
    CLOSE_S,
    GOING_AWAY,
    HANDSHAKE_S,
    INTERNAL_ERROR,
    MESSAGE_BYTES,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    RESTART,
    STALLED_S,
    STOP_S,
    TRY_LATER,
    TRY_SEND,
    Application,
)

# A module that is an object: types cannot follow.
reactor: Any = daphne.reactor


@implementer(IPushProducer)
class Valve:
    """Shut while a connection's buffer is over its high-water mark (64 KiB): Twisted tells, a sender waits."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._open = asyncio.Event()
        self._open.set()
        self._stalled: Any = None

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    async def passed(self) -> None:
        """Wait until the client has taken what was sent, or is gone."""
        await self._open.wait()

    def pauseProducing(self) -> None:  # noqa: N802
        """Told again with every write over the mark."""
        if self._open.is_set():
            self._open.clear()
            self._watch()

    def resumeProducing(self) -> None:  # noqa: N802
        self._open.set()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    # The connection is lost, or nothing will be sent any more.
    stopProducing = resumeProducing  # noqa: N815

    def _watch(self, left: int | None = None) -> None:
        still_left = len(self._transport.dataBuffer) - self._transport.offset
        if left == still_left:
            self._stalled = None
            self._transport.abortConnection()
        else:
            self._stalled = reactor.callLater(STALLED_S, self._watch, still_left)


class Socket(WebSocketProtocol):  # type: ignore[misc]
    """A WebSocket."""

    def connectionMade(self) -> None:  # noqa: N802
        """Put the valve in the place of the HTTP channel: Twisted tells one producer that the buffer is full."""
        self.valve = Valve(self.transport)
        self._abort: Any = None
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.valve, True)
        super().connectionMade()

    def serverClose(self, code: int | None = None) -> None:  # noqa: N802
        """Send these codes too, which autobahn refuses to send for an application."""
        if code in (GOING_AWAY, INTERNAL_ERROR, RESTART, TRY_LATER):
            self.sendCloseFrame(code=code)
        else:
            super().serverClose(code)

    def dropConnection(self, abort: bool = False) -> None:  # noqa: N802
        """Abort after `CLOSE_S`: Twisted closes once everything is sent, and the client may have stopped reading."""
        super().dropConnection(abort)  # unregisters the valve
        self.valve.stopProducing()
        if not abort and self._abort is None:
            self._abort = reactor.callLater(CLOSE_S, self.transport.abortConnection)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """Cancel the timer of `dropConnection`."""
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None
        super().connectionLost(reason)

    def try_send(self, text: str) -> bool:
        """Send without waiting; False, and nothing is sent, where the client has to be waited for or is gone."""
        if self.state != self.STATE_OPEN or not self.valve.is_open:
            return False
        self.sendMessage(text.encode(), False)
        return True

    def take_leave(self) -> None:
        """Close it because the server stops."""
        if self.state == self.STATE_CONNECTING:
            self.serverReject()
        else:
            self.sendCloseFrame(code=RESTART)


class Request(WebRequest):  # type: ignore[misc]
    """An HTTP request, maybe one that is about to become a WebSocket."""

    def __init__(self, channel: HTTPChannel, *args: Any) -> None:
        """Leave forms to the application: Twisted parses them, and refuses those that it cannot parse."""
        self.valve = Valve(channel.transport)
        super().__init__(channel, *args, parsePOSTFormSubmission=False)

    def process(self) -> Any:
        """Answer 503 while the server stops: connections that are open already still send requests."""
        if not self.server.is_stopping:
            return super().process()
        self.channel.persistent = 0
        self.basic_error(503, b"Service Unavailable", "The server is stopping.")
        return None

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Register the valve before the first byte of the answer."""
        if message["type"] == "http.response.start" and not self.finished and not self.producer:
            self.registerProducer(self.valve, True)
        super().handle_reply(message)

    def finish(self) -> None:
        """Unregister the valve, or Twisted logs that it was left behind."""
        if self.producer:
            self.unregisterProducer()
        super().finish()
        self.valve.stopProducing()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """Let the sender go on that waits for this client."""
        super().connectionLost(reason)
        self.valve.stopProducing()

    def take_leave(self) -> None:
        """End it if it is a stream; what has an end of its own comes to that."""
        if self.channel is not None:
            self.channel.persistent = 0
        if self.responseHeaders.getRawHeaders(b"content-type") == [b"text/event-stream"]:
            self.handle_reply({"type": "http.response.body"})


class Requests(HTTPFactory):  # type: ignore[misc]
    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        """Name our class of a request: daphne names its own here."""
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol

    def log(self, request: Request) -> None:
        """Write nothing: the access log is daphne's, and Twisted formats a line of its own for nobody, in 5 µs."""


class Sockets(WebSocketFactory):  # type: ignore[misc]
    protocol = Socket


_log_of_twisted = STDLibLogObserver("twisted")


def _tell_errors(event: dict[str, Any]) -> None:
    if event["log_level"] >= LogLevel.error:
        _log_of_twisted(event)


class Server(daphne.Server):  # type: ignore[misc]
    is_stopping = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT: daphne's `run`, which has no hook, with our classes and our stop."""
        self.connections: dict[Any, dict[str, Any]] = {}
        self._ports: list[Any] = []
        self.http_factory = Requests(self)
        self.ws_factory = Sockets(self, server=self.server_name)
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,
            openHandshakeTimeout=self.websocket_handshake_timeout,
            closeHandshakeTimeout=CLOSE_S,
            maxMessagePayloadSize=self.websocket_max_message_size,
            maxFramePayloadSize=self.websocket_max_frame_size,
        )
        globalLogBeginner.beginLoggingTo(
            [_tell_errors],  # type: ignore[list-item]
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
        reactor.addSystemEventTrigger("before", "shutdown", self._everything_ended)
        if not self.abort_start:
            reactor.run()

    def listen_success(self, port: Any) -> None:
        """Keep the port, which a stop closes first."""
        self._ports.append(port)
        super().listen_success(port)

    def create_application(self, protocol: Socket | Request, scope: dict[str, Any]) -> Any:
        """Add an extension to the ASGI scope: `Socket.try_send`, for one text that goes to many sockets."""
        if isinstance(protocol, Socket):
            scope["extensions"] = {TRY_SEND: {"send": protocol.try_send}}
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Socket | Request, message: dict[str, Any]) -> None:
        """Make an application's `send` wait while the valve is shut; daphne's buffers without bound."""
        if not protocol.valve.is_open and message.get("type") in ("websocket.send", "http.response.body"):
            await protocol.valve.passed()
        await super().handle_reply(protocol, message)

    def _everything_ended(self) -> Any:
        return Deferred.fromFuture(asyncio.ensure_future(self._end_everything()))

    async def _end_everything(self) -> None:
        """Take leave of every client; whatever is not over after `STOP_S` is cancelled."""
        self.is_stopping = True
        for port in self._ports:
            port.stopListening()
        for protocol, details in list(self.connections.items()):
            if "disconnected" not in details:
                protocol.take_leave()
        running = self._applications()
        if running:
            _, running = await asyncio.wait(running, timeout=STOP_S)
        for application in running:
            application.cancel()
        if running:
            await asyncio.wait(running, timeout=1)

    def _applications(self) -> set[asyncio.Future[None]]:
        """Those that have not ended."""
        found = (details.get("application_instance") for details in self.connections.values())
        return {application for application in found if application is not None and not application.done()}


def run(application: Application) -> int:
    """Serve until told to stop; the exit code: 1 where it could not listen."""
    server = Server(
        application=application,
        endpoints=build_endpoint_description_strings(host=settings.BIND, port=settings.PORT),
        action_logger=AccessLogGenerator(sys.stdout),
        ping_interval=PING_INTERVAL_S,
        ping_timeout=PING_TIMEOUT_S,
        websocket_timeout=-1,  # none ends for its age alone
        websocket_connect_timeout=HANDSHAKE_S,
        websocket_handshake_timeout=HANDSHAKE_S,
        websocket_max_message_size=MESSAGE_BYTES,
        websocket_max_frame_size=MESSAGE_BYTES,
    )
    server.run()
    return 1 if server.abort_start else 0
