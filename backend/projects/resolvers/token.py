from .. import access
from ..access import Viewer
from ..rows import TokenRow
from .page import Listing, Order, Page, PageRequest

TOKENS = Listing("tokens", None, Order())


def list_tokens(viewer: Viewer, *, page: PageRequest, default_size: int) -> Page[TokenRow]:
    """One's own, newest first; not cached, since their use takes no position.

    Raises NotSignedIn, MissingScope, BadArgument.
    """
    return TOKENS.page(access.tokens_of(viewer), page, TokenRow, default_size=default_size)


def count_tokens(viewer: Viewer) -> int:
    """Raises NotSignedIn, MissingScope."""
    return access.tokens_of(viewer).count()
