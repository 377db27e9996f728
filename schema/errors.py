"""Top-level errors. Each has `extensions.code`; an internal error shows neither a stack trace nor SQL."""

from __future__ import annotations

import logging
from typing import Any

from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.utils.str_converters import to_camel_case

from backend.projects.errors import (
    BadArgument,
    MissingScope,
    NotAllowed,
    NotFound,
    NotSignedIn,
    OperationTimedOut,
    RateLimited,
    ResponseTooLarge,
    ResumeRefused,
    Unavailable,
    is_unavailable,
)

logger = logging.getLogger(__name__)


def is_request_error(result: ExecutionResult) -> bool:
    """Whether nothing was executed, because the document, the variables or the operation name were rejected.

    For a subscription: whether the source of events raised an error. An error of a field has a path.
    """
    return result.data is None and any(error.path is None for error in result.errors or ())


def is_internal_error(result: ExecutionResult) -> bool:
    """`describe_all` has to be called first."""
    return any((error.extensions or {}).get("code") == "INTERNAL_SERVER_ERROR" for error in result.errors or ())


def describe_all(result: ExecutionResult) -> None:
    """Replace the errors of `result` by those that the client sees."""
    if result.errors:
        result.errors = [describe(error) for error in result.errors]


def describe(error: GraphQLError) -> GraphQLError:
    """`error` with its code. An internal error is logged, and returned without details."""
    if "code" in (error.extensions or {}):
        return error
    cause = _cause(error)
    extensions: dict[str, Any]
    match cause:
        case BadArgument():
            message = cause.text
            extensions = {"code": "BAD_USER_INPUT", "argument": to_camel_case(cause.argument)}
        case ResumeRefused():
            message, extensions = str(cause), {"code": cause.code, "oldest": str(cause.oldest)}
        case MissingScope():
            message, extensions = str(cause), {"code": cause.code, "scope": cause.scope}
        case RateLimited():
            message, extensions = str(cause), {"code": cause.code, "retryAfter": cause.retry_after_s}
        case NotSignedIn() | NotFound() | NotAllowed() | OperationTimedOut() | ResponseTooLarge():
            message, extensions = str(cause), {"code": cause.code}
        case _ if is_unavailable(cause):
            message, extensions = Unavailable.message, {"code": Unavailable.code}
        case GraphQLSyntaxError():
            message, extensions = error.message, {"code": "GRAPHQL_PARSE_FAILED"}
        case CannotGetOperationTypeError():
            message, extensions = cause.as_http_error_reason(), {"code": "GRAPHQL_VALIDATION_FAILED"}
        case RecursionError():
            message, extensions = "The document is nested too deeply.", {"code": "GRAPHQL_VALIDATION_FAILED"}
        # A number in the document may be too long for Python's parser: a ValueError, but the client's error.
        case GraphQLError() | ValueError() if error.path is None and (error.nodes or cause is error):
            message, extensions = error.message, {"code": "GRAPHQL_VALIDATION_FAILED"}
        case _:
            logger.error("An operation failed: %s", error.message, exc_info=cause)
            message, extensions = "Something went wrong on our side.", {"code": "INTERNAL_SERVER_ERROR"}
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )


def refusal(result: ExecutionResult) -> MissingScope | RateLimited | None:
    """The error, if nothing was executed because the token's scope is too small, or because a budget is spent."""
    causes = [_cause(error) for error in result.errors or ()]
    if result.data is None and causes:
        for refusing in (MissingScope, RateLimited):
            if all(isinstance(cause, refusing) for cause in causes):
                return causes[0]  # type: ignore[return-value]
    return None


def has_unavailable(result: ExecutionResult) -> bool:
    """Whether the database could not be reached."""
    return any(is_unavailable(_cause(error)) for error in result.errors or ())


def _cause(error: GraphQLError) -> Exception:
    cause: Exception = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause
