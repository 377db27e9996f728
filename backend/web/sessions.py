"""The session engine (`SESSION_ENGINE`)."""

from typing import Any

from django.contrib.sessions.backends import db
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.base_session import AbstractBaseSession

from backend.projects.errors import is_unavailable


class SessionStore(db.SessionStore):
    """Django's database sessions, without a query for a cookie that cannot be a session key."""

    def _validate_session_key(self, key: Any) -> bool:
        is_valid: bool = super()._validate_session_key(key)  # type: ignore[misc]
        return is_valid and key.isascii() and key.isalnum()

    def save(self, must_create: bool = False) -> None:
        """Raise the error of a database that cannot be reached. Django treats every error as an ended session (400)."""
        try:
            super().save(must_create)
        except UpdateError as error:
            if is_unavailable(error.__context__):
                raise error.__context__ from None  # type: ignore[misc]
            raise

    @classmethod
    def get_model_class(cls) -> type[AbstractBaseSession]:
        return db.SessionStore.get_model_class()
