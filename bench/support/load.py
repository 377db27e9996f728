"""Keep-alive connections that repeat one request, with as little work in the client as possible."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from backend.local.console import Refusal

from .servers import Server

CONNECTIONS = 16
# Far more than the slowest response takes.
RESPONSE_TIMEOUT_S = 20.0

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")


def request(
    server: Server, path: str, *, token: str | None = None, json: bytes | None = None, if_none_match: str | None = None
) -> bytes:
    """The bytes of a request: POST if there is a body, else GET."""
    method = "GET" if json is None else "POST"
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Accept: application/json"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if if_none_match is not None:
        lines.append(f"If-None-Match: {if_none_match}")
    if json is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(json)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (json or b"")


def _without_balance(body: bytes) -> bytes:
    """A GraphQL response without its last member, the units that are left of the viewer's budget."""
    start = body.rfind(b',"available":', -60)
    return body if start < 0 else body[:start] + b"}}}"


class Load:
    """One request, repeated to one server. Every response must have `status` and a body that `check` accepts.

    Without a `check` every body must equal that of the first response.
    """

    def __init__(
        self,
        server: Server,
        request: bytes,
        *,
        status: int = 200,
        check: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.server = server
        self.request = request
        self.responses = 0
        self.head = self.body = b""
        self._status = f"HTTP/1.1 {status} ".encode()
        self.has_body = status != 304
        self._check = check
        self._connections: list[_Connection] = []
        self._busy = 0
        self._end = 0.0
        self._ended: asyncio.Future[None]

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.server.port)
            self._connections.append(connection)

    def close(self) -> None:
        for connection in self._connections:
            connection.transport.abort()
        self._connections.clear()

    async def rate(self, seconds: float) -> float:
        """Responses per second of one round, over all connections. Raises Refusal if a response is not as expected."""
        before, started = self.responses, time.perf_counter()
        self._end = started + seconds
        self._ended = asyncio.get_running_loop().create_future()
        self._busy = len(self._connections)
        for connection in self._connections:
            connection.send_request()
        try:
            async with asyncio.timeout(seconds + RESPONSE_TIMEOUT_S):
                await self._ended
        except TimeoutError:
            raise Refusal(f"{self.server.log_end}\n{self._description} got no response.") from None
        return (self.responses - before) / (time.perf_counter() - started)

    def size_of(self, head: bytes) -> int:
        """Bytes of the body after `head`. Raises Refusal for another status, or without a Content-Length."""
        length = _LENGTH.search(head)
        if not head.startswith(self._status) or (self.has_body and length is None):
            raise Refusal(f"{self._description} got the response {head.decode(errors='replace')}")
        return int(length[1]) if length and self.has_body else 0

    def add_response(self, head: bytes, body: bytes) -> bool:
        """Check and count a response. Return whether the round continues."""
        if not self.responses:
            self.head, self.body = head, body
        is_expected = self._check(body) if self._check else self._is_first_body(body)
        if not is_expected:
            raise Refusal(f"{self._description} got the response {body[:300].decode(errors='replace')}")
        self.responses += 1
        if time.perf_counter() < self._end:
            return True
        self._busy -= 1
        if not self._busy and not self._ended.done():
            self._ended.set_result(None)
        return False

    def _is_first_body(self, body: bytes) -> bool:
        return body == self.body or _without_balance(body) == _without_balance(self.body)

    def fail(self, error: Refusal) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def report_lost_connection(self) -> None:
        if self._busy:
            self.fail(Refusal(f"{self.server.log_end}\n{self._description}: the server closed a connection."))

    @property
    def _description(self) -> str:
        return self.request.partition(b" HTTP")[0].decode()


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load = load
        self._parts: list[bytes] = []
        # Bytes received, and bytes of the whole response: 0 until its head is complete.
        self._received = 0
        self._size = 0
        self._head_size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send_request(self) -> None:
        self._parts.clear()
        self._received = self._size = 0
        self.transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        self._received += len(data)
        try:
            if not self._size:
                start = b"".join(self._parts)
                self._head_size = start.find(b"\r\n\r\n") + 4
                if self._head_size < 4:
                    return
                self._size = self._head_size + self._load.size_of(start[: self._head_size])
            if self._received < self._size:
                return
            response = b"".join(self._parts)
            if self._load.add_response(response[: self._head_size], response[self._head_size :]):
                self.send_request()
        except Refusal as error:
            self._load.fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.report_lost_connection()
