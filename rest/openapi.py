"""The OpenAPI document, from what the views declare: nothing is described twice."""

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

_IDS = {name: OpenApiParameter(name, int, "path") for name in ("id", "user_id")}
_IF_MATCH = OpenApiParameter("If-Match", str, _HEADER, description='Change only this version: `"3"`.')
_IF_NONE_MATCH = OpenApiParameter("If-None-Match", str, _HEADER, description="Answer 304 where this is still current.")
_X_CURSOR = OpenApiParameter(
    "X-Cursor", str, _HEADER, response=[200, 304], description="The position this was read at: listen `after` it."
)
_ETAG = OpenApiParameter("ETag", str, _HEADER, response=[200, 304])
_LINK = OpenApiParameter("Link", str, _HEADER, response=[200], description='The next page, `rel="next"`.')
_TOTAL = OpenApiParameter("X-Total-Count", int, _HEADER, response=[200], description="With `count=1`.")
_LOCATION = OpenApiParameter("Location", str, _HEADER, response=[201], required=True)
_LAST_EVENT_ID = OpenApiParameter("Last-Event-ID", str, _HEADER, description="Of a stream: where to go on.")
_CHALLENGE = OpenApiParameter("WWW-Authenticate", str, _HEADER, response=[401], required=True)
_SCOPE_CHALLENGE = OpenApiParameter(
    "WWW-Authenticate", str, _HEADER, response=[403], description="Where a token is for less than this."
)

_BAD_REQUEST = {
    "type": "object",
    "description": "Messages per field or parameter; `detail` where the request as a whole cannot be read.",
    "additionalProperties": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]},
}


class ViewerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Either a token or a session."""

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
    """Reads `parameters`, `body`, `shape`, `is_list` and `has_etag` off a `rest.base.View`."""

    @property
    def _declared(self) -> View:
        return cast("View", self.view)

    @property
    def _ids(self) -> list[OpenApiParameter]:
        return [parameter for name, parameter in _IDS.items() if f"{{{name}}}" in self.path]

    @property
    def _has_body(self) -> bool:
        return self.method in ("POST", "PUT", "PATCH")

    @property
    def _is_conditional(self) -> bool:
        return self._declared.has_etag and self.method in ("PUT", "PATCH", "DELETE")

    def get_request_serializer(self) -> Any:
        return self._declared.body

    def get_override_parameters(self) -> list[Any]:
        parameters: list[Any] = [_CHALLENGE, *self._ids]
        if self._is_conditional:
            parameters.append(_IF_MATCH)
        if self.method != "GET":
            parameters.append(_SCOPE_CHALLENGE)
        if self.method == "POST":
            parameters.append(_LOCATION)
        if self.method == "GET":
            parameters += self._parameters_of_get()
        return parameters

    def _parameters_of_get(self) -> list[Any]:
        parameters: list[Any] = [_X_CURSOR]
        if self._declared.parameters().fields:
            parameters.append(self._declared.parameters)
        if self._declared.has_etag:
            parameters += [_IF_NONE_MATCH, _ETAG]
        if self._declared.is_list:
            parameters += [_LINK, _TOTAL]
        return parameters

    def get_response_serializers(self) -> Any:
        return {(code, _JSON): answer for code, answer in {**self._answers(), **self._refusals()}.items()}

    def _answers(self) -> dict[int, Any]:
        shape = self._declared.shape
        match self.method:
            case "DELETE":
                return {204: None}
            case "POST":
                return {201: shape}
            case "GET" if self._declared.has_etag:
                return {
                    200: shape(many=self._declared.is_list),
                    304: OpenApiResponse(description="What you hold is current"),
                }
            case "GET":
                return {200: shape(many=self._declared.is_list)}
        return {200: shape}

    def _refusals(self) -> dict[int, Any]:
        detail = serializers.Refusal
        refusals: dict[int, Any] = {
            400: OpenApiResponse(_BAD_REQUEST, "Not acceptable"),
            401: OpenApiResponse(detail, "Not signed in"),
        }
        if self.method != "GET":
            refusals[403] = OpenApiResponse(
                serializers.RefusedAction, "You may see it, but not do this; or your token is for less"
            )
        if self._ids:
            refusals[404] = OpenApiResponse(detail, "Not there, or not visible to you")
        if self._is_conditional:
            refusals[412] = OpenApiResponse(
                self._declared.shape, "`If-Match` names an old version: this is the present one"
            )
        if self._has_body:
            refusals[413] = OpenApiResponse(detail, "The body is too large")
            refusals[415] = OpenApiResponse(detail, "The body is no JSON")
        return refusals


class DescribedEvents(Described):
    """Besides a page, the stream, and the ways in which either cannot go on."""

    def get_override_parameters(self) -> list[Any]:
        return [*super().get_override_parameters(), _LAST_EVENT_ID]

    def get_response_serializers(self) -> Any:
        return {
            **super().get_response_serializers(),
            (200, "text/event-stream"): OpenApiTypes.STR,
            (404, _JSON): OpenApiResponse(serializers.Refusal, "The stream is of a project that you do not see"),
            (410, _JSON): OpenApiResponse(serializers.RefusedResume, "No longer kept, or not yet reached"),
            (429, _JSON): OpenApiResponse(serializers.Refusal, "Too many streams of yours are open; see `Retry-After`"),
        }
