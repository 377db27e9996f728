"""The check of a WebSocket handshake, before any WebSocket library parses it. Both servers use this.

The libraries refuse less than RFC 6455 asks for, each with another status, and daphne fails on what autobahn refuses.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from . import Refused

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSION = "13"


def check_handshake(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check a request with `Upgrade: websocket` (RFC 6455, section 4.2.1). Raises Refused.

    Host and Origin are the application's to judge.
    """
    values: dict[bytes, list[bytes]] = defaultdict(list)
    for name, value in headers:
        values[name.lower()] += (part.strip() for part in value.split(b","))
    if method != b"GET":
        raise Refused(405, "The method of a WebSocket handshake is GET.", [("Allow", "GET")])
    if b"#" in target:
        raise Refused(400, "The target of a WebSocket handshake has no fragment.")
    if values[b"transfer-encoding"] or values[b"content-length"] not in ([], [b"0"]):
        raise Refused(400, "A WebSocket handshake has no body.")
    if b"upgrade" not in (option.lower() for option in values[b"connection"]):
        raise Refused(400, "A WebSocket handshake has the header `Connection: Upgrade`.")
    if values[b"sec-websocket-version"] != [_VERSION.encode()]:
        supported = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", _VERSION)]
        raise Refused(426, f"The version of the WebSocket protocol is {_VERSION}.", supported)
    keys, subprotocols = values[b"sec-websocket-key"], values[b"sec-websocket-protocol"]
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise Refused(400, "Sec-WebSocket-Key is not one value of 16 bytes in Base64.")
    if len(set(subprotocols)) < len(subprotocols) or not all(map(_TOKEN.fullmatch, subprotocols)):
        raise Refused(400, "Sec-WebSocket-Protocol is not a list of different tokens.")
