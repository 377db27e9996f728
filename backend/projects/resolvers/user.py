from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..models import User


@dataclass(frozen=True, slots=True)
class UserRow:
    """Somebody as others see them."""

    id: int
    name: str


def users_by_id(user_ids: Sequence[int]) -> dict[int, UserRow]:
    """The assignees that rows found visible name, in one query."""
    return {user.pk: UserRow(user.pk, user.display_name) for user in User.objects.filter(pk__in=set(user_ids))}
