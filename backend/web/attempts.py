"""Counts failed attempts to sign in: per name and address, per address, and per name."""

from __future__ import annotations

from typing import Any

from axes.handlers.database import AxesDatabaseHandler
from axes.helpers import get_client_username
from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Q, Sum
from django.http import HttpRequest
from django.utils import timezone


def bounds(name: str, address: str | None) -> list[tuple[Q, int]]:
    """Return the bounds on an attempt: the condition of the failures that each counts, and its limit."""
    return [
        (Q(username=name, ip_address=address), settings.AXES_FAILURE_LIMIT),
        (Q(ip_address=address), settings.SIGN_IN_FAILURES_PER_ADDRESS),
        (Q(username=name), settings.SIGN_IN_FAILURES_PER_NAME),
    ]


class AttemptHandler(AxesDatabaseHandler):  # type: ignore[misc]
    """Also bounds the failures of an address with any names, and those of a name from any addresses.

    django-axes has one limit for all of its parameters, and these two need higher ones.
    """

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Return the failures that django-axes compares with its limit; that limit if another bound is reached."""
        failures: int = super().get_failures(request, credentials)
        if failures >= settings.AXES_FAILURE_LIMIT:
            return failures
        address = request.axes_ip_address  # type: ignore[attr-defined]
        _, *others = bounds(get_client_username(request, credentials), address)
        recent = AccessAttempt.objects.filter(
            others[0][0] | others[1][0], attempt_time__gt=timezone.now() - settings.AXES_COOLOFF_TIME
        )
        counted = recent.aggregate(
            **{f"bound_{number}": Sum("failures_since_start", filter=where) for number, (where, _) in enumerate(others)}
        )
        is_reached = any((counted[f"bound_{number}"] or 0) >= limit for number, (_, limit) in enumerate(others))
        return settings.AXES_FAILURE_LIMIT if is_reached else failures
