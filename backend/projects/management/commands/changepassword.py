from getpass import getuser
from typing import Any

from django.contrib.auth.management.commands import changepassword
from django.db import transaction

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import User


class Command(changepassword.Command):
    """Django's command. It also ends the sessions of the old password, and closes their open sockets."""

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> str | None:
        output: str | None = super().handle(*args, **options)
        user = User.objects.get(username=options["username"] or getuser())
        services.user.end_sessions(actor=SYSTEM, user=user)
        return output
