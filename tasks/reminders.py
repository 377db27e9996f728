from celery import shared_task
from django.utils import timezone

from backend.projects import services

from . import JOB


@shared_task(name="reminders.scan", **JOB)
def scan() -> None:
    """Insert the reminders that are due, and queue those to send. Safe to run twice, also concurrently."""
    for reminder_id in services.reminder.scan(now=timezone.now()):
        send.delay(reminder_id)


@shared_task(name="reminders.send", **JOB)
def send(reminder_id: int) -> bool:
    """Mail one reminder. Return False if it was sent already or is obsolete. Safe to run twice."""
    return services.reminder.send(reminder_id)
