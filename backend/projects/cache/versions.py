"""Scopes, their versions, and what Redis has yet to hear of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.utils.functional import cached_property  # without the lock that functools' has, for all, before 3.12
from redis.exceptions import OutOfMemoryError

from ..access import Viewer, visible_among, visible_project_ids
from ..models import Event
from .redis import server

logger = logging.getLogger(__name__)

T = TypeVar("T")

GLOBAL_TAG = "all"

# Seconds. A tag outlives every list filed under it; both may be evicted (`volatile-lru`), which costs a rebuild.
_VERSION_S = 24 * 3600
# A viewer of more projects than this is served by the tag of everything: the check stays one short MGET.
_MAX_TAGS = 200
# Seconds between two tries to tell Redis of changes that it did not hear of.
_RETRY_S = 0.2

# Positions only ever rise: of two writers that announce their commits in the wrong order, the later position stays.
# A version is `<nonce>:<position>`.
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
    """How new something is: `position` is one from before it was read, `by_tag` has the versions.

    A version is None where it is not known: what was read is then not current, and never will be.
    """

    by_tag: dict[str, str | None]
    position: int

    @property
    def is_known(self) -> bool:
        return None not in self.by_tag.values()


def project_tag(project_id: int) -> str:
    return f"project:{project_id}"


def access_tag(user_id: int | None) -> str:
    """Bumped by whatever changes which projects a user sees, or what they see of them besides their rows."""
    return f"access:{user_id}"


def bump(positions: Mapping[str, int]) -> bool:
    """Bump each tag to its position; called after the commit that took it.

    False where Redis did not hear of it. It will, before it is asked for anything else, and as soon as it can be.
    """
    return _pending_bumps.add(positions)


def retry_pending_bumps() -> bool:
    """Raise what could not be raised when it was to be, without waiting for Redis to be asked again."""
    return _pending_bumps.retry(is_urgent=True)


def versions_before_reading(
    viewer: Viewer,
    project_ids: Collection[int] | None = None,
    *,
    are_shown: bool = False,
    visible: Callable[[], frozenset[int]] | None = None,
) -> TagVersions:
    """The versions of the tags of what is about to be read: these projects, else all that the viewer sees.

    Access before projects: a project joined in between bumps the access tag, so what is filed is not served again.
    """
    reader = _VersionReader()
    if viewer.sees_all:
        tags = [GLOBAL_TAG] if project_ids is None else map(project_tag, project_ids)
        return reader.read(tags)
    access = access_tag(viewer.user_id)
    reader.read([access])
    if project_ids is not None:
        # Of a project that they do not see, not even that something happens in it.
        shown = set(project_ids) if are_shown else visible_among(viewer, project_ids)
    else:
        shown = visible() if visible is not None else visible_project_ids(viewer)
    tags = [GLOBAL_TAG] if len(shown) > _MAX_TAGS else map(project_tag, sorted(shown))
    return reader.read(tags)


def versions_after_reading(
    tag_versions: TagVersions, viewer: Viewer, project_ids: Collection[int] | None = None, *, are_shown: bool = False
) -> TagVersions:
    """The same versions, or unknown ones where the viewer's projects may have changed meanwhile.

    The viewer may have joined a project and read rows of it. A write to that project may be answered before the join
    bumps the viewer's access tag, and the project's own tag is not among these versions. Where
    the caller knew already that the projects `are_shown`, the viewer may have left one of them since.
    """
    noted = tag_versions.by_tag.keys()
    if viewer.sees_all or GLOBAL_TAG in noted:
        return tag_versions
    is_noted = project_ids is not None and noted >= set(map(project_tag, project_ids))
    if is_noted and not are_shown:
        return tag_versions
    shown = visible_project_ids(viewer) if project_ids is None else visible_among(viewer, project_ids)
    if noted >= set(map(project_tag, shown)) and not (are_shown and len(shown) < len(project_ids or ())):
        return tag_versions
    return TagVersions(dict.fromkeys(tag_versions.by_tag), tag_versions.position)


def versions_at(tags: Sequence[str], head: int) -> TagVersions | None:
    """The versions of what was read together with the newest position, `head`; None where Redis does not answer.

    The version of a tag that was bumped on since then is not known in it. Nor is one that Redis did not have: what is
    read from now on finds it.
    """
    versions = _read_versions(tags)
    if versions is None:
        return None
    if None in versions.values():
        _VersionReader().read(tags)
    return TagVersions(
        {tag: version if version and _position(version) <= head else None for tag, version in versions.items()}, head
    )


def is_current(tag_versions: TagVersions) -> bool:
    """False where something may have changed since, and while Redis does not answer."""
    return tag_versions.is_known and _read_versions(tag_versions.by_tag) == tag_versions.by_tag


class _VersionReader:
    """The versions of tags, looked up in turn; one that is unknown is put at the newest position.

    Whose rows are read later than that has missed nothing: what has changed before can be seen by then, and what
    changes after it bumps the version. The nonce keeps it apart from what the version was before it was lost.
    """

    def __init__(self) -> None:
        self._found: dict[str, str | None] = {}
        self._position: int | None = None

    def read(self, tags: Iterable[str]) -> TagVersions:
        """With all that were looked up before.

        The version of GLOBAL_TAG gives the position without a query: it is bumped after the commit that took its
        position, so rows that are read from now on are at least as new.
        """
        tags = list(tags)
        if self._position is None:
            versions = self._look_up(dict.fromkeys([*tags, GLOBAL_TAG]))
            newest = versions[GLOBAL_TAG]
            self._position = self._head if newest is None else _position(newest)
        else:
            versions = self._look_up(tags)
        self._found |= {tag: versions[tag] for tag in tags}
        return TagVersions(dict(self._found), self._position)

    def _look_up(self, tags: Collection[str]) -> dict[str, str | None]:
        versions = _read_versions(tags)
        if versions is None:
            return dict.fromkeys(tags)
        unknown = [tag for tag, version in versions.items() if version is None]
        if unknown:
            versions |= _send_bumps(dict.fromkeys(unknown, self._head)) or {}
        return versions

    @cached_property
    def _head(self) -> int:
        """Read after the versions, since `versions_at` compares with it."""
        return Event.head()


def _read_versions(tags: Collection[str]) -> dict[str, str | None] | None:
    """None where Redis does not answer."""
    if not tags:
        return {}
    held = ask(lambda redis: redis.mget([server.key(version_key(tag)) for tag in tags]))
    return None if held is None else dict(zip(tags, map(_text, held), strict=True))


def _send_bumps(positions: Mapping[str, int], *, is_urgent: bool = False) -> dict[str, str | None] | None:
    """Bump the tags; their versions, or None where Redis did not hear of it. Where it has no room, they are unknown."""
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
    return None if versions is None else dict(zip(positions, map(_text, versions), strict=True))


def _position(version: str) -> int:
    return int(version.rpartition(":")[2])


def _text(held: bytes | None) -> str | None:
    return None if held is None else held.decode()


def version_key(tag: str) -> str:
    """Under which the version of a tag is kept."""
    return f"tag:{tag}"


def ask(command: Callable[[Any], T]) -> T | None:
    """One command to a Redis that has heard of every change that this process knows of; else None."""
    return server.call(command) if not _pending_bumps.exist or _pending_bumps.retry() else None


async def ask_async(command: Callable[[Any], Awaitable[T]]) -> T | None:
    """As the lists do here, from the event loop; None where Redis is not to be trusted."""
    return None if _pending_bumps.exist else await server.call_async(command)


# One caller's future, and which of the batch's names are theirs.
_WaitingGet = tuple["asyncio.Future[list[bytes | None] | None]", list[int]]


class BatchedGet:
    """Batches concurrent lookups into one MGET, and looks up a name once however many ask for it.

    A lookup that arrives while Redis is being asked joins the next MGET. Each name is read after it was asked for, so
    the answer is as new for the last caller as for the first. A round trip costs as much as everything else of a cache
    hit; the busier the event loop, the more callers share one. A lone caller waits for nobody.
    """

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._waiting: list[_WaitingGet] = []
        self._asking: asyncio.Task[None] | None = None

    async def get(self, names: Iterable[str]) -> list[bytes | None] | None:
        """What Redis holds under each name, as of one moment; None where it is not to be trusted."""
        found: asyncio.Future[list[bytes | None] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((found, [self._names.setdefault(name, len(self._names)) for name in names]))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await found

    async def _ask(self) -> None:
        try:
            while self._waiting:
                names, waiting = list(self._names), self._waiting
                self._names, self._waiting = {}, []
                await self._fetch(names, waiting)
        finally:
            self._asking = None

    async def _fetch(self, names: list[str], waiting: list[_WaitingGet]) -> None:
        held: list[bytes | None] | None = None
        try:
            held = await ask_async(lambda redis: redis.mget([server.key(name) for name in names]))
        except Exception:
            logger.exception("What Redis holds could not be looked up.")
        finally:  # however it went: nobody waits for it for ever
            for found, places in waiting:
                if not found.done():
                    found.set_result(None if held is None else [held[place] for place in places])


class _PendingBumps:
    """Positions that tags are to be bumped to, until Redis has heard of them."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._lock = threading.Lock()
        self._is_retrying = False

    @property
    def exist(self) -> bool:
        return bool(self._positions)

    def add(self, positions: Mapping[str, int]) -> bool:
        """Tell Redis now, else in a while. False where it has not heard of it yet.

        Now also where it did not answer this process a moment ago: it may answer others, who would go on showing what
        was before.
        """
        if _send_bumps(positions, is_urgent=True) is not None:
            return self.retry()
        with self._lock:
            for tag, position in positions.items():
                self._positions[tag] = max(position, self._positions.get(tag, 0))
            if not self._is_retrying:
                self._is_retrying = True
                threading.Thread(target=self._retry_until_done, name="pending-bumps", daemon=True).start()
        return False

    def retry(self, *, is_urgent: bool = False) -> bool:
        """True where nothing is pending any more."""
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

    def _retry_until_done(self) -> None:
        while True:
            time.sleep(_RETRY_S)
            retry_pending_bumps()
            with self._lock:
                if not self._positions:
                    self._is_retrying = False
                    return


_pending_bumps = _PendingBumps()
