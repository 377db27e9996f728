from celery import shared_task
from django.utils import timezone

from backend.projects import services

from . import JOB, TRIM_EVERY_S


@shared_task(name="retention.trim", **JOB | {"expires": TRIM_EVERY_S})
def trim() -> None:
    """Delete what is no longer kept. Safe to run twice, and at once; killed on its way, it goes on the next time."""
    now = timezone.now()
    services.retention.trim_journal(now=now)
    services.retention.trim_audit(now=now)
