"""How a view declares its response cacheable to the response cache in front of it (`backend/web/response_cache.py`)."""

from __future__ import annotations

from django.http import HttpRequest

from .versions import TagVersions

# The key in the ASGI scope. It is present where a response cache is in front.
TAG_VERSIONS = "taskwire.tag_versions"


def declare_cacheable(request: HttpRequest, tag_versions: TagVersions) -> None:
    """Allow the response, read at `tag_versions`, to be stored and served to every viewer who sees the same rows."""
    scope = getattr(request, "scope", {})
    if TAG_VERSIONS in scope:
        scope[TAG_VERSIONS] = tag_versions


def has_response_cache(request: HttpRequest) -> bool:
    return TAG_VERSIONS in getattr(request, "scope", {})
