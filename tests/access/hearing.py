"""The doors that tell of events as they come.

Each is a generator of the positions that are heard, and of a word at the end, which says why no more is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

from backend.asgi import sockets
from tests.access.answers import CODES
from tests.rest.asgi import Exchange
from tests.schema.sockets import TIMEOUT_S, Communicator, GraphQLSocket

Line: TypeAlias = AsyncGenerator[int | str]

CLOSED = {4401: "signed out", 4403: "sign in"}
MESSAGES = {"Sign in first.": "sign in", "There is no such project.": "hidden"}
STATUSES = {401: "sign in", 404: "hidden"}


def line(door: str, narrowed: str, headers: dict[str, str]) -> Line:
    """What is heard through a door of the table, from the first event on."""
    way = {"Subscription": subscription, "WS": notifications, "SSE": stream}
    return way[door.partition(" ")[0].partition(".")[0]](narrowed, headers)


async def hear(line: Line, number: int) -> list[int] | str:
    """The first so many positions that are heard; a word, where it is fewer."""
    heard: list[int] = []
    async with aclosing(line):
        async for told in line:
            if isinstance(told, str):
                return told
            heard.append(told)
            if len(heard) >= number:
                break
    return heard


async def refused(socket: GraphQLSocket) -> str | None:
    """The word where a GraphQL socket is closed instead of made ready."""
    first = await socket.communicator.receive_output(TIMEOUT_S)
    if first["type"] == "websocket.close":
        return CLOSED[first["code"]]
    assert json.loads(first["text"]) == {"type": "connection_ack"}, first
    return None


async def subscription(narrowed: str, headers: dict[str, str]) -> Line:
    socket = GraphQLSocket(**headers)
    await socket.connect()
    try:
        await socket.init()
        if word := await refused(socket):
            yield word
            return
        await socket.subscribe(f'subscription {{ events(after: "0"{narrowed}) {{ cursor }} }}')
        while True:
            told = await socket.communicator.receive_output(TIMEOUT_S)
            if told["type"] == "websocket.close":
                yield CLOSED[told["code"]]
                return
            message = json.loads(told["text"])
            if message["type"] == "next":
                yield int(message["payload"]["data"]["events"]["cursor"])
            elif (word := CODES[message["payload"][0]["extensions"]["code"]]) != "sign in":
                yield word  # the operation is over; where it is the credential that is, the socket is too
                return
    finally:
        await socket.disconnect()


def notification_socket(query: str, headers: dict[str, str]) -> Communicator:
    pairs = [(name.encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()]
    return Communicator(sockets, f"/ws/notifications/?{query}", headers=pairs)


async def notifications(narrowed: str, headers: dict[str, str]) -> Line:
    socket = notification_socket(f"after=0{narrowed}", headers)
    await socket.connect(TIMEOUT_S)
    try:
        while True:
            frame = json.loads(await socket.receive_from(TIMEOUT_S))
            if frame["type"] == "error":
                code = (await socket.receive_output(TIMEOUT_S))["code"]
                yield CLOSED[code] if code == 4401 else MESSAGES[frame["message"]]
                return
            if frame["type"] != "ready":
                yield int(frame["cursor"])
    finally:
        await socket.disconnect(timeout=TIMEOUT_S)


async def stream(narrowed: str, headers: dict[str, str]) -> Line:
    accepting = {"Accept": "text/event-stream", **headers}
    async with Exchange("GET", "/events/", query=f"after=0{narrowed}", headers=accepting) as answer:
        first = await answer.read()
        if answer.status != 200:
            yield STATUSES[answer.status]
            return
        assert '"type":"ready"' in first, first
        while frame := await answer.read():
            yield int(frame.partition("\n")[0].removeprefix("id: "))
        yield "ended"
