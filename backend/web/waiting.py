"""A bound on the sockets whose clients have not signed in yet, per address and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from django.conf import settings

from backend.projects.authentication import address_of_scope, network_of

from .origin import Application, refuse

# The key in a socket's scope of a function that its consumer calls when the client has signed in.
_STOP_WAITING = "taskwire.stop_waiting"
_RESPONSE = "websocket.http.response"  # the ASGI extension for refusals with another status than 403
_RETRY_AFTER_S = 5


def stop_waiting(scope: dict[str, Any]) -> None:
    """Stop counting a socket whose client has signed in. One that did not pass `WaitingSockets` is not counted."""
    stop: Callable[[], None] | None = scope.get(_STOP_WAITING)
    if stop is not None:
        stop()


class WaitingSockets:
    """ASGI middleware for sockets. Refuses (503) those over the bound; `SOCKET_INIT_S` ends the others."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._waiting: Counter[str | None] = Counter()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        network = network_of(address_of_scope(scope))
        if (
            self._waiting[network] >= settings.WAITING_CONNECTIONS_PER_ADDRESS
            or self._waiting.total() >= settings.WAITING_CONNECTIONS
        ):
            return await self._refuse(scope, receive, send)
        self._waiting[network] += 1
        is_waiting = True

        def stop() -> None:
            nonlocal is_waiting
            if is_waiting:
                is_waiting = False
                self._waiting[network] -= 1
                if not self._waiting[network]:
                    del self._waiting[network]

        try:
            return await self.application({**scope, _STOP_WAITING: stop}, receive, send)
        finally:
            stop()

    async def _refuse(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if _RESPONSE not in scope.get("extensions", {}):
            await refuse(scope, receive, send)
            return
        headers = [(b"retry-after", str(_RETRY_AFTER_S).encode())]
        await send({"type": "websocket.http.response.start", "status": 503, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b""})
