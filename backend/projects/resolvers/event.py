from __future__ import annotations

from dataclasses import dataclass

from .. import access, journal
from ..access import Viewer
from ..errors import BadArgument
from ..journal import JournalEvent
from ..visibility import EventFilter, EventVisibility
from .page import MAX_PAGE

MAX_POSITION = 2**63 - 1
# Events that are read for one page at most. So a filtered page may have few events although `has_more` is true.
_MAX_READ = 1000


@dataclass(frozen=True, slots=True)
class EventPage:
    """`cursor` is the position of the last event that was read for the page, even if the page does not show it."""

    events: list[JournalEvent]
    cursor: int
    has_more: bool


def parse_position(text: str, argument: str = "after") -> int:
    """Parse decimal digits. Raises BadArgument."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_POSITION):
        raise BadArgument(argument, "A cursor is a position in decimal digits.")
    return int(text)


def current_cursor(viewer: Viewer) -> int:
    """The newest position. Rows read after this call are at least as new."""
    access.require_access(viewer)
    return journal.retained().head


def list_events(viewer: Viewer, *, after: int | None, filter: EventFilter, size: int | None = None) -> EventPage:
    """Visible events after a position, oldest first. If it is None, no events, and the newest position as cursor.

    Raises BadArgument, ResumeRefused where the position is no longer retained or not yet reached.
    """
    access.require_access(viewer)
    size = MAX_PAGE if size is None else size
    if not 1 <= size <= MAX_PAGE:
        raise BadArgument("first", f"A page has 1 to {MAX_PAGE} events.")
    if after is None:
        return EventPage([], journal.retained().head, has_more=False)
    # Events are read before permissions, so the permissions are at least as new as the events. Retention is checked
    # after both, since EventVisibility reads deletions of projects from the journal.
    read = journal.read_after(after, limit=_MAX_READ)
    found = read.events
    journal.bump_tags(found)
    visibility = EventVisibility.since(viewer, after)
    journal.check_resumable(after, journal.retained())
    events: list[JournalEvent] = []
    for event in found:
        if filter.passes(event) and visibility.shows(event):
            if len(events) == size:
                return EventPage(events, events[-1].position, has_more=True)
            events.append(event)
    return EventPage(events, found[-1].position if found else after, has_more=read.has_more)
