from celery import shared_task
from django.utils import timezone

from backend.projects import services

from . import JOB


@shared_task(name="reminders.scan", **JOB)
def scan() -> None:
    """Enter the reminders that are due, and hand out those to send. Safe to run twice, and at once."""
    for reminder_id in services.reminder.scan(now=timezone.now()):
        send.delay(reminder_id)


@shared_task(name="reminders.send", **JOB)
def send(reminder_id: int) -> bool:
    """Mail one reminder; False where it is sent already, or has no point any more. Safe to run twice."""
    return services.reminder.send(reminder_id)
