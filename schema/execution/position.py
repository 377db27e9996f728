"""`Query.cursor`: the position read before the first row, whatever the order in which fields are resolved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar

from graphql import DocumentNode, OperationType
from graphql.utilities import get_operation_ast
from strawberry.extensions import SchemaExtension

from backend.projects import resolvers

from ..context import Context
from ..scalars import Cursor
from .documents import root_fields

_read: ContextVar[Cursor | None] = ContextVar("cursor", default=None)


class ReadCursorFirst(SchemaExtension):
    async def on_execute(self) -> AsyncIterator[None]:
        document = self.execution_context.graphql_document
        context = self.execution_context.context
        name = self.execution_context.operation_name
        if document is not None and isinstance(context, Context) and _asks_for_cursor(document, name):
            token = _read.set(Cursor(await context.in_database(resolvers.event.current_cursor, context.viewer)))
            try:
                yield
            finally:
                _read.reset(token)
        else:
            yield


def read_before_rows() -> Cursor | None:
    """None where the operation does not ask for it."""
    return _read.get()


def _asks_for_cursor(document: DocumentNode, operation_name: str | None) -> bool:
    operation = get_operation_ast(document, operation_name)
    if operation is None or operation.operation is not OperationType.QUERY:
        return False
    return any(field.name.value == "cursor" for field in root_fields(document, operation))
