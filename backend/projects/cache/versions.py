"""Tags, their versions in Redis, and pending bumps."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.utils.functional import cached_property  # before 3.12, functools' has one lock for all instances
from redis.exceptions import OutOfMemoryError

from ..access import Viewer, visible_among, visible_project_ids
from ..models import Event
from .redis import server

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Touched by every change that other users can see.
GLOBAL_TAG = "all"

# Seconds. A version outlives every list that is checked against it. Redis may evict either (`volatile-lru`), which
# costs a rebuild.
_VERSION_S = 24 * 3600
# The lists of a viewer with more projects than this are checked against GLOBAL_TAG: the check stays one short MGET.
_MAX_TAGS = 200
# Seconds between two attempts to send pending bumps.
_RETRY_S = 0.2

# A version is `<nonce>:<position>`. Positions only rise: where two writers announce their commits in the wrong order,
# the later position stays.
_BUMP = """
local versions = {}
for i, key in ipairs(KEYS) do
  local version = redis.call('GET', key)
  local position = ARGV[i + 2]
  if not version then
    version = ARGV[2] .. ':' .. position
    redis.call('SET', key, version, 'EX', ARGV[1])
  elseif tonumber(string.match(version, ':(%d+)$')) < tonumber(position) then
    version = string.match(version, '^%x+:') .. position
    redis.call('SET', key, version, 'EX', ARGV[1])
  end
  versions[i] = version
end
return versions
"""


@dataclass(frozen=True)
class TagVersions:
    """The versions of the tags that rows depend on, and a position, both from before the rows were read.

    An unknown version is None. Rows that were read at an unknown version are never current.
    """

    by_tag: dict[str, str | None]
    position: int

    @property
    def is_known(self) -> bool:
        return None not in self.by_tag.values()


def project_tag(project_id: int) -> str:
    return f"project:{project_id}"


def access_tag(user_id: int | None) -> str:
    """Touched by every `ACCESS_CHANGED` of the user: a change of their memberships, account, tokens or sessions."""
    return f"access:{user_id}"


# --- Bumps -----------------------------------------------------------------------------------------------
def bump(positions: Mapping[str, int]) -> bool:
    """Raise the version of each tag to its position. Called after the commit that took the position.

    Return False where Redis did not answer. The bump is then pending: it is retried until Redis answers, and before
    any other command of this process.
    """
    return _pending_bumps.send(positions)


def retry_pending_bumps() -> bool:
    """Send the pending bumps now; True where none is left."""
    return _pending_bumps.retry(is_urgent=True)


class _PendingBumps:
    """The highest position per tag that has not reached Redis."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._lock = threading.Lock()
        self._is_retrying = False

    @property
    def exist(self) -> bool:
        return bool(self._positions)

    def send(self, positions: Mapping[str, int]) -> bool:
        """Send these bumps now, or retry them in the background. Return False where they are pending.

        They are sent even if Redis did not answer this process a moment ago: it may answer other processes, which
        would go on serving old lists.
        """
        if _send_bumps(positions, is_urgent=True) is not None:
            return self.retry()
        with self._lock:
            for tag, position in positions.items():
                self._positions[tag] = max(position, self._positions.get(tag, 0))
            if not self._is_retrying:
                self._is_retrying = True
                threading.Thread(target=self._retry_until_sent, name="pending-bumps", daemon=True).start()
        return False

    def retry(self, *, is_urgent: bool = False) -> bool:
        """True where no bump is pending any more."""
        if not self._positions:
            return True
        with self._lock:
            pending = dict(self._positions)
        if _send_bumps(pending, is_urgent=is_urgent) is None:
            return False
        with self._lock:
            for tag, position in pending.items():
                if self._positions.get(tag) == position:
                    del self._positions[tag]
            return not self._positions

    def _retry_until_sent(self) -> None:
        while True:
            time.sleep(_RETRY_S)
            retry_pending_bumps()
            with self._lock:
                if not self._positions:
                    self._is_retrying = False
                    return


_pending_bumps = _PendingBumps()


def _send_bumps(positions: Mapping[str, int], *, is_urgent: bool = False) -> dict[str, str | None] | None:
    """Bump the tags and return their versions; None where Redis did not answer.

    Where Redis has no memory left, the versions are deleted instead, which makes them unknown.
    """
    if not positions:
        return {}

    def command(redis: Any) -> list[bytes | None]:
        keys = [server.key(version_key(tag)) for tag in positions]
        try:
            versions: list[bytes | None] = redis.eval(
                _BUMP, len(keys), *keys, _VERSION_S, secrets.token_hex(4), *positions.values()
            )
        except OutOfMemoryError:
            redis.delete(*keys)
            return [None] * len(keys)
        return versions

    versions = server.call(command, is_urgent=is_urgent)
    return None if versions is None else dict(zip(positions, map(_decode, versions), strict=True))


# --- Reading versions ------------------------------------------------------------------------------------
def versions_before_reading(
    viewer: Viewer,
    project_ids: Collection[int] | None = None,
    *,
    are_visible: bool = False,
    visible_projects: Callable[[], frozenset[int]] | None = None,
) -> TagVersions:
    """The versions of the tags of these projects, else of all that the viewer sees. Call it before reading rows.

    The access tag is read before the viewer's projects: joining a project in between bumps it, so a list stored with
    the older version is not served again. `are_visible`: the caller has checked that the viewer sees the projects.
    `visible_projects` returns the viewer's projects, where the caller reads them anyway.
    """
    reader = _VersionReader()
    if viewer.sees_all:
        # Staff may be demoted, which bumps their access tag. In open mode, an anonymous viewer has no tag.
        access_tags = [] if viewer.user_id is None else [access_tag(viewer.user_id)]
        return reader.read([*access_tags, *([GLOBAL_TAG] if project_ids is None else map(project_tag, project_ids))])
    reader.read([access_tag(viewer.user_id)])
    if project_ids is not None:
        # The tag version of a project that the viewer does not see would reveal its changes to them.
        visible = set(project_ids) if are_visible else visible_among(viewer, project_ids)
    else:
        visible = visible_projects() if visible_projects is not None else visible_project_ids(viewer)
    return reader.read([GLOBAL_TAG] if len(visible) > _MAX_TAGS else map(project_tag, sorted(visible)))


def versions_after_reading(
    tag_versions: TagVersions, viewer: Viewer, project_ids: Collection[int] | None = None, *, are_visible: bool = False
) -> TagVersions:
    """The same versions, or unknown ones where the viewer's projects may have changed since they were read.

    The viewer may have joined a project in between and read its rows. The project's tag is not among these versions,
    and a write to the project may be answered before the join bumps the viewer's access tag. With `are_visible`, the
    viewer may have left one of the projects since the caller checked.
    """
    tags = tag_versions.by_tag.keys()
    if viewer.sees_all or GLOBAL_TAG in tags:
        return tag_versions
    covers_projects = project_ids is not None and tags >= set(map(project_tag, project_ids))
    if covers_projects and not are_visible:
        return tag_versions
    visible = visible_project_ids(viewer) if project_ids is None else visible_among(viewer, project_ids)
    if tags >= set(map(project_tag, visible)) and not (are_visible and len(visible) < len(project_ids or ())):
        return tag_versions
    return TagVersions(dict.fromkeys(tag_versions.by_tag), tag_versions.position)


def versions_at(tags: Sequence[str], head: int) -> TagVersions | None:
    """The versions of tags, for rows that were read together with the newest position, `head`.

    None where Redis does not answer. A version is unknown if it is beyond `head`, or if Redis does not have it. In the
    latter case Redis gets one for later reads.
    """
    versions = _read_versions(tags)
    if versions is None:
        return None
    if None in versions.values():
        _VersionReader().read(tags)
    reached = {tag: version if version and _position(version) <= head else None for tag, version in versions.items()}
    return TagVersions(reached, head)


def is_current(tag_versions: TagVersions) -> bool:
    """False where something may have changed since, and while Redis does not answer."""
    return tag_versions.is_known and _read_versions(tag_versions.by_tag) == tag_versions.by_tag


class _VersionReader:
    """Reads the versions of tags, in several steps. An unknown version is set to the newest position.

    Rows that are read after that miss nothing: earlier changes are visible by then, and later ones bump the version.
    Its new nonce distinguishes it from the lost version.
    """

    def __init__(self) -> None:
        self._found: dict[str, str | None] = {}
        self._position: int | None = None

    def read(self, tags: Iterable[str]) -> TagVersions:
        """The versions of these tags and of all that were read before.

        The version of GLOBAL_TAG gives the position without a query: it is bumped after the commit that took the
        position, so rows that are read from now on are at least as new.
        """
        tags = list(tags)
        if self._position is None:
            versions = self._read(dict.fromkeys([*tags, GLOBAL_TAG]))
            newest = versions[GLOBAL_TAG]
            self._position = self._head if newest is None else _position(newest)
        else:
            versions = self._read(tags)
        self._found |= {tag: versions[tag] for tag in tags}
        return TagVersions(dict(self._found), self._position)

    def _read(self, tags: Collection[str]) -> dict[str, str | None]:
        versions = _read_versions(tags)
        if versions is None:
            return dict.fromkeys(tags)
        unknown = [tag for tag, version in versions.items() if version is None]
        if unknown:
            versions |= _send_bumps(dict.fromkeys(unknown, self._head)) or {}
        return versions

    @cached_property
    def _head(self) -> int:
        """The newest position. Read after the versions, since `versions_at` compares with it."""
        return Event.head()


def _read_versions(tags: Collection[str]) -> dict[str, str | None] | None:
    """None where Redis does not answer."""
    if not tags:
        return {}
    found = ask(lambda redis: redis.mget([server.key(version_key(tag)) for tag in tags]))
    return None if found is None else dict(zip(tags, map(_decode, found), strict=True))


def version_key(tag: str) -> str:
    """The name of a tag's version in Redis."""
    return f"tag:{tag}"


def _position(version: str) -> int:
    return int(version.rpartition(":")[2])


def _decode(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


# --- Reading from Redis ----------------------------------------------------------------------------------
def ask(command: Callable[[Any], T]) -> T | None:
    """Run a command after all pending bumps are sent; None where Redis does not answer."""
    return server.call(command) if not _pending_bumps.exist or _pending_bumps.retry() else None


async def ask_async(command: Callable[[Any], Awaitable[T]]) -> T | None:
    """As `ask`, from the event loop. It does not wait for pending bumps: None while there are any."""
    return None if _pending_bumps.exist else await server.call_async(command)


# A caller's future, and the indexes of its names in the batch.
_WaitingGet = tuple["asyncio.Future[list[bytes | None] | None]", list[int]]


class BatchedGet:
    """Batches concurrent lookups into one MGET, with each name once, however many callers request it.

    A lookup that arrives during an MGET joins the next one, so a value is never older than its request. A round trip
    costs as much as everything else of a cache hit; the busier the event loop, the more callers share one. A lone
    caller does not wait.
    """

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._waiting: list[_WaitingGet] = []
        self._fetching: asyncio.Task[None] | None = None

    async def get(self, names: Iterable[str]) -> list[bytes | None] | None:
        """The values of these names at one moment; None where Redis does not answer or bumps are pending."""
        found: asyncio.Future[list[bytes | None] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((found, [self._names.setdefault(name, len(self._names)) for name in names]))
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_all())
        return await found

    async def _fetch_all(self) -> None:
        try:
            while self._waiting:
                names, waiting = list(self._names), self._waiting
                self._names, self._waiting = {}, []
                await self._fetch(names, waiting)
        finally:
            self._fetching = None

    async def _fetch(self, names: list[str], waiting: list[_WaitingGet]) -> None:
        values: list[bytes | None] | None = None
        try:
            values = await ask_async(lambda redis: redis.mget([server.key(name) for name in names]))
        except Exception:
            logger.exception("A batch of lookups in Redis failed.")
        finally:  # no caller waits for ever
            for found, places in waiting:
                if not found.done():
                    found.set_result(None if values is None else [values[place] for place in places])
