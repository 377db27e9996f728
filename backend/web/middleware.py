"""Middleware for every HTTP request."""

import os
from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.utils.decorators import sync_and_async_middleware

from backend.projects.threads import TimedOut
from backend.web import errors

Handler = Callable[[HttpRequest], "HttpResponseBase | Awaitable[HttpResponseBase]"]


class SlashMiddleware(CommonMiddleware):
    """Redirects a path without its slash with 308, so that a POST stays a POST: after a 301, clients send a GET."""

    class response_redirect_class(HttpResponsePermanentRedirect):  # noqa: N801
        status_code = 308

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Remove Content-Length from a 304: it would have to be the length of the 200 (RFC 9110, section 8.6)."""
        response = super().process_response(request, response)
        if response.status_code == 304:
            del response["Content-Length"]
        return response


def _body_bytes(request: HttpRequest) -> int:
    """Return the size of the body in bytes: the announced size, or the received size of a chunked body."""
    announced = request.META.get("CONTENT_LENGTH")
    if announced:
        return int(announced) if announced.isdecimal() else 0
    stream = getattr(request, "_read_started", True) is False and getattr(request, "_stream", None)
    if not stream or not getattr(stream, "seekable", lambda: False)():
        return 0
    size: int = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return size


def _too_large(request: HttpRequest) -> HttpResponse | None:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if _body_bytes(request) <= limit:
        return None
    return JsonResponse({"detail": f"The body may have at most {limit} bytes."}, status=413)


@sync_and_async_middleware
def limit_body(get_response: Handler) -> Handler:
    """Respond with 413 to a body over `DATA_UPLOAD_MAX_MEMORY_SIZE`; Django itself responds with 400."""
    if iscoroutinefunction(get_response):

        async def async_middleware(request: HttpRequest) -> HttpResponseBase:
            return _too_large(request) or await get_response(request)

        return async_middleware

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return _too_large(request) or get_response(request)  # type: ignore[return-value]

    return middleware


def limit_response(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Respond with 503 if a request takes too long, and with 400 if the response exceeds `ANSWER_BYTES`."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        try:
            response = get_response(request)
        except TimedOut:
            return errors.timed_out()
        if isinstance(response, HttpResponse) and len(response.content) > settings.ANSWER_BYTES:
            return errors.response_too_large()
        return response

    return middleware
