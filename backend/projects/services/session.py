"""Sessions: how people get in with a name and a password, and out again."""

from django.contrib.sessions.backends.base import SessionBase
from django.db import connection, transaction

from .. import audit, journal
from ..access import Viewer
from ..events import AccessChanged
from ..models import AuditAction, User

# Of the locks with two keys; those with one, such as the journal's, are apart from them.
_TRY_LOCK = 0x7A5_3142


def take_turn(*, key: str) -> None:
    """Wait until nobody else tries to sign in under `key`, and have others wait until the commit.

    A password takes a while to check: tries that do not wait for one another are all let through before the first of
    them is counted. Raises RuntimeError outside a transaction.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("session.take_turn() belongs in the transaction of the try.")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_TRY_LOCK, key])


@transaction.atomic
def record_sign_in(*, actor: Viewer, user: User, instead_of: User | None) -> None:
    """Note that `user` is signed in, and whose session that has ended. The latter takes a position, as `sign_out`."""
    if instead_of is not None:
        audit.record(AuditAction.SIGNED_OUT, actor=actor, user=instead_of)
    audit.record(AuditAction.SIGNED_IN, actor=actor, user=user)
    if instead_of is not None:
        journal.append(AccessChanged([instead_of.pk]), actor=actor)


@transaction.atomic
def record_failure(*, actor: Viewer, username: str, is_locked_out: bool) -> None:
    """Note a try that was refused: at whose account, but never what was typed where there is none of that name."""
    try:
        user = User.objects.get_by_natural_key(username)
    except User.DoesNotExist:
        user = None
    detail = "Locked out" if is_locked_out else ""
    audit.record(AuditAction.SIGN_IN_FAILED, actor=actor, user=user, detail=detail)


@transaction.atomic
def sign_out(*, actor: Viewer, user: User, session: SessionBase) -> None:
    """End a session of `user`. It takes a position: every open socket of it is closed."""
    session.flush()
    audit.record(AuditAction.SIGNED_OUT, actor=actor, user=user)
    journal.append(AccessChanged([user.pk]), actor=actor)
