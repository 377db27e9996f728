"""The journal: every change under a position, in the order of commits.

An advisory lock is taken from `append` to the commit, so positions follow commits and have no holes: a reader that has
read up to N has missed nothing at or below N (docs/decisions/0001-positions.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import orjson
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max, Min

from . import notifier
from .access import Viewer
from .cache.versions import GLOBAL_TAG, access_tag, bump, project_tag
from .errors import ResumeRefused
from .events import ACCESS_CHANGED, Payload, truncated
from .models import Event
from .rows import iso

logger = logging.getLogger(__name__)

# Any number that no other advisory lock in this database uses.
_APPEND_LOCK = 0x7A5_3141

# Bytes of payloads that one statement inserts. PostgreSQL refuses a statement of 1 GB.
_APPEND_BYTES = 4 * 1024 * 1024

# The lock is a statement of its own: the insert must take its snapshot after the lock, or it would not see the row that
# the last writer committed. Both go to the server in one round trip.
_APPEND = f"""
SELECT pg_advisory_xact_lock({_APPEND_LOCK});
INSERT INTO {Event._meta.db_table}
       (position, kind, project_id, task_id, actor_id, actor_name, at, payload, audience)
SELECT head.position + new.number, new.kind, new.project_id::int, new.task_id::int, %s, %s, clock_timestamp(),
       new.payload, new.audience::int[]
  FROM (SELECT coalesce(max(position), 0) AS position FROM {Event._meta.db_table}) AS head,
       (VALUES {{rows}}) AS new (number, kind, project_id, task_id, payload, audience)
RETURNING position
"""


def append(event: Payload, *, actor: Viewer) -> int:
    """Write `event` in the caller's transaction and return its position; notify readers after the commit.

    Positions follow commits: call it last, after every row lock. Raises TypeError where the payload is not JSON,
    RuntimeError outside a transaction.
    """
    return append_all([event], actor=actor)


def append_all(events: Iterable[Payload], *, actor: Viewer) -> int:
    """Append several events in order and return the position of the last. Raises as `append`.

    All events are inserted by one statement, as long as their payloads have at most `_APPEND_BYTES` together.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("journal.append() belongs in the transaction of the change that it records.")
    tags: set[str] = set()
    rows: list[tuple[Any, ...]] = []
    size = 0
    for event in events:
        payload = orjson.dumps(event.data)
        if rows and size + len(payload) > _APPEND_BYTES:
            _insert(rows, actor)
            rows, size = [], 0
        size += len(payload)
        rows.append((event.kind, event.project_id, event.task_id, payload.decode(), event.audience))
        tags.update(tags_of(event))
    position = _insert(rows, actor)
    transaction.on_commit(partial(_announce, position, sorted(tags)), robust=True)
    return position


def _insert(rows: Sequence[tuple[Any, ...]], actor: Viewer) -> int:
    """Insert rows of kind, project, task, payload and audience, and return the last position."""
    parameters: list[Any] = [actor.user_id, actor.name]
    for number, row in enumerate(rows, start=1):
        parameters += [number, *row]
    values = ", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(rows))
    with connection.cursor() as cursor:
        cursor.execute(_APPEND.format(rows=values), parameters)
        position: int = max(cursor.fetchall())[0]
    return position


def _announce(position: int, tags: list[str]) -> None:
    """Bump the tags first, then notify: a client that refetches on an event must not meet the old list."""
    bump(dict.fromkeys(tags, position))
    notifier.notify()


def tags_of(event: Payload | JournalEvent) -> list[str]:
    """The cache tags that an event touches."""
    tags = [] if event.project_id is None else [project_tag(event.project_id)]
    if event.kind == ACCESS_CHANGED:
        tags += [project_tag(project_id) for project_id in event.data.get("projects", ())]
        # A membership or a display name is visible to others. A token, a session or a password is not.
        is_visible = bool(tags)
        tags += [access_tag(user_id) for user_id in event.data["users"]]
    else:
        is_visible = True
    return [*tags, GLOBAL_TAG] if is_visible else tags


# --- Reading ---------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class JournalEvent:
    """An event, as read from the journal. `frame` is what plain sockets and streams send, encoded once.

    Events compare by identity, so that results can be cached for each object that was read.
    """

    position: int
    kind: str
    project_id: int | None
    task_id: int | None
    actor_id: int | None
    actor_name: str
    at: datetime
    payload: str
    audience: list[int] | None
    # Bytes of the payload.
    size: int
    # Whether the payload has only the beginnings of long texts, since it has more than `EVENT_BYTES` in the journal.
    is_truncated: bool = False

    @cached_property
    def data(self) -> dict[str, Any]:
        """The payload, whose shape `events` describes."""
        data: dict[str, Any] = orjson.loads(self.payload)
        return data

    @cached_property
    def frame(self) -> str:
        has_actor = self.actor_id is not None
        head = {
            "type": self.kind,
            "cursor": str(self.position),
            "at": iso(self.at),
            "actor": {"id": self.actor_id, "name": self.actor_name} if has_actor else None,
            "project": self.project_id,
        }
        return f"{orjson.dumps(head).decode()[:-1]},{self.payload[1:]}"


# The size of a stored text is read without the text, so rows after the end of the page cost little.
_READ = f"""
SELECT position, kind, project_id, task_id, actor_id, actor_name, at, payload, audience, size
  FROM (SELECT *, sum(size) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - size AS size_before
          FROM (SELECT *, octet_length(payload) AS size
                  FROM {Event._meta.db_table} WHERE position > %s ORDER BY position LIMIT %s) AS following
       ) AS summed
 WHERE size_before < %s
 ORDER BY position
"""


@dataclass(frozen=True)
class Retained:
    """What the journal retains: `oldest` is the oldest position to resume from, `head` the newest position."""

    oldest: int
    head: int


def retained() -> Retained:
    bounds = Event.objects.aggregate(first=Min("position"), newest=Max("position"))
    return Retained(oldest=(bounds["first"] or 1) - 1, head=bounds["newest"] or 0)


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Events in order, and whether the journal had more after them when it was read."""

    events: list[JournalEvent]
    has_more: bool


def read_after(position: int, *, limit: int) -> JournalPage:
    """Up to `limit` events after `position`. They are not restricted to what a viewer may see.

    A page ends with the event that fills `JOURNAL_PAGE_BYTES`: the memory of a read does not depend on the size of the
    events. An event over `EVENT_BYTES` is truncated. Bump the tags of the events (`bump_tags`) before delivering them.
    Raises ResumeRefused where events after `position` are no longer retained: positions have no holes and are trimmed
    from the oldest end, so the first event read shows it.
    """
    max_bytes: int = settings.JOURNAL_PAGE_BYTES
    with connection.cursor() as cursor:
        cursor.execute(_READ, [position, limit, max_bytes])
        rows = cursor.fetchall()
    if rows and rows[0][0] != position + 1:
        raise ResumeRefused("CURSOR_EXPIRED", rows[0][0] - 1)
    has_more = len(rows) == limit or sum(row[-1] for row in rows) >= max_bytes
    return JournalPage([_event(*row) for row in rows], has_more)


def _event(*row: Any) -> JournalEvent:
    event = JournalEvent(*row)
    if event.size <= settings.EVENT_BYTES:
        return event
    data = truncated(event.kind, event.data, max_bytes=settings.EVENT_BYTES)
    if data is None:
        return event
    payload = orjson.dumps(data)
    return replace(event, payload=payload.decode(), size=len(payload), is_truncated=True)


def bump_tags(events: Sequence[JournalEvent]) -> None:
    """Bump the tags that these events touch, in case their writers were killed before they did.

    A client that refetches on hearing of an event must not meet the old list.
    """
    bump({tag: event.position for event in events for tag in tags_of(event)})


def position_at(moment: datetime) -> int:
    """The position of the last event before a moment, else the oldest position to resume from."""
    earlier = Event.objects.filter(at__lt=moment).order_by("-position").values_list("position", flat=True)
    return earlier.first() or retained().oldest


def is_retained_since(moment: datetime) -> bool:
    """Whether every event since a moment is retained."""
    first = Event.objects.order_by("position").first()
    return first is None or first.position == 1 or first.at < moment


def check_resumable(after: int, retained: Retained) -> None:
    """Raise ResumeRefused where a listener cannot resume from `after` without missing an event."""
    if after > retained.head:
        raise ResumeRefused("RESYNC", retained.oldest)
    if after < retained.oldest:
        raise ResumeRefused("CURSOR_EXPIRED", retained.oldest)
