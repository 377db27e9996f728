"""The web process: it waits for slow clients, and closes every connection cleanly when it stops.

`python -m backend.server` listens on BIND and PORT of the settings, with the server that SERVER names. This module has
the limits that both servers share (docs/decisions/0006-servers.md).
"""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

from django.conf import settings

# An extension of a socket's ASGI scope: `Socket.try_send`.
TRY_SEND = "taskwire.try_send"

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

# Seconds of silence on a socket before a ping, and seconds without a pong before it is dropped.
PING_INTERVAL_S, PING_TIMEOUT_S = 20, 30
# Seconds that the application has for accepting a socket.
HANDSHAKE_S = 5
# A larger message closes its socket (1009).
MESSAGE_BYTES = 1024 * 1024
# While as many messages, or as many bytes of them, wait for the application, nothing more is read from a socket.
UNREAD_MESSAGES, UNREAD_BYTES = 16, 64 * 1024
# A client that reads no byte for this long, while a sender waits for it, is disconnected within twice this time.
STALLED_S = 5.0
# Seconds that a client has for reading what was sent and answering the close frame.
CLOSE_S = 5
# Seconds that a stop leaves to clients for closing and to requests for finishing. Supervisors wait more than one second
# longer: `GRACE_S` of `make run`, `stop_grace_period` of the compose file.
STOP_S = 3.0

# Seconds that a client has for sending the rest of a request that is refused. A connection that is closed with unread
# bytes is reset, and the client may not get to read the response.
REST_S = 5.0

# Close codes that servers send.
GOING_AWAY, POLICY_VIOLATION, INTERNAL_ERROR, RESTART, TRY_LATER = 1001, 1008, 1011, 1012, 1013

_ABSOLUTE = re.compile(rb"(?:https?|wss?)://([^/?#@]+)([/?][^#]*)?", re.IGNORECASE)


class Refused(Exception):
    """A request that the server itself responds to."""

    def __init__(self, status: int, detail: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = [*headers, ("Content-Type", "application/json")]
        self.body = json.dumps({"detail": detail}).encode()

    def response(self) -> bytes:
        """The response for a connection that is closed afterwards."""
        headers = [*self.headers, ("Content-Length", str(len(self.body))), ("Connection", "close")]
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", *map(": ".join, headers)]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def too_large() -> Refused:
    return Refused(413, f"The body may have at most {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes.")


def too_slow() -> Refused:
    return Refused(408, "The request took too long to arrive.")


def parse_target(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """The host in the target of a request, if any, and its path and query (RFC 9112, section 3.2). Raises Refused."""
    if method.upper() != method or method == b"CONNECT":  # methods are case-sensitive
        raise Refused(501, "This method is not implemented.")
    if target.startswith(b"/") or (target, method) == (b"*", b"OPTIONS"):
        return None, target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refused(400, "The target of the request is neither a path nor an absolute URI.")
    path = absolute[2] or b"/"
    return absolute[1], path if path.startswith(b"/") else b"/" + path


def collect_less_garbage() -> None:
    """Exclude what is imported by now from garbage collection, and collect the rest less often.

    Nearly all objects are freed by reference counting. By default, the collector scans them, and everything imported at
    start, every 700 allocations: the fan-out of one event makes tens of thousands.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def serve(application: Application) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code: 1 where it cannot listen. Django must be set up."""
    if settings.SERVER == "uvicorn":
        from .uvicorn import run
    else:
        from .daphne import run

    collect_less_garbage()
    # The event loop waits this long for each thread that computes. By default it is 5 ms.
    sys.setswitchinterval(0.0005)
    return run(application)
