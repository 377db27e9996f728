"""How a view declares its response cacheable to the response cache in front of it (`backend/web/response_cache.py`)."""

from __future__ import annotations

from django.http import HttpRequest

from .versions import TagVersions

# The key in the ASGI scope. It is present where a response cache is in front.
TAG_VERSIONS = "taskwire.tag_versions"


def declare_cacheable(request: HttpRequest, tag_versions: TagVersions) -> None:
    """Let the response to this request be stored for all who see the same; it was read at `tag_versions`."""
    scope = getattr(request, "scope", {})
    if TAG_VERSIONS in scope:
        scope[TAG_VERSIONS] = tag_versions


def has_response_cache(request: HttpRequest) -> bool:
    return TAG_VERSIONS in getattr(request, "scope", {})
