"""The smallest application that tells many sockets the same: what the product's live delivery is measured against.

It keeps sockets in a set. What it is told on a socket at `/tell` it sends, ready as it is, to each of them.
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
    if scope["path"] != "/tell":
        sockets.add(send)
    while (message := await receive())["type"] != "websocket.disconnect":
        for tell in sockets:
            await tell({"type": "websocket.send", "text": message["text"]})
    sockets.discard(send)


if __name__ == "__main__":
    django.setup()
    sys.exit(serve(application))
