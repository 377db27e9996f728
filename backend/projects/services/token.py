"""Creates and revokes tokens."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from .. import access, audit, budget, journal
from ..access import Viewer
from ..authentication import digest_of, new_token
from ..errors import Invalid, InvalidCredential, NotAllowed, NotSignedIn, TokenNotFound
from ..events import AccessChanged
from ..models import AuditAction, Scope, Token, User
from ..rows import TokenRow
from .validation import clean_fields, stripped

DAYS = 90
MAX_DAYS = 3660


@transaction.atomic
def create_token(*, actor: Viewer, user_id: int | None, name: str, scope: str, days: int | None) -> tuple[Token, str]:
    """Create a token of a user. Return it with its secret, which is not stored. `days` of None means no expiry.

    Raises NotSignedIn (no such active user), MissingScope, NotAllowed (actor is another user), RateLimited,
    ValidationError.
    """
    access.require_scope(actor, Scope.ADMIN)
    if not actor.is_system and user_id != actor.user_id:
        raise NotAllowed
    budget.charge(actor, [(budget.tokens_policy(), 1)])
    user = User.objects.filter(pk=user_id, is_active=True).first() if user_id is not None else None
    if user is None or not access.lock_reference(User, user.pk):
        raise NotSignedIn
    # Lock the actor's own token, so that a token that is being revoked creates no other.
    if actor.token_id is not None and not access.lock_reference(Token, actor.token_id):
        raise InvalidCredential("This token is unknown, expired or revoked.")
    secret = new_token()
    token = Token(user=user, digest=digest_of(secret))
    token.name, token.scope = stripped(name), scope  # type: ignore[assignment]
    clean_fields(token, ["name", "scope"])
    if days is not None:
        if not 1 <= days <= MAX_DAYS:
            raise Invalid("days", f"A token lasts 1 to {MAX_DAYS} days.", "OUT_OF_RANGE")
        token.expires_at = timezone.now() + timedelta(days=days)
    if actor.token_id is not None and actor.expires_at is not None:
        # The new token expires no later than the token that creates it.
        token.expires_at = min(token.expires_at or actor.expires_at, actor.expires_at)
    token.save(force_insert=True)
    audit.record(AuditAction.TOKEN_CREATED, actor=actor, user=user, detail=_describe(token))
    return token, secret


@transaction.atomic
def revoke_token(*, actor: Viewer, token_id: int | None) -> TokenRow:
    """Delete a token and return its last state. This takes a position, which closes every open socket of the token.

    Raises TokenNotFound (also for another user's token, unless actor is staff), NotSignedIn, MissingScope.
    """
    tokens = access.revocable_tokens(actor).select_related("user").select_for_update(of=("self",))
    token = tokens.filter(pk=token_id).first() if token_id is not None else None
    if token is None:
        raise TokenNotFound
    row = TokenRow.of(token)
    token.delete()
    audit.record(AuditAction.TOKEN_REVOKED, actor=actor, user=token.user, detail=_describe(token))
    journal.append(AccessChanged([token.user_id]), actor=actor)
    return row


def _describe(token: Token) -> str:
    return f"{token.name} ({Scope(token.scope).label.lower()})"
