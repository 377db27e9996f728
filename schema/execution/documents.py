"""Documents: those that were found good before, and what they ask for first."""

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

# Programs send the same few documents over and over. What is kept of them must not be anybody's to fill.
_KEPT_DOCUMENTS = 200
_KEPT_LENGTH = 4_000

_good: dict[str, DocumentNode] = {}


class KeepDocuments(SchemaExtension):
    """Parses and validates a short document once, if it is good. What was sent with it is looked at each time."""

    is_known = False

    def on_parse(self) -> Iterator[None]:
        known = _good.get(self.execution_context.query or "")
        if known is not None:
            self.is_known = True
            self.execution_context.graphql_document = known
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        if self.is_known and context.pre_execution_errors is None:
            context.pre_execution_errors = []
        yield
        query, document = context.query, context.graphql_document
        if self.is_known or context.pre_execution_errors or query is None or len(query) > _KEPT_LENGTH:
            return
        if document is not None:
            # A copy, as other threads keep documents too.
            for oldest in list(_good)[: max(0, len(_good) + 1 - _KEPT_DOCUMENTS)]:
                _good.pop(oldest, None)
            _good[query] = document


def root_fields(document: DocumentNode, operation: OperationDefinitionNode) -> Iterator[FieldNode]:
    """The fields of the operation's root, those that a directive may leave out included.

    Looks into each fragment once, however often it is spread.
    """
    unseen = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}

    def among(selections: Iterable[SelectionNode]) -> Iterator[FieldNode]:
        for selection in selections:
            if isinstance(selection, FieldNode):
                yield selection
                continue
            fragment: FragmentDefinitionNode | InlineFragmentNode | None
            if isinstance(selection, FragmentSpreadNode):
                fragment = unseen.pop(selection.name.value, None)
            else:
                assert isinstance(selection, InlineFragmentNode)
                fragment = selection
            if fragment is not None:
                yield from among(fragment.selection_set.selections)

    return among(operation.selection_set.selections)
