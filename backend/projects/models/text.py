"""Text as people send it: what PostgreSQL and UTF-8 cannot hold is refused here, with a message."""

from django.core.exceptions import ValidationError


def validate_storable(text: str) -> None:
    """Refuse NUL characters and lone surrogates: the first cannot be stored, the second not even encoded."""
    if "\x00" in text:
        raise ValidationError("NUL characters are not allowed.", code="null_characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("Lone surrogate characters are not allowed.", code="surrogates") from None
