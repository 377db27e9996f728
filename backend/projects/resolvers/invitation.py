"""Lists of invitations, newest first. They are not cached, since an invitation takes no position."""

from __future__ import annotations

from .. import access
from ..access import Viewer
from ..rows import InvitationRow
from .page import Listing, Order, Page, PageRequest


def invitations_listing(project_id: int | None) -> Listing[InvitationRow]:
    """The listing of a project's invitations; for None, of the viewer's own invitations."""
    return Listing("invitations", InvitationRow, project_id, Order())


def list_invitations(viewer: Viewer, *, page: PageRequest) -> Page[InvitationRow]:
    """The viewer's own open invitations. Raises NotSignedIn, BadArgument."""
    return invitations_listing(None).page(access.invitations_of(viewer), page)


def count_invitations(viewer: Viewer) -> int:
    """Raises NotSignedIn."""
    return access.invitations_of(viewer).count()


def list_project_invitations(viewer: Viewer, project_id: int | None, *, page: PageRequest) -> Page[InvitationRow]:
    """The open invitations to a project. Raises ProjectNotFound, NotAllowed (viewer is no owner), BadArgument."""
    invitations = access.invitations_to(viewer, project_id)
    return invitations_listing(project_id).page(invitations, page)


def count_project_invitations(viewer: Viewer, project_id: int | None) -> int:
    """Raises ProjectNotFound, NotAllowed."""
    return access.invitations_to(viewer, project_id).count()
