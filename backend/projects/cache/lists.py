"""Lists out of Redis, while they are current."""

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

# New lists that are kept for a viewer within the time that a list is kept, and the bytes of one: however many different
# lists somebody asks for, they fill no more of Redis than twice this.
_MAX_LISTS = 1000
_MAX_BYTES = 2**19
# An entry starts with the position of its reading: a slow reader cannot file old rows over newer ones.
_STORE = """
local held = redis.call('GETRANGE', KEYS[1], 0, 20)
if held == '' then
  local number = redis.call('INCR', KEYS[2])
  if number == 1 then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
  if number > tonumber(ARGV[4]) then return end
elseif tonumber(string.match(held, '^%d+')) > tonumber(ARGV[1]) then
  return
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
"""


@dataclass(frozen=True)
class CachedList(TagVersions):
    """`rows` as they were built; `position`, the one to listen from so as to miss nothing after them."""

    key: str
    rows: Any

    @property
    def etag(self) -> str:
        return etag_of(self, self.key)


def cached_list(
    name: str,
    *,
    viewer: Viewer,
    params: Any,
    build: Callable[[], Any],
    project_id: int | None = None,
    is_shown: bool = False,
    not_before: int | None = None,
    if_none_match: str | None = None,
    visible: Callable[[], frozenset[int]] | None = None,
) -> CachedList:
    """The rows that `build` makes, from Redis while no tag that they were read from was bumped.

    `build` returns what JSON can hold; it runs after the positions were read, and shows the viewer nothing but what
    they may see. `params` is everything else that shapes the rows. The tags are `project_id`'s where it is given,
    else all that the viewer sees; `is_shown` says that the caller has found that they see that project. `not_before` is
    a position that the caller has read, and tells as the one its rows are as new as: the writer of it may not have
    moved the tags yet. `visible` tells the projects that the viewer is in, where `build` reads those alone. Raises
    NotModified, before a row is read, where `if_none_match` names the list as it is.
    """
    identity = orjson.dumps([settings.BUILD, name, viewer.key, project_id, params], option=orjson.OPT_NON_STR_KEYS)
    key = f"{name}:{hashlib.sha256(identity).hexdigest()[:32]}"
    found = _load(key)
    if found is not None and is_current(found) and _is_as_new_as(found, not_before):
        _check_modified(found, key, if_none_match)
        return found
    project_ids = None if project_id is None else [project_id]
    tag_versions = versions_before_reading(viewer, project_ids, are_shown=is_shown, visible=visible)
    _check_modified(tag_versions, key, if_none_match)
    rows = build()
    if visible is None or project_ids is not None:
        tag_versions = versions_after_reading(tag_versions, viewer, project_ids, are_shown=is_shown)
    built = CachedList(tag_versions.by_tag, max(tag_versions.position, not_before or 0), key, rows)
    command = store_command(key, built, orjson.dumps({"versions": built.by_tag, "rows": built.rows}), viewer=viewer)
    if command is not None:
        ask(command)
    return built


def _check_modified(tag_versions: TagVersions, key: str, if_none_match: str | None) -> None:
    if if_none_match is not None and etag_matches(if_none_match, etag_of(tag_versions, key)):
        raise NotModified(tag_versions, etag_of(tag_versions, key))


def store_command(key: str, tag_versions: TagVersions, entry: bytes, *, viewer: Viewer) -> Callable[[Any], Any] | None:
    """The command that keeps an entry for `CACHE_LIST_S` at most; None where it is not to be kept.

    A newer entry stays, and who has very many lists already has no more.
    """
    kept_s = settings.CACHE_LIST_S
    if not tag_versions.is_known or kept_s <= 0 or len(entry) > _MAX_BYTES:
        return None
    dated = b"%d %b" % (tag_versions.position, entry)
    return lambda redis: redis.eval(
        _STORE,
        2,
        server.key(list_name(key)),
        server.key(f"lists:{viewer.key}"),
        tag_versions.position,
        dated,
        kept_s,
        _MAX_LISTS,
    )


def _is_as_new_as(found: CachedList, not_before: int | None) -> bool:
    if not_before is None or found.position >= not_before:
        return True
    since = Event.objects.filter(position__gt=found.position, position__lte=not_before)
    if GLOBAL_TAG not in found.by_tag:
        project_ids = [int(tag.removeprefix("project:")) for tag in found.by_tag if tag.startswith("project:")]
        since = since.filter(Q(project_id__in=project_ids) | Q(kind=ACCESS_CHANGED))
    return not since.exists()


def _load(key: str) -> CachedList | None:
    if settings.CACHE_LIST_S <= 0:
        return None
    held = ask(lambda redis: redis.get(server.key(list_name(key))))
    if held is None:
        return None
    position, _, body = held.partition(b" ")
    entry = orjson.loads(body)
    return CachedList(entry["versions"], int(position), key, entry["rows"])


def list_name(key: str) -> str:
    """Under which a list is filed."""
    return f"list:{key}"
