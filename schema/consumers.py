"""GraphQL over WebSocket (https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md)."""

from __future__ import annotations

from json import JSONDecodeError
from typing import Any

from django.db import DatabaseError, InterfaceError
from graphql import GraphQLError
from strawberry.channels import GraphQLWSConsumer
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.types import ExecutionResult
from strawberry.types.unset import UNSET

from backend.projects.access import ANONYMOUS, viewer_as_of_now, viewer_for

from .context import Context
from .errors import describe, describe_all, is_request_error
from .schema import schema

_OPTIONAL = {"variables": dict, "operationName": str, "extensions": dict}


class TransportHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """The stock handler, strict about what it is sent.

    Stock, a frame that is no object kills the handler and leaves the socket open with nobody reading it; a syntax error
    or a listener that cannot resume would end more than its own operation, or look like data.
    """

    async def handle_message(self, message: Any) -> None:
        if not _is_well_formed(message):
            await self.handle_invalid_message("This is no message of graphql-transport-ws.")
            return
        await super().handle_message(message)

    async def run_operation(self, operation: Operation[Context, None]) -> None:
        """For the viewer as of now: a socket may outlive what it was opened with."""
        try:
            viewer = await self.context.in_database(viewer_as_of_now, self.context.viewer)
        except (DatabaseError, InterfaceError) as error:
            await operation.send_initial_errors([describe(GraphQLError(str(error), original_error=error))])
            return
        if viewer == ANONYMOUS:
            await self.websocket.close(code=4403, reason="Forbidden")
            return
        self.context.look_as(viewer)
        await super().run_operation(operation)

    @staticmethod
    def _get_pre_execution_close_reason(error: Any) -> None:
        return None

    async def _send_result_stream(self, operation: Operation[Context, None], result_source: Any) -> None:
        async def results() -> Any:
            async for result in result_source:
                if isinstance(result, ExecutionResult):
                    refused = is_request_error(result)
                    describe_all(result)
                    if refused:
                        await operation.send_initial_errors(result.errors or [])
                        return
                yield result

        await super()._send_result_stream(operation, results())


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
        and all(isinstance(payload.get(name), kind | None) for name, kind in _OPTIONAL.items())
    )


class GraphQLConsumer(GraphQLWSConsumer[Context, None]):
    graphql_transport_ws_handler_class = TransportHandler
    # Nothing is sent to a socket by name: it takes from `live`, and needs no Redis to open.
    channel_layer_alias = "none"

    def __init__(self) -> None:
        super().__init__(schema=schema, subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,))

    def is_websocket_origin_allowed(self, request: GraphQLWSConsumer, origin: str) -> bool:
        return True  # `SameSite` has asked, and knows the origins that are trusted

    def decode_json(self, data: str | bytes) -> object:
        """Raises JSONDecodeError for everything that is no message; whatever else is raised here kills the handler."""
        try:
            return super().decode_json(data)
        except (ValueError, RecursionError):
            raise JSONDecodeError("This is not JSON.", "", 0) from None

    async def get_context(self, request: GraphQLWSConsumer, response: GraphQLWSConsumer) -> Context:
        return Context(viewer=viewer_for(self.scope["user"]), request=request, response=response, is_long_lived=True)

    async def on_ws_connect(self, context: Context) -> Any:
        """Raises ConnectionRejectionError (4403) for a viewer who may see nothing."""
        if context.viewer == ANONYMOUS:
            raise ConnectionRejectionError
        return UNSET
