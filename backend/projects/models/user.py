from __future__ import annotations

from typing import ClassVar

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AbstractUser, UserManager
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Upper

from .text import validate_storable

MAX_NAME = 150  # characters, as in Django's field


class CaseInsensitiveUserManager(UserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> User:
        """Return the user with this name, ignoring case and Unicode form. Raises User.DoesNotExist.

        Sign-in, commands and invitations use it.
        """
        name = username or ""
        if len(name) > MAX_NAME:  # checked before normalization, which takes quadratic time
            raise self.model.DoesNotExist
        name = self.model.normalize_username(name)
        try:
            validate_storable(name)
        except ValidationError:
            raise self.model.DoesNotExist from None
        return self.get(username__iexact=name)

    async def aget_by_natural_key(self, username: str | None) -> User:
        return await sync_to_async(self.get_by_natural_key)(username)


class User(AbstractUser):
    """An account. Other users see its `display_name`."""

    id: int

    objects: ClassVar[CaseInsensitiveUserManager] = CaseInsensitiveUserManager()

    class Meta(AbstractUser.Meta):  # type: ignore[name-defined,misc]
        constraints = [
            # `iexact` compares upper case, so this index serves it.
            models.UniqueConstraint(
                Upper("username"),
                name="user_name_once",
                violation_error_code="unique",
                violation_error_message="A user with that name already exists, in this case or another.",
            )
        ]

    @property
    def display_name(self) -> str:
        return self.get_full_name() or self.username
