"""A cache of validated documents, and the root fields of a document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
)
from strawberry.extensions import SchemaExtension

# Programs send the same few documents again and again. The bounds prevent a client from filling the memory.
_MAX_DOCUMENTS = 200
_MAX_LENGTH = 4_000

_documents: dict[str, DocumentNode] = {}


class CacheDocuments(SchemaExtension):
    """Parses and validates a short valid document once. Variables and operation name are checked on each request."""

    is_cached = False

    def on_parse(self) -> Iterator[None]:
        document = _documents.get(self.execution_context.query or "")
        if document is not None:
            self.is_cached = True
            self.execution_context.graphql_document = document
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        if self.is_cached and context.pre_execution_errors is None:
            context.pre_execution_errors = []
        yield
        query, document = context.query, context.graphql_document
        if self.is_cached or context.pre_execution_errors or query is None or len(query) > _MAX_LENGTH:
            return
        if document is not None:
            # Iterates over a copy, because other threads add documents too.
            for oldest in list(_documents)[: max(0, len(_documents) + 1 - _MAX_DOCUMENTS)]:
                _documents.pop(oldest, None)
            _documents[query] = document


def root_fields(document: DocumentNode, operation: OperationDefinitionNode) -> Iterator[FieldNode]:
    """The operation's root fields, including those that a directive may exclude.

    Visits each fragment once, however often it is spread.
    """
    unvisited = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}

    def fields_of(selections: Iterable[SelectionNode]) -> Iterator[FieldNode]:
        for selection in selections:
            if isinstance(selection, FieldNode):
                yield selection
                continue
            fragment: FragmentDefinitionNode | InlineFragmentNode | None
            if isinstance(selection, FragmentSpreadNode):
                fragment = unvisited.pop(selection.name.value, None)
            else:
                assert isinstance(selection, InlineFragmentNode)
                fragment = selection
            if fragment is not None:
                yield from fields_of(fragment.selection_set.selections)

    return fields_of(operation.selection_set.selections)
