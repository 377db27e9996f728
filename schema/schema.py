from typing import Any

import strawberry
from graphql import GraphQLInputObjectType, GraphQLInterfaceType, GraphQLObjectType, Undefined
from strawberry.schema.config import StrawberryConfig

from .events import EVENT_TYPES
from .execution.cacheable import RecordTagVersions
from .execution.charging import Charge
from .execution.columns import Executor
from .execution.documents import CacheDocuments
from .execution.limits import LIMITS, OneOperation, Validation
from .execution.position import ReadCursorBeforeRows
from .mutations import Mutation
from .queries import Query
from .scalars import SCALARS
from .subscriptions import Subscription


class Schema(strawberry.Schema):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._remove_null_defaults()

    def process_errors(self, errors: Any, execution_context: Any = None) -> None:
        """Does nothing: `errors.describe` logs internal errors, and a client's errors are not logged."""

    def _remove_null_defaults(self) -> None:
        """Print `first: Int` instead of `first: Int = null`. In Python an absent argument is still None."""
        for graphql_type in self._schema.type_map.values():
            inputs: list[Any] = []
            if isinstance(graphql_type, GraphQLInputObjectType):
                inputs = list(graphql_type.fields.values())
            elif isinstance(graphql_type, GraphQLObjectType | GraphQLInterfaceType):
                inputs = [argument for field in graphql_type.fields.values() for argument in field.args.values()]
            for input_value in inputs:
                if input_value.default_value is None:
                    input_value.default_value = Undefined


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=EVENT_TYPES,
    extensions=[
        *LIMITS,
        CacheDocuments,
        OneOperation,
        Validation,
        Charge,
        RecordTagVersions,
        ReadCursorBeforeRows,
    ],
    execution_context_class=Executor,
    config=StrawberryConfig(scalar_map=SCALARS),
)
