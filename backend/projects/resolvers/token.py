from .. import access
from ..access import Viewer
from ..rows import TokenRow
from .page import Listing, Order, Page, PageRequest

TOKENS = Listing("tokens", TokenRow, None, Order())


def list_tokens(viewer: Viewer, *, page: PageRequest) -> Page[TokenRow]:
    """The viewer's own tokens, newest first. Not cached, since using a token takes no position.

    Raises NotSignedIn, MissingScope, BadArgument.
    """
    return TOKENS.page(access.tokens_of(viewer), page)


def count_tokens(viewer: Viewer) -> int:
    """Raises NotSignedIn, MissingScope."""
    return access.tokens_of(viewer).count()
