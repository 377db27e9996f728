from getpass import getuser
from typing import Any

from django.contrib.auth.management.commands import changepassword
from django.db import transaction

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import User


class Command(changepassword.Command):
    """Django's own, after which whoever was signed in with the old password no longer is, on open sockets either."""

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> str | None:
        said: str | None = super().handle(*args, **options)
        user = User.objects.get(username=options["username"] or getuser())
        services.user.end_sessions(actor=SYSTEM, user=user)
        return said
