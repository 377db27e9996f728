"""`Query.cursor`: the position read before the first row, whatever the order in which fields are resolved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextvars import ContextVar

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
)
from strawberry.extensions import SchemaExtension

from backend.projects import resolvers

from .context import Context
from .scalars import Cursor

_read: ContextVar[Cursor | None] = ContextVar("cursor", default=None)


class ReadCursorFirst(SchemaExtension):
    async def on_execute(self) -> AsyncIterator[None]:
        document = self.execution_context.graphql_document
        context = self.execution_context.context
        if document is not None and isinstance(context, Context) and _asks_for_cursor(document):
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


def _asks_for_cursor(document: DocumentNode) -> bool:
    """Looks into each fragment once, however often it is spread."""
    unseen = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}

    def asks(selections: Iterable[SelectionNode]) -> bool:
        for selection in selections:
            if isinstance(selection, FieldNode):
                if selection.name.value == "cursor":
                    return True
                continue
            fragment: FragmentDefinitionNode | InlineFragmentNode | None
            if isinstance(selection, FragmentSpreadNode):
                fragment = unseen.pop(selection.name.value, None)
            else:
                assert isinstance(selection, InlineFragmentNode)
                fragment = selection
            if fragment is not None and asks(fragment.selection_set.selections):
                return True
        return False

    return any(
        asks(node.selection_set.selections)
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode) and node.operation == OperationType.QUERY
    )
