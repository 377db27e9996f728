"""The session engine (`SESSION_ENGINE`)."""

from typing import Any

from django.contrib.sessions.backends import db
from django.contrib.sessions.base_session import AbstractBaseSession


class SessionStore(db.SessionStore):
    """Django's database sessions, without a query for a cookie that cannot be a session key."""

    def _validate_session_key(self, key: Any) -> bool:
        is_valid: bool = super()._validate_session_key(key)  # type: ignore[misc]
        return is_valid and key.isascii() and key.isalnum()

    @classmethod
    def get_model_class(cls) -> type[AbstractBaseSession]:
        return db.SessionStore.get_model_class()
