from celery import shared_task
from django.utils import timezone

from backend.projects import services

from . import JOB, TRIM_EVERY_S


@shared_task(name="retention.trim", **JOB | {"expires": TRIM_EVERY_S})
def trim() -> None:
    """Delete expired events, audit entries, sessions, failures to sign in and invitations.

    Safe to run twice and concurrently, and after being killed.
    """
    now = timezone.now()
    services.retention.trim_journal(now=now)
    services.retention.trim_audit(now=now)
    services.retention.clear_sessions(now=now)
    services.retention.clear_attempts(now=now)
    services.retention.trim_invitations(now=now)
    services.retention.trim_mail(now=now)
