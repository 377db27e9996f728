"""The web process: it waits for clients that read slowly, and takes leave of all when it stops.

`python -m backend.server` listens on BIND and PORT of the settings, with the server that SERVER names. What holds for
either is said here.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings

# An extension of a socket's scope, beside its `send`: `try_send` of `Socket`.
TRY_SEND = "taskwire.try_send"

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

# Of a socket: a ping after this many seconds without a word, and its end after as many without an answer.
PING_INTERVAL_S, PING_TIMEOUT_S = 20, 30
# What an application has for accepting a socket.
HANDSHAKE_S = 5
# A larger message closes the socket it came on (1009).
MESSAGE_BYTES = 1024 * 1024
# A client that takes not one byte for so long while it is waited for is cut off, within twice this time.
STALLED_S = 5.0
# What a client has for its answer to a close frame, and for reading what was sent before that.
CLOSE_S = 5
# What a stop leaves to clients for taking leave and to requests for ending. Those who wait for us have more than this
# and one second: `GRACE_S` of `make run`, `stop_grace_period` of the compose file.
STOP_S = 3.0

# Close codes that are a server's to send.
GOING_AWAY, INTERNAL_ERROR, RESTART, TRY_LATER = 1001, 1011, 1012, 1013


def serve(application: Application) -> int:
    """Serve until told to stop; the exit code: 1 where it could not listen. Django has to be ready."""
    if settings.SERVER == "uvicorn":
        from .uvicorn import run
    else:
        from .daphne import run

    # A change that is told to many makes tens of thousands of objects at once, and nearly all go by themselves. By
    # default the garbage collector would look at them, and at all that was made to start, every few hundred.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    return run(application)
