"""Text as people send it: what PostgreSQL and UTF-8 cannot hold is refused here, with a message."""

from django.core.exceptions import ValidationError
from django.db.models import F, Func, TextField, Value
from django.db.models.functions import Concat, Upper

# pg_trgm looks at letters and digits alone, and would find "the page" wherever there is "the" and "page". Upper case
# leaves the small letters free to stand for what else people write. Nothing that LIKE takes for a wildcard is left.
_SIGNS = " \n\t.,:;-_/%\\()[]'\"!?+*#&"
_LETTERS = "qjzxkvwybpgfhmcduoltrasi"
# Stands for no sign, so that no text is found across it.
_BETWEEN = "n"


def validate_storable(text: str) -> None:
    """Refuse NUL characters and lone surrogates: the first cannot be stored, the second not even encoded."""
    if "\x00" in text:
        raise ValidationError("NUL characters are not allowed.", code="null_characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("Lone surrogate characters are not allowed.", code="surrogates") from None


def searchable(*fields: str) -> Func:
    """The text of some columns as it is searched: two that are alike but for their case are the same."""
    columns = [Upper(F(field)) for field in fields]
    parts = [part for column in columns for part in (Value(_BETWEEN), column)][1:]
    return _letters_for_signs(Concat(*parts, output_field=TextField()))


def sought(text: str) -> Func:
    """What `text` is in `searchable`: a pattern of LIKE without wildcards."""
    return _letters_for_signs(Upper(Value(text)))


def _letters_for_signs(text: Func) -> Func:
    return Func(text, Value(_SIGNS), Value(_LETTERS), function="translate", output_field=TextField())
