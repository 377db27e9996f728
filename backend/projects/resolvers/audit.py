from .. import access
from ..access import Viewer
from ..rows import AuditRow
from .page import Listing, Order, Page, PageRequest

AUDIT_LOG = Listing("audit log", AuditRow, None, Order())


def list_entries(viewer: Viewer, *, page: PageRequest) -> Page[AuditRow]:
    """Newest first. Not cached, since an entry takes no position.

    Raises NotSignedIn, MissingScope, NotAllowed (viewer is not staff), BadArgument.
    """
    return AUDIT_LOG.page(access.visible_audit(viewer), page)


def count_entries(viewer: Viewer) -> int:
    """Raises NotSignedIn, MissingScope, NotAllowed."""
    return access.visible_audit(viewer).count()
