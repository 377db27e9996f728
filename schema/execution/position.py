"""Reads `Query.cursor` before the first row, in whichever order the fields are resolved."""

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

_cursor: ContextVar[Cursor | None] = ContextVar("cursor", default=None)


class ReadCursorBeforeRows(SchemaExtension):
    async def on_execute(self) -> AsyncIterator[None]:
        document = self.execution_context.graphql_document
        context = self.execution_context.context
        name = self.execution_context.operation_name
        if document is not None and isinstance(context, Context) and _selects_cursor(document, name):
            token = _cursor.set(Cursor(await context.in_database(resolvers.event.current_cursor, context.viewer)))
            try:
                yield
            finally:
                _cursor.reset(token)
        else:
            yield


def cursor_before_rows() -> Cursor | None:
    """None if the operation does not select `cursor`."""
    return _cursor.get()


def _selects_cursor(document: DocumentNode, operation_name: str | None) -> bool:
    operation = get_operation_ast(document, operation_name)
    if operation is None or operation.operation is not OperationType.QUERY:
        return False
    return any(field.name.value == "cursor" for field in root_fields(document, operation))
