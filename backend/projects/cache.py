"""Cached lists, checked against positions.

A *scope* is a part of what can be seen: one project, what one user has access to, or everything. Each has a position
in Redis, that of the last change in it. A list is filed with the positions of its scopes as they were before its rows
were read, and served while all of them are still the same. Nothing is ever deleted to make a list fresh.

Redis down means slower: said once, then every list is built. A scope whose position is gone is unknown, never 0.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from django.conf import settings
from django.core.cache import cache as django_cache
from django.db.models import Q
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from .access import Viewer, visible_project_ids, visible_projects
from .events import ACCESS_CHANGED
from .models import Event

logger = logging.getLogger(__name__)

T = TypeVar("T")

EVERYTHING = "all"

# Seconds. A scope outlives every list filed under it; both may be evicted (`volatile-lru`), which costs a rebuild.
_SCOPE_S = 24 * 3600
# A viewer of more projects than this is served by the scope of everything: the check stays one short MGET.
_MOST_SCOPES = 200

# Seconds without a command after one that was not answered: a Redis that hangs is not waited for at every list.
_RETRY_S = 1.0

# Positions only ever rise: of two writers that announce their commits in the wrong order, the later position stays.
_RAISE = """
for i, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if not held or tonumber(held) < tonumber(ARGV[i + 1]) then
    redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1])
  end
end
return 1
"""

# An entry starts with the position of its reading: a slow reader cannot file old rows over newer ones.
_FILE = """
local held = redis.call('GET', KEYS[1])
if not held or tonumber(string.match(held, '^%d+')) <= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'EX', ARGV[3])
end
"""


@dataclass(frozen=True)
class Stamp:
    """How new something is: `cursor` is the newest position before it was read, `positions` those of its scopes."""

    positions: dict[str, int]
    cursor: int


@dataclass(frozen=True)
class CachedList(Stamp):
    """`rows` as they were built; `cursor`, the position to listen from so as to miss nothing after them."""

    key: str
    rows: Any

    @property
    def etag(self) -> str:
        """Weak: the same list at the same positions means the same rows, not the same bytes."""
        identity = [settings.BUILD, self.key, sorted(self.positions.items())]
        return f'W/"{hashlib.sha256(orjson.dumps(identity)).hexdigest()[:24]}"'


def project_scope(project_id: int) -> str:
    return f"project:{project_id}"


def access_scope(user_id: int | None) -> str:
    """Moved by whatever changes which projects a user sees, or what they see of them besides their rows."""
    return f"access:{user_id}"


def move(positions: Mapping[str, int]) -> bool:
    """Raise each scope to its position; called after the commit that took it. False where Redis did not answer."""
    if not positions:
        return True
    keys = map(_scope_key, positions)
    moved = _redis.run(lambda redis: redis.eval(_RAISE, len(positions), *keys, _SCOPE_S, *positions.values()))
    return moved is not None


def cached_list(
    name: str,
    *,
    viewer: Viewer,
    params: Any,
    build: Callable[[], Any],
    project_id: int | None = None,
    is_shown: bool = False,
    not_before: int | None = None,
) -> CachedList:
    """The rows that `build` makes, from Redis while no scope that they were read from has moved.

    `build` returns what JSON can hold; it runs after the positions were read, and shows the viewer nothing but what
    they may see. `params` is everything else that shapes the rows. The scopes are `project_id`'s where it is given,
    else all that the viewer sees; `is_shown` says that the caller has found that they see that project. `not_before` is
    a position that the caller has told, or will tell, as the one its rows are as new as: the writer of it may not have
    moved the scopes yet.
    """
    identity = orjson.dumps([settings.BUILD, name, viewer.key, project_id, params], option=orjson.OPT_NON_STR_KEYS)
    key = f"{name}:{hashlib.sha256(identity).hexdigest()[:32]}"
    found = _load(key)
    if found is not None and is_current(found) and _is_as_new_as(found, not_before):
        return found
    cursor = Event.head()
    positions = _scopes_before_reading(viewer, project_id, is_shown, cursor)
    built = CachedList(positions, cursor, key, build())
    _file(built)
    return built


def stamp_of(scopes: Sequence[str], head: int) -> Stamp:
    """The stamp of what was read together with the newest position, `head`.

    A scope that has moved on since then is put at `head` all the same: what was read is not current, and never will be.
    """
    positions = _known(scopes, head)
    return Stamp({scope: min(position, head) for scope, position in positions.items()}, head)


def is_current(stamp: Stamp) -> bool:
    """False where something may have changed since, and while Redis does not answer.

    Asked in this order: it is Redis' first answer that tells that it was away.
    """
    return _positions(stamp.positions) == stamp.positions and stamp.cursor >= _redis.trusted_from()


def _is_as_new_as(found: CachedList, not_before: int | None) -> bool:
    if not_before is None or found.cursor >= not_before:
        return True
    since = Event.objects.filter(position__gt=found.cursor, position__lte=not_before)
    if EVERYTHING not in found.positions:
        project_ids = [int(scope.removeprefix("project:")) for scope in found.positions if scope.startswith("project:")]
        since = since.filter(Q(project_id__in=project_ids) | Q(kind=ACCESS_CHANGED))
    return not since.exists()


def _scopes_before_reading(viewer: Viewer, project_id: int | None, is_shown: bool, head: int) -> dict[str, int]:
    """The scopes of a list that is about to be read, with their positions.

    Access before projects: a project joined in between moves the access scope, so the list is not served again.
    """
    if viewer.sees_all:
        return _known([EVERYTHING if project_id is None else project_scope(project_id)], head)
    positions = _known([access_scope(viewer.user_id)], head)
    if project_id is not None:
        # Of a project that they do not see, not even that something happens in it.
        is_shown = is_shown or visible_projects(viewer).filter(pk=project_id).exists()
        return positions | _known([project_scope(project_id)] if is_shown else [], head)
    visible = visible_project_ids(viewer)
    if len(visible) > _MOST_SCOPES:
        return positions | _known([EVERYTHING], head)
    return positions | _known([project_scope(pk) for pk in sorted(visible)], head)


def _known(scopes: Sequence[str], head: int) -> dict[str, int]:
    """Positions of the scopes; one that is unknown is put at `head`, read before: it cannot have moved later."""
    positions = _positions(scopes)
    unknown = [scope for scope, position in positions.items() if position is None]
    if unknown:
        move(dict.fromkeys(unknown, head))
    return {scope: head if position is None else position for scope, position in positions.items()}


def _positions(scopes: Iterable[str]) -> dict[str, int | None]:
    scopes = list(scopes)
    if not scopes:
        return {}
    held = _redis.run(lambda redis: redis.mget([_scope_key(scope) for scope in scopes]))
    if held is None:
        return dict.fromkeys(scopes)
    return {scope: None if value is None else int(value) for scope, value in zip(scopes, held, strict=True)}


def _load(key: str) -> CachedList | None:
    held = _redis.run(lambda redis: redis.get(_list_key(key)))
    if held is None:
        return None
    cursor, _, body = held.partition(b" ")
    entry = orjson.loads(body)
    return CachedList(entry["positions"], int(cursor), key, entry["rows"])


def _file(built: CachedList) -> None:
    body = orjson.dumps({"positions": built.positions, "rows": built.rows})
    _redis.run(lambda redis: redis.eval(_FILE, 1, _list_key(built.key), built.cursor, body, settings.CACHE_LIST_S))


def _scope_key(scope: str) -> str:
    return django_cache.make_key(f"scope:{scope}")


def _list_key(key: str) -> str:
    return django_cache.make_key(f"list:{key}")


class _Redis:
    """Redis as this process sees it."""

    def __init__(self) -> None:
        self._ask_again_at = 0.0
        self._came_back = False
        self._is_down = False
        self._trusted_from = 0

    def run(self, command: Callable[[Any], T]) -> T | None:
        """The answer to one command; None where Redis does not answer, or did not within the last second."""
        if time.monotonic() < self._ask_again_at:
            return None
        try:
            answer = command(get_redis_connection("default"))
        except RedisError as error:
            if not self._is_down:
                logger.warning("Redis does not answer, lists are built without it: %s", error)
            self._is_down = True
            self._ask_again_at = time.monotonic() + _RETRY_S
            return None
        if self._is_down:
            logger.info("Redis answers again.")
            self._is_down, self._came_back = False, True
        return answer

    def trusted_from(self) -> int:
        """Lists filed at earlier positions may have missed a move that Redis was not there to take."""
        if self._came_back:
            self._trusted_from, self._came_back = Event.head(), False
        return self._trusted_from


_redis = _Redis()
