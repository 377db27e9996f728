"""Background jobs. Beat starts only scans, and each scan queues a job for everything that is due.

PostgreSQL records which jobs are due, claimed and done. A message that is lost, late or delivered twice changes
nothing: the next scan queues what is not done, and no job has its effect twice.
"""

from typing import Any

from django.db import InterfaceError, OperationalError

SCAN_EVERY_S = 60
# Once a day would be enough, except on a machine that is switched off at night: until a job has run once, Beat restarts
# its interval at each start. A trim that finds nothing takes milliseconds.
TRIM_EVERY_S = 3600

# A message expires when the next scan queues the same job again, so the queue does not grow while no worker runs.
EXPIRES_S = SCAN_EVERY_S

# Options of every job. It is safe to run twice, so it is acknowledged when it is done; it is retried for about a minute
# while the database is down, and killed after `time_limit` seconds, well before a claim lapses (services.mail.LEASE).
JOB: dict[str, Any] = {
    "acks_late": True,
    "autoretry_for": (OperationalError, InterfaceError),
    "retry_backoff": True,
    "max_retries": 5,
    "time_limit": 120,
    "expires": EXPIRES_S,
}
