"""Validation of clients' values, shared by the services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.db.models import Model

from ..errors import Conflict
from ..models import Project, Task
from ..rows import ProjectRow, TaskRow


def set_fields(instance: Project | Task, changes: Mapping[str, Any]) -> list[str]:
    """Set and validate the fields that differ, and return their names; on a new instance, all fields in `changes`.

    Names and titles are stripped, and a description of None becomes empty. Raises ValidationError.
    """
    values = dict(changes)
    for name in ("name", "title"):
        if name in values:
            values[name] = stripped(values[name])
    if "description" in values:
        values["description"] = values["description"] or ""
    changed = [name for name, value in values.items() if instance.pk is None or getattr(instance, name) != value]
    for name in changed:
        setattr(instance, name, values[name])
    clean_fields(instance, changed)
    return changed


def clean_fields(instance: Model, names: Iterable[str]) -> None:
    """Validate these fields of `instance`. Raises ValidationError, with messages per field and codes in capitals."""
    names = set(names)
    invalid: dict[str, list[ValidationError]] = {}
    try:
        instance.clean_fields(exclude={field.name for field in instance._meta.fields} - names)
    except ValidationError as error:
        invalid = error.error_dict
    for name in names - invalid.keys():
        try:
            validate_length(name, getattr(instance, name))
        except ValidationError as error:
            invalid[name] = error.error_list
    if invalid:
        raise ValidationError(
            {
                field: [
                    ValidationError(item.message, code=(item.code or "invalid").upper(), params=item.params)
                    for item in errors
                ]
                for field, errors in invalid.items()
            }
        )


def validate_length(name: str, text: Any) -> None:
    """Raise ValidationError where `text` is too long for the field `name`, which has no limit in the database.

    Only new values are checked. Longer texts from before the limit remain valid.
    """
    limit = {"description": settings.DESCRIPTION_CHARACTERS, "content": settings.COMMENT_CHARACTERS}.get(name)
    if limit is not None:
        MaxLengthValidator(limit)(text)


def check_version(row: ProjectRow | TaskRow, version: int | None) -> None:
    """Raise Conflict where the writer names a version other than the row's."""
    if version not in (None, row.version):
        raise Conflict(row)


def stripped(text: object) -> object:
    """`text` without surrounding whitespace. Other values are returned as they are; `clean_fields` refuses them."""
    return text.strip() if isinstance(text, str) else text
