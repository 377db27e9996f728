"""WebSocket clients (RFC 6455) that do as little work as possible, so that the server is measured."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from types import TracebackType

from backend.local.console import Refusal

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Socket(asyncio.Protocol):
    """One connection. `on_text` gets each message, which is unfragmented and uncompressed, as our server sends it."""

    def __init__(self, handshake: bytes, on_text: Callable[[bytes], None]) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handshake = handshake
        self._on_text = on_text
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._handshake)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self.opened.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            status = head.partition(b"\r\n")[0].decode()
            if status.split()[1] == "101":
                self.opened.set_result(None)
            else:
                self.opened.set_exception(Refusal(f"A socket was refused: {status}"))
        start = 0
        while (frame := _frame(data, start)) is not None:
            kind, first, end = frame
            if kind == TEXT:
                self._on_text(data[first:end])
            elif kind == PING:
                self._send(PONG, data[first:end])
            start = end
        self._rest = data[start:]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(Refusal("A socket was closed before it was open."))

    def send(self, text: str) -> None:
        self._send(TEXT, text.encode())

    def _send(self, kind: int, payload: bytes) -> None:
        """Send one frame. The masking key is zero, which leaves the payload unchanged."""
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
        self.transport.write(bytes([0x80 | kind]) + length + bytes(4) + payload)


def _frame(data: bytes, start: int) -> tuple[int, int, int] | None:
    """Opcode, start and end of the payload of the frame at `start`; None if the frame is not complete yet."""
    if len(data) < start + 2:
        return None
    size, first = data[start + 1], start + 2
    if size >= 126:
        width = 2 if size == 126 else 8
        size, first = int.from_bytes(data[first : first + width], "big"), first + width
    return (data[start] & 0x0F, first, first + size) if first + size <= len(data) else None


class SocketGroup:
    """Sockets that receive the same messages, and when all have them. The context manager closes the sockets."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sockets: list[Socket] = []
        self.last = b""
        self._received = 0
        self._expected = 0
        self._complete: asyncio.Future[float] | None = None

    async def __aenter__(self) -> SocketGroup:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for socket in self.sockets:
            socket.transport.abort()

    async def join(self, path: str, *, token: str | None = None, subprotocol: str | None = None) -> Socket:
        """Open one more socket. Return it once the server has accepted it."""
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        if subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        handshake = "\r\n".join([*lines, "", ""]).encode()
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(lambda: Socket(handshake, self._count_message), "127.0.0.1", self.port)
        self.sockets.append(socket)
        await socket.opened
        return socket

    def expect(self, messages: int) -> asyncio.Future[float]:
        """A future of the `time.perf_counter()` at which this number of messages has arrived, over all sockets."""
        self._received, self._expected = 0, messages
        self._complete = asyncio.get_running_loop().create_future()
        return self._complete

    def _count_message(self, text: bytes) -> None:
        self.last = text
        self._received += 1
        if self._received == self._expected and self._complete is not None:
            self._complete.set_result(time.perf_counter())
