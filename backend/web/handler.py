"""Django's ASGI handler, on threads with persistent database connections."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from functools import partial
from typing import IO, Any

from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_started
from django.http import FileResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from backend.projects import threads
from backend.projects.authentication import account_of
from backend.projects.errors import OperationTimedOut
from backend.projects.threads import ClientLeft, Job, TimedOut
from backend.web import errors


class Handler(ASGIHandler):
    """Handles a request as one job on one thread, from the first middleware to the response.

    Django's own handler starts a thread per request, and switches between it and the event loop at every middleware. A
    stream occupies no thread: the event loop sends its content. A request whose client disconnects is interrupted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dropping: set[asyncio.Future[None]] = set()

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        handling = asyncio.ensure_future(self._handle(scope, body, send))
        disconnecting = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({handling, disconnecting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            disconnecting.cancel()
            handling.cancel()
            with suppress(asyncio.CancelledError):
                await handling

    async def _handle(self, scope: dict[str, Any], body: IO[bytes], send: Any) -> None:
        job = Job(account_of(scope))
        responding = threads.requests.start(job, partial(self._respond, scope, body))
        try:
            response = await asyncio.shield(responding)
        except asyncio.CancelledError:
            job.interrupt(ClientLeft())
            responding.add_done_callback(self._drop)
            raise
        except OperationTimedOut:  # before a thread was free
            response = errors.timed_out()
        try:
            await self.send_response(response, send)
        finally:
            if response.streaming:
                await asyncio.shield(threads.requests.call(response.close))

    def _drop(self, responding: asyncio.Future[HttpResponseBase]) -> None:
        """End a stream that was opened for a client that has disconnected."""
        if responding.cancelled() or responding.exception() is not None or not responding.result().streaming:
            return

        async def end(response: Any) -> None:
            if hasattr(response, "aclose"):
                await response.aclose()
            await threads.requests.call(response.close)

        dropped = asyncio.ensure_future(end(responding.result()))
        self._dropping.add(dropped)
        dropped.add_done_callback(self._dropping.discard)

    def _respond(self, scope: dict[str, Any], body: IO[bytes]) -> HttpResponseBase:
        with closing(body):
            set_script_prefix(get_script_prefix(scope))
            request_started.send(sender=self.__class__, scope=scope)
            request, error_response = self.create_request(scope, body)
            response: HttpResponseBase
            try:
                response = error_response or self.get_response(request)  # type: ignore[arg-type]
            except TimedOut:  # in a middleware
                response = errors.timed_out()
        response._handler_class = self.__class__  # type: ignore[attr-defined]
        if isinstance(response, FileResponse):
            response.block_size = self.chunk_size
        if not response.streaming:
            response.close()  # its content stays readable
        return response
