"""Prices and charges an operation before it is executed, or refuses it (docs/decisions/0009-cost.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from math import ceil
from typing import Any, cast

from django.conf import settings
from graphql import DocumentNode, GraphQLError, GraphQLSchema, OperationDefinitionNode
from graphql.utilities import get_operation_ast
from strawberry.extensions import SchemaExtension
from strawberry.types import ExecutionResult

from backend.projects.budget import (
    Balance,
    charge,
    charge_refused,
    check_refused,
    cost_policy,
    give_back,
    writes_policy,
)
from backend.projects.errors import RateLimited

from ..context import Context
from ..directives import MUTATION
from ..errors import is_request_error
from .cost import Price, TooComplex, price_of

_MIN_REFUSAL_PRICE = 100


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


def refusal_price(query: str) -> int:
    """The price of a document that is parsed and validated in vain. A unit takes about a tenth of a millisecond."""
    return max(_MIN_REFUSAL_PRICE, len(query) // 2)


class Charge(SchemaExtension):
    """Refuses an operation over `COST_MAX`, and charges it to its viewer's budget.

    A refused document is charged too: otherwise one account could keep all its threads busy with invalid ones.

    What is refused is not executed. A subscription is charged for its events (`fan_out`). `extensions.cost` of the
    result reports the cost, and what its rows did not use is given back.
    """

    price: Price | None = None
    balances: Sequence[Balance] = ()
    _is_new = False

    async def on_operation(self) -> AsyncIterator[None]:
        yield
        context, query = self.execution_context.context, self.execution_context.query
        errors = self.execution_context.pre_execution_errors or []
        is_over_budget = any(isinstance(error.original_error, RateLimited) for error in errors)
        if self._is_new and query and errors and not is_over_budget and isinstance(context, Context):
            price = min(refusal_price(query), settings.COST_BUDGET)
            await context.in_database(charge_refused, context.viewer, price)

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context.context
        if self.execution_context.graphql_document is None and isinstance(context, Context):
            try:
                check_refused(context.viewer)
            except RateLimited as error:
                raise GraphQLError(str(error), original_error=error) from None
            self._is_new = True
        yield

    async def on_validate(self) -> AsyncIterator[None]:
        context = self.execution_context
        document = context.graphql_document
        operation = None
        if document is not None and not context.pre_execution_errors:
            operation = get_operation_ast(document, context.operation_name)
        if document is not None and operation is not None:
            try:
                self.price = affordable_price(context.schema._schema, document, operation, context.variables)
                await self._charge()
            except GraphQLError as error:
                context.pre_execution_errors = [error]
            except RateLimited as error:
                self._report(error.balances)
                context.pre_execution_errors = [GraphQLError(str(error), original_error=error)]
        yield

    async def _charge(self) -> None:
        context, price = self.execution_context.context, self.price
        if price is None or price.is_subscription or not isinstance(context, Context):
            return
        charges = [(cost_policy(), price.total)]
        if price.writes:
            charges.append((writes_policy(), ceil(price.writes / float(MUTATION.weight))))
        self.balances = await context.in_database(charge, context.viewer, charges)
        self._report(self.balances)

    def _report(self, balances: Sequence[Balance]) -> None:
        """Let the view send the balances in headers."""
        context = self.execution_context.context
        if isinstance(context, Context):
            context.balances = balances

    def get_results(self) -> dict[str, Any]:
        if self.price is None or not self.balances:
            return {}
        context, result, cost = self.execution_context.context, self.execution_context.result, self.balances[0]
        # Without a result, an exception has ended the execution.
        actual = self.price.total if result is None else self.price.actual(result.data)
        unused = self.price.total - actual
        give_back(context.viewer, cost.policy, unused)
        if result is not None and is_request_error(cast(ExecutionResult, result)):  # the variables were refused
            return {}
        return {
            "cost": {
                "requested": self.price.total,
                "actual": actual,
                "restoreRate": cost.policy.per_s,
                # Last: the response cache stores the response without it.
                "available": min(cost.available + unused, cost.policy.capacity),
            }
        }
