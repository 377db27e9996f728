"""DRF's exception handler: maps domain errors to HTTP responses."""

import logging
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, RequestDataTooBig, SuspiciousOperation, ValidationError
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler

from backend.projects.authentication import challenge_for
from backend.projects.budget import rate_limit_headers
from backend.projects.cache.validators import NotModified
from backend.projects.errors import (
    BadArgument,
    Conflict,
    MissingScope,
    NotFound,
    NotSignedIn,
    RateLimited,
    ResumeRefused,
    TooManyConnections,
    Unavailable,
    is_unavailable,
)
from backend.projects.rows import CommentRow, TaskRow

logger = logging.getLogger(__name__)

# The domain names fields and arguments after the model's attributes, REST after the rows' JSON names.
REST_NAMES = {
    **CommentRow.json_names(),
    **TaskRow.json_names(),
    NON_FIELD_ERRORS: api_settings.NON_FIELD_ERRORS_KEY,
}


def handle_exception(error: Exception, context: dict[str, Any]) -> Response:
    """The response to an exception in a view. DRF handles its own errors and Django's PermissionDenied.

    A view may map the domain's argument names to its query parameters in `argument_names`.
    """
    view = context["view"]
    match error:
        case NotSignedIn():
            return Response({"detail": str(error)}, 401, headers={"WWW-Authenticate": challenge_for(error)})
        case MissingScope():
            challenge = {"WWW-Authenticate": challenge_for(error)}
            return Response({"detail": str(error), "scope": error.scope}, 403, headers=challenge)
        case NotModified():
            return Response(status=304, headers={"X-Cursor": str(error.tag_versions.position), "ETag": error.etag})
        case NotFound():
            return Response({"detail": str(error)}, 404)
        case ResumeRefused():
            return Response({"detail": str(error), "code": error.code, "oldest": str(error.oldest)}, 410)
        case TooManyConnections():
            return Response({"detail": str(error)}, 429, headers={"Retry-After": str(error.retry_after_s)})
        case RateLimited():
            headers = {"Retry-After": str(error.retry_after_s), **rate_limit_headers(error.balances)}
            return Response({"detail": str(error), "code": error.code}, 429, headers=headers)
        case Conflict():
            return Response(error.current.as_json(), 412)
        case BadArgument():
            names = REST_NAMES | getattr(view, "argument_names", {})
            return Response({names.get(error.argument, error.argument): error.messages}, 400)
        case ValidationError():
            return Response(_messages_by_field(error), 400)
        case RequestDataTooBig():
            return Response({"detail": str(error)}, 413)
        case SuspiciousOperation():
            return Response({"detail": str(error)}, 400)
    if is_unavailable(error):
        body = {"detail": Unavailable.message, "code": Unavailable.code}
        return Response(body, 503, headers={"Retry-After": str(Unavailable.retry_after_s)})
    response = exception_handler(error, context)
    if response is not None:
        return response
    request = context["request"]
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return Response({"detail": "Something went wrong on our side."}, 500)


def _messages_by_field(error: ValidationError) -> dict[str, list[str]]:
    by_field = error.message_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.messages}
    return {REST_NAMES.get(field, field): messages for field, messages in by_field.items()}
