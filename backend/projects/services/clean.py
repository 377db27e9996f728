"""What every service asks of the text and numbers it is given, before it writes them."""

from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.db.models import Model

from ..errors import Conflict
from ..rows import ProjectRow, TaskRow


def clean_fields(instance: Model, names: Iterable[str]) -> None:
    """Check these fields of `instance`. Raises ValidationError, with messages per field and codes in capitals."""
    names = set(names)
    try:
        instance.clean_fields(exclude={field.name for field in instance._meta.fields} - names)
    except ValidationError as error:
        raise ValidationError(
            {
                field: [
                    ValidationError(one.message, code=(one.code or "invalid").upper(), params=one.params)
                    for one in errors
                ]
                for field, errors in error.error_dict.items()
            }
        ) from None


def check_version(row: ProjectRow | TaskRow, version: int | None) -> None:
    """Raises Conflict where the writer names a version, and the row has moved on from it."""
    if version not in (None, row.version):
        raise Conflict(row)


def tidy(text: object) -> object:
    """Names and titles carry no space around them; what is no text is left for `clean_fields` to refuse."""
    return text.strip() if isinstance(text, str) else text
