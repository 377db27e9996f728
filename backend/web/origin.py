"""Checks of every WebSocket handshake, and of HTTP requests that a page of another site may have sent."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import orjson
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from backend.projects.authentication import is_our_origin

_GRAPHQL = "/graphql/"
_CHECKED = frozenset([b"authorization", b"cookie", b"host", b"origin", b"sec-fetch-site"])

Application = Callable[[dict[str, Any], Any, Any], Awaitable[Any]]


async def refuse(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Close before accepting: the client gets a 403."""
    await send({"type": "websocket.close"})


class SameSiteSockets:
    """Refuses (403) handshakes for a foreign Host, from a page of a foreign origin, or without TLS before our proxy.

    A browser always sends Origin. A client that sends none is a script, which no foreign page can control.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        is_secure = _forwarded_schemes(scope) == [b"https"] or not settings.TLS_PROXY
        if is_secure and _is_allowed(headers.get(b"host", ""), headers.get(b"origin")):
            return await self.application(scope, receive, send)
        return await refuse(scope, receive, send)


class SameSiteRequests:
    """Refuses (403) the HTTP requests of a page of another site that CORS does not prevent.

    A browser sends a simple request whether or not the page may read the response: a form, a `text/plain` POST, an
    image, a link. With open access such a request may do everything, and with a session a link may do what its user
    may. A write with a session also needs a CSRF token, and such a request cannot send an `Authorization` header.

    Browsers send `Origin` with every writing method and `Sec-Fetch-Site` with everything; scripts send neither.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        headers = {name: value for name, value in scope["headers"] if name in _CHECKED}
        if settings.TLS_PROXY and len(_forwarded_schemes(scope)) > 1:
            return await _respond(send, 400, {"detail": "X-Forwarded-Proto names more than one scheme."})
        if not (_is_foreign(headers) and _has_effect(scope, headers)):
            return await self.application(scope, receive, send)
        message = "A page of another site may not do this. CSRF_TRUSTED_ORIGINS lists those that may."
        if scope["path"] == _GRAPHQL:
            return await _respond(send, 403, {"errors": [{"message": message, "extensions": {"code": "FORBIDDEN"}}]})
        return await _respond(send, 403, {"detail": message})


def _has_effect(scope: dict[str, Any], headers: dict[bytes, bytes]) -> bool:
    """Whether a request writes with open access, or executes a GraphQL query with open access or a session."""
    if scope["method"] != "GET":
        return settings.ACCESS == "open" and scope["method"] not in ("HEAD", "OPTIONS")
    if scope["path"] != _GRAPHQL or b"authorization" in headers:
        return False
    if settings.ACCESS != "open" and b"cookie" not in headers:
        return False
    return any(name == b"query" for name, _ in parse_qsl(scope["query_string"], keep_blank_values=True))


def _is_foreign(headers: dict[bytes, bytes]) -> bool:
    origin = headers.get(b"origin")
    if origin is None:
        return headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
    return not is_our_origin(origin.decode("latin-1"), headers.get(b"host", b"").decode("latin-1"))


def _forwarded_schemes(scope: dict[str, Any]) -> list[bytes]:
    values = (value for name, value in scope["headers"] if name.lower() == b"x-forwarded-proto")
    return [scheme.strip() for value in values for scheme in value.split(b",")]


async def _respond(send: Any, status: int, content: dict[str, Any]) -> None:
    body = orjson.dumps(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_allowed(host: str, origin: str | None) -> bool:
    domain, _ = split_domain_port(host.lower())
    allowed = settings.ALLOWED_HOSTS or (["localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    if not (domain and validate_host(domain, allowed)):
        return False
    return origin is None or is_our_origin(origin, host)
