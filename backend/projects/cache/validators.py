"""ETags of lists."""

from __future__ import annotations

import hashlib

import orjson
from django.conf import settings
from django.utils.http import parse_etags

from .versions import TagVersions


def etag_of(tag_versions: TagVersions, key: str) -> str:
    """Weak: the same list at the same versions means the same rows, not the same bytes.

    While the version of a tag is not known, every change anywhere makes another ETag.
    """
    identity = [
        settings.BUILD,
        key,
        sorted((tag, version or tag_versions.position) for tag, version in tag_versions.by_tag.items()),
    ]
    return f'W/"{hashlib.sha256(orjson.dumps(identity)).hexdigest()[:24]}"'


def etag_matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the client holds what `etag` names: `If-None-Match` compares weakly."""
    held = parse_etags(if_none_match or "")
    return "*" in held or etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in held}


class NotModified(Exception):
    """The client holds this list already: `etag` is among those that it named."""

    def __init__(self, tag_versions: TagVersions, etag: str) -> None:
        self.tag_versions = tag_versions
        self.etag = etag
