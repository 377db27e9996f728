"""The Celery application; `celery -A backend` finds it here."""

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")

# By name, and imported by workers and Beat alone: a web process knows nothing of the jobs.
app = Celery("taskwire", include=["tasks.reminders", "tasks.reports", "tasks.retention", "tasks.schedule"])
app.config_from_object("django.conf:settings", namespace="CELERY")


@setup_logging.connect
def keep_django_logging(**_: Any) -> None:
    """Worker and Beat log as LOGGING says. That somebody listens here is what keeps Celery from its own set-up."""
