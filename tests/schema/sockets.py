"""A client of graphql-transport-ws (https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md).

It talks to the ASGI application directly, without a network.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgiref.testing import ApplicationCommunicator
from channels.testing import WebsocketCommunicator

from backend.asgi import sockets

PROTOCOL = "graphql-transport-ws"
TIMEOUT_S = 20.0  # reached on failure only; long enough for a busy machine


class Communicator(WebsocketCommunicator):
    """Channels' communicator without its patch of `close_old_connections`, which leaves database connections open."""

    send_input = ApplicationCommunicator.send_input
    receive_output = ApplicationCommunicator.receive_output


class GraphQLSocket:
    def __init__(
        self, *, subprotocol: str = PROTOCOL, session: str | None = None, payload: Any = None, **headers: str
    ) -> None:
        """`session` is a session key, `payload` the payload of `connection_init`. Headers are keyword arguments."""
        self.payload = payload
        headers = {"host": "localhost", **headers}
        if session is not None:
            headers["cookie"] = f"sessionid={session}"
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.communicator = Communicator(sockets, "/graphql/", headers=pairs, subprotocols=[subprotocol])

    async def connect(self) -> tuple[bool, Any]:
        """Returns whether the server accepted the socket, and the subprotocol."""
        accepted: tuple[bool, Any] = await self.communicator.connect(timeout=TIMEOUT_S)
        return accepted

    async def disconnect(self) -> None:
        await self.communicator.disconnect(timeout=TIMEOUT_S)

    async def send(self, type: str, **fields: Any) -> None:
        await self.communicator.send_to(json.dumps({"type": type, **fields}))

    async def init(self) -> None:
        await self.send("connection_init", **({} if self.payload is None else {"payload": self.payload}))

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        sent = await self.communicator.receive_output(timeout=TIMEOUT_S)
        assert sent["type"] == "websocket.send", sent
        message: dict[str, Any] = json.loads(sent["text"])
        return message

    async def close_code(self, *, after_messages: bool = False) -> int:
        """The code of the close message, which must be the next one. `after_messages` skips the messages before it."""
        closing = await self.communicator.receive_output(timeout=TIMEOUT_S)
        while after_messages and closing["type"] == "websocket.send":
            closing = await self.communicator.receive_output(timeout=TIMEOUT_S)
        assert closing["type"] == "websocket.close", closing
        code: int = closing["code"]
        return code

    async def subscribe(self, query: str, id: str = "1", **variables: Any) -> None:
        await self.send("subscribe", id=id, payload={"query": query, "variables": variables})

    async def next(self, id: str = "1") -> Any:
        """The operation's next result, without `extensions.cost`; for the subscription `events`, the event."""
        message = await self.receive()
        assert (message["type"], message["id"]) == ("next", id), message
        payload = message["payload"]
        payload.pop("extensions", None)
        return payload["data"]["events"] if set(payload) == {"data"} and "events" in payload["data"] else payload

    async def error(self, id: str = "1") -> dict[str, Any]:
        """The `extensions` of the only error that ends the operation."""
        message = await self.receive()
        assert (message["type"], message["id"]) == ("error", id), message
        [error] = message["payload"]
        extensions: dict[str, Any] = error["extensions"]
        return extensions

    async def answer(self, query: str, id: str = "answer", **variables: Any) -> Any:
        """The result of a query or mutation, which then completes."""
        await self.subscribe(query, id, **variables)
        result = await self.next(id)
        assert await self.receive() == {"type": "complete", "id": id}
        return result


@asynccontextmanager
async def accepted(**options: Any) -> AsyncIterator[GraphQLSocket]:
    """An open socket before `connection_init`."""
    socket = GraphQLSocket(**options)
    connected = await socket.connect()
    assert connected == (True, PROTOCOL), connected
    try:
        yield socket
    finally:
        await socket.disconnect()


@asynccontextmanager
async def ready(**options: Any) -> AsyncIterator[GraphQLSocket]:
    """An open socket after `connection_ack`."""
    async with accepted(**options) as socket:
        await socket.init()
        assert await socket.receive() == {"type": "connection_ack"}
        yield socket
