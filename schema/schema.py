from typing import Any

import strawberry
from graphql import GraphQLInputObjectType, GraphQLInterfaceType, GraphQLObjectType, Undefined
from strawberry.schema.config import StrawberryConfig

from .events import EVENT_TYPES
from .execution.cacheable import RecordTagVersions
from .execution.columns import Executor
from .execution.documents import KeepDocuments
from .execution.limits import LIMITS, OneOperation
from .execution.position import ReadCursorFirst
from .mutations import Mutation
from .queries import Query
from .scalars import SCALARS
from .subscriptions import Subscription


class Schema(strawberry.Schema):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._leave_out_null_defaults()

    def process_errors(self, errors: Any, execution_context: Any = None) -> None:
        """Nothing: `errors.describe` logs what is our own fault, a client's mistake is none of the log's business."""

    def _leave_out_null_defaults(self) -> None:
        """Print `first: Int`, not `first: Int = null`: Python's default of an absent argument stays None."""
        for graphql_type in self._schema.type_map.values():
            inputs: list[Any] = []
            if isinstance(graphql_type, GraphQLInputObjectType):
                inputs = list(graphql_type.fields.values())
            elif isinstance(graphql_type, GraphQLObjectType | GraphQLInterfaceType):
                inputs = [argument for field in graphql_type.fields.values() for argument in field.args.values()]
            for one in inputs:
                if one.default_value is None:
                    one.default_value = Undefined


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=EVENT_TYPES,
    extensions=[*LIMITS, KeepDocuments, OneOperation, RecordTagVersions, ReadCursorFirst],
    execution_context_class=Executor,
    config=StrawberryConfig(scalar_map=SCALARS),
)
