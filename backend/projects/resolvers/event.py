from __future__ import annotations

from dataclasses import dataclass

from .. import access, journal
from ..access import Viewer
from ..errors import BadArgument
from ..journal import JournalEvent
from ..visibility import EventFilter, EventVisibility
from .page import MAX_PAGE

MAX_POSITION = 2**63 - 1
# Events looked through for one page at most: a page narrowed to one quiet project may be short, `has_more` says so.
_MOST_READ = 1000


@dataclass(frozen=True, slots=True)
class EventPage:
    """`cursor` is the position that the page was read up to, whether its last event is shown or not."""

    events: list[JournalEvent]
    cursor: int
    has_more: bool


def parse_position(text: str, argument: str = "after") -> int:
    """Decimal digits. Raises BadArgument."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_POSITION):
        raise BadArgument(argument, "A cursor is a position in decimal digits.")
    return int(text)


def current_cursor(viewer: Viewer) -> int:
    """The newest position: what is read after this call is at least that new."""
    access.require_access(viewer)
    return journal.retained().head


def list_events(viewer: Viewer, *, after: int | None, filter: EventFilter, size: int | None = None) -> EventPage:
    """What happened after a position, oldest first; without one no events, but the present position.

    Raises BadArgument, ResumeRefused where the position is no longer retained or not yet reached.
    """
    access.require_access(viewer)
    size = MAX_PAGE if size is None else size
    if not 1 <= size <= MAX_PAGE:
        raise BadArgument("first", f"A page has 1 to {MAX_PAGE} events.")
    if after is None:
        return EventPage([], journal.retained().head, has_more=False)
    # First what happened, then the right to see it: a project joined in between is in both. Last whether it is still
    # retained: who could see a deleted project is told by the journal alone.
    found = journal.read_after(after, limit=_MOST_READ)
    journal.bump_tags(found)
    visibility = EventVisibility.since(viewer, after)
    journal.check_resumable(after, journal.retained())
    events: list[JournalEvent] = []
    for event in found:
        if filter.passes(event) and visibility.shows(event):
            if len(events) == size:
                return EventPage(events, events[-1].position, has_more=True)
            events.append(event)
    if len(found) == _MOST_READ:
        return EventPage(events, found[-1].position, has_more=True)
    return EventPage(events, found[-1].position if found else after, has_more=False)
