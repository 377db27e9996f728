"""Checks of every WebSocket handshake."""

from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from backend.projects.authentication import is_our_origin

Application = Callable[[dict[str, Any], Any, Any], Awaitable[Any]]


async def refuse(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Close before accepting: the client gets a 403."""
    await send({"type": "websocket.close"})


class SameSite:
    """Refuses (403) a foreign Host, as HTTP does, a page of a foreign origin, and plain HTTP before our proxy.

    A browser always sends its Origin; a client that sends none is a script, which no foreign page can control.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        is_secure = headers.get(b"x-forwarded-proto") == "https" or not settings.TLS_PROXY
        if is_secure and _is_allowed(headers.get(b"host", ""), headers.get(b"origin")):
            return await self.application(scope, receive, send)
        return await refuse(scope, receive, send)


def _is_allowed(host: str, origin: str | None) -> bool:
    domain, _ = split_domain_port(host.lower())
    allowed = settings.ALLOWED_HOSTS or (["localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    if not (domain and validate_host(domain, allowed)):
        return False
    return origin is None or is_our_origin(origin, host)
