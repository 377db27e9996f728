from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any
from unittest import mock

from django.db import OperationalError, connection
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from backend.celery import app
from tasks import schedule as schedule_module
from tasks.schedule import Scheduler
from tests.cases import CommittingCase

SCANS = ["digests.scan", "reminders.scan", "reports.scan"]


def start_beat() -> Scheduler:
    """Create the scheduler as `celery beat` does when it starts."""
    return Scheduler(app=app)


class ScheduleTests(CommittingCase):
    def test_beat_uses_our_scheduler(self) -> None:
        self.assertEqual(app.conf.beat_scheduler, f"{Scheduler.__module__}:{Scheduler.__name__}")

    def test_the_first_start_schedules_all_scans_every_minute_and_the_trim_every_hour(self) -> None:
        start_beat()
        rows = PeriodicTask.objects.order_by("name").values_list(
            "name", "task", "enabled", "interval__every", "interval__period", "expire_seconds"
        )
        intervals = [*((name, 60) for name in SCANS), ("retention.trim", 3600)]
        self.assertEqual(
            list(rows), [(name, name, True, seconds, IntervalSchedule.SECONDS, seconds) for name, seconds in intervals]
        )

    def test_every_scheduled_task_is_registered(self) -> None:
        start_beat()
        for module in app.conf.include:
            import_module(module)
        self.assertLessEqual(set(PeriodicTask.objects.values_list("task", flat=True)), set(app.tasks))

    def test_the_stock_scheduler_finds_the_same_schedule(self) -> None:
        schedule = DatabaseScheduler(app=app).schedule
        self.assertLessEqual({*SCANS, "retention.trim"}, set(schedule))

    def test_a_scan_is_due_a_minute_after_the_last_one(self) -> None:
        start_beat()
        for seconds, is_due in [(50, False), (61, True), (86400, True)]:
            PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(seconds=seconds))
            schedule = start_beat().schedule
            self.assertEqual([schedule[name].is_due().is_due for name in SCANS], [is_due] * 3)

    def test_a_restart_does_not_reset_changed_entries(self) -> None:
        start_beat()
        every_hour = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
        PeriodicTask.objects.filter(name="reports.scan").update(interval=every_hour)
        PeriodicTask.objects.filter(name="reminders.scan").update(enabled=False)
        schedule = start_beat().schedule
        self.assertEqual(sorted(schedule), ["digests.scan", "reports.scan", "retention.trim"])
        self.assertEqual(PeriodicTask.objects.get(name="reports.scan").interval, every_hour)
        self.assertEqual(PeriodicTask.objects.count(), 4)

    def test_beat_waits_for_the_database_at_its_start(self) -> None:
        failures = [OperationalError(), OperationalError()]

        def fail_first(execute: Any, *args: Any) -> Any:
            if failures:
                raise failures.pop()
            return execute(*args)

        with mock.patch.object(schedule_module, "RETRY_S", 0), connection.execute_wrapper(fail_first):
            scheduler = start_beat()
        self.assertEqual(sorted(scheduler.schedule), [*SCANS, "retention.trim"])

    def test_a_running_beat_survives_the_loss_of_the_database(self) -> None:
        def refuse(*args: Any) -> None:
            raise OperationalError

        start_beat()
        scheduler = Scheduler(app=app, lazy=True)
        with connection.execute_wrapper(refuse):
            self.assertEqual(scheduler.tick(), schedule_module.RETRY_S)
        self.assertEqual(sorted(scheduler.schedule), [*SCANS, "retention.trim"])
