"""Search: a substring of the text that people see."""

from typing import TypeVar

from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet

from ..errors import BadArgument
from ..models.text import validate_storable

M = TypeVar("M", bound=Model)

MIN_LETTERS = 3
MAX_MATCHES = 10_000


def check_search(text: str | None) -> None:
    """Raises BadArgument."""
    if text is None:
        return
    try:
        validate_storable(text)
    except ValidationError as error:
        raise BadArgument("search", str(error.message)) from None
    if len(text) < MIN_LETTERS:
        raise BadArgument("search", f"Search for {MIN_LETTERS} letters at least.")


def matching(rows: QuerySet[M], text: str | None, *fields: str) -> QuerySet[M]:
    """The newest `MAX_MATCHES` of the rows with `text` in one of the fields, whatever its case."""
    if text is None:
        return rows
    condition = Q()
    for field in fields:
        condition |= Q(**{f"{field}__icontains": text})
    newest = rows.filter(condition).order_by("-id").values("id")[:MAX_MATCHES]
    return rows.filter(id__in=newest)
