"""What Beat starts, and when. Imported by Beat as the job modules are (`backend/celery.py`)."""

from typing import Any

from celery import current_app
from celery.schedules import schedule
from django_celery_beat.schedulers import DatabaseScheduler

from . import SCAN_EVERY_S, TRIM_EVERY_S

# A job's name, and the seconds after which it is started again: whatever is still in the queue by then is gone.
_EVERY_S = {"reminders.scan": SCAN_EVERY_S, "reports.scan": SCAN_EVERY_S, "retention.trim": TRIM_EVERY_S}
SCHEDULE: dict[str, dict[str, Any]] = {
    name: {"task": name, "schedule": schedule(every_s), "options": {"expire_seconds": every_s}}
    for name, every_s in _EVERY_S.items()
}
# Where any scheduler looks for it, also one that is named on the command line.
current_app.conf.beat_schedule = SCHEDULE


class Scheduler(DatabaseScheduler):  # type: ignore[misc]  # it comes without types
    """django-celery-beat's own, which writes our schedule to its tables when Beat starts.

    Only entries that are not there yet: what a team has set in the admin stays, the interval included, which the
    stock scheduler would put back at each start. (It keeps `enabled` either way.)
    """

    def setup_schedule(self) -> None:
        known = self.Model.objects.filter(name__in=SCHEDULE).values_list("name", flat=True)
        self.update_from_dict({name: SCHEDULE[name] for name in SCHEDULE.keys() - set(known)})
