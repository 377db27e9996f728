"""Authentication at every edge: a token or a session determines the Viewer (docs/decisions/0004-credentials.md).

An `Authorization: Bearer` header takes precedence over a session. A token is stored as its SHA-256. It has 256
random bits, so the slow hash that a password needs would add no safety, only time to every request.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from ipaddress import IPv6Address, IPv6Network, ip_address
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.models import Session
from django.db.models import Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, parse_cookie
from django.utils import timezone
from django.utils.http import is_same_domain

from .access import UNRESTRICTED, Viewer, viewer_for
from .cache.versions import TagVersions, access_tag, is_current, versions_at
from .errors import ForeignOrigin, InvalidCredential, MissingScope, NotSignedIn
from .models import Event, Scope, Token, User

# By this prefix, people and scanners for leaked secrets recognize a token.
_PREFIX = "tw_"
_TOKEN = re.compile(rf"{_PREFIX}[A-Za-z0-9_-]{{43}}")
_RECORD_USE_EVERY = timedelta(minutes=1)
# Seconds for which a checked token needs no SQL, unless the version of its user's access tag changes.
_CHECKED_S = 10.0
_MAX_CHECKED = 10_000


# --- Edges -----------------------------------------------------------------------------------------------
def viewer_of_request(request: HttpRequest) -> Viewer:
    """Raises InvalidCredential; ForeignOrigin where a page of another site uses the session."""
    header = request.headers.get("Authorization")
    if header is not None:
        viewer = viewer_by_header(header, address=address_of_request(request))
        _remember_account(header, viewer)
        return viewer
    viewer = viewer_of_browser(request)
    if viewer.session_key is not None:
        _remember_account(viewer.session_key, viewer)
    origin = request.headers.get("Origin")
    if viewer.is_signed_in and origin is not None and not is_our_origin(origin, request.get_host()):
        raise ForeignOrigin
    return viewer


def viewer_of_browser(request: HttpRequest) -> Viewer:
    """The viewer of the session, for the admin and the account pages. An `Authorization` header is ignored."""
    viewer = viewer_for(request.user)
    session_key = request.session.session_key if viewer.is_signed_in else None
    return replace(viewer, session_key=session_key, address=address_of_request(request))


def viewer_of_socket(scope: dict[str, Any], authorization: str | None = None) -> Viewer:
    """The viewer of a WebSocket handshake. Its origin was checked before. Raises InvalidCredential.

    `authorization` is from the first message: a script in a browser cannot set headers of the handshake.
    """
    address = address_of_scope(scope)
    header = _header(scope, b"authorization") or authorization
    if header is not None:
        return viewer_by_header(header, address=address)
    key = parse_cookie(_header(scope, b"cookie") or "").get(settings.SESSION_COOKIE_NAME)
    by_session = _viewer_by_session(key) if key else None
    return replace(by_session or viewer_for(None), address=address)


def viewer_by_header(header: str, *, address: str) -> Viewer:
    """The viewer of the token in an `Authorization` header. Raises InvalidCredential."""
    token = _bearer(header)
    if token is None:
        raise InvalidCredential("Send a token as `Authorization: Bearer <token>`.")
    return viewer_by_token(token, address=address)


def _bearer(header: str) -> str | None:
    """The token in an `Authorization` header; None where its scheme is not Bearer."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def viewer_by_token(token: str, *, address: str) -> Viewer:
    """Raises InvalidCredential. A token that was checked in the last seconds costs no SQL."""
    if not _TOKEN.fullmatch(token):
        raise InvalidCredential("This is not a token of this server.")
    digest = digest_of(token)
    checked = _checked_tokens.get(digest)
    if checked is None or not checked.is_valid:
        checked = _check(digest)
    return replace(checked.viewer, address=address)


def checked_viewer(header: str | None) -> tuple[Viewer, TagVersions] | None:
    """The viewer of a token that this process has checked before. It is valid while the versions are current.

    None where only `viewer_of_request` can find the viewer. Queries neither Redis nor the database.
    """
    if header is None:
        return (UNRESTRICTED, TagVersions({}, 0)) if settings.ACCESS == "open" else None
    token = _bearer(header)
    checked = None if token is None else _checked_tokens.get(digest_of(token))
    if checked is None or checked.tag_versions is None or checked.is_expired:
        return None
    return checked.viewer, checked.tag_versions


def current_viewer(viewer: Viewer) -> Viewer:
    """Read the account and the credential of a viewer again. Raises InvalidCredential where one is no longer valid."""
    current: Viewer | None
    if viewer.token_id is not None:
        token = _valid_tokens().filter(pk=viewer.token_id).first()
        current = _viewer_by(token) if token else None
        if token is not None:
            _record_use(token)
    elif viewer.session_key is not None:
        current = _viewer_by_session(viewer.session_key)
    elif viewer.user_id is not None:
        user = User.objects.filter(pk=viewer.user_id, is_active=True).first()
        current = viewer_for(user) if user else None
    else:
        return viewer
    if current is None or current.user_id != viewer.user_id:
        raise InvalidCredential("Sign in again: this token or session is no longer valid.")
    return replace(current, address=viewer.address)


def account_of(scope: dict[str, Any]) -> Hashable:
    """The account, a user id, that an HTTP request counts for in the limit of threads. None without a credential.

    Queries nothing: until this process has found the user of a credential, the digest of the credential is returned.
    """
    credential = _header(scope, b"authorization")
    if credential is None:
        cookies = _header(scope, b"cookie")
        credential = parse_cookie(cookies).get(settings.SESSION_COOKIE_NAME) if cookies else None
    if credential is None:
        return None
    digest = digest_of(credential)
    return _accounts.get(digest, digest)


def _remember_account(credential: str, viewer: Viewer) -> None:
    if viewer.user_id is not None:
        digest = digest_of(credential)
        if digest not in _accounts and len(_accounts) >= _MAX_CHECKED:
            _accounts.clear()
        _accounts[digest] = viewer.user_id


# The user ids of valid credentials, by digest.
_accounts: dict[str, int] = {}


def address_of_request(request: HttpRequest) -> str:
    return client_address(request.META.get("REMOTE_ADDR", ""), request.headers.get("X-Forwarded-For"))


def address_of_scope(scope: dict[str, Any]) -> str:
    return client_address((scope.get("client") or ("",))[0], _header(scope, b"x-forwarded-for"))


@lru_cache(maxsize=1024)  # servers call it for every request
def network_of(address: str) -> str | None:
    """The IPv4 address, or the network of the IPv6 address: a home has 2^64 of these. None if it is malformed."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        parsed = parsed.ipv4_mapped or IPv6Network((parsed, 64), strict=False).network_address
    return str(parsed)


def client_address(peer: str, forwarded_for: str | None) -> str:
    """The client's IP address. Behind our own proxy, it is the last address in `X-Forwarded-For`."""
    if settings.TLS_PROXY and forwarded_for:
        peer = forwarded_for.rsplit(",", 1)[-1].strip()
    return peer[:45]


def is_our_origin(origin: str, host: str) -> bool:
    """Whether a page of this origin may use a session here: our own origin, or one that the settings trust."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    if not parts.netloc:  # such as `null`
        return False
    trusted = map(urlsplit, [*settings.CSRF_TRUSTED_ORIGINS, *settings.CORS_ALLOWED_ORIGINS])
    if parts.netloc == host.lower() and (parts.scheme == "https" or not settings.TLS_PROXY):
        return True
    return any(
        # `https://*.example.org` includes all subdomains, as in Django's own check.
        parts.scheme == other.scheme and is_same_domain(parts.netloc, other.netloc.lstrip("*"))
        for other in trusted
    )


def _header(scope: dict[str, Any], name: bytes) -> str | None:
    """The values of all headers of this name, joined. HTTP/2 clients send cookies in several headers."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    values = [value.decode("latin-1") for header, value in headers if header.lower() == name]
    return ("; " if name == b"cookie" else ", ").join(values) if values else None


def challenge_for(error: NotSignedIn | MissingScope) -> str:
    """The `WWW-Authenticate` header of a response with status 401 or 403 (RFC 6750, section 3)."""
    match error:
        case MissingScope():
            details = {"error": "insufficient_scope", "error_description": str(error), "scope": error.scope}
        case InvalidCredential():
            details = {"error": "invalid_token", "error_description": str(error)}
        case _:
            details = {}
    return ", ".join(['Bearer realm="Taskwire"', *(f'{name}="{value}"' for name, value in details.items())])


# --- Sessions --------------------------------------------------------------------------------------------
def _viewer_by_session(key: str) -> Viewer | None:
    """None where the session has ended, the password was changed or the account is gone."""
    store = import_module(settings.SESSION_ENGINE).SessionStore(key)
    user = get_user(SimpleNamespace(session=store))  # type: ignore[arg-type]
    if not isinstance(user, User):
        return None
    expires_at = Session.objects.filter(pk=key).values_list("expire_date", flat=True).first()
    return replace(viewer_for(user), session_key=key, expires_at=expires_at)


# --- Tokens ----------------------------------------------------------------------------------------------
def new_token() -> str:
    return f"{_PREFIX}{secrets.token_urlsafe(32)}"


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _CheckedToken:
    """A token that was valid, and the version of its user's access tag at that time."""

    viewer: Viewer
    tag_versions: TagVersions | None
    until: float  # of `time.monotonic()`

    @property
    def is_expired(self) -> bool:
        expires_at = self.viewer.expires_at
        return time.monotonic() >= self.until or (expires_at is not None and timezone.now() >= expires_at)

    @property
    def is_valid(self) -> bool:
        return not self.is_expired and self.tag_versions is not None and is_current(self.tag_versions)


_checked_tokens: dict[str, _CheckedToken] = {}  # by digest


def _valid_tokens() -> QuerySet[Token]:
    return Token.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=timezone.now()), user__is_active=True
    ).select_related("user")


def _viewer_by(token: Token) -> Viewer:
    return replace(viewer_for(token.user), scope=Scope(token.scope), token_id=token.pk, expires_at=token.expires_at)


def _check(digest: str) -> _CheckedToken:
    """Check the token in the database, and remember the result. Raises InvalidCredential."""
    token, tag_versions = _read_token(digest)
    if tag_versions is not None and not tag_versions.is_known:  # it is known at a second read
        token, tag_versions = _read_token(digest)
    checked = _CheckedToken(_viewer_by(token), tag_versions, time.monotonic() + _CHECKED_S)
    _record_use(token)
    if len(_checked_tokens) >= _MAX_CHECKED:
        _checked_tokens.clear()
    _checked_tokens[digest] = checked
    return checked


def _read_token(digest: str) -> tuple[Token, TagVersions | None]:
    """The token, and the version of its user's access tag. Raises InvalidCredential."""
    # One statement reads the row and the newest position, so the row is as new as the position.
    head = Event.objects.order_by("-position").values("position")[:1]
    token = _valid_tokens().filter(digest=digest).annotate(head=Coalesce(Subquery(head), 0)).first()
    if token is None:
        _checked_tokens.pop(digest, None)
        raise InvalidCredential("This token is unknown, expired or revoked.")
    return token, versions_at([access_tag(token.user_id)], token.head)


def _record_use(token: Token) -> None:
    now = timezone.now()
    if token.last_used_at is None or token.last_used_at <= now - _RECORD_USE_EVERY:
        Token.objects.filter(pk=token.pk, last_used_at=token.last_used_at).update(last_used_at=now)
