"""The schedule of Beat, which imports this module like the jobs (`backend/celery.py`)."""

from typing import Any

from celery import current_app
from celery.schedules import schedule
from django_celery_beat.schedulers import DatabaseScheduler

from . import SCAN_EVERY_S, TRIM_EVERY_S

# Seconds between two starts of each job. A message that stays in the queue for longer expires.
_EVERY_S = {"reminders.scan": SCAN_EVERY_S, "reports.scan": SCAN_EVERY_S, "retention.trim": TRIM_EVERY_S}
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

    def setup_schedule(self) -> None:
        existing = self.Model.objects.filter(name__in=SCHEDULE).values_list("name", flat=True)
        self.update_from_dict({name: SCHEDULE[name] for name in SCHEDULE.keys() - set(existing)})
