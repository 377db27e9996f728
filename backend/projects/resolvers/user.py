from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Exists, OuterRef

from .. import access
from ..access import Viewer
from ..models import User
from ..rows import UserRow


def users_by_id(viewer: Viewer, user_ids: Sequence[int]) -> dict[int, UserRow]:
    """Those of the users who are members of a project that the viewer sees, in one query. For staff, all of them."""
    access.require_access(viewer)
    users = User.objects.filter(pk__in=set(user_ids))
    if not viewer.sees_all:
        users = users.filter(Exists(access.visible_memberships(viewer).filter(user=OuterRef("pk"))))
    return {user.pk: UserRow(user.pk, user.display_name) for user in users}
