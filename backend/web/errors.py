"""Error responses without a traceback, for requests that reach no view and for views that fail."""

import sys
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from backend.projects.errors import OperationTimedOut, ResponseTooLarge, Unavailable, is_unavailable


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    return JsonResponse({"detail": "Bad request."}, status=400)


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    return JsonResponse({"detail": "Not found."}, status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    """The response to an exception of a middleware. Django calls this while it handles the exception."""
    if is_unavailable(sys.exc_info()[1]):
        return unavailable(request)
    return JsonResponse({"detail": "Something went wrong on our side."}, status=500)


def unavailable(request: HttpRequest) -> HttpResponse:
    """The response while PostgreSQL cannot be reached: a line of text for a browser, else JSON."""
    headers = {"Retry-After": str(Unavailable.retry_after_s), "Cache-Control": "no-store"}
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        return HttpResponse(Unavailable.message, "text/plain; charset=utf-8", 503, headers=headers)
    return JsonResponse({"detail": Unavailable.message, "code": Unavailable.code}, status=503, headers=headers)


class UnavailableMiddleware:
    """Responds with 503 where a view cannot reach PostgreSQL. Django's own response would be a 500 with a traceback."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return unavailable(request) if is_unavailable(exception) else None


def timed_out() -> JsonResponse:
    error = OperationTimedOut(settings.OPERATION_TIMEOUT_S)
    headers = {"Retry-After": str(error.retry_after_s)}
    return JsonResponse({"detail": str(error), "code": error.code}, status=503, headers=headers)


def response_too_large() -> JsonResponse:
    error = ResponseTooLarge(settings.ANSWER_BYTES)
    return JsonResponse({"detail": str(error), "code": error.code}, status=400)
