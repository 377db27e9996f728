"""Conditional request headers, and response headers."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlencode

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_STRONG_TAG_OF_VERSION = re.compile(r'(?<!W/)"([1-9][0-9]{0,9})"')

# Matches no row: versions start at 1.
_NO_VERSION = 0


def etag_of(version: int) -> str:
    """A strong ETag: each version of an object has one representation."""
    return f'"{version}"'


def version_to_match(request: Request, current: Callable[[], int]) -> int | None:
    """The version that `If-Match` requires; None if any version matches.

    Services take one version, so several are reduced to the one that `current` returns. A weak tag, or one that is not
    a version, never matches. Raises ValidationError if the header is malformed.
    """
    header = request.headers.get("If-Match", "*").strip()
    if header == "*":
        return None
    if not _TAGS.fullmatch(header):
        raise ValidationError({"If-Match": ['Name the version in double quotes: "3".']})
    versions = {int(version) for version in _STRONG_TAG_OF_VERSION.findall(header)}
    if len(versions) > 1:
        versions &= {current()}
    return versions.pop() if versions else _NO_VERSION


def link_to_next(request: Request, cursor: str) -> str:
    """A `Link` header (RFC 8288) to the same list from `cursor` on, with all other parameters."""
    query = request.query_params.dict() | {"cursor": cursor}
    return f'<{request.build_absolute_uri(f"?{urlencode(query)}")}>; rel="next"'
