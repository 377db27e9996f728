"""Live delivery: one reader per process reads the journal and fans out to its listeners (docs/decisions/0003-live.md).

A notification only wakes the reader; the events come from the journal. A reader that is not notified polls every
`LIVE_POLL_S` seconds. It reads each event once, whatever the number of listeners, and bumps the tags of what it reads:
a writer killed between its commit and its notification leaves no list stale and no event undelivered.

Only edges use this module.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from typing import ParamSpec, TypeAlias, TypeVar
from uuid import uuid4
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer
from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from . import access, journal, notifier
from .access import Viewer
from .authentication import current_viewer
from .errors import InvalidCredential, NotFound, ResumeRefused, TooManyConnections
from .events import ACCESS_CHANGED
from .journal import JournalEvent, JournalPage, Retained
from .threads import DatabaseThreads
from .visibility import EventFilter, EventVisibility

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

EVERY_EVENT = EventFilter()
# Hands an event to the server at once and returns True. Where it returns False, the event waits for `next`.
TrySend: TypeAlias = Callable[[JournalEvent], bool]

# The most events per read, by the reader and by a listener that catches up. `JOURNAL_PAGE_BYTES` may end it earlier.
_PAGE = 500
# Threads that read for listeners. With two, one slow read does not block all listeners.
_THREADS = 2
# Seconds by which the clocks of servers may differ, plus what storing a list may take.
_MARGIN_S = 30


def _read_on(position: int) -> tuple[Retained, JournalPage]:
    """What the journal retains, and the next page of events after `position`. Raises ResumeRefused."""
    retained = journal.retained()
    return retained, _read_and_bump(position) if retained.head > position else JournalPage([], has_more=False)


def _read_and_bump(position: int) -> JournalPage:
    """The next page of events after `position`, their tags bumped. Raises ResumeRefused."""
    page = journal.read_after(position, limit=_PAGE)
    journal.bump_tags(page.events)
    return page


class Listener:
    """Catches up from its position by pages, then gets what the reader reads. Made by `listen`."""

    def __init__(
        self,
        reader: _Reader,
        position: int,
        filter: EventFilter,
        permissions: CachedPermissions,
        try_send: TrySend | None,
    ) -> None:
        self.start = position
        self.is_live = False
        self.filter = filter
        self.permissions = permissions
        self._reader = reader
        self.read_up_to = position
        self._queue: deque[JournalEvent] = deque()
        self._try_send = try_send
        self._queued_bytes = 0
        self._max_queue: int = settings.LIVE_QUEUE_EVENTS
        self._max_queued_bytes: int = settings.LIVE_QUEUE_BYTES
        self._end: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._wakeup: asyncio.Future[None] | None = None
        # One timer, set again when it fires too early: a timer per event would cost as much as the event.
        self._idle_s: float | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def position(self) -> int:
        """Every event up to it is delivered: a client resumes from here."""
        return self._queue[0].position - 1 if self._queue else self.read_up_to

    @property
    def viewer(self) -> Viewer:
        """The listening viewer, with their present permissions."""
        return self.permissions.visibility.viewer

    async def next(self, timeout_s: float | None = None) -> JournalEvent | None:
        """The next event, or None after about `timeout_s` without one.

        Raises ResumeRefused where the listener fell behind or events it has yet to read were trimmed, InvalidCredential
        where the viewer's credential is no longer valid, ProjectNotFound or TaskNotFound where the viewer may no longer
        see the project or task of its filter.
        """
        self._idle_s = timeout_s
        self._deadline = None
        while True:
            if self._end is not None:
                raise self._end
            while self._queue:
                event = self._queue.popleft()
                self._queued_bytes -= event.size
                if self.permissions.visibility.shows(event):  # the permission may have been lost meanwhile
                    return event
            if timeout_s is not None:
                now = self._loop.time()
                if self._deadline is None:
                    self._deadline = now + timeout_s
                elif now >= self._deadline:
                    return None
            if self.is_live:
                if self._timer is None and self._deadline is not None:
                    self._timer = self._loop.call_at(self._deadline, self._on_timer)
                self._wakeup = self._loop.create_future()
                await self._wakeup
            else:
                await self._catch_up()

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline is not None and self._deadline > self._loop.time():
            self._timer = self._loop.call_at(self._deadline, self._on_timer)
        else:
            self._wake()

    @property
    def _is_awaited(self) -> bool:
        """Whether a caller waits in `next` and has not been woken yet."""
        return self._wakeup is not None and not self._wakeup.done()

    def _wake(self) -> None:
        if self._is_awaited:
            assert self._wakeup is not None
            self._wakeup.set_result(None)

    async def _catch_up(self) -> None:
        page = await self._reader.query(_read_and_bump, self.read_up_to)
        found = page.events
        # The reader may not have read this change yet. The events after it are checked against the new permissions.
        if any(event.kind == ACCESS_CHANGED and self.viewer.user_id in event.data["users"] for event in found):
            await self.permissions.load()
            # A trimmed deletion no longer shows who could see the project.
            journal.check_resumable(self.read_up_to, await self._reader.query(journal.retained))
        for event in found:
            self._take(event)
        # No await between this comparison and going live: the reader offers every event that it has not read yet.
        if not page.has_more and self.read_up_to >= self._reader.position:
            self.is_live = True

    def offer(self, event: JournalEvent) -> None:
        """Take an event from the reader, which offers every event in order."""
        if event.position <= self.read_up_to:
            return
        if len(self._queue) >= self._max_queue or self._queued_bytes >= self._max_queued_bytes:
            self.end(ResumeRefused("RESYNC", self._reader.oldest))
            return
        is_idle = self._try_send is not None and not self._queue and self._is_awaited
        self._take(event)
        if self._queue and not (is_idle and self._sent()):
            self._wake()

    def _sent(self) -> bool:
        """Try to send the one event in the queue at once; True where it has left the queue."""
        assert self._try_send is not None
        try:
            if not self._try_send(self._queue[0]):
                return False
        except Exception as error:
            self.end(error)  # not raised: the reader goes on to other listeners
            return True
        self._clear_queue()
        if self._idle_s is not None:
            self._deadline = self._loop.time() + self._idle_s
        return True

    def skip(self, trimmed: ResumeRefused) -> None:
        """End a live listener that missed trimmed events. One that catches up meets the gap itself."""
        if self.is_live and self.read_up_to < trimmed.oldest:
            self.end(ResumeRefused(trimmed.code, trimmed.oldest))

    def _take(self, event: JournalEvent) -> None:
        self.read_up_to = event.position
        if self.filter.passes(event) and self.permissions.visibility.shows(event):
            self._queue.append(event)
            self._queued_bytes += event.size

    def _clear_queue(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0

    def end(self, reason: Exception) -> None:
        """Let `next` raise `reason`. The queue is dropped, and the reader offers no more events."""
        self._end = reason
        self._clear_queue()
        self._reader.listeners.discard(self)
        self._wake()

    def leave(self) -> None:
        """Stop listening. `next` is not called any more."""
        self._reader.listeners.discard(self)
        if self._timer is not None:
            self._timer.cancel()


class CachedPermissions:
    """Which events one viewer may hear of, shared by all their listeners with the same token or session."""

    def __init__(self, reader: _Reader, viewer: Viewer) -> None:
        self._reader = reader
        self.visibility = EventVisibility(viewer, frozenset())
        self.holders = 0
        self.ended: asyncio.Future[InvalidCredential] = asyncio.get_running_loop().create_future()
        self.since: int | None = None
        self.loading = asyncio.Lock()

    async def load(self, *, since: int | None = None) -> None:
        """Read the viewer, their present projects, and those deleted since the earliest start of a listener.

        Raises InvalidCredential where the account, token or session is no longer valid. Loads are serialized: an older
        result must not replace a newer one.
        """
        async with self.loading:
            starts = [position for position in (since, self.since) if position is not None]
            self.since = min(starts, default=None)
            self.visibility = await self._reader.query(_current_visibility, self.visibility.viewer, self.since)


def _current_visibility(viewer: Viewer, since: int | None) -> EventVisibility:
    return EventVisibility.since(current_viewer(viewer), since)


def _current_permissions(
    requests: list[tuple[Viewer, int | None, list[Listener]]],
) -> list[InvalidCredential | tuple[EventVisibility, list[tuple[Listener, NotFound]]]]:
    """For each viewer, `_current_visibility` and the listeners whose filter names an object that it does not show."""
    results: list[InvalidCredential | tuple[EventVisibility, list[tuple[Listener, NotFound]]]] = []
    for viewer, since, listeners in requests:
        try:
            visibility = _current_visibility(viewer, since)
        except InvalidCredential as error:
            results.append(error)
            continue
        refused = []
        for listener in listeners:
            try:
                visibility.require_shown(listener.filter, listener.start)
            except NotFound as error:
                refused.append((listener, error))
        results.append((visibility, refused))
    return results


def _credential(viewer: Viewer) -> tuple[int | None, int | None, str | None]:
    return viewer.user_id, viewer.token_id, viewer.session_key


class _Reader:
    """The one reader of an event loop, hence of a process. It runs while anything is attached to it."""

    def __init__(self) -> None:
        self.position = 0
        self.oldest = 0
        self.listeners: set[Listener] = set()
        self.connections: Counter[int | None] = Counter()
        self._permissions: dict[tuple[int | None, int | None, str | None], CachedPermissions] = {}
        self._notified = asyncio.Event()
        self._attached = 0
        self._started: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._own_thread: DatabaseThreads
        self._threads: DatabaseThreads

    # -- lifetime --
    @asynccontextmanager
    async def attached(self, *, awaits_start: bool = True) -> AsyncIterator[None]:
        """Keep the reader running. It knows the journal's newest position when the block begins.

        Raises the error of a database that cannot be read before the reader knows that position. `awaits_start=False`
        does not wait for it.
        """
        self._attached += 1
        try:
            if self._started is None:
                self._started = asyncio.get_running_loop().create_future()
                self._own_thread = DatabaseThreads(1, "journal")
                self._threads = DatabaseThreads(_THREADS, "listeners")
                self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._receive_notifications())]
            if awaits_start:
                await asyncio.shield(self._started)
            yield
        finally:
            self._attached -= 1
            if not self._attached:
                await self._stop()

    async def _stop(self) -> None:
        tasks, self._tasks, self._started = self._tasks, [], None
        own_thread, threads = self._own_thread, self._threads
        try:
            while running := [task for task in tasks if not task.done()]:
                # Cancel until it has ended: a Redis client that is just connecting may swallow a cancellation.
                for task in running:
                    task.cancel()
                await asyncio.wait(running, timeout=0.1)
        finally:
            await asyncio.gather(own_thread.close(), threads.close())

    @asynccontextmanager
    async def permissions_of(self, viewer: Viewer) -> AsyncIterator[CachedPermissions]:
        key = _credential(viewer)
        permissions = self._permissions.setdefault(key, CachedPermissions(self, viewer))
        permissions.holders += 1
        try:
            yield permissions
        finally:
            permissions.holders -= 1
            if not permissions.holders and self._permissions.get(key) is permissions:
                del self._permissions[key]

    # -- work --
    async def query(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read the database for a listener. It waits for other listeners at most, never for requests."""
        return await self._threads.call(function, *args, **kwargs)

    async def _run(self) -> None:
        while True:
            try:
                await self._end_expired()
                await self._poll()
            except (DatabaseError, InterfaceError) as error:
                logger.warning("The journal could not be read; it is read again at the next poll: %s", error)
                self._refuse_waiting(error)
            except Exception:
                logger.exception("The journal's reader failed; it goes on at the next poll.")
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.LIVE_POLL_S):
                    await self._notified.wait()
            self._notified.clear()

    def _refuse_waiting(self, error: Exception) -> None:
        """Raise `error` in the connections that wait for the first read. Their clients try again."""
        if self._started is not None and not self._started.done():
            started, self._started = self._started, asyncio.get_running_loop().create_future()
            started.set_exception(error)
            started.exception()  # marks it as retrieved, where no connection waits

    async def _poll(self) -> None:
        """Read the new events and offer them to the listeners."""
        assert self._started is not None
        if not self._started.done():
            # Start as far back as a stored list may be old: a writer may have been killed before it bumped its tags.
            lately = timezone.now() - timedelta(seconds=settings.CACHE_LIST_S + _MARGIN_S)
            self.position = await self._own_thread.call(journal.position_at, lately)
        while True:
            # A listener that catches up may be ahead of the reader.
            ahead = [
                (listener, listener.read_up_to) for listener in self.listeners if listener.read_up_to > self.position
            ]
            try:
                retained, page = await self._own_thread.call(_read_on, self.position)
            except ResumeRefused as trimmed:
                await self._skip(trimmed)
                continue
            self.oldest = retained.oldest
            if retained.head < self.position:
                logger.warning("The journal ends before the last position read (a restored backup?): listeners resync.")
                self.position = retained.head
                ahead = [(listener, listener.read_up_to) for listener in self.listeners]
            for listener, position in ahead:
                if position > retained.head:
                    listener.end(ResumeRefused("RESYNC", retained.oldest))
            found = page.events
            if not found:
                break
            # Once per page: a user whose access keeps changing does not delay the others.
            changed = {user for event in found if event.kind == ACCESS_CHANGED for user in event.data["users"]}
            await self._reload(
                [
                    permissions
                    for permissions in self._permissions.values()
                    if permissions.visibility.viewer.user_id in changed
                ]
            )
            for event in found:
                self.position = event.position
                for listener in list(self.listeners):
                    if listener.is_live:
                        listener.offer(event)
            if not page.has_more:
                break
        if not self._started.done():
            self._started.set_result(None)

    async def _skip(self, trimmed: ResumeRefused) -> None:
        """Go on from the oldest retained event: the journal was trimmed beyond what was read of it."""
        logger.warning("The events after position %s are no longer retained: listeners resync.", self.position)
        await self._reload(list(self._permissions.values()))
        self.position = self.oldest = trimmed.oldest
        for listener in list(self.listeners):
            listener.skip(trimmed)

    async def _end_expired(self) -> None:
        """Reload the permissions of expired credentials: a session may have been prolonged."""
        now = timezone.now()
        await self._reload(
            [
                permissions
                for permissions in self._permissions.values()
                if (expires_at := permissions.visibility.viewer.expires_at) is not None and expires_at <= now
            ]
        )

    async def _reload(self, changed: list[CachedPermissions]) -> None:
        """Reload permissions in one database call. Listeners that lost theirs end."""
        if not changed:
            return
        async with AsyncExitStack() as locks:
            for permissions in changed:
                await locks.enter_async_context(permissions.loading)
            requests = [
                (permissions.visibility.viewer, permissions.since, self._filtered_listeners(permissions))
                for permissions in changed
            ]
            results = await self._own_thread.call(_current_permissions, requests)
            for permissions, result in zip(changed, results, strict=True):
                if isinstance(result, InvalidCredential):
                    self._end(permissions, result)
                    continue
                permissions.visibility, refused = result
                for listener, reason in refused:
                    listener.end(reason)

    def _end(self, permissions: CachedPermissions, reason: InvalidCredential) -> None:
        """End the listeners of an invalid credential. A new connection with it is checked again."""
        if self._permissions.get(_credential(permissions.visibility.viewer)) is permissions:
            del self._permissions[_credential(permissions.visibility.viewer)]
        for listener in self._listeners_of(permissions):
            listener.end(reason)
        if not permissions.ended.done():
            permissions.ended.set_result(reason)

    def _filtered_listeners(self, permissions: CachedPermissions) -> list[Listener]:
        return [listener for listener in self._listeners_of(permissions) if listener.filter.names_object]

    def _listeners_of(self, permissions: CachedPermissions) -> list[Listener]:
        return [listener for listener in self.listeners if listener.permissions is permissions]

    async def _receive_notifications(self) -> None:
        while True:
            layer, ours = get_channel_layer(), f"notify.{uuid4().hex}."
            try:
                channel = await layer.new_channel(ours)
                try:
                    await layer.group_add(notifier.GROUP, channel)
                    self._notified.set()
                    while True:
                        await layer.receive(channel)
                        self._notified.set()
                finally:
                    with suppress(Exception):
                        await layer.group_discard(notifier.GROUP, channel)
            except Exception as error:
                logger.warning("Notifications cannot be received, polling the journal instead: %s", error)
            finally:
                # The layer has a queue per channel, even for one that it could not subscribe to.
                for name in [name for name in layer.channels if ours in name]:
                    del layer.channels[name]
            await asyncio.sleep(1)


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Reader] = WeakKeyDictionary()


def _reader() -> _Reader:
    return _readers.setdefault(asyncio.get_running_loop(), _Reader())


async def keep_reading() -> None:
    """Run the reader as long as the process runs. It bumps tags, so cached lists need it without listeners too."""
    async with _reader().attached(awaits_start=False):
        await asyncio.Event().wait()


@contextmanager
def connection(viewer: Viewer) -> Iterator[None]:
    """Count one socket or stream of the viewer, until the end of the block.

    Connections are counted per account, across its tokens and sessions. In open mode all anonymous viewers are one
    account. Raises NotSignedIn, TooManyConnections.
    """
    access.require_access(viewer)
    connections = _reader().connections
    if connections[viewer.user_id] >= settings.LIVE_LISTENERS_PER_VIEWER:
        raise TooManyConnections(settings.LIVE_LISTENERS_PER_VIEWER)
    connections[viewer.user_id] += 1
    try:
        yield
    finally:
        connections[viewer.user_id] -= 1
        if not connections[viewer.user_id]:
            del connections[viewer.user_id]


async def until_invalid(viewer: Viewer) -> InvalidCredential:
    """Wait until the viewer's account, token or session is no longer valid; return the error."""
    reader = _reader()
    async with reader.attached(), reader.permissions_of(viewer) as permissions:
        try:
            await permissions.load()  # it may have become invalid before
        except InvalidCredential as error:
            return error
        return await asyncio.shield(permissions.ended)


@asynccontextmanager
async def listen(
    viewer: Viewer,
    *,
    after: int | None = None,
    filter: EventFilter = EVERY_EVENT,
    try_send: TrySend | None = None,
) -> AsyncIterator[Listener]:
    """A listener for the events after position `after`, else from now on. It starts at `listener.start`.

    While a caller waits in `next`, an event is first offered to `try_send`, which wakes no task. Raises NotSignedIn,
    InvalidCredential; ResumeRefused where `after` is no longer retained or not yet reached; ProjectNotFound or
    TaskNotFound where the viewer neither sees what the filter names nor saw it after that position.
    """
    access.require_access(viewer)
    reader = _reader()
    async with reader.attached(), reader.permissions_of(viewer) as permissions:
        # The start first, then the permissions: a later change of permissions is an event that will be read.
        start = await reader.query(_start, after)
        await permissions.load(since=start)
        await reader.query(permissions.visibility.require_shown, filter, start)
        listener = Listener(reader, start, filter, permissions, try_send)
        # No await until the listener is added: permissions that end later end their listeners.
        if permissions.ended.done():
            raise permissions.ended.result()
        reader.listeners.add(listener)
        try:
            yield listener
        finally:
            listener.leave()


def _start(after: int | None) -> int:
    """Raises ResumeRefused."""
    retained = journal.retained()
    if after is None:
        return retained.head
    journal.check_resumable(after, retained)
    return after
