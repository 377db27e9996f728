"""What every WebSocket handshake passes."""

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
    """Refuse (403) a Host that is not ours, as HTTP does, a page of another origin, and what our proxy got without TLS.

    A browser always sends its Origin; a client that sends none is a script, which no foreign page can drive.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        came_by_tls = headers.get(b"x-forwarded-proto") == "https" or not settings.TLS_PROXY
        if came_by_tls and _is_welcome(headers.get(b"host", ""), headers.get(b"origin")):
            return await self.application(scope, receive, send)
        return await refuse(scope, receive, send)


def _is_welcome(host: str, origin: str | None) -> bool:
    domain, _ = split_domain_port(host.lower())
    allowed = settings.ALLOWED_HOSTS or (["localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    if not (domain and validate_host(domain, allowed)):
        return False
    return origin is None or is_our_origin(origin, host)
