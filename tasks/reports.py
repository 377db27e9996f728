from contextlib import suppress
from datetime import date

from celery import shared_task
from django.utils import timezone

from backend.projects import services
from backend.projects.errors import ProjectNotFound

from . import JOB


@shared_task(name="reports.scan", **JOB)
def scan() -> None:
    """Queue the summaries to generate and the mails to send. Safe to run twice, also concurrently."""
    now = timezone.now()
    for project_id, day in services.report.due(now=now):
        generate.delay(project_id, day.isoformat())
    for report_mail_id in services.report.mails_to_send(now=now):
        mail.delay(report_mail_id)


@shared_task(name="reports.generate", **JOB)
def generate(project_id: int, day: str) -> None:
    """Generate a project's summary of a local date (ISO 8601), if the project still exists. Safe to run twice."""
    with suppress(ProjectNotFound):
        services.report.generate(project_id, date.fromisoformat(day))


@shared_task(name="reports.mail", **JOB)
def mail(report_mail_id: int) -> bool:
    """Mail one summary to one recipient. Return False if it was sent already or is obsolete. Safe to run twice."""
    return services.report.send_mail(report_mail_id)
