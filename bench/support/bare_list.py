"""A minimal application that returns a value from Redis: the reference for the product's cached lists.

Each request runs one GET of the key BARE_KEY, on one client, and gets its value as JSON, whatever the path is. Run as a
server: `python -m bench.support.bare_list`, on BIND and PORT.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import django
from django.conf import settings
from redis.asyncio import Redis

from backend.server import serve

KEY = os.environ["BARE_KEY"]

redis = Redis.from_url(settings.REDIS_URL)


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[..., Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = await redis.get(KEY)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    django.setup()
    sys.exit(serve(application))
