"""A bound on concurrent password checks. A check occupies a core for a third of a second: the hash is slow on purpose.

A slot for the check is taken on the event loop, before the request has a thread. Without a free slot, the response is a
503 at once. Other requests are served meanwhile. No check begins for a client that has left.
"""

from __future__ import annotations

from collections import Counter, deque
from threading import Lock
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from backend.projects.authentication import address_of_request, address_of_scope, network_of
from backend.web.origin import Application

BUSY, RETRY_AFTER_S = "Too many people sign in at once. Try again in a few seconds.", 5

# Paths whose POST checks a password. The admin's own sign-in page redirects to ours.
_PATHS = frozenset(["/accounts/sign-in/", "/accounts/password/"])
_SLOT = "taskwire.password_slot"


class Slot:
    """Permits one password check. It is free again when no check runs and the client has its response or has left."""

    def __init__(self, network: str | None) -> None:
        self._network = network
        self._lock = Lock()
        self._is_checking = False
        self.has_left = False

    def begin(self) -> bool:
        """Begin the check, in any thread. Return False if the client has left."""
        with self._lock:
            self._is_checking = not self.has_left
            return self._is_checking

    def end(self) -> None:
        with self._lock:
            self._is_checking = False
            if self.has_left:
                _release(self._network)

    def leave(self) -> None:
        """Note that the client has its response, or has left."""
        with self._lock:
            if not self.has_left:
                self.has_left = True
                if not self._is_checking:
                    _release(self._network)


_taken: Counter[str | None] = Counter()
_taken_lock = Lock()


def _take(network: str | None) -> Slot | None:
    """Return a slot; None if none is free. One address gets half of the slots at most."""
    with _taken_lock:
        total = settings.PASSWORD_CHECKS
        if _taken.total() >= total or _taken[network] >= max(1, total // 2):
            return None
        _taken[network] += 1
    return Slot(network)


def _release(network: str | None) -> None:
    with _taken_lock:
        _taken[network] -= 1
        if not _taken[network]:
            del _taken[network]


def slot_of(request: HttpRequest) -> Slot | None:
    """Return the slot that `PasswordSlots` took, else a new one; None if none is free."""
    slot: Slot | None = getattr(request, "scope", {}).get(_SLOT)
    if slot is None:
        slot = _take(network_of(address_of_request(request)))
    return slot


class PasswordSlots:
    """ASGI middleware that takes a slot for a POST to a page that checks passwords."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        if scope["path"] not in _PATHS or scope["method"] != "POST":
            return await self._application(scope, receive, send)
        # The slot is taken after the body has arrived: a slow body occupies none. Servers bound its size.
        received = deque([await receive()])
        while received[-1].get("more_body"):
            received.append(await receive())
        slot = _take(network_of(address_of_scope(scope)))
        if slot is None:
            return await _refuse(send)

        async def receive_and_watch() -> dict[str, Any]:
            message: dict[str, Any] = received.popleft() if received else await receive()
            if message["type"] == "http.disconnect":
                slot.leave()
            return message

        try:
            await self._application({**scope, _SLOT: slot}, receive_and_watch, send)
        finally:
            slot.leave()


async def _refuse(send: Any) -> None:
    body = BUSY.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_AFTER_S).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
