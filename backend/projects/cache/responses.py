"""How a view declares its response cacheable to the response cache in front of it (`backend/web/response_cache.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest

from ..access import Viewer
from .versions import TagVersions

# The key in the ASGI scope. It is present where a response cache is in front.
CACHEABLE = "taskwire.cacheable"


@dataclass(frozen=True, slots=True)
class Cacheable:
    """What a response was read from, and for whom."""

    viewer: Viewer
    tag_versions: TagVersions


def declare_cacheable(request: HttpRequest, viewer: Viewer, tag_versions: TagVersions) -> None:
    """Allow the response, read for `viewer` at `tag_versions`, to be stored for further requests of this viewer."""
    scope = getattr(request, "scope", {})
    if CACHEABLE in scope:
        scope[CACHEABLE] = Cacheable(viewer, tag_versions)


def has_response_cache(request: HttpRequest) -> bool:
    return CACHEABLE in getattr(request, "scope", {})
