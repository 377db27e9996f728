"""Sign-in with a name and a password, and sign-out."""

from collections.abc import Sequence

from django.contrib.sessions.backends.base import SessionBase
from django.db import connection, transaction

from .. import audit, journal
from ..access import Viewer
from ..events import AccessChanged
from ..models import AuditAction, User

# The first of two keys. Advisory locks with two keys are separate from those with one, such as the journal's.
_ATTEMPT_LOCK = 0x7A5_3142


def serialize_attempts(*, keys: Sequence[str]) -> None:
    """Serialize the attempts to sign in under each key: wait for other attempts, and block them until the commit.

    Otherwise many concurrent attempts would be admitted before the first failure is counted, since checking a password
    takes long. All callers pass the kinds of keys in one order, such as the address first, so that no two attempts
    deadlock. Raises RuntimeError outside a transaction.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("session.serialize_attempts() belongs in the transaction of the attempt.")
    with connection.cursor() as cursor:
        for key in keys:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_ATTEMPT_LOCK, key])


@transaction.atomic
def record_sign_in(*, actor: Viewer, user: User, instead_of: User | None) -> None:
    """Record the sign-in of `user`, and the sign-out of `instead_of`, which takes a position as in `sign_out`."""
    if instead_of is not None:
        audit.record(AuditAction.SIGNED_OUT, actor=actor, user=instead_of)
    audit.record(AuditAction.SIGNED_IN, actor=actor, user=user)
    if instead_of is not None:
        journal.append(AccessChanged([instead_of.pk]), actor=actor)


@transaction.atomic
def record_failure(*, actor: Viewer, username: str, is_locked_out: bool) -> None:
    """Record a failed sign-in, with the user of this name if there is one. The name itself is not recorded."""
    try:
        user = User.objects.get_by_natural_key(username)
    except User.DoesNotExist:
        user = None
    detail = "Locked out" if is_locked_out else ""
    audit.record(AuditAction.SIGN_IN_FAILED, actor=actor, user=user, detail=detail)


@transaction.atomic
def sign_out(*, actor: Viewer, user: User, session: SessionBase) -> None:
    """Delete a session of `user`. This takes a position, which closes every open socket of the session."""
    session.flush()
    audit.record(AuditAction.SIGNED_OUT, actor=actor, user=user)
    journal.append(AccessChanged([user.pk]), actor=actor)
