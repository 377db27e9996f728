"""What a list's answer says to those that may keep it: our own cache of answers, and the client."""

from __future__ import annotations

from django.http import HttpRequest

from .versions import TagVersions

# A place in the ASGI scope, which is there while an answer may be kept (`backend/web/response_cache.py`).
TAG_VERSIONS = "taskwire.tag_versions"


def keep(request: HttpRequest, tag_versions: TagVersions) -> None:
    """Say that the answer to this request may be kept for all who see the same, and what it was read from."""
    scope = getattr(request, "scope", {})
    if TAG_VERSIONS in scope:
        scope[TAG_VERSIONS] = tag_versions


def may_be_kept(request: HttpRequest) -> bool:
    """Whether there is anybody who would keep the answer."""
    return TAG_VERSIONS in getattr(request, "scope", {})
