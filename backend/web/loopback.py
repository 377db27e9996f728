"""Limits open access to this machine, whatever address the server listens on."""

import ipaddress
import re
from typing import Any

from django.conf import settings

from backend.web.origin import Application, refuse

# Headers in which a proxy, or a content delivery network in front of it, names its clients.
_CLIENT_HEADERS = frozenset(
    [
        b"cf-connecting-ip",
        b"client-ip",
        b"fastly-client-ip",
        b"forwarded-for",
        b"true-client-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"x-forwarded",
        b"x-forwarded-for",
        b"x-original-forwarded-for",
        b"x-real-ip",
    ]
)

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rf"([\w!#$%&'*+.^`|~-]+)=([\w!#$%&'*+.^`|~:\[\]-]+|{_QUOTED})")
_HOP = re.compile(rf'(?:[^,"]|{_QUOTED})+')
# Possessive: whitespace that could be matched in several ways would take exponential time.
_FORWARDED = re.compile(rf"[ \t]*+(?:{_PAIR.pattern})?(?:[ \t]*+[;,][ \t]*+(?:{_PAIR.pattern})?)*+[ \t]*+")
# `127.0.0.1:4711`, `[::1]` and `[::1]:4711`.
_WITH_PORT = re.compile(r"([\d.]+):\w+|\[([^\]]*)\](?::\w+)?")

_REFUSAL = b'{"detail": "Open access is for this machine alone."}'


class LoopbackOnly:
    """While `ACCESS` is open, refuses requests and sockets from other machines (403).

    The settings check the address that our own commands listen on. This check is for a server that is started in
    another way, and for a proxy on this machine: the proxy has to name its clients, and all have to be on this machine.
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
    """Return the addresses of the client and of all that it forwards for; "" for one that it does not name."""
    client = scope.get("client") or ("",)
    named: list[str] = []
    is_forwarded = False
    for name, value in scope.get("headers", ()):
        if name == b"forwarded":
            named += _forwarded_for(value.decode("latin-1"))
        elif name in _CLIENT_HEADERS:
            named += (address.strip() for address in value.decode("latin-1").split(","))
        elif name == b"via" or name.startswith(b"x-forwarded-"):
            is_forwarded = True
    return [client[0], *(named or ([""] if is_forwarded else []))]


def _forwarded_for(value: str) -> list[str]:
    """Return the address of each hop in a `Forwarded` header (RFC 7239); "" for a hop without one.

    A malformed value is one hop without an address.
    """
    if not _FORWARDED.fullmatch(value):
        return [""]
    addresses = []
    for hop in _HOP.findall(value):
        nodes = [node.strip('"') for name, node in _PAIR.findall(hop) if name.lower() == "for"]
        with_port = [_WITH_PORT.fullmatch(node) for node in nodes]
        addresses += [match[1] or match[2] if match else node for node, match in zip(nodes, with_port, strict=True)]
        if not nodes and hop.strip():
            addresses.append("")
    return addresses or [""]


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
