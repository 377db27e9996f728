"""Prices an operation and refuses one that is too dear, before it is executed (docs/decisions/0009-cost.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from graphql import DocumentNode, GraphQLError, GraphQLSchema, OperationDefinitionNode
from graphql.utilities import get_operation_ast
from strawberry.extensions import SchemaExtension

from .cost import Price, TooComplex, price_of


def affordable_price(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any] | None,
) -> Price | None:
    """The price of an operation of a valid document. Raises GraphQLError if it is over `COST_MAX`.

    With `COST_MODE=measure` nothing is refused, and the price of what is too complex to be priced is None.
    """
    is_enforced, maximum = settings.COST_MODE == "enforce", settings.COST_MAX
    try:
        price = price_of(schema, document, operation, variables)
    except TooComplex:
        if not is_enforced:
            return None
        raise GraphQLError(
            "The operation selects the same fields in too many ways to be priced.",
            extensions={"code": "COST_LIMIT_EXCEEDED", "maximum": maximum},
        ) from None
    if price.total <= maximum or not is_enforced:
        return price
    dearest = price.dearest()
    raise GraphQLError(
        f"The operation costs {price.total:,}, and {maximum:,} is the maximum."
        f" Its dearest field, `{dearest.path}`, costs {dearest.price:,}: ask for fewer rows.",
        extensions={
            "code": "COST_LIMIT_EXCEEDED",
            "cost": price.total,
            "maximum": maximum,
            "field": dearest.path,
            "fieldCost": dearest.price,
        },
    )


class Charge(SchemaExtension):
    """Refuses an operation over `COST_MAX`."""

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        document = context.graphql_document
        operation = None
        if document is not None and not context.pre_execution_errors:
            operation = get_operation_ast(document, context.operation_name)
        if document is not None and operation is not None:
            try:
                affordable_price(context.schema._schema, document, operation, context.variables)
            except GraphQLError as error:
                context.pre_execution_errors = [error]
        yield
