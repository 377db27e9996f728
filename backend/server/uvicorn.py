"""uvicorn, made to do as `daphne.py` does.

It waits by itself for clients that read slowly. What it lacks is bounds, and a leave-taking that lets clients read what
was sent before.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from daphne.access import AccessLogGenerator
from django.conf import settings
from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

from . import (
    CLOSE_S,
    HANDSHAKE_S,
    INTERNAL_ERROR,
    MESSAGE_BYTES,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    RESTART,
    STALLED_S,
    STOP_S,
    TRY_SEND,
    Application,
)

# What daphne gives a client that says nothing, before a request, between two or in the midst of one; and the bytes that
# a request may have before its body.
IDLE_S, HEAD_BYTES = 60, 16 * 1024
# Requests that may wait on a connection for the one before them to be answered.
PIPELINED = 100

# Of a socket that is closed: no waiting for what is unsent.
AT_ONCE = struct.pack("ii", 1, 0)

TOO_LARGE = "The head of the request is too large."
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

logger = logging.getLogger(__name__)
log_access = AccessLogGenerator(sys.stdout)


class Line:
    """A connection's transport: cuts off a client that takes not one byte for `STALLED_S` while it is waited for.

    That is while a sender waits, and when all was said.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._look_again: asyncio.TimerHandle | None = None
        self.write = transport.write
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._transport.close()
        self.wait()

    def abort(self) -> None:
        """At once: what is left unsent would hold up the client's hearing of it."""
        with suppress(OSError):  # some systems mind where the client was faster
            self.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        self._transport.abort()

    def wait(self) -> None:
        if self._look_again is None:
            self._look()

    def go_on(self) -> None:
        if self._look_again is not None and not self.is_closing():
            self._look_again.cancel()
            self._look_again = None

    def _look(self, left: int | None = None) -> None:
        still_left = self._transport.get_write_buffer_size()
        self._look_again = None
        if still_left == left:
            self.abort()
        elif still_left:
            self._look_again = self._loop.call_later(STALLED_S, self._look, still_left)


class Waiting(asyncio.Protocol):
    """Tells its line while a sender waits."""

    transport: Any  # a `Line`

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.wait()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.go_on()


class Connection(Waiting, HttpToolsProtocol):
    """HTTP, maybe about to become a WebSocket."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The request under way, then those that came before it was answered.
        self._cycles: list[RequestResponseCycle] = []
        self._is_in_head = False
        self._head_bytes = 0
        # What the parser keeps to itself until it is there as a whole, and how often it has handed on anything.
        self._kept_bytes = self._handed_on = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Line(transport))  # type: ignore[arg-type]
        self._expect_more()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        # The base tells the newest request alone.
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        handed_on = self._handed_on
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._pass_over_upgrade(data[upgrade.args[0] :])
            return
        except HttpParserError:
            self.send_400_response("This is no HTTP request that could be read.")
            return
        self._kept_bytes = self._kept_bytes + len(data) if handed_on == self._handed_on else 0
        if self._kept_bytes > HEAD_BYTES:
            self.send_400_response(TOO_LARGE)
            return
        if not self._cycles or self._cycles[-1].more_body:
            self._expect_more()

    def _pass_over_upgrade(self, rest: bytes) -> None:
        """Have the request read once more, without its offer, since with it the parser sees no body."""
        if self._get_upgrade() is None:
            self.send_400_response("There is no tunnel here.")
            return
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def _expect_more(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(IDLE_S, self.timeout_keep_alive_handler)

    # What is raised in these makes the answer a 400.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._handed_on += 1
        self._head_bytes = 0
        self._is_in_head = True

    def on_url(self, url: bytes) -> None:
        if not url.isascii():
            raise ValueError("The address has to be ASCII.")
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._handed_on += 1
        self._count(name + value)
        if self._is_in_head:  # else it came after the body, where nobody in front of us looks
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if self.parser.should_upgrade():
            if self._cycles:
                raise ValueError("The requests before it are to be answered first.")
            if self._should_upgrade():
                super().on_headers_complete()
            return
        if len(self._cycles) > PIPELINED:
            raise ValueError("Too many requests wait for an answer.")
        super().on_headers_complete()
        self._cycles.append(self.cycle)
        self.flow.resume_reading()  # or the client could leave unnoticed

    def on_body(self, body: bytes) -> None:
        self._handed_on += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._handed_on += 1
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _count(self, part: bytes) -> None:
        self._head_bytes += len(part)
        if self._head_bytes > HEAD_BYTES:
            raise ValueError(TOO_LARGE)

    def on_response_complete(self) -> None:
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if self._cycles:
            self.transport.close()  # it would stand in the midst of another answer
        else:
            super().send_400_response(msg)


class Socket(Waiting, WebSocketsSansIOProtocol):
    """A WebSocket."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.close_timeout = CLOSE_S

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:
            self.transport.write(b"".join(self.conn.data_to_send()) or BAD_REQUEST)
            self.transport.close()

    def handle_connect(self, event: Any) -> None:
        # With no context of what this connection was asked before.
        contextvars.Context().run(super().handle_connect, event)
        if not self.close_sent:
            self.scope["extensions"][TRY_SEND] = {"send": self.try_send}
            self.loop.call_later(HANDSHAKE_S, self._give_up)
            self._log("connecting")

    def _give_up(self) -> None:
        """Refuse who has not been accepted by now."""
        if not self.handshake_complete and not self.close_sent:
            self.send_500_response()
            self.close_sent = True
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.handshake_initiated:
            self._log("disconnected")

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # who asks and does not read gets no answer

    async def run_asgi(self) -> None:
        try:
            await self.app(self.scope, self.receive, self.send)
        except Exception:
            logger.exception("Exception inside application.")
            if self.handshake_complete:
                await self.send({"type": "websocket.close", "code": INTERNAL_ERROR, "reason": None})
        self._give_up()
        if self.close_timer is None:
            self.transport.close()

    async def send(self, message: Any) -> None:
        """As daphne's: who is gone hears nothing, and closing takes a code and no reason."""
        await self.writable.wait()
        if self.close_sent or self.disconnected:
            return
        is_accepted = self.handshake_complete
        with suppress(ClientDisconnected):
            await super().send(message | {"reason": ""} if message["type"] == "websocket.close" else message)
        if not is_accepted:
            self._log("rejected" if self.close_sent else "connected")

    def try_send(self, text: str) -> bool:
        """Send without waiting; False, and nothing is sent, where the client has to be waited for or is gone."""
        if self.conn.state is not OPEN or not self.writable.is_set() or self.transport.is_closing():
            return False
        self.conn.send_text(text.encode())
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    def shutdown(self) -> None:
        """Close it because the server stops, and leave the client time to read that and what came before."""
        self.stop_keepalive()
        if self.close_sent or self.transport.is_closing():
            return
        if not self.handshake_complete:
            self._give_up()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": RESTART, "reason": ""})
        self.conn.send_close(RESTART)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(CLOSE_S, self.transport.close)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _log(self, action: str) -> None:
        log_access("websocket", action, {"path": self.request.path.partition("?")[0], "client": _client(self.scope)})


class Exchange:
    """A request on its way through the application."""

    def __init__(self, server: Server, scope: Any, send: Any) -> None:
        self._server = server
        self._scope = scope
        self._send = send
        self._status = self._size = 0
        self._is_over = False

    async def send(self, message: Any) -> None:
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = {name.lower(): value for name, value in message.get("headers", ())}
            if headers.get(b"content-type") == b"text/event-stream":
                self._server.streams.add(self)
            await self._send(message)
            return
        self._size += len(message.get("body", b""))
        self._is_over = not message.get("more_body", False)
        await self._send(message)
        if self._is_over:
            self._log()

    async def end(self) -> None:
        """Of a stream: what is said after this is not heard any more."""
        await self.send({"type": "http.response.body"})

    def _log(self) -> None:
        path, query = self._scope["raw_path"], self._scope["query_string"]
        details = {
            "client": _client(self._scope),
            "method": self._scope["method"],
            "path": (path + b"?" + query if query else path).decode("latin-1"),
            "status": self._status,
            "size": self._size,
        }
        log_access("http", "complete", details)


class Server(uvicorn.Server):
    def __init__(self, application: Application) -> None:
        config = uvicorn.Config(
            self._run,
            loop="uvloop",
            http=Connection,
            ws=Socket,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            ws_max_size=MESSAGE_BYTES,
            ws_ping_interval=PING_INTERVAL_S,
            ws_ping_timeout=PING_TIMEOUT_S,
            ws_per_message_deflate=False,
            timeout_keep_alive=IDLE_S,
            # Or a request finds the context of an earlier one on its connection, with the thread that this one had.
            reset_contextvars=True,
        )
        super().__init__(config)
        self.streams: set[Exchange] = set()
        self._application = application

    async def _run(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        exchange = Exchange(self, scope, send)
        try:
            await self._application(scope, receive, exchange.send)
        except asyncio.CancelledError:
            if not self.should_exit:  # else it is of our doing, and no fault
                raise
        finally:
            self.streams.discard(exchange)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The base would in the end die of the signal that it stopped for."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, setattr, self, "should_exit", True)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take leave of every client; whatever is not over after `STOP_S` is cut off and cancelled."""
        for server in self.servers:
            server.close()
        connections, tasks = self.server_state.connections, self.server_state.tasks
        for connection in list(connections):
            connection.shutdown()
        ending = [asyncio.create_task(stream.end()) for stream in self.streams]
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while connections or tasks:
                    await asyncio.sleep(0.02)
        for connection in list(connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the applications are told
        running = {*tasks, *ending}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=1)


def run(application: Application) -> int:
    """Serve until told to stop; the exit code: 1 where it could not listen."""
    family = socket.AF_INET6 if ":" in settings.BIND else socket.AF_INET
    try:
        listener = socket.create_server((settings.BIND, settings.PORT), family=family)
    except OSError as error:
        logger.critical("Listen failure: %s", error)
        return 1
    logger.info("Listening on TCP address %s:%s", *listener.getsockname()[:2])
    Server(application).run(sockets=[listener])
    return 0


def _client(scope: Any) -> str | None:
    return "{}:{}".format(*scope["client"]) if scope["client"] else None
