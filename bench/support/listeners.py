"""Clients of live delivery that disconnect, resume, and record the position of every event."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

# The mean length of a connection, and the longest pause before the next one.
CONNECTED_S, DISCONNECTED_S = 60.0, 3.0
# One of this many reconnections rewinds: it resumes from any earlier position of the client.
REWIND_EVERY = 20
# Error codes of a subscription that ends while PostgreSQL or Redis is down. The client resumes.
TRANSIENT = {"UNAVAILABLE"}

PLAIN_DOCUMENT = "subscription($after: Cursor!) { events(after: $after) { cursor kind } }"
NESTED_DOCUMENT = """subscription($after: Cursor!) { events(after: $after) { cursor kind
  ... on TaskUpdated { task { id title project { id name } } } } }"""


class Listener:
    """One client. `record` has the positions of all events after `start`, each once and in order."""

    def __init__(self, number: int, port: int, token: str, start: int, seed: str) -> None:
        self.number = number
        self.port = port
        self.token = token
        self.start = start
        self.position = start
        self.record: list[int] = []
        self.errors: list[str] = []
        self.connections = 0
        # Whether it disconnects now and then, and resumes.
        self.disconnects = True
        self._random = random.Random(f"{seed}-{type(self).__name__}-{number}")

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            connected_s = self._random.expovariate(1 / CONNECTED_S) if self.disconnects else None
            try:
                async with asyncio.timeout(connected_s):
                    self.connections += 1
                    await self.listen()
            except (OSError, EOFError, TimeoutError, WebSocketException):
                pass
            await asyncio.sleep(self._random.uniform(0, DISCONNECTED_S if self.disconnects else 1))
            if self.disconnects and self.record and not self._random.randrange(REWIND_EVERY):
                self._rewind()

    def _rewind(self) -> None:
        """Go back to an earlier position. The events after it are received and recorded again."""
        del self.record[self._random.randrange(len(self.record)) :]
        self.position = self.record[-1] if self.record else self.start

    def take(self, cursor: str, *, is_event: bool) -> None:
        """Advance to a position. Record that of an event, which must be greater than all recorded ones."""
        position = int(cursor)
        if is_event:
            if self.record and position <= self.record[-1]:
                self.errors.append(f"{position} came after {self.record[-1]}")
            self.record.append(position)
        self.position = max(self.position, position)

    async def listen(self) -> None:
        """Listen on one connection, from `position` on, until it ends."""
        raise NotImplementedError

    @asynccontextmanager
    async def _socket(self, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"ws://127.0.0.1:{self.port}{path}"
        async with connect(
            url, additional_headers=headers, proxy=None, compression=None, close_timeout=1, **options
        ) as socket:
            yield socket


class PlainListener(Listener):
    label: ClassVar[str] = "plain"

    async def listen(self) -> None:
        async with self._socket(f"/ws/notifications/?after={self.position}") as socket:
            async for text in socket:
                frame = json.loads(text)
                if frame["type"] in ("resync", "error"):
                    self.errors.append(str(text))
                    return
                self.take(frame["cursor"], is_event=frame["type"] not in ("ready", "cursor"))


class GraphQLListener(Listener):
    label: ClassVar[str] = "GraphQL"

    async def listen(self) -> None:
        document = PLAIN_DOCUMENT if self.number % 10 else NESTED_DOCUMENT
        async with self._socket("/graphql/", subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
            await socket.send('{"type":"connection_init"}')
            async for text in socket:
                message = json.loads(text)
                match message["type"]:
                    case "connection_ack":
                        payload = {"query": document, "variables": {"after": str(self.position)}}
                        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
                    case "next" if "errors" not in message["payload"]:
                        self.take(message["payload"]["data"]["events"]["cursor"], is_event=True)
                    case "ping":
                        await socket.send('{"type":"pong"}')
                    case "pong":
                        pass
                    case _:
                        payload = message.get("payload")
                        errors = payload["errors"] if isinstance(payload, dict) else payload or [{}]
                        if any(error.get("extensions", {}).get("code") not in TRANSIENT for error in errors):
                            self.errors.append(str(text))
                        return


class StreamListener(Listener):
    label: ClassVar[str] = "stream"

    async def listen(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            lines = [f"GET /events/?after={self.position} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
            lines += ["Accept: text/event-stream", f"Authorization: Bearer {self.token}", "", ""]
            writer.write("\r\n".join(lines).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status != 200:
                if status != 503:
                    self.errors.append(f"status {status}")
                return
            # A frame is sent as a whole, so no line is split between two chunks.
            while line := await reader.readline():
                if not line.startswith(b"data: "):
                    continue
                frame = json.loads(line[6:])
                if frame["type"] == "resync":
                    self.errors.append(line.decode())
                    return
                self.take(frame["cursor"], is_event=frame["type"] not in ("ready", "cursor"))
        finally:
            writer.transport.abort()


KINDS = (PlainListener, GraphQLListener, StreamListener)
