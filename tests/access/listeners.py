"""Listeners at the endpoints for live events.

A listener is a generator of the positions it receives. Its last item is a word that says why it ended.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

from backend.asgi import sockets
from tests.access.outcomes import CODES
from tests.rest.asgi import Exchange
from tests.schema.sockets import TIMEOUT_S, Communicator, GraphQLSocket

Listener: TypeAlias = AsyncGenerator[int | str]

CLOSE_CODES = {4401: "signed out", 4403: "sign in"}
MESSAGES = {"Sign in first.": "sign in", "There is no such project.": "hidden"}
STATUSES = {401: "sign in", 404: "hidden"}


def listen(endpoint: str, filters: str, headers: dict[str, str]) -> Listener:
    """Return a listener at an endpoint of the table, from the first event on."""
    transports = {"Subscription": subscription, "WS": notifications, "SSE": stream}
    return transports[endpoint.partition(" ")[0].partition(".")[0]](filters, headers)


async def receive(listener: Listener, count: int) -> list[int] | str:
    """Return the first `count` positions, or the word where the listener ends before."""
    received: list[int] = []
    async with aclosing(listener):
        async for item in listener:
            if isinstance(item, str):
                return item
            received.append(item)
            if len(received) >= count:
                break
    return received


async def refusal_of(socket: GraphQLSocket) -> str | None:
    """Return the word where a GraphQL socket is closed instead of acknowledged."""
    first = await socket.communicator.receive_output(TIMEOUT_S)
    if first["type"] == "websocket.close":
        return CLOSE_CODES[first["code"]]
    assert json.loads(first["text"]) == {"type": "connection_ack"}, first
    return None


async def subscription(filters: str, headers: dict[str, str]) -> Listener:
    socket = GraphQLSocket(**headers)
    await socket.connect()
    try:
        await socket.init()
        if word := await refusal_of(socket):
            yield word
            return
        await socket.subscribe(f'subscription {{ events(after: "0"{filters}) {{ cursor }} }}')
        while True:
            output = await socket.communicator.receive_output(TIMEOUT_S)
            if output["type"] == "websocket.close":
                yield CLOSE_CODES[output["code"]]
                return
            message = json.loads(output["text"])
            if message["type"] == "next":
                yield int(message["payload"]["data"]["events"]["cursor"])
            elif (word := CODES[message["payload"][0]["extensions"]["code"]]) != "sign in":
                yield word  # after UNAUTHENTICATED the socket closes too
                return
    finally:
        await socket.disconnect()


def notification_socket(query: str, headers: dict[str, str]) -> Communicator:
    pairs = [(name.encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()]
    return Communicator(sockets, f"/ws/notifications/?{query}", headers=pairs)


async def notifications(filters: str, headers: dict[str, str]) -> Listener:
    socket = notification_socket(f"after=0{filters}", headers)
    await socket.connect(TIMEOUT_S)
    try:
        while True:
            frame = json.loads(await socket.receive_from(TIMEOUT_S))
            if frame["type"] == "error":
                code = (await socket.receive_output(TIMEOUT_S))["code"]
                yield CLOSE_CODES[code] if code == 4401 else MESSAGES[frame["message"]]
                return
            if frame["type"] != "ready":
                yield int(frame["cursor"])
    finally:
        await socket.disconnect(timeout=TIMEOUT_S)


async def stream(filters: str, headers: dict[str, str]) -> Listener:
    accepting = {"Accept": "text/event-stream", **headers}
    async with Exchange("GET", "/events/", query=f"after=0{filters}", headers=accepting) as response:
        first = await response.read()
        if response.status != 200:
            yield STATUSES[response.status]
            return
        assert '"type":"ready"' in first, first
        while frame := await response.read():
            yield int(frame.partition("\n")[0].removeprefix("id: "))
        yield "ended"
