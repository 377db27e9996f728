"""Generates the OpenAPI document from the views' declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from . import serializers

if TYPE_CHECKING:
    from .base import View

_JSON = "application/json"
_HEADER: Final = "header"

_ID_PARAMETERS = {name: OpenApiParameter(name, int, "path") for name in ("id", "user_id", "invitation_id")}
_IF_MATCH = OpenApiParameter("If-Match", str, _HEADER, description='Write only if this is the current version: `"3"`.')
_IF_NONE_MATCH = OpenApiParameter("If-None-Match", str, _HEADER, description="Return 304 if this ETag is current.")
_X_CURSOR = OpenApiParameter(
    "X-Cursor", str, _HEADER, response=[200, 304], description="The position before this was read: listen `after` it."
)
_ETAG = OpenApiParameter("ETag", str, _HEADER, response=[200, 304])
_LINK = OpenApiParameter("Link", str, _HEADER, response=[200], description='The next page, with `rel="next"`.')
_TOTAL_COUNT = OpenApiParameter("X-Total-Count", int, _HEADER, response=[200], description="With `count=1`.")
_LOCATION = OpenApiParameter("Location", str, _HEADER, response=[201], required=True)
_LAST_EVENT_ID = OpenApiParameter("Last-Event-ID", str, _HEADER, description="The position to resume a stream from.")
_CHALLENGE = OpenApiParameter("WWW-Authenticate", str, _HEADER, response=[401], required=True)
_SCOPE_CHALLENGE = OpenApiParameter(
    "WWW-Authenticate", str, _HEADER, response=[403], description="If the token's scope is too small."
)

# Components that all operations share.
_RATE_LIMITS = {
    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
    "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
}
_HEADERS = {
    "RateLimit": {
        "schema": {"type": "string"},
        "description": "What is left of each budget that the request was charged to: `r` units, and all of them again "
        "in `t` seconds. A request that is refused before it is charged, and a cached response, have none.",
        "example": '"cost";r=59990;t=1, "writes";r=599;t=1',
    },
    "RateLimitPolicy": {
        "schema": {"type": "string"},
        "description": "These budgets: `q` units, which are restored in `w` seconds.",
        "example": '"cost";q=60000;w=60, "writes";q=600;w=60',
    },
    "RetryAfter": {
        "schema": {"type": "integer", "minimum": 1},
        "required": True,
        "description": "The seconds to wait before the next attempt.",
    },
}
_REFUSAL_TO_RETRY = {
    "headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}, **_RATE_LIMITS},
    "content": {
        _JSON: {
            "schema": {
                "type": "object",
                "properties": {"detail": {"type": "string"}, "code": {"type": "string"}},
                "required": ["detail"],
            }
        }
    },
}
_RESPONSES = {
    "RateLimited": {
        "description": "Your budget is spent, or your account has too many streams. Nothing was changed.",
        **_REFUSAL_TO_RETRY,
    },
    "Unavailable": {
        "description": "The database is not available, or the request took too long.",
        **_REFUSAL_TO_RETRY,
    },
}

_BAD_REQUEST = {
    "type": "object",
    "description": "Messages per field or parameter; `detail` if the request itself is malformed.",
    "additionalProperties": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]},
}


class ViewerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """A token or a session."""

    target_class = "rest.authentication.ViewerAuthentication"
    name = ["token", "session"]

    def get_security_requirement(self, auto_schema: AutoSchema) -> list[dict[str, list[Any]]]:
        return [{name: []} for name in self.name]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, Any]]:
        return [
            {"type": "http", "scheme": "bearer"},
            {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME},
        ]


class Described(AutoSchema):
    """Reads `parameters`, `body`, `shape`, `is_list` and `has_etag` of a `rest.base.View`."""

    @property
    def _typed_view(self) -> View:
        return cast("View", self.view)

    @property
    def _ids(self) -> list[OpenApiParameter]:
        return [parameter for name, parameter in _ID_PARAMETERS.items() if f"{{{name}}}" in self.path]

    @property
    def _has_body(self) -> bool:
        return self.method in ("POST", "PUT", "PATCH")

    @property
    def _is_conditional(self) -> bool:
        return self._typed_view.has_etag and self.method in ("PUT", "PATCH", "DELETE")

    def get_request_serializer(self) -> Any:
        return self._typed_view.body

    def get_override_parameters(self) -> list[Any]:
        parameters: list[Any] = [_CHALLENGE, *self._ids]
        if self._is_conditional:
            parameters.append(_IF_MATCH)
        if self.method != "GET":
            parameters.append(_SCOPE_CHALLENGE)
        if self.method == "POST" and self._typed_view.creates:
            parameters.append(_LOCATION)
        if self.method == "GET":
            parameters += self._parameters_of_get()
        return parameters

    def _parameters_of_get(self) -> list[Any]:
        parameters: list[Any] = [_X_CURSOR]
        if self._typed_view.parameters().fields:
            parameters.append(self._typed_view.parameters)
        if self._typed_view.has_etag:
            parameters += [_IF_NONE_MATCH, _ETAG]
        if self._typed_view.is_list:
            parameters += [_LINK, _TOTAL_COUNT]
        return parameters

    def get_response_serializers(self) -> Any:
        return {(code, _JSON): response for code, response in {**self._successes(), **self._errors()}.items()}

    def _successes(self) -> dict[int, Any]:
        shape = self._typed_view.shape
        match self.method:
            case "DELETE":
                return {204: None}
            case "POST" if not self._typed_view.creates:
                return {204: None}
            case "POST":
                return {201: shape}
            case "GET" if self._typed_view.has_etag:
                return {
                    200: shape(many=self._typed_view.is_list),
                    304: OpenApiResponse(description="The `If-None-Match` ETag is current"),
                }
            case "GET":
                return {200: shape(many=self._typed_view.is_list)}
        return {200: shape}

    def _errors(self) -> dict[int, Any]:
        detail = serializers.Refusal
        errors: dict[int, Any] = {
            400: OpenApiResponse(_BAD_REQUEST, "Invalid"),
            401: OpenApiResponse(detail, "Not signed in"),
        }
        if self.method != "GET":
            errors[403] = OpenApiResponse(
                serializers.RefusedAction, "You may only see it, or your token's scope is too small"
            )
        if self._ids:
            errors[404] = OpenApiResponse(detail, "Absent, or not visible to you")
        if self._is_conditional:
            errors[412] = OpenApiResponse(
                self._typed_view.shape, "`If-Match` is out of date; this is the current version"
            )
        if self._has_body:
            errors[413] = OpenApiResponse(detail, "The body is too large")
            errors[415] = OpenApiResponse(detail, "The body is not JSON")
        return errors


class DescribedEvents(Described):
    """Adds the stream and its errors."""

    def get_override_parameters(self) -> list[Any]:
        return [*super().get_override_parameters(), _LAST_EVENT_ID]

    def get_response_serializers(self) -> Any:
        return {
            **super().get_response_serializers(),
            (200, "text/event-stream"): OpenApiTypes.STR,
            (404, _JSON): OpenApiResponse(serializers.Refusal, "The project of the stream is not visible to you"),
            (410, _JSON): OpenApiResponse(serializers.RefusedResume, "Position no longer retained or not yet reached"),
        }


def add_shared_components(result: dict[str, Any], **_: object) -> dict[str, Any]:
    """Add to each operation the rate limits of its responses, and the refusals that ask for another attempt later."""
    result["components"] |= {"headers": _HEADERS, "responses": _RESPONSES}
    for operations in result["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                response.setdefault("headers", {}).update(_RATE_LIMITS)
            operation["responses"]["429"] = {"$ref": "#/components/responses/RateLimited"}
            operation["responses"]["503"] = {"$ref": "#/components/responses/Unavailable"}
    return result
