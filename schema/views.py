"""GraphQL over HTTP, exactly as the spec has it (https://graphql.github.io/graphql-over-http/draft/); GraphiQL."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, cast

from cross_web import HTTPException, SyncHTTPRequestAdapter
from csp.constants import SELF
from csp.decorators import csp_update
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware, get_token
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from graphql import GraphQLError
from strawberry.django.views import GraphQLView as StrawberryView
from strawberry.django.views import TemporalHttpResponse
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

from backend.projects.access import Viewer, require_access
from backend.projects.authentication import challenge_for, viewer_of_request
from backend.projects.budget import rate_limit_headers
from backend.projects.cache.responses import declare_cacheable, has_response_cache
from backend.projects.errors import (
    ForeignOrigin,
    MissingScope,
    NotSignedIn,
    OperationTimedOut,
    RateLimited,
    ResponseTooLarge,
    Unavailable,
    is_unavailable,
)
from backend.projects.threads import TimedOut

from .context import Context, run_in_thread
from .encoding import encode, require_size
from .errors import describe_all, has_unavailable, is_internal_error, is_request_error, refusal

GRAPHQL_RESPONSE = "application/graphql-response+json"
JSON = "application/json"
_OFFERS = (GRAPHQL_RESPONSE, JSON)
_UTF_8 = "; charset=utf-8"

# The one style element that GraphiQL adds while a menu or dialog is open. All its other resources are our own files.
GRAPHIQL_STYLE = "'sha256-nzTgYzXYDNe6BAHiiI7NNlfK8n/auuOAhh2t92YvuXo='"

_CODES = {
    HTTPStatus.BAD_REQUEST: "BAD_REQUEST",
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.FORBIDDEN: "FORBIDDEN",
    HTTPStatus.METHOD_NOT_ALLOWED: "METHOD_NOT_ALLOWED",
    HTTPStatus.NOT_ACCEPTABLE: "NOT_ACCEPTABLE",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "PAYLOAD_TOO_LARGE",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "UNSUPPORTED_MEDIA_TYPE",
    HTTPStatus.SERVICE_UNAVAILABLE: Unavailable.code,
}

_ALLOWED = {"GET": {OperationType.QUERY}, "POST": {OperationType.QUERY, OperationType.MUTATION}}


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> str:
        return reason


@method_decorator(csrf_exempt, name="dispatch")
class GraphQLView(StrawberryView[Context, None]):
    """Adds the requirements of HTTP to Strawberry's view, which executes the operation.

    CSRF is checked explicitly and for cookie sessions only: other credentials cannot be sent by another site.
    """

    viewer: Viewer
    context: Context

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            if request.method not in ("GET", "POST"):
                raise HTTPException(405, "Use GET for queries and POST for every operation.")
            self.viewer = viewer_of_request(request)
            if _prefers_html(request):
                page = _graphiql_or_sign_in(request, self.viewer)
                patch_vary_headers(page, ["Accept"])
                return page
            _response_type(request)
            require_access(self.viewer)
            if request.method == "POST" and self.viewer.session_key is not None:
                _check_csrf(request)
            return self._with_caching(request, self.run(request=request))
        except HTTPException as error:
            return _error_response(request, error)
        except TimedOut:
            return _timed_out()
        except ForeignOrigin as error:
            return _error_response(request, HTTPException(403, str(error)))
        except NotSignedIn as error:
            response = _error_response(request, HTTPException(401, str(error)))
            response["WWW-Authenticate"] = challenge_for(error)
            return response
        except (InterfaceError, OperationalError) as error:
            if not is_unavailable(error):
                raise
            response = _error_response(request, HTTPException(503, Unavailable.message))
            response["Retry-After"] = str(Unavailable.retry_after_s)
            return response

    def _with_caching(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Add caching headers to a cacheable response and declare it to the response cache; or return a 304."""
        if self.context.tag_versions is None:
            return response
        declare_cacheable(request, self.context.viewer, self.context.tag_versions)
        if self.context.etag is not None:
            if self.context.etag_matches:
                response = HttpResponse(status=304, headers=response.headers)
                del response["Content-Type"]
            response["ETag"] = self.context.etag
            response["Cache-Control"] = "private, no-cache"
            patch_vary_headers(response, ["Accept", "Authorization", "Cookie"])
        return response

    def encode_json(self, data: object) -> str | bytes:
        return encode(data)

    def create_response(self, response_data: Any, sub_response: HttpResponse) -> HttpResponseBase:
        response = cast(HttpResponse, super().create_response(response_data, sub_response))
        try:
            require_size(response.content)
        except ResponseTooLarge as error:
            self.context.tag_versions = None
            result = _request_error_result(str(error), code=error.code)
            if response["Content-Type"].startswith(GRAPHQL_RESPONSE):
                response.status_code = 400
            response.content = encode(self.process_result(self.request, result))
        return response

    def should_render_graphql_ide(self, request: Any) -> bool:
        return False  # `dispatch` renders it

    def get_context(self, request: HttpRequest, response: HttpResponse) -> Context:
        is_get = request.method == "GET"
        self.context = Context(
            viewer=self.viewer,
            request=request,
            response=response,
            records_tag_versions=is_get or has_response_cache(request),
            if_none_match=request.headers.get("If-None-Match") if is_get else None,
        )
        return self.context

    def get_sub_response(self, request: HttpRequest) -> TemporalHttpResponse:
        response = super().get_sub_response(request)
        response["Content-Type"] = f"{_response_type(request)}{_UTF_8}"
        response["Vary"] = "Accept"
        return response

    def parse_http_body(self, request: SyncHTTPRequestAdapter) -> GraphQLRequestData:
        if request.method == "GET":
            parameters = {name: value for name, value in request.query_params.items() if value not in (None, "")}
            for name in ("variables", "extensions"):
                if name in parameters:
                    parameters[name] = _parse_json(str(parameters[name]))
            return _request_data(parameters)
        media_type, _, options = request.headers.get("Content-Type", "").lower().partition(";")
        if media_type.strip() != JSON or options.strip().replace('"', "") not in ("", "charset=utf-8"):
            raise HTTPException(415, "Send the operation as application/json, in UTF-8.")
        try:
            body = request.body
        except UnicodeDecodeError:
            raise HTTPException(400, "The body is not UTF-8.") from None
        return _request_data(_parse_json(body))

    def execute_single(
        self,
        request: HttpRequest,
        request_adapter: SyncHTTPRequestAdapter,
        sub_response: TemporalHttpResponse,
        context: Context,
        root_value: None,
        request_data: GraphQLRequestData,
    ) -> ExecutionResult:
        if request_adapter.method == "GET":
            operation = [request_data.query, request_data.variables, request_data.operation_name]
            context.etag_key = json.dumps([*operation, context.viewer.key, sub_response["Content-Type"]])
        try:
            result = run_in_thread(
                self.schema.execute(
                    request_data.query,
                    root_value=root_value,
                    variable_values=request_data.variables,
                    context_value=context,
                    operation_name=request_data.operation_name,
                    allowed_operation_types=_ALLOWED[request_adapter.method],
                    operation_extensions=request_data.extensions,
                )
            )
        except TimedOut:
            timeout = OperationTimedOut(settings.OPERATION_TIMEOUT_S)
            sub_response["Retry-After"] = str(timeout.retry_after_s)
            if sub_response["Content-Type"].startswith(GRAPHQL_RESPONSE):
                sub_response.status_code = 503
            return _request_error_result(str(timeout), code=timeout.code)
        except CannotGetOperationTypeError as error:
            result = _request_error_result(error.as_http_error_reason())
        except InvalidOperationTypeError as error:
            if error.operation_type is OperationType.MUTATION:
                raise HTTPException(405, "Send a mutation by POST.") from error
            result = _request_error_result("Subscribe over a WebSocket at this address, with graphql-transport-ws.")
        if has_unavailable(result):
            sub_response["Retry-After"] = str(Unavailable.retry_after_s)
            if result.data is None and sub_response["Content-Type"].startswith(GRAPHQL_RESPONSE):
                sub_response.status_code = 503
                return result
        refused = refusal(result)
        if isinstance(refused, RateLimited):
            sub_response["Retry-After"] = str(refused.retry_after_s)
            charged = {balance.policy.name for balance in context.balances}
            further = [balance for balance in refused.balances if balance.policy.name not in charged]
            context.balances = [*context.balances, *further]
        for name, value in rate_limit_headers(context.balances).items():
            sub_response[name] = value
        # A request error has an error status, except in application/json, where every GraphQL response has 200.
        if isinstance(refused, RateLimited) and sub_response["Content-Type"].startswith(GRAPHQL_RESPONSE):
            sub_response.status_code = 429
        elif is_request_error(result) and sub_response["Content-Type"].startswith(GRAPHQL_RESPONSE):
            describe_all(result)
            sub_response.status_code = 500 if is_internal_error(result) else 400
        elif isinstance(refused, MissingScope) and sub_response["Content-Type"].startswith(GRAPHQL_RESPONSE):
            sub_response.status_code = 403
            sub_response["WWW-Authenticate"] = challenge_for(refused)
        return result

    def process_result(self, request: HttpRequest, result: ExecutionResult) -> GraphQLHTTPResponse:
        has_request_error = is_request_error(result)
        describe_all(result)
        if result.errors:
            self.context.tag_versions = None
        response = super().process_result(request, result)
        if has_request_error:
            del response["data"]
        return response


def _prefers_html(request: HttpRequest) -> bool:
    return request.method == "GET" and "query" not in request.GET and "text/html" in request.headers.get("Accept", "")


def _graphiql_or_sign_in(request: HttpRequest, viewer: Viewer) -> HttpResponseBase:
    if not viewer.may_see_anything:
        return redirect_to_login(request.get_full_path())
    return _graphiql(request)


@csp_update({"style-src": [SELF, GRAPHIQL_STYLE]})
def _graphiql(request: HttpRequest) -> HttpResponse:
    get_token(request)  # sets the cookie that GraphiQL sends back as X-CSRFToken
    return render(request, "graphiql.html")


def _response_type(request: HttpRequest) -> str:
    """The media type that the client prefers. Without `Accept` it is the GraphQL type, as the spec says since 2025."""
    if "Accept" not in request.headers:
        return GRAPHQL_RESPONSE
    preferred = request.get_preferred_type([f"{offer}{charset}" for offer in _OFFERS for charset in ("", _UTF_8)])
    if preferred is None:
        raise HTTPException(406, f"Accept {GRAPHQL_RESPONSE} or {JSON}.")
    return preferred.removesuffix(_UTF_8)


def _check_csrf(request: HttpRequest) -> None:
    check = _CsrfCheck(lambda request: HttpResponse())
    check.process_request(request)
    rejection: object = check.process_view(request, None, (), {})  # type: ignore[arg-type]
    if rejection is not None:
        raise HTTPException(403, f"CSRF check failed: {rejection}")


def _parse_json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise HTTPException(400, "This is not JSON.") from None


def _request_data(parameters: Any) -> GraphQLRequestData:
    """Raises HTTPException if this is not a well-formed GraphQL-over-HTTP request."""
    if not isinstance(parameters, dict):
        raise HTTPException(400, "A request is one JSON object.")
    query = parameters.get("query")
    if not isinstance(query, str) or not query:
        raise HTTPException(400, "`query` must be a string: the GraphQL document.")
    for name, expected_type, description in (
        ("operationName", str, "a string"),
        ("variables", dict, "an object"),
        ("extensions", dict, "an object"),
    ):
        if not isinstance(parameters.get(name), expected_type | None):
            raise HTTPException(400, f"`{name}` must be {description} or null.")
    return GraphQLRequestData(
        query=query,
        variables=parameters.get("variables"),
        operation_name=parameters.get("operationName"),
        extensions=parameters.get("extensions"),
        protocol="http",
    )


def _request_error_result(message: str, code: str | None = None) -> PreExecutionError:
    extensions = None if code is None else {"code": code}
    return PreExecutionError(data=None, errors=[GraphQLError(message, extensions=extensions)])


def _error_response(request: HttpRequest, error: HTTPException) -> HttpResponse:
    """The response to a request that is not well-formed: not a GraphQL response, but JSON in its shape."""
    body = {"errors": [{"message": error.reason, "extensions": {"code": _CODES[HTTPStatus(error.status_code)]}}]}
    response = HttpResponse(json.dumps(body), status=error.status_code, content_type=f"{JSON}{_UTF_8}")
    response["Vary"] = "Accept"
    if error.status_code == 405:
        response["Allow"] = "POST" if request.method == "GET" else "GET, POST"
    return response


def _timed_out() -> HttpResponse:
    """The response to a request that was interrupted before its operation was executed."""
    error = OperationTimedOut(settings.OPERATION_TIMEOUT_S)
    body = {"errors": [{"message": str(error), "extensions": {"code": error.code}}]}
    return JsonResponse(body, status=503, headers={"Retry-After": str(error.retry_after_s)})
