from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.core.management.base import BaseCommand, CommandError

from backend.projects import access, services
from backend.projects.access import SYSTEM, parse_id
from backend.projects.models import Scope, User
from backend.projects.services.mail import one_line
from backend.projects.services.token import DAYS, MAX_DAYS

HEADINGS = ("id", "user", "name", "scope", "created (UTC)", "expires (UTC)", "last use (UTC)")


class Command(BaseCommand):
    help = "Create, list and revoke tokens, which scripts use to sign in."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="create a token and print it")
        create.add_argument("user", help="name of the user")
        create.add_argument("--scope", required=True, choices=Scope.values, help="what the token may do for its user")
        create.add_argument("--name", default="made with manage.py", help="the purpose of the token, as shown in lists")
        expiry = create.add_mutually_exclusive_group()
        expiry.add_argument(
            "--days", type=int, default=DAYS, help=f"days until it expires, 1 to {MAX_DAYS} (default: {DAYS})"
        )
        expiry.add_argument("--never-expires", dest="days", action="store_const", const=None)
        list_ = actions.add_parser("list", help="show tokens, oldest first")
        list_.add_argument("user", nargs="?", help="name of a user (default: all users)")
        revoke = actions.add_parser("revoke", help="revoke a token at once, and close its open sockets")
        revoke.add_argument("id", help="the id of the token, as shown by `list`")

    def handle(self, *, action: str, **options: Any) -> None:
        with _errors_in_one_line():
            match action:
                case "create":
                    self._create(**{name: options[name] for name in ("user", "name", "scope", "days")})
                case "list":
                    self._list(options["user"])
                case "revoke":
                    self._revoke(options["id"])

    def _create(self, *, user: str, name: str, scope: str, days: int | None) -> None:
        """Write nothing but the token to stdout, so that scripts can capture it."""
        owner = _user(user)
        if not owner.is_active:
            raise CommandError(f"{owner.username} is not active.")
        token, secret = services.token.create_token(actor=SYSTEM, user_id=owner.pk, name=name, scope=scope, days=days)
        expiry = f"expires at {token.expires_at:%Y-%m-%d %H:%M} UTC" if token.expires_at else "never expires"
        self.stderr.write(f"Token {token.pk} of {owner.username} {expiry}. Store it now: it is not shown again.")
        self.stdout.write(secret)

    def _list(self, user: str | None) -> None:
        tokens = access.tokens_of(SYSTEM).select_related("user").order_by("pk")
        if user is not None:
            tokens = tokens.filter(user=_user(user))
        rows = [HEADINGS]
        for token in tokens:
            times = (_minute(token.created_at), _minute(token.expires_at), _minute(token.last_used_at))
            rows.append((str(token.pk), token.user.username, one_line(token.name), token.scope, *times))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())

    def _revoke(self, id: str) -> None:
        row = services.token.revoke_token(actor=SYSTEM, token_id=parse_id(id))
        self.stdout.write(f"Token {row.id} is revoked.")


def _user(name: str) -> User:
    try:
        return User.objects.get_by_natural_key(name)
    except User.DoesNotExist:
        raise CommandError(f"There is no user {name!r}.") from None


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "never"


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from None
    except ObjectDoesNotExist as error:
        raise CommandError(str(error)) from None
