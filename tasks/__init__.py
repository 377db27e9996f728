"""Background work: Beat only scans, and each scan hands out what is due to workers.

The truth about what is due, claimed and done is in PostgreSQL: a message that is lost, late or delivered twice changes
nothing, since the next scan hands out again what is not done, and nothing is done twice.
"""

from typing import Any

from django.db import InterfaceError, OperationalError

SCAN_EVERY_S = 60
# Daily would do, but not on a machine that is switched off at night: until a job has run once, Beat counts anew with
# each start. A trim that finds nothing takes milliseconds.
TRIM_EVERY_S = 3600

# What a scan hands out is gone from the queue when the next one hands it out again: nothing piles up while no
# worker runs.
EXPIRES_S = SCAN_EVERY_S

# How every job runs: safe to run twice, so it is acknowledged when it is done; tried again where the database did not
# answer, for about a minute; killed after `time_limit` seconds, well before a claim lapses (services.mail.LEASE).
JOB: dict[str, Any] = {
    "acks_late": True,
    "autoretry_for": (OperationalError, InterfaceError),
    "retry_backoff": True,
    "max_retries": 5,
    "time_limit": 120,
    "expires": EXPIRES_S,
}
