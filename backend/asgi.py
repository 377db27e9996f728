"""The ASGI application: HTTP and the two WebSocket endpoints."""

import asyncio
import os
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")
django.setup(set_prefix=False)  # before the imports below, which need the models

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from backend.projects.live import keep_reading  # noqa: E402
from backend.web.handler import Handler  # noqa: E402
from backend.web.loopback import LoopbackOnly  # noqa: E402
from backend.web.origin import SameSiteRequests, SameSiteSockets, refuse  # noqa: E402
from backend.web.password_slots import PasswordSlots  # noqa: E402
from backend.web.response_cache import ResponseCache  # noqa: E402
from backend.web.waiting import WaitingSockets  # noqa: E402
from rest.consumers import NotificationConsumer  # noqa: E402
from schema.consumers import GraphQLConsumer  # noqa: E402

_socket_routes = URLRouter(
    [
        path("graphql/", GraphQLConsumer.as_asgi()),
        path("ws/notifications/", NotificationConsumer.as_asgi()),
        re_path("", refuse),  # type: ignore[arg-type]
    ]
)
sockets = WaitingSockets(SameSiteSockets(_socket_routes))
http = SameSiteRequests(ResponseCache(PasswordSlots(Handler())))
_routes = LoopbackOnly(ProtocolTypeRouter({"http": http, "websocket": sockets}))
_reading: asyncio.Task[None] | None = None


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Route a connection. The first one starts the journal reader of the process: daphne has no lifespan events."""
    global _reading
    if scope["type"] == "lifespan":
        raise NotImplementedError("no lifespan")  # the ASGI spec's way to declare that it is not supported
    if _reading is None:
        _reading = asyncio.create_task(keep_reading())
    await _routes(scope, receive, send)
