"""What a list's answer says to those that may keep it: our own cache of answers, and the client."""

from __future__ import annotations

from django.http import HttpRequest

from .versions import Stamp

# A place in the ASGI scope, which is there while an answer may be kept (`backend/web/response_cache.py`).
STAMP = "taskwire.stamp"


def keep(request: HttpRequest, stamp: Stamp) -> None:
    """Say that the answer to this request may be kept for all who see the same, and what it was read from."""
    scope = getattr(request, "scope", {})
    if STAMP in scope:
        scope[STAMP] = stamp


def may_be_kept(request: HttpRequest) -> bool:
    """Whether there is anybody who would keep the answer."""
    return STAMP in getattr(request, "scope", {})
