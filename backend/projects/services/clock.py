"""The team's time zone: it determines when days start and end, and which times mails show."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from django.conf import settings


def zone() -> ZoneInfo:
    return ZoneInfo(settings.SUMMARY_TIME_ZONE)


@dataclass(frozen=True, slots=True)
class Day:
    """A local date from midnight (`start`) to midnight (`end`, not included), both in UTC.

    A day on which the clock changes has 23 or 25 hours.
    """

    date: dt.date
    start: dt.datetime
    end: dt.datetime

    @classmethod
    def of(cls, date: dt.date) -> Day:
        return cls(date, _midnight(date), _midnight(date + dt.timedelta(days=1)))


def _midnight(date: dt.date) -> dt.datetime:
    return dt.datetime.combine(date, dt.time.min, zone()).astimezone(dt.UTC)
