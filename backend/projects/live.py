"""Live delivery: one reader per process reads the journal and fans out to its listeners (docs/decisions/0003-live.md).

A notification only wakes the reader; what is delivered is what the journal holds. A reader that is not notified polls
every `LIVE_POLL_S` seconds. It reads each event once, whatever the number of listeners, and bumps the tags of what it
reads: a writer killed between its commit and its notification leaves nothing stale and nothing unheard.

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
from .authentication import viewer_as_of_now
from .errors import InvalidCredential, NotFound, ResumeRefused, TooManyConnections
from .events import ACCESS_CHANGED
from .journal import JournalEvent, Retained
from .threads import DatabaseThreads
from .visibility import EventFilter, EventVisibility

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

EVERY_EVENT = EventFilter()
# Takes an event and says True, or cannot at the moment: then it waits for `next`.
TrySend: TypeAlias = Callable[[JournalEvent], bool]

# Events read at once, by the reader and by a listener that catches up.
_READ = 500
# Threads that read for listeners: two of them still answer while one is slow.
_THREADS = 2
# Seconds that clocks of servers may differ by, and a list may take to be filed.
_MARGIN_S = 30


def _read_on(position: int) -> tuple[Retained, list[JournalEvent]]:
    """What the journal retains, and the next page of events after `position`. Raises ResumeRefused."""
    retained = journal.retained()
    return retained, _read_and_bump(position) if retained.head > position else []


def _read_and_bump(position: int) -> list[JournalEvent]:
    """The next page of events after `position`, their tags bumped. Raises ResumeRefused."""
    events = journal.read_after(position, limit=_READ)
    journal.bump_tags(events)
    return events


class Listener:
    """Catches up from its position by pages, then is handed what the reader reads. Made by `listen`."""

    def __init__(
        self, reader: _Reader, position: int, filter: EventFilter, rights: _Rights, try_send: TrySend | None
    ) -> None:
        self.start = position
        self.is_live = False
        self.filter = filter
        self.rights = rights
        self._reader = reader
        self.read_up_to = position
        self._waiting: deque[JournalEvent] = deque()
        self._try_send = try_send
        self._room: int = settings.LIVE_QUEUE_EVENTS
        self._end: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] | None = None
        # One timer that is set anew when it comes, if need be: a timer for every event would cost as much as the event.
        self._idle_s: float | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def position(self) -> int:
        """Everything at or below it has been handed out: what a client resumes from."""
        return self._waiting[0].position - 1 if self._waiting else self.read_up_to

    @property
    def viewer(self) -> Viewer:
        """Who listens, with the rights of now."""
        return self.rights.visibility.viewer

    async def next(self, timeout_s: float | None = None) -> JournalEvent | None:
        """The next event, or None after about `timeout_s` without one.

        Raises ResumeRefused where the listener fell behind or what it has yet to read was trimmed, InvalidCredential
        where its viewer is let in no longer, ProjectNotFound or TaskNotFound where they lost the right to see what it
        is narrowed to.
        """
        self._idle_s = timeout_s
        self._deadline = None
        while True:
            if self._end is not None:
                raise self._end
            while self._waiting:
                event = self._waiting.popleft()
                if self.rights.visibility.shows(event):  # which may have been lost while it waited
                    return event
            if timeout_s is not None:
                now = self._loop.time()
                if self._deadline is None:
                    self._deadline = now + timeout_s
                elif now >= self._deadline:
                    return None
            if self.is_live:
                if self._timer is None and self._deadline is not None:
                    self._timer = self._loop.call_at(self._deadline, self._time_is_up)
                self._woken = self._loop.create_future()
                await self._woken
            else:
                await self._catch_up()

    def _time_is_up(self) -> None:
        self._timer = None
        if self._deadline is not None and self._deadline > self._loop.time():
            self._timer = self._loop.call_at(self._deadline, self._time_is_up)
        else:
            self._wake()

    @property
    def _is_awaited(self) -> bool:
        """Whether somebody waits in `next`, and was not told yet that there is something."""
        return self._woken is not None and not self._woken.done()

    def _wake(self) -> None:
        if self._is_awaited:
            assert self._woken is not None
            self._woken.set_result(None)

    async def _catch_up(self) -> None:
        found = await self._reader.ask(_read_and_bump, self.read_up_to)
        # The reader may not have come to it yet, and what follows is to be judged by the right it gave or took.
        if any(event.kind == ACCESS_CHANGED and self.viewer.user_id in event.data["users"] for event in found):
            await self.rights.load()
            # Of what was trimmed meanwhile it could not see any more who could see it.
            journal.check_resumable(self.read_up_to, await self._reader.ask(journal.retained))
        for event in found:
            self._take(event)
        # No await between this comparison and the joining: what the reader has not read yet it will hand over.
        if len(found) < _READ and self.read_up_to >= self._reader.position:
            self.is_live = True

    def offer(self, event: JournalEvent) -> None:
        """Called by the reader, in order, for every event."""
        if event.position <= self.read_up_to:
            return
        if len(self._waiting) >= self._room:
            self.end(ResumeRefused("RESYNC", self._reader.oldest))
            return
        is_free = self._try_send is not None and not self._waiting and self._is_awaited
        self._take(event)
        if self._waiting and not (is_free and self._handed_over()):
            self._wake()

    def _handed_over(self) -> bool:
        """Whether the one event that waits was taken out of hand."""
        assert self._try_send is not None
        try:
            if not self._try_send(self._waiting[0]):
                return False
        except Exception as error:
            self.end(error)  # the others are to hear of the event all the same
            return True
        self._waiting.clear()
        if self._idle_s is not None:
            self._deadline = self._loop.time() + self._idle_s
        return True

    def skip(self, trimmed: ResumeRefused) -> None:
        """Called by the reader where it could not read on. Who catches up meets the gap by itself."""
        if self.is_live and self.read_up_to < trimmed.oldest:
            self.end(ResumeRefused(trimmed.code, trimmed.oldest))

    def _take(self, event: JournalEvent) -> None:
        self.read_up_to = event.position
        if self.filter.passes(event) and self.rights.visibility.shows(event):
            self._waiting.append(event)

    def end(self, reason: Exception) -> None:
        """Let `next` raise `reason`; nothing is held for this listener any more."""
        self._end = reason
        self._waiting.clear()
        self._reader.listeners.discard(self)
        self._wake()

    def leave(self) -> None:
        """Nobody asks for anything any more."""
        self._reader.listeners.discard(self)
        if self._timer is not None:
            self._timer.cancel()


class _Rights:
    """What one viewer may hear of, shared by all in this process who came with the same token or session."""

    def __init__(self, reader: _Reader, viewer: Viewer) -> None:
        self._reader = reader
        self.visibility = EventVisibility(viewer, frozenset())
        self.holders = 0
        self.ended: asyncio.Future[InvalidCredential] = asyncio.get_running_loop().create_future()
        self.since: int | None = None
        self.loading = asyncio.Lock()

    async def load(self, *, since: int | None = None) -> None:
        """The right to see of now, and since the earliest position that any of the listeners started from.

        Raises InvalidCredential where the account, token or session is no longer good. One at a time: else an older
        answer could come last, and stay.
        """
        async with self.loading:
            known = [position for position in (since, self.since) if position is not None]
            self.since = min(known, default=None)
            self.visibility = await self._reader.ask(_current_visibility, self.visibility.viewer, self.since)


def _current_visibility(viewer: Viewer, since: int | None) -> EventVisibility:
    return EventVisibility.since(viewer_as_of_now(viewer), since)


def _as_of_now(
    asked: list[tuple[Viewer, int | None, list[Listener]]],
) -> list[InvalidCredential | tuple[EventVisibility, list[tuple[Listener, NotFound]]]]:
    """Each viewer's `_current_visibility`, with the listeners that are narrowed to what it does not show."""
    answers: list[InvalidCredential | tuple[EventVisibility, list[tuple[Listener, NotFound]]]] = []
    for viewer, since, listeners in asked:
        try:
            visibility = _current_visibility(viewer, since)
        except InvalidCredential as error:
            answers.append(error)
            continue
        refused = []
        for listener in listeners:
            try:
                visibility.require_shown(listener.filter, listener.start)
            except NotFound as error:
                refused.append((listener, error))
        answers.append((visibility, refused))
    return answers


def _credential(viewer: Viewer) -> tuple[int | None, int | None, str | None]:
    return viewer.user_id, viewer.token_id, viewer.session_key


class _Reader:
    """The one reader of a process (of its event loop). Runs while something is attached to it."""

    def __init__(self) -> None:
        self.position = 0
        self.oldest = 0
        self.listeners: set[Listener] = set()
        self.connections: Counter[int | None] = Counter()
        self._rights: dict[tuple[int | None, int | None, str | None], _Rights] = {}
        self._notified = asyncio.Event()
        self._attached = 0
        self._started: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._own_thread: DatabaseThreads
        self._threads: DatabaseThreads

    # -- lifetime --
    @asynccontextmanager
    async def attached(self) -> AsyncIterator[None]:
        """The reader runs and knows where the journal stands."""
        self._attached += 1
        try:
            if self._started is None:
                self._started = asyncio.get_running_loop().create_future()
                self._own_thread = DatabaseThreads(1, "journal")
                self._threads = DatabaseThreads(_THREADS, "listeners")
                self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._hear_notifications())]
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
                # Again until it has ended: a Redis client that is just connecting may swallow the first.
                for task in running:
                    task.cancel()
                await asyncio.wait(running, timeout=0.1)
        finally:
            await asyncio.gather(own_thread.close(), threads.close())

    @asynccontextmanager
    async def rights_of(self, viewer: Viewer) -> AsyncIterator[_Rights]:
        key = _credential(viewer)
        rights = self._rights.setdefault(key, _Rights(self, viewer))
        rights.holders += 1
        try:
            yield rights
        finally:
            rights.holders -= 1
            if not rights.holders and self._rights.get(key) is rights:
                del self._rights[key]

    # -- work --
    async def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read the database for a listener: it waits for other listeners at most, and for no request."""
        return await self._threads.call(function, *args, **kwargs)

    async def _run(self) -> None:
        while True:
            try:
                await self._end_expired()
                await self._poll()
            except (DatabaseError, InterfaceError) as error:
                logger.warning("The journal could not be read, trying again: %s", error)
            except Exception:
                logger.exception("The journal's reader failed, trying again.")
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.LIVE_POLL_S):
                    await self._notified.wait()
            self._notified.clear()

    async def _poll(self) -> None:
        """Read what is new and hand it out."""
        assert self._started is not None
        if not self._started.done():
            # Lists that are still held may be older than writers that died before this process was there to look.
            lately = timezone.now() - timedelta(seconds=settings.CACHE_LIST_S + _MARGIN_S)
            self.position = await self._own_thread.call(journal.position_at, lately)
        while True:
            # Who catches up may be further than we are.
            ahead = [(one, one.read_up_to) for one in self.listeners if one.read_up_to > self.position]
            try:
                retained, found = await self._own_thread.call(_read_on, self.position)
            except ResumeRefused as trimmed:
                await self._skip(trimmed)
                continue
            self.oldest = retained.oldest
            if retained.head < self.position:
                logger.warning("The journal stands before what was read from it (a restored backup?): resync.")
                self.position = retained.head
                ahead = [(listener, listener.read_up_to) for listener in self.listeners]
            for listener, position in ahead:
                if position > retained.head:
                    listener.end(ResumeRefused("RESYNC", retained.oldest))
            if not found:
                break
            # Once for all that was read: whoever keeps changing their own access delays nobody else.
            changed = {user for event in found if event.kind == ACCESS_CHANGED for user in event.data["users"]}
            await self._reload([one for one in self._rights.values() if one.visibility.viewer.user_id in changed])
            for event in found:
                self.position = event.position
                for listener in list(self.listeners):
                    if listener.is_live:
                        listener.offer(event)
            if len(found) < _READ:
                break
        if not self._started.done():
            self._started.set_result(None)

    async def _skip(self, trimmed: ResumeRefused) -> None:
        """Go on from what is retained, after a stop so long that the journal was trimmed beyond what was read of it."""
        logger.warning("The journal no longer holds what comes after %s: resync.", self.position)
        await self._reload(list(self._rights.values()))
        self.position = self.oldest = trimmed.oldest
        for listener in list(self.listeners):
            listener.skip(trimmed)

    async def _end_expired(self) -> None:
        """A session may have been prolonged, so each is asked for."""
        now = timezone.now()
        ends = [(one, one.visibility.viewer.expires_at) for one in self._rights.values()]
        await self._reload([rights for rights, expires_at in ends if expires_at is not None and expires_at <= now])

    async def _reload(self, changed: list[_Rights]) -> None:
        """Let those who listen by these rights go on with what they may see by now, or end. One connection for all."""
        if not changed:
            return
        async with AsyncExitStack() as loading:
            for rights in changed:
                await loading.enter_async_context(rights.loading)
            asked = [(one.visibility.viewer, one.since, self._narrowed_by(one)) for one in changed]
            for rights, answer in zip(changed, await self._own_thread.call(_as_of_now, asked), strict=True):
                if isinstance(answer, InvalidCredential):
                    self._end(rights, answer)
                    continue
                rights.visibility, refused = answer
                for listener, reason in refused:
                    listener.end(reason)

    def _end(self, rights: _Rights, reason: InvalidCredential) -> None:
        """Whoever comes with this credential from now on is asked for it anew."""
        if self._rights.get(_credential(rights.visibility.viewer)) is rights:
            del self._rights[_credential(rights.visibility.viewer)]
        for listener in self._listeners_of(rights):
            listener.end(reason)
        if not rights.ended.done():
            rights.ended.set_result(reason)

    def _narrowed_by(self, rights: _Rights) -> list[Listener]:
        return [listener for listener in self._listeners_of(rights) if listener.filter.names_something]

    def _listeners_of(self, rights: _Rights) -> list[Listener]:
        return [listener for listener in self.listeners if listener.rights is rights]

    async def _hear_notifications(self) -> None:
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
                # The layer keeps a queue for each channel, also for one that it could not subscribe to.
                for name in [name for name in layer.channels if ours in name]:
                    del layer.channels[name]
            await asyncio.sleep(1)


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Reader] = WeakKeyDictionary()


def _reader() -> _Reader:
    return _readers.setdefault(asyncio.get_running_loop(), _Reader())


async def keep_reading() -> None:
    """Read the journal for as long as the process runs: it keeps cached lists right, listeners or none."""
    async with _reader().attached():
        await asyncio.Event().wait()


@contextmanager
def connection(viewer: Viewer) -> Iterator[None]:
    """One socket or stream of the viewer's, from the moment that they are known to its end.

    Counted per account, whatever the number of its tokens and sessions; who has none is, in open access, one account.
    Raises NotSignedIn, TooManyConnections.
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
    """Wait until the viewer's account, token or session is no longer good; return why."""
    reader = _reader()
    async with reader.attached(), reader.rights_of(viewer) as rights:
        try:
            await rights.load()  # it may have ended while nobody watched
        except InvalidCredential as error:
            return error
        return await asyncio.shield(rights.ended)


@asynccontextmanager
async def listen(
    viewer: Viewer,
    *,
    after: int | None = None,
    filter: EventFilter = EVERY_EVENT,
    try_send: TrySend | None = None,
) -> AsyncIterator[Listener]:
    """A listener for what happens after the position `after`, or from now on; `listener.start` says from where.

    While it is waited for in `next`, what comes is first offered to `try_send`, which is spared the waking of a task.

    Raises NotSignedIn, InvalidCredential; ResumeRefused where `after` is no longer retained or not yet reached;
    ProjectNotFound or TaskNotFound where the filter names what the viewer cannot see and could not see after that
    position.
    """
    access.require_access(viewer)
    reader = _reader()
    async with reader.attached(), reader.rights_of(viewer) as rights:
        # First where to start, then the rights: what changes them later is an event that will be read.
        start = await reader.ask(_start, after)
        await rights.load(since=start)
        await reader.ask(rights.visibility.require_shown, filter, start)
        listener = Listener(reader, start, filter, rights, try_send)
        # No await from here to the joining: rights that end later end their listeners.
        if rights.ended.done():
            raise rights.ended.result()
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
