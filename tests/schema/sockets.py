"""A client of graphql-transport-ws (https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md).

It speaks to the application behind daphne, without a network between.
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
TIMEOUT_S = 20.0  # patience with a busy machine: nothing is awaited so long where all is well


class Communicator(WebsocketCommunicator):
    """Channels' own keeps every connection to the database open meanwhile, and nobody would close them afterwards."""

    send_input = ApplicationCommunicator.send_input
    receive_output = ApplicationCommunicator.receive_output


class GraphQLSocket:
    def __init__(
        self, *, subprotocol: str = PROTOCOL, session: str | None = None, said: Any = None, **headers: str
    ) -> None:
        """`session` is the key of a signed-in session, `said` the payload of the first message.

        A header is written as a keyword.
        """
        self.said = said
        headers = {"host": "localhost", **headers}
        if session is not None:
            headers["cookie"] = f"sessionid={session}"
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.communicator = Communicator(sockets, "/graphql/", headers=pairs, subprotocols=[subprotocol])

    async def connect(self) -> tuple[bool, Any]:
        """Whether it was accepted, and with which subprotocol."""
        accepted: tuple[bool, Any] = await self.communicator.connect(timeout=TIMEOUT_S)
        return accepted

    async def disconnect(self) -> None:
        await self.communicator.disconnect(timeout=TIMEOUT_S)

    async def send(self, type: str, **fields: Any) -> None:
        await self.communicator.send_to(json.dumps({"type": type, **fields}))

    async def init(self) -> None:
        await self.send("connection_init", **({} if self.said is None else {"payload": self.said}))

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        sent = await self.communicator.receive_output(timeout=TIMEOUT_S)
        assert sent["type"] == "websocket.send", sent
        message: dict[str, Any] = json.loads(sent["text"])
        return message

    async def close_code(self, *, after_messages: bool = False) -> int:
        """The code with which the server closes the socket next, or after what it still sends."""
        closing = await self.communicator.receive_output(timeout=TIMEOUT_S)
        while after_messages and closing["type"] == "websocket.send":
            closing = await self.communicator.receive_output(timeout=TIMEOUT_S)
        assert closing["type"] == "websocket.close", closing
        code: int = closing["code"]
        return code

    async def subscribe(self, query: str, id: str = "1", **variables: Any) -> None:
        await self.send("subscribe", id=id, payload={"query": query, "variables": variables})

    async def next(self, id: str = "1") -> Any:
        """What the operation has to tell next: its answer, or of a subscription the data of its one field."""
        message = await self.receive()
        assert (message["type"], message["id"]) == ("next", id), message
        payload = message["payload"]
        return payload["data"]["events"] if set(payload) == {"data"} and "events" in payload["data"] else payload

    async def error(self, id: str = "1") -> dict[str, Any]:
        """`extensions` of the one error that ends the operation."""
        message = await self.receive()
        assert (message["type"], message["id"]) == ("error", id), message
        [error] = message["payload"]
        extensions: dict[str, Any] = error["extensions"]
        return extensions

    async def answer(self, query: str, id: str = "answer", **variables: Any) -> Any:
        """The answer to a query or mutation, after which it is complete."""
        await self.subscribe(query, id, **variables)
        answer = await self.next(id)
        assert await self.receive() == {"type": "complete", "id": id}
        return answer


@asynccontextmanager
async def accepted(**options: Any) -> AsyncIterator[GraphQLSocket]:
    """A socket that is open and on which nothing was said yet."""
    socket = GraphQLSocket(**options)
    connected = await socket.connect()
    assert connected == (True, PROTOCOL), connected
    try:
        yield socket
    finally:
        await socket.disconnect()


@asynccontextmanager
async def ready(**options: Any) -> AsyncIterator[GraphQLSocket]:
    """A socket on which operations may be sent."""
    async with accepted(**options) as socket:
        await socket.init()
        assert await socket.receive() == {"type": "connection_ack"}
        yield socket
