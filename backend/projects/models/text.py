"""Text from clients: validation, and normalization for search."""

from django.core.exceptions import ValidationError
from django.db.models import F, Func, TextField, Value
from django.db.models.functions import Concat, Upper

# pg_trgm indexes letters and digits only: for "the page", it would return every text with "the" and with "page". So
# text is converted to upper case, and small letters replace the signs. This leaves no wildcards of LIKE.
_SIGNS = " \n\t.,:;-_/%\\()[]'\"!?+*#&"
_LETTERS = "qjzxkvwybpgfhmcduoltrasi"
# The separator of columns. No sign is replaced by it, so no match spans two columns.
_SEPARATOR = "n"


def validate_storable(text: str) -> None:
    """Reject NUL characters, which PostgreSQL cannot store, and lone surrogates, which UTF-8 cannot encode."""
    if "\x00" in text:
        raise ValidationError("NUL characters are not allowed.", code="null_characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("Lone surrogate characters are not allowed.", code="surrogates") from None


def searchable(*fields: str) -> Func:
    """The text of some columns, normalized for search: texts that differ only in case become equal."""
    columns = [Upper(F(field)) for field in fields]
    parts = [part for column in columns for part in (Value(_SEPARATOR), column)][1:]
    return _replace_signs(Concat(*parts, output_field=TextField()))


def search_pattern(text: str) -> Func:
    """Normalize `text` like `searchable`. The result is a LIKE pattern without wildcards."""
    return _replace_signs(Upper(Value(text)))


def _replace_signs(text: Func) -> Func:
    return Func(text, Value(_SIGNS), Value(_LETTERS), function="translate", output_field=TextField())
