"""Limits open access to this machine, whatever address the server listens on."""

import ipaddress
from typing import Any

from django.conf import settings

from backend.web.origin import Application, refuse

_REFUSAL = b'{"detail": "Open access is for this machine alone."}'


class LoopbackOnly:
    """While `ACCESS` is open, refuses requests and sockets from other machines (403).

    The settings check the address that our own commands listen on. This check is for a server that was started in
    another way, and for a proxy on this machine that names its clients.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        if settings.ACCESS != "open" or all(map(_is_loopback, _addresses(scope))):
            return await self.application(scope, receive, send)
        if scope["type"] == "websocket":
            return await refuse(scope, receive, send)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_REFUSAL)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        return await send({"type": "http.response.body", "body": _REFUSAL})


def _addresses(scope: dict[str, Any]) -> list[str]:
    """Return the addresses of the client and of the clients that it forwards for."""
    client = scope.get("client") or ("",)
    forwarding_headers = (b"x-forwarded-for", b"x-real-ip")
    forwarded = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name in forwarding_headers]
    return [client[0], *(address.strip() for value in forwarded for address in value.split(","))]


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
