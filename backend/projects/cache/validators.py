"""HTTP validators of lists: their ETags (RFC 9110, section 8.8)."""

from __future__ import annotations

import hashlib

import orjson
from django.conf import settings
from django.utils.http import parse_etags

from .versions import TagVersions


def etag_of(tag_versions: TagVersions, key: str) -> str:
    """A weak ETag: the same list at the same versions has the same rows, if not the same bytes.

    For an unknown version, the position of the read is used: any later change, of whatever rows, gives another ETag.
    """
    versions = sorted((tag, version or tag_versions.position) for tag, version in tag_versions.by_tag.items())
    identity = orjson.dumps([settings.BUILD, key, versions])
    return f'W/"{hashlib.sha256(identity).hexdigest()[:24]}"'


def etag_matches(if_none_match: str | None, etag: str) -> bool:
    """Whether `If-None-Match` names `etag`. The comparison is weak."""
    etags = parse_etags(if_none_match or "")
    return "*" in etags or etag.removeprefix("W/") in {candidate.removeprefix("W/") for candidate in etags}


class NotModified(Exception):
    """The client has this list already: it named `etag`."""

    def __init__(self, tag_versions: TagVersions, etag: str) -> None:
        self.tag_versions = tag_versions
        self.etag = etag
