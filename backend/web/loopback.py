"""Open access is for this machine alone, whatever address the server was told to listen on."""

import ipaddress
from typing import Any

from django.conf import settings

from backend.web.origin import Application, refuse

_REFUSAL = b'{"detail": "Open access is for this machine alone."}'


class LoopbackOnly:
    """While `ACCESS` is open, refuse (403) clients of every kind that are not on this machine.

    The settings check the address that our own commands listen on; this is for a server that was started otherwise, and
    for a proxy on this machine that says whom it brings in.
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
    """Of the client, and of those for whom it says that it asks."""
    client = scope.get("client") or ("",)
    said_in = (b"x-forwarded-for", b"x-real-ip")
    forwarded = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name in said_in]
    return [client[0], *(address.strip() for value in forwarded for address in value.split(","))]


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
