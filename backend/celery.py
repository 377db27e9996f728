"""The Celery application; `celery -A backend` finds it here."""

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")

# Only workers and Beat import these modules. A web process starts a job by its name.
app = Celery(
    "taskwire", include=["tasks.digests", "tasks.reminders", "tasks.reports", "tasks.retention", "tasks.schedule"]
)
app.config_from_object("django.conf:settings", namespace="CELERY")


@setup_logging.connect
def keep_django_logging(**_: Any) -> None:
    """Do nothing: with a receiver of this signal, Celery leaves logging as LOGGING configures it."""
