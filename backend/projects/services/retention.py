"""What is no longer kept: old events of the journal, old entries of the audit log.

Both go from the oldest end, in batches that are transactions of their own. The journal so stays without holes, whatever
moment a trim is killed at, or another runs beside it: the oldest event tells from where a client may resume. No writer
waits: they only insert, at the other end, and a batch takes no lock but on the rows that it deletes.

The ledgers of mails (`Reminder`, `ReportMail`) stay as long as their task or report: that nothing is mailed twice rests
on them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile

from django.conf import settings
from django.db.models import Model

from ..models import AuditEntry, Event

# Rows deleted in one transaction at most: some milliseconds.
BATCH = 1000


def trim_journal(*, now: datetime) -> int:
    """Delete the events older than `JOURNAL_DAYS` and return how many; never the newest, on which positions go on.

    Takes no lock of the journal. A listener that has yet to read what is deleted meets the gap (`journal.read_after`).
    """
    return _trim(Event, "position", before=now - timedelta(days=settings.JOURNAL_DAYS), keeps_newest=True)


def trim_audit(*, now: datetime) -> int:
    """Delete the entries of the audit log that are older than `AUDIT_DAYS`, and return how many."""
    return _trim(AuditEntry, "id", before=now - timedelta(days=settings.AUDIT_DAYS), keeps_newest=False)


def _trim(model: type[Model], key: str, *, before: datetime, keeps_newest: bool) -> int:
    """Delete the oldest rows by `key`, up to the first one that is not older than `before`.

    The age is read along the key, of each batch before it goes: that costs 3 ms where nothing is old, and a second with
    the deletion of 500,000. An index on it would be 22 MB a million events for one question an hour; a search in halves
    would rely on a clock that was never set back, and delete what is young where it was.
    """
    deleted = 0
    rows = model._default_manager.order_by(key)
    after = 0
    while True:
        oldest = list(rows.filter(**{f"{key}__gt": after}).values_list(key, "at")[: BATCH + 1])
        # One more than is deleted was read, so that it is known to be there: the newest may be that one.
        may_go = oldest[:-1] if keeps_newest else oldest[:BATCH]
        old = [number for number, at in takewhile(lambda row: row[1] < before, may_go)]
        if not old:
            return deleted
        deleted += rows.filter(**{f"{key}__gt": after, f"{key}__lte": old[-1]}).delete()[0]
        if len(old) < BATCH:
            return deleted
        # Not from the oldest again: until it is vacuumed, the index leads past every row that was deleted.
        after = old[-1]
