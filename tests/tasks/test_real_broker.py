"""Beat and a worker on a real broker: scheduled jobs are executed."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import pytest
from django.conf import settings
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError

from backend.celery import app
from backend.projects.models import Project, Reminder, Role, SummaryReport
from tasks.schedule import Scheduler
from tests import processes
from tests.cases import CommittingCase, database_url
from tests.factories import MembershipFactory, TaskFactory
from tests.processes import Process

DEADLINE_S = 20.0


@pytest.mark.server
@pytest.mark.slow
class BrokerCase(CommittingCase):
    """Starts beat and a worker on the test database, with a queue of their own."""

    def use_broker(self, url: str, **transport_options: Any) -> None:
        self.broker = self.enterContext(Connection(url, transport_options=transport_options))
        self.queue = f"taskwire-test-{uuid4().hex}"
        self.outbox = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.logs = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.environment = {
            **os.environ,
            "BROKER_URL": url,
            "DATABASE_URL": database_url(),
            "EMAIL_URL": f"filemail:///{quote(str(self.outbox))}",
            "QUEUE": self.queue,
            "SUMMARY_HOUR": "0",
        }
        self.addCleanup(self.delete_queue)

    def delete_queue(self) -> None:
        """Delete the queue and its exchange. Redis deletes only what this connection has declared."""
        channel = self.broker.default_channel
        queue = Queue(self.queue, Exchange(self.queue), self.queue)(channel)
        queue.declare()
        queue.delete()
        queue.exchange.delete()

    def start(self, *arguments: str) -> None:
        """Start `celery <arguments>`. The end of the test stops it."""
        with (self.logs / arguments[0]).open("w") as log:
            process = processes.libraries().start(
                "celery",
                ["--app", "backend", *arguments],
                environment=self.environment,
                stdout=log.fileno(),
                stderr=log.fileno(),
            )
        self.addCleanup(self.stop, process)

    def stop(self, process: Process) -> None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def await_true(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                self.fail("\n".join(log.read_text() for log in self.logs.iterdir()))
            time.sleep(0.05)

    def assert_scheduled_jobs_are_executed(self) -> None:
        member = MembershipFactory(role=Role.OWNER, user__email="ada@example.org")
        task = TaskFactory(
            project=member.project,
            assignee=member.user,
            title="Ship it",
            due_date=timezone.now() + timedelta(hours=1),
        )
        Project.objects.update(created_at=timezone.now() - timedelta(days=1))
        Scheduler(app=app)
        PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(hours=1))

        self.start("worker", "--concurrency", "1", "--hostname", self.queue, "--without-gossip", "--without-mingle")
        self.start("beat", "--pidfile=")

        self.await_true(lambda: Reminder.objects.filter(task=task).exclude(sent_at=None).exists())
        self.await_true(lambda: self.events() == ["report.generated"])
        (mail,) = [file.read_text() for file in self.outbox.iterdir()]
        self.assertIn("To: ada@example.org", mail)
        self.assertIn(": Ship it\n", mail)
        self.assertEqual(SummaryReport.objects.get().project_id, member.project.pk)


class RabbitMQTests(BrokerCase):
    def test_a_worker_executes_the_scans_that_beat_schedules(self) -> None:
        url = settings.CELERY_BROKER_URL
        self.use_broker(url if url.startswith("amqp") else "amqp://guest:guest@127.0.0.1:5672//")
        self.assert_scheduled_jobs_are_executed()

    def use_broker(self, url: str, **transport_options: Any) -> None:
        """Skip the test where no RabbitMQ responds; fail in CI."""
        try:
            with Connection(url, connect_timeout=2) as connection:
                connection.connect()
        except (OSError, OperationalError) as error:
            reason = f"No RabbitMQ answers at {urlsplit(url).hostname}: {error}"
            if os.environ.get("CI") == "true":
                self.fail(reason)
            self.skipTest(reason)
        super().use_broker(url, **transport_options)


class RedisTests(BrokerCase):
    def test_a_worker_executes_the_scans_that_beat_schedules(self) -> None:
        self.use_broker(redis_broker_url(), global_keyprefix=f"{settings.REDIS_PREFIX}:")
        self.assert_scheduled_jobs_are_executed()


def redis_broker_url() -> str:
    """Return the broker of this run if it is a Redis, else another database of the Redis of the cache."""
    if "redis" in urlsplit(settings.CELERY_BROKER_URL).scheme:
        return settings.CELERY_BROKER_URL
    cache = urlsplit(settings.REDIS_URL)
    if cache.scheme == "unix":
        return f"redis+socket://{cache.path}?virtual_host=15"
    return cache._replace(path="/15", query="").geturl()
