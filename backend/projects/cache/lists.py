"""Cached lists, served from Redis while they are current."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings
from django.db.models import Q

from ..access import Viewer
from ..events import ACCESS_CHANGED
from ..models import Event
from .redis import server
from .validators import NotModified, etag_matches, etag_of
from .versions import GLOBAL_TAG, TagVersions, ask, is_current, versions_after_reading, versions_before_reading

# The most new lists stored per viewer within `CACHE_LIST_S`, and the most bytes of one. However many different lists a
# viewer requests, they fill at most twice this much of Redis.
_MAX_LISTS = 1000
_MAX_BYTES = 2**19

# An entry starts with the position it was read at: a slow reader cannot store old rows over newer ones.
_STORE = """
local stored = redis.call('GETRANGE', KEYS[1], 0, 20)
if stored == '' then
  local number = redis.call('INCR', KEYS[2])
  if number == 1 then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
  if number > tonumber(ARGV[4]) then return end
elseif tonumber(string.match(stored, '^%d+')) > tonumber(ARGV[1]) then
  return
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
"""


@dataclass(frozen=True, slots=True)
class CacheQuery:
    """One read of a cached list: the viewer, the list, its minimum position and the ETags that the client has."""

    viewer: Viewer
    # The list, and everything else that shapes its rows.
    name: str
    params: Any
    # The one project that the list is limited to. `is_visible`: the caller has checked that the viewer sees it.
    project_id: int | None = None
    is_visible: bool = False
    # The viewer's projects, where the list is built from those alone.
    visible_projects: Callable[[], frozenset[int]] | None = None
    # A position that the caller returns together with the rows. Its writer may not have bumped the tags yet.
    min_position: int | None = None
    if_none_match: str | None = None

    @property
    def key(self) -> str:
        parts = [settings.BUILD, self.name, self.viewer.key, self.project_id, self.params]
        identity = orjson.dumps(parts, option=orjson.OPT_NON_STR_KEYS)
        return f"{self.name}:{hashlib.sha256(identity).hexdigest()[:32]}"


@dataclass(frozen=True)
class CachedList(TagVersions):
    """`rows` as they were built. A client that listens after `position` misses nothing."""

    key: str
    rows: Any

    @property
    def etag(self) -> str:
        return etag_of(self, self.key)


def cached_list(query: CacheQuery, build: Callable[[], Any]) -> CachedList:
    """The rows that `build` returns, served from Redis while the versions of their tags are current.

    `build` runs after the versions are read. It returns only rows that the viewer may see, and that JSON can represent.
    The tags are that of `project_id` where it is set, else those of all that the viewer sees. Raises NotModified,
    before a row is read, where `if_none_match` names the current list.
    """
    key = query.key
    found = _load(key)
    if found is not None and is_current(found) and _reaches(found, query.min_position):
        _check_modified(found, key, query.if_none_match)
        return found
    project_ids = None if query.project_id is None else [query.project_id]
    tag_versions = versions_before_reading(
        query.viewer, project_ids, are_visible=query.is_visible, visible_projects=query.visible_projects
    )
    _check_modified(tag_versions, key, query.if_none_match)
    rows = build()
    if query.visible_projects is None or project_ids is not None:
        tag_versions = versions_after_reading(tag_versions, query.viewer, project_ids, are_visible=query.is_visible)
    built = CachedList(tag_versions.by_tag, max(tag_versions.position, query.min_position or 0), key, rows)
    entry = orjson.dumps({"versions": built.by_tag, "rows": built.rows})
    command = store_command(key, built, entry, viewer=query.viewer)
    if command is not None:
        ask(command)
    return built


def _check_modified(tag_versions: TagVersions, key: str, if_none_match: str | None) -> None:
    if if_none_match is not None and etag_matches(if_none_match, etag_of(tag_versions, key)):
        raise NotModified(tag_versions, etag_of(tag_versions, key))


def store_command(key: str, tag_versions: TagVersions, entry: bytes, *, viewer: Viewer) -> Callable[[Any], Any] | None:
    """The command that stores an entry for `CACHE_LIST_S`; None where it must not be stored.

    It leaves a newer entry alone, and stores nothing for a viewer who has too many lists already.
    """
    lifetime_s = settings.CACHE_LIST_S
    if not tag_versions.is_known or lifetime_s <= 0 or len(entry) > _MAX_BYTES:
        return None
    dated = b"%d %b" % (tag_versions.position, entry)
    return lambda redis: redis.eval(
        _STORE,
        2,
        server.key(list_name(key)),
        server.key(f"lists:{viewer.key}"),
        tag_versions.position,
        dated,
        lifetime_s,
        _MAX_LISTS,
    )


def _reaches(found: CachedList, min_position: int | None) -> bool:
    """Whether no event since the list, up to `min_position`, touches it: the event's tags may not be bumped yet."""
    if min_position is None or found.position >= min_position:
        return True
    since = Event.objects.filter(position__gt=found.position, position__lte=min_position)
    if GLOBAL_TAG not in found.by_tag:
        project_ids = [int(tag.removeprefix("project:")) for tag in found.by_tag if tag.startswith("project:")]
        since = since.filter(Q(project_id__in=project_ids) | Q(kind=ACCESS_CHANGED))
    return not since.exists()


def _load(key: str) -> CachedList | None:
    if settings.CACHE_LIST_S <= 0:
        return None
    found = ask(lambda redis: redis.get(server.key(list_name(key))))
    if found is None:
        return None
    position, _, body = found.partition(b" ")
    entry = orjson.loads(body)
    return CachedList(entry["versions"], int(position), key, entry["rows"])


def list_name(key: str) -> str:
    """The name of a stored list in Redis."""
    return f"list:{key}"
