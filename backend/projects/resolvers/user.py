from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Exists, OuterRef

from .. import access
from ..access import Viewer
from ..models import Membership, User
from ..rows import UserRow


def users_by_id(viewer: Viewer, user_ids: Sequence[int]) -> dict[int, UserRow]:
    """Those of the users who are in a project with the viewer, in one query."""
    access.require_access(viewer)
    users = User.objects.filter(pk__in=set(user_ids))
    if not viewer.sees_all:
        in_common = Membership.objects.filter(user=OuterRef("pk"), project__memberships__user=viewer.user_id)
        users = users.filter(Exists(in_common))
    return {user.pk: UserRow(user.pk, user.display_name) for user in users}
