"""JSON of results, and its largest size."""

from __future__ import annotations

import json
from typing import Any

import orjson
from django.conf import settings

from backend.projects.errors import ResponseTooLarge


def encode(data: Any) -> bytes:
    try:
        return orjson.dumps(data)
    except TypeError:  # a lone surrogate, in a message that quotes the input
        return json.dumps(data, separators=(",", ":")).encode()


def require_size(encoded: bytes) -> bytes:
    """Raises ResponseTooLarge."""
    if len(encoded) > settings.ANSWER_BYTES:
        raise ResponseTooLarge(settings.ANSWER_BYTES)
    return encoded
