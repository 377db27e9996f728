"""Limits of an operation. One that exceeds them is rejected before execution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from django.conf import settings
from graphql import (
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    MaxIntrospectionDepthRule,
    OperationDefinitionNode,
    SelectionSetNode,
    ValidationContext,
    ValidationRule,
    specified_rules,
    validate,
)
from graphql.validation.rules import overlapping_fields_can_be_merged
from strawberry.extensions import MaxTokensLimiter, SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

MAX_DEPTH = 12
MAX_ALIASES = 30
MAX_TOKENS = 2000
# Validation stops after this many errors.
MAX_ERRORS = 10
# Comparisons of fields with the same response key, which are the one part of validation that grows with the square of
# the document. graphql-core's own limit takes a second and more.
overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = 100_000


class OneOperation(SchemaExtension):
    """Requires an operation name if the document has several operations (GetOperation() of the spec).

    Strawberry would execute the first one.
    """

    def on_parse(self) -> Iterator[None]:
        yield
        context = self.execution_context
        if context.graphql_document is None or context._provided_operation_name is not None:
            return
        definitions = context.graphql_document.definitions
        if sum(isinstance(node, OperationDefinitionNode) for node in definitions) > 1:
            context.pre_execution_errors = [GraphQLError("Name the operation: the document has more than one.")]


class _Size(NamedTuple):
    depth: int
    aliases: int


class DepthAndAliases(ValidationRule):
    """Limits the depth and aliases of each operation. Introspection fields do not count towards the depth.

    A fragment is measured once, however often it is spread. Strawberry's own limiters walk it at every spread, so
    fragments that double at each level keep them busy for minutes. They also fail on an unknown fragment.
    """

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        definitions = context.document.definitions
        self._fragments = {node.name.value: node for node in definitions if isinstance(node, FragmentDefinitionNode)}
        self._sizes: dict[str, _Size] = {}

    def enter_operation_definition(self, node: OperationDefinitionNode, *_: Any) -> None:
        size = self._measure(node.selection_set)
        if size.depth > MAX_DEPTH:
            self.report_error(GraphQLError(f"The operation exceeds maximum operation depth of {MAX_DEPTH}.", node))
        if size.aliases > MAX_ALIASES:
            self.report_error(GraphQLError(f"{size.aliases} aliases found. Allowed: {MAX_ALIASES}.", node))

    def _measure(self, selection_set: SelectionSetNode) -> _Size:
        depth = aliases = 0
        for selection in selection_set.selections:
            inner = _Size(0, 0)
            if isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                if name not in self._sizes:
                    self._sizes[name] = inner  # for a cycle or an unknown fragment
                    if name in self._fragments:
                        self._sizes[name] = self._measure(self._fragments[name].selection_set)
                inner = self._sizes[name]
            elif isinstance(selection, InlineFragmentNode):
                inner = self._measure(selection.selection_set)
            elif isinstance(selection, FieldNode):
                if selection.selection_set is not None:
                    inner = self._measure(selection.selection_set)
                    is_introspection = selection.name.value.startswith("__")
                    inner = inner._replace(depth=0 if is_introspection else inner.depth + 1)
                aliases += selection.alias is not None
            depth = max(depth, inner.depth)
            aliases += inner.aliases
        return _Size(depth, aliases)


_RULES: list[type[ASTValidationRule]] = [
    *specified_rules,
    MaybeNullValidationRule,
    OneOfInputValidationRule,
    MaxIntrospectionDepthRule,
    DepthAndAliases,
]


def validate_document(schema: GraphQLSchema, document: DocumentNode) -> list[GraphQLError]:
    """The first errors of a document. They suggest names with DEBUG only: finding similar ones takes long."""
    return validate(schema, document, _RULES, max_errors=MAX_ERRORS, hide_suggestions=not settings.DEBUG)


class Validation(SchemaExtension):
    """Validates with `validate_document`. Strawberry's own validation has no limit of errors."""

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        if context.pre_execution_errors is None and context.graphql_document is not None:
            context.pre_execution_errors = validate_document(context.schema._schema, context.graphql_document)
        yield


LIMITS = [lambda: MaxTokensLimiter(max_token_count=MAX_TOKENS)]
