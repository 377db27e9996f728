"""GraphQL over WebSocket (https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import ExitStack, aclosing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from json import JSONDecodeError
from typing import Any, cast

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from graphql import GraphQLError
from strawberry.channels import GraphQLWSConsumer
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.types import ExecutionResult
from strawberry.types.unset import UNSET

from backend.projects import live, threads
from backend.projects.access import ANONYMOUS, Viewer
from backend.projects.authentication import current_viewer, viewer_of_socket
from backend.projects.errors import InvalidCredential, TooManyConnections, Unavailable, is_unavailable
from backend.projects.threads import Job
from backend.web.waiting import stop_waiting

from .context import Context, run_in_thread
from .encoding import encode, require_size
from .errors import describe, describe_all, is_request_error
from .execution import fan_out
from .schema import schema

UNAUTHORIZED, TOO_MANY, FAILED = 4401, 4429, 4500
# A client resumes after this code. graphql-ws gives up at 4500.
TRY_AGAIN_LATER = 1013
# Messages of one socket that may wait for its handler.
UNREAD_MESSAGES = 16

logger = logging.getLogger(__name__)

_OPTIONAL = {"variables": dict, "operationName": str, "extensions": dict}


class TransportHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """Strawberry's handler with strict validation of messages.

    In the stock handler a frame that is not an object ends the handler and leaves the socket open and unread. A syntax
    error closes the socket, and the error of a listener that cannot resume is sent as data.
    """

    async def handle_message(self, message: Any) -> None:
        if not _is_well_formed(message):
            await self.handle_invalid_message("This is no message of graphql-transport-ws.")
            return
        await super().handle_message(message)

    async def handle_connection_init(self, message: Any) -> None:
        try:
            await super().handle_connection_init(message)
        except InvalidCredential as error:
            await self.websocket.close(code=UNAUTHORIZED, reason=str(error))
        except TooManyConnections as error:
            await self.websocket.close(code=TOO_MANY, reason=str(error))
        except (DatabaseError, InterfaceError) as error:
            if is_unavailable(error):
                await self.websocket.close(code=TRY_AGAIN_LATER, reason=Unavailable.message)
                return
            logger.exception("A socket could not be opened.")
            await self.websocket.close(code=FAILED, reason="Something went wrong on our side.")

    async def handle_subscribe(self, message: Any) -> None:
        """Adds an error code, which the stock handler's error lacks."""
        limit = self.max_subscriptions_per_connection
        is_new = self.connection_acknowledged and message["id"] not in self.operations
        if is_new and limit is not None and len(self.operations) >= limit:
            error = GraphQLError(
                f"There are {limit} operations under way on this socket: complete one first.",
                extensions={"code": "TOO_MANY_SUBSCRIPTIONS"},
            )
            await self.send_message({"id": message["id"], "type": "error", "payload": [error.formatted]})
            return
        await super().handle_subscribe(message)

    async def run_operation(self, operation: Operation[Context, None]) -> None:
        """Execute in a thread, for the viewer's current state: a socket may outlive the credential that opened it."""
        job = Job(fan_out.account_of(self.context.viewer))
        try:
            outcome = await threads.requests.run(job, partial(self._execute, operation))
            if isinstance(outcome, fan_out.Subscriber):
                await self._relay(operation, outcome)
            elif isinstance(outcome, list):
                await operation.send_initial_errors(outcome)
            else:
                await self._send_next(operation, outcome)
                await operation.send_operation_message({"id": operation.id, "type": "complete"})
        except InvalidCredential as error:
            await self.websocket.close(code=UNAUTHORIZED, reason=str(error))
        except Exception as error:
            graphql_error = error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)
            await operation.send_initial_errors([describe(graphql_error)])

    def _execute(self, operation: Operation[Context, None]) -> fan_out.Subscriber | list[GraphQLError] | str:
        """A subscriber, or the errors of an operation that was not executed, or an encoded result.

        Raises InvalidCredential, ResponseTooLarge, Interrupted.
        """
        context = replace(self.context, viewer=current_viewer(self.context.viewer))
        subscriber = fan_out.subscriber(operation.query, operation.variables, operation.operation_name, context)
        if subscriber is not None:
            return subscriber
        result = run_in_thread(self._first_result(operation, context))
        has_request_error = is_request_error(result)
        describe_all(result)
        if has_request_error:
            return result.errors or []
        payload: dict[str, Any] = {"data": result.data}
        if result.errors:
            payload["errors"] = [error.formatted for error in result.errors]
        if result.extensions:
            payload["extensions"] = result.extensions
        return require_size(encode(payload)).decode()

    async def _first_result(self, operation: Operation[Context, None], context: Context) -> ExecutionResult:
        """The result of a query or mutation, or of a subscription that cannot be executed."""
        results = await self.schema.stream(
            operation.query,
            variable_values=operation.variables,
            context_value=context,
            operation_name=operation.operation_name,
        )
        [result] = [result async for result in results]
        assert isinstance(result, ExecutionResult)
        return result

    async def _send_next(self, operation: Operation[Context, None], payload: str) -> None:
        send = cast("GraphQLConsumer", self.view).base_send
        text = f'{{"id":{json.dumps(operation.id)},"type":"next","payload":{payload}}}'
        await send({"type": "websocket.send", "text": text})

    async def _relay(self, operation: Operation[Context, None], subscriber: fan_out.Subscriber) -> None:
        """Send encoded payloads. The stock handler would execute, wrap and encode every event for every subscriber.

        Raises the error that ends the subscription.
        """
        send = cast("GraphQLConsumer", self.view).base_send
        head = f'{{"id":{json.dumps(operation.id)},"type":"next","payload":'
        try:
            async with aclosing(await subscriber.events()) as events:
                async for event in events:
                    payload = await subscriber.payload(event)
                    await send({"type": "websocket.send", "text": f"{head}{payload}}}"})
        finally:
            subscriber.close()
        await operation.send_operation_message({"id": operation.id, "type": "complete"})


def _is_well_formed(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return False
    if message["type"] not in ("subscribe", "complete"):
        return isinstance(message.get("payload", {}), dict | None)
    if not isinstance(message.get("id"), str) or not message["id"]:
        return False
    if message["type"] == "complete":
        return True
    payload = message.get("payload")
    return (
        isinstance(payload, dict)
        and isinstance(payload.get("query"), str)
        and bool(payload["query"])
        and all(isinstance(payload.get(name), type_ | None) for name, type_ in _OPTIONAL.items())
    )


class GraphQLConsumer(GraphQLWSConsumer[Context, None]):
    graphql_transport_ws_handler_class = TransportHandler
    # A socket gets its events from `live`. Without a channel layer it opens even while Redis is down.
    channel_layer_alias = "none"
    _expiry_task: asyncio.Task[None] | None = None

    def __init__(self) -> None:
        super().__init__(
            schema=schema,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=timedelta(seconds=settings.SOCKET_INIT_S),
            max_subscriptions_per_connection=settings.LIVE_SUBSCRIPTIONS_PER_SOCKET,
        )
        self._open = ExitStack()
        self._taken = asyncio.Event()

    def is_websocket_origin_allowed(self, request: GraphQLWSConsumer, origin: str) -> bool:
        return True  # `SameSiteSockets` has checked it against the trusted origins

    def decode_json(self, data: str | bytes) -> object:
        """Raises JSONDecodeError for all malformed input. Any other exception would end the handler."""
        self._taken.set()  # the handler calls this for each message that it takes
        try:
            return super().decode_json(data)
        except (ValueError, RecursionError):
            raise JSONDecodeError("This is not JSON.", "", 0) from None

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Wait while many messages wait for the handler. The server reads nothing from the client meanwhile."""
        await super().receive(text_data, bytes_data)
        assert self.run_task is not None
        while self.message_queue.qsize() >= UNREAD_MESSAGES and not self.run_task.done():
            self._taken.clear()
            taking = asyncio.ensure_future(self._taken.wait())
            await asyncio.wait({taking, self.run_task}, return_when=asyncio.FIRST_COMPLETED)
            taking.cancel()

    async def get_context(self, request: GraphQLWSConsumer, response: GraphQLWSConsumer) -> Context:
        """The viewer is unknown until the first message, `connection_init`."""
        return Context(viewer=ANONYMOUS, request=request, response=response)

    async def on_ws_connect(self, context: Context) -> Any:
        """Raises InvalidCredential, TooManyConnections; ConnectionRejectionError (4403) if the viewer sees nothing."""
        header = {name.lower(): value for name, value in context.connection_params.items()}.get("authorization")
        authorization = None if header is None else str(header)
        viewer = await threads.requests.call(viewer_of_socket, self.scope, authorization)
        if not viewer.may_see_anything:
            raise ConnectionRejectionError
        self._open.enter_context(live.connection(viewer))
        stop_waiting(self.scope)
        context.viewer = viewer
        self._expiry_task = asyncio.create_task(self._close_when_invalid(viewer))
        return UNSET

    async def disconnect(self, code: int) -> None:
        try:
            await super().disconnect(code)
        finally:
            # The handler may start the task until it has ended.
            if self._expiry_task is not None:
                self._expiry_task.cancel()
                await asyncio.gather(self._expiry_task, return_exceptions=True)
            self._open.close()

    async def _close_when_invalid(self, viewer: Viewer) -> None:
        try:
            reason = await live.until_invalid(viewer)
        except Exception as error:
            if is_unavailable(error):
                await self.close(code=TRY_AGAIN_LATER)
                return
            logger.exception("A socket's credential is no longer checked.")
            await self.close(code=FAILED)
        else:
            await self.close(code=UNAUTHORIZED, reason=str(reason))
