"""What a document asks for first, told from the document alone."""

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
