"""The cost directives of https://ibm.github.io/graphql-specs/cost-spec.html (docs/cost.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import strawberry
from strawberry.schema_directive import Location
from strawberry.types import get_object_definition

from backend.projects import prices
from backend.projects.resolvers.page import MAX_PAGE

T = TypeVar("T", bound=type)

# The rows of a connection without `first` and `last`.
PAGE_SIZE = 50


@strawberry.schema_directive(
    locations=[
        Location.ARGUMENT_DEFINITION,
        Location.ENUM,
        Location.FIELD_DEFINITION,
        Location.INPUT_FIELD_DEFINITION,
        Location.OBJECT,
        Location.SCALAR,
    ],
    description="The cost of a field, or of an input field that is set. Objects cost 1 and scalars 0 by default.",
)
class Cost:
    weight: str


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="listSize",
    description="How many rows a list has at most. `sizedFields` are the lists of the object that the field returns.",
)
class ListSize:
    assumed_size: int | None = strawberry.UNSET
    slicing_arguments: list[str] | None = strawberry.UNSET
    sized_fields: list[str] | None = strawberry.UNSET
    require_one_slicing_argument: bool | None = True


PAGED = ListSize(
    assumed_size=PAGE_SIZE,
    slicing_arguments=["first", "last"],
    sized_fields=["nodes", "edges"],
    require_one_slicing_argument=False,
)
EVENT_PAGE = ListSize(
    assumed_size=MAX_PAGE, slicing_arguments=["first"], sized_fields=["nodes"], require_one_slicing_argument=False
)
LIST = Cost(weight=str(prices.LIST))
OBJECT = Cost(weight=str(prices.OBJECT))
NESTED_LIST = Cost(weight=str(prices.NESTED_LIST))
PAGE_INFO = Cost(weight=str(prices.PAGE_INFO))
COUNT = Cost(weight=str(prices.COUNT))
LARGE_COUNT = Cost(weight=str(prices.LARGE_COUNT))
COMMENT_COUNT = Cost(weight=str(prices.COMMENT_COUNT))
TASK_SEARCH = Cost(weight=str(prices.TASK_SEARCH))
PROJECT_SEARCH = Cost(weight=str(prices.PROJECT_SEARCH))
MUTATION = Cost(weight=str(prices.WRITE))


def each_field_costs(cost: Cost) -> Callable[[T], T]:
    """Decorate a type: its fields cost `cost`, except those that have another cost."""

    def decorate(cls: T) -> T:
        for field in get_object_definition(cls, strict=True).fields:
            if not any(isinstance(directive, Cost) for directive in field.directives):
                field.directives = [*field.directives, cost]
        return cls

    return decorate
