"""The schedule of Beat, which imports this module like the jobs (`backend/celery.py`)."""

import logging
import time
from typing import Any

from celery import current_app
from celery.schedules import schedule
from django.db import InterfaceError, OperationalError
from django_celery_beat.schedulers import DatabaseScheduler

from . import SCAN_EVERY_S, TRIM_EVERY_S

logger = logging.getLogger(__name__)

# Seconds until the schedule is read again, if the database cannot be reached.
RETRY_S = 2.0

# Seconds between two starts of each job. A message that stays in the queue for longer expires.
_EVERY_S = {
    "digests.scan": SCAN_EVERY_S,
    "reminders.scan": SCAN_EVERY_S,
    "reports.scan": SCAN_EVERY_S,
    "retention.trim": TRIM_EVERY_S,
}
SCHEDULE: dict[str, dict[str, Any]] = {
    name: {"task": name, "schedule": schedule(every_s), "options": {"expire_seconds": every_s}}
    for name, every_s in _EVERY_S.items()
}
# Every scheduler reads the schedule from here, also one that is named on the command line.
current_app.conf.beat_schedule = SCHEDULE


class Scheduler(DatabaseScheduler):  # type: ignore[misc]  # the package has no types
    """django-celery-beat's scheduler. When Beat starts, it adds the missing entries of our schedule to its tables.

    It leaves existing entries as a team has set them in the admin, the interval included. The stock scheduler would
    reset the interval at each start, but not `enabled`.
    """

    _is_waiting = False

    def setup_schedule(self) -> None:
        """Wait for the database, as Beat may start before it."""
        if Scheduler._is_waiting:  # the handler of a signal that ends Beat asks for the scheduler again
            raise SystemExit
        Scheduler._is_waiting = True
        try:
            while not self._is_set_up():
                time.sleep(RETRY_S)
        finally:
            Scheduler._is_waiting = False

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due, and return the seconds until the next call. Django's errors would end Beat."""
        try:
            return float(super().tick(*args, **kwargs))
        except (OperationalError, InterfaceError) as error:
            logger.warning("The schedule cannot be read; it is read again soon: %s", error)
            self._initial_read = True
            return RETRY_S

    def _is_set_up(self) -> bool:
        """Add the missing entries. False if the database cannot be reached."""
        try:
            existing = self.Model.objects.filter(name__in=SCHEDULE).values_list("name", flat=True)
            self.update_from_dict({name: SCHEDULE[name] for name in SCHEDULE.keys() - set(existing)})
        except (OperationalError, InterfaceError) as error:
            logger.warning("The schedule cannot be read; it is read again soon: %s", error)
            return False
        return True
