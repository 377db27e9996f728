from celery import shared_task

from backend.projects import services

from . import JOB


@shared_task(name="digests.scan", **JOB)
def scan() -> None:
    """Queue the digests to send. Safe to run twice, also concurrently."""
    for digest_id in services.digest.scan():
        send.delay(digest_id)


@shared_task(name="digests.send", **JOB)
def send(digest_id: int) -> bool:
    """Mail one digest. Return False if it was sent already or is obsolete. Safe to run twice."""
    return services.digest.send(digest_id)
