"""A minimal application that sends a message to many sockets: the reference for the product's live delivery.

It stores the sockets in a set. It sends each message that it receives at `/send` to all of them, unchanged.
Run as a server: `python -m bench.support.bare`, on BIND and PORT.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import django

from backend.server import serve

Send = Callable[[dict[str, Any]], Awaitable[None]]

sockets: set[Send] = set()


async def application(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] != "/send":
        sockets.add(send)
    while (message := await receive())["type"] != "websocket.disconnect":
        for send_to in sockets:
            await send_to({"type": "websocket.send", "text": message["text"]})
    sockets.discard(send)


if __name__ == "__main__":
    django.setup()
    sys.exit(serve(application))
