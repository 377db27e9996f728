"""The price of an operation, before it is executed, from the directives in the schema (docs/cost.md).

Fields are collected as the executor does it: fields with the same response key are one field, directives are respected,
and each fragment is visited once per selection set. A selection set that is selected in several places is priced once,
so fragments that double at each level take no longer than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TypeMetaFieldDef,
    Undefined,
    get_named_type,
    get_nullable_type,
    introspection_types,
    is_abstract_type,
    is_composite_type,
    is_input_object_type,
    is_interface_type,
    is_leaf_type,
    is_list_type,
    is_object_type,
    value_from_ast_untyped,
)

from backend.projects.resolvers.page import MAX_PAGE

from ..directives import Cost, ListSize

# An object of the introspection is in memory: 5,000 of these take about as long as 500 rows of the database.
_INTROSPECTION_WEIGHT = 0.1
# Selections that are visited for one price. An operation of the maximum number of tokens that repeats none of them in
# another order has a fraction of that.
_MAX_VISITS = 50_000
# The weights of the schema have one decimal.
_DECIMALS = 6


class TooComplex(Exception):
    """The operation has too many different selections of the same fields to be priced."""


@dataclass(slots=True)
class PricedField:
    """A selected field: the weight of each of its rows, how many rows it has at most, and what is selected of each."""

    weight: float
    size: int
    fields: dict[str, PricedField]
    # Of one row's fields together.
    fields_price: float
    # Of the arguments: charged once, however many rows there are.
    once: float = 0.0

    @property
    def price(self) -> float:
        return self.once + self.size * (self.weight + self.fields_price)

    def actual(self, value: Any) -> float:
        """What a value in the response costs."""
        if not isinstance(value, list):
            return self.once + self.weight + self._fields_of(value)
        if not self.fields:
            return self.once + len(value) * self.weight
        return self.once + sum(self.weight + self._fields_of(row) for row in value)

    def _fields_of(self, row: Any) -> float:
        if not isinstance(row, dict):
            return 0.0
        return sum(priced.actual(row[key]) for key, priced in self.fields.items() if key in row)


class Dearest(NamedTuple):
    path: str
    price: int


@dataclass(slots=True)
class Price:
    """The price of an operation, by its root fields."""

    fields: dict[str, PricedField]
    is_subscription: bool = False
    # The part of it that mutations cost themselves.
    writes: int = 0
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = _rounded(sum(priced.price for priced in self.fields.values()))

    def actual(self, data: Any) -> int:
        """What the data of the response costs: no more than the price."""
        if not isinstance(data, dict):
            return min(1, self.total)
        return min(self.total, _rounded(sum(priced.actual(data.get(key)) for key, priced in self.fields.items())))

    def dearest(self) -> Dearest:
        """The innermost field that causes more than half of the price."""
        path: list[str] = []
        factor, price, fields = 1, 0.0, self.fields
        while fields:
            key, priced = max(fields.items(), key=lambda item: item[1].price)
            of_field = factor * priced.price
            if path and of_field * 2 <= self.total:
                break
            path.append(key)
            price = of_field
            factor *= priced.size
            fields = priced.fields
        return Dearest(".".join(path), _rounded(price))


def _rounded(price: float) -> int:
    """A price in whole units. Every operation costs at least 1."""
    return max(1, ceil(round(price, _DECIMALS)))


# --- What the schema says --------------------------------------------------------------------------------
class _Definition(NamedTuple):
    """A field of the schema, as far as its price is concerned."""

    weight: float
    type: GraphQLNamedType
    is_list: bool
    size: _ListSize | None
    # Arguments whose input types have weights.
    arguments: dict[str, GraphQLInputObjectType]


class _ListSize(NamedTuple):
    assumed: int
    arguments: tuple[str, ...]
    fields: tuple[str, ...]


class SchemaPrices:
    """The directives of a schema, read once."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self.schema = schema
        self._definitions: dict[tuple[str, str], _Definition] = {}
        self._input_weights: dict[str, dict[str, float]] = {}
        self._introspection_sizes = _introspection_sizes(schema)
        for graphql_type in schema.type_map.values():
            if is_input_object_type(graphql_type):
                weights = {
                    name: float(cost.weight)
                    for name, input_field in graphql_type.fields.items()
                    if (cost := _directive(input_field, Cost)) is not None
                }
                if weights:
                    self._input_weights[graphql_type.name] = weights

    def possible_types(self, graphql_type: GraphQLNamedType) -> Iterable[Any]:
        return self.schema.get_possible_types(graphql_type) if is_abstract_type(graphql_type) else [graphql_type]

    def definition(self, parent: Any, name: str) -> _Definition | None:
        """None for `__typename`, and for an unknown field."""
        key = (parent.name, name)
        if key not in self._definitions:
            graphql_field = self._field(parent, name)
            if graphql_field is None:
                return None
            self._definitions[key] = self._define(parent, name, graphql_field)
        return self._definitions[key]

    def _field(self, parent: Any, name: str) -> GraphQLField | None:
        if parent is self.schema.query_type and name in ("__schema", "__type"):
            return SchemaMetaFieldDef if name == "__schema" else TypeMetaFieldDef
        fields: dict[str, GraphQLField] = parent.fields
        return fields.get(name)

    def _define(self, parent: Any, name: str, graphql_field: GraphQLField) -> _Definition:
        named = get_named_type(graphql_field.type)
        is_list = is_list_type(get_nullable_type(graphql_field.type))
        if named.name in introspection_types:
            size = self._introspection_sizes.get((parent.name, name), 1)
            weight = 0.0 if is_leaf_type(named) else _INTROSPECTION_WEIGHT
            return _Definition(weight, named, is_list, _ListSize(size, (), ()) if is_list else None, {})
        cost, list_size = _directive(graphql_field, Cost), _directive(graphql_field, ListSize)
        return _Definition(
            weight=float(cost.weight) if cost is not None else 1.0 if is_composite_type(named) else 0.0,
            type=named,
            is_list=is_list,
            size=None
            if list_size is None
            else _ListSize(
                list_size.assumed_size or 1,
                tuple(list_size.slicing_arguments or ()),
                tuple(list_size.sized_fields or ()),
            ),
            arguments={
                argument: input_type
                for argument, definition in graphql_field.args.items()
                if is_input_object_type(input_type := get_named_type(definition.type))
                and input_type.name in self._input_weights
            },
        )

    def arguments_price(self, definition: _Definition, arguments: Mapping[str, Any]) -> float:
        """The weights of the input fields that are set."""
        price = 0.0
        for name, input_type in definition.arguments.items():
            value = arguments.get(name)
            if isinstance(value, dict):
                weights = self._input_weights[input_type.name]
                price += sum(weight for key, weight in weights.items() if value.get(key) not in (None, Undefined))
        return price


def _directive(definition: Any, directive: type[Any]) -> Any:
    """The directive of a field or an input field; None if it has none."""
    of_strawberry = definition.extensions.get("strawberry-definition")
    directives = getattr(of_strawberry, "directives", None) or ()
    return next((found for found in directives if isinstance(found, directive)), None)


def _introspection_sizes(schema: GraphQLSchema) -> dict[tuple[str, str], int]:
    """How many objects a list of the introspection has: for a list of each type or field, on average."""
    types = list(schema.type_map.values())
    with_fields = [type_ for type_ in types if is_object_type(type_) or is_interface_type(type_)]
    fields = [graphql_field for type_ in with_fields for graphql_field in type_.fields.values()]
    inputs = [len(type_.fields) for type_ in types if is_input_object_type(type_)]
    directives = schema.directives

    def per(count: int, things: int) -> int:
        return max(1, ceil(count / max(things, 1)))

    return {
        ("__Schema", "types"): len(types),
        ("__Schema", "directives"): len(directives),
        ("__Type", "fields"): per(len(fields), len(types)),
        ("__Type", "inputFields"): per(sum(inputs), len(types)),
        ("__Field", "args"): per(sum(len(graphql_field.args) for graphql_field in fields), len(fields)),
        ("__Directive", "args"): per(sum(len(directive.args) for directive in directives), len(directives)),
    }


@lru_cache
def prices_of(schema: GraphQLSchema) -> SchemaPrices:
    return SchemaPrices(schema)


# --- What an operation asks for --------------------------------------------------------------------------
def price_of(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any] | None,
) -> Price:
    """The price of an operation of a valid document; of a subscription, the price of one event. Raises TooComplex."""
    return _Pricing(prices_of(schema), document, operation, variables or {}).price()


# The fields of an object by response key, with what they cost together.
_Selected = tuple[dict[str, PricedField], float]


class _Pricing:
    """Prices one operation."""

    def __init__(
        self,
        prices: SchemaPrices,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: Mapping[str, Any],
    ) -> None:
        self._prices = prices
        self._operation = operation
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._variables = {
            node.variable.name.value: value_from_ast_untyped(node.default_value)
            for node in operation.variable_definitions or ()
            if node.default_value is not None
        } | dict(variables)
        self._known: dict[tuple[Any, ...], _Selected] = {}
        self._visits = 0

    def price(self) -> Price:
        schema, kind = self._prices.schema, self._operation.operation
        root = {
            OperationType.QUERY: schema.query_type,
            OperationType.MUTATION: schema.mutation_type,
            OperationType.SUBSCRIPTION: schema.subscription_type,
        }[kind]
        fields, _ = self._select(root, [self._operation.selection_set], {})
        writes = sum(priced.weight for priced in fields.values()) if kind is OperationType.MUTATION else 0.0
        return Price(fields, kind is OperationType.SUBSCRIPTION, ceil(writes))

    def _select(self, parent: Any, selection_sets: list[SelectionSetNode], sized: dict[str, int]) -> _Selected:
        """Price the fields of an object. `sized` has the sizes of its lists, as far as its parent determines them."""
        key = (parent.name, *map(id, selection_sets), *sized.items())
        if key not in self._known:
            collected: dict[str, list[FieldNode]] = {}
            visited: set[str] = set()
            for selection_set in selection_sets:
                self._collect(parent, selection_set, collected, visited)
            fields = {
                response_key: priced
                for response_key, nodes in collected.items()
                if (priced := self._price(parent, nodes, sized)) is not None
            }
            self._known[key] = fields, sum(priced.price for priced in fields.values())
        return self._known[key]

    def _price(self, parent: Any, nodes: list[FieldNode], sized: dict[str, int]) -> PricedField | None:
        """None for a field that costs nothing."""
        name = nodes[0].name.value
        definition = self._prices.definition(parent, name)
        if definition is None:
            return None
        arguments = self._arguments(nodes[0]) if definition.arguments or definition.size else {}
        own_size, inner_sized = sized.get(name, 1), {}
        if definition.size is not None:
            size = self._size(definition.size, arguments)
            inner_sized = dict.fromkeys(definition.size.fields, size)
            if definition.is_list:
                own_size = size
        selection_sets = [node.selection_set for node in nodes if node.selection_set is not None]
        fields: dict[str, PricedField] = {}
        fields_price = 0.0
        if selection_sets:
            fields, fields_price = max(
                (
                    self._select(type_, selection_sets, inner_sized)
                    for type_ in self._prices.possible_types(definition.type)
                ),
                key=lambda selected: selected[1],
                default=(fields, fields_price),
            )
        once = self._prices.arguments_price(definition, arguments)
        if not (definition.weight or fields_price or once):
            return None
        return PricedField(definition.weight, own_size, fields, fields_price, once)

    def _size(self, list_size: _ListSize, arguments: Mapping[str, Any]) -> int:
        """The number of rows that are asked for; the largest page for a number that will be refused."""
        values = [arguments[name] for name in list_size.arguments if arguments.get(name) is not None]
        return max(map(_page_size, values), default=list_size.assumed)

    def _arguments(self, node: FieldNode) -> dict[str, Any]:
        values = {
            argument.name.value: value_from_ast_untyped(argument.value, self._variables)
            for argument in node.arguments or ()
        }
        return {name: value for name, value in values.items() if value is not Undefined}

    def _collect(
        self,
        parent: Any,
        selection_set: SelectionSetNode,
        collected: dict[str, list[FieldNode]],
        visited: set[str],
    ) -> None:
        self._visits += len(selection_set.selections)
        if self._visits > _MAX_VISITS:
            raise TooComplex
        for selection in selection_set.selections:
            if selection.directives and not self._is_included(selection):
                continue
            if isinstance(selection, FieldNode):
                alias = selection.alias or selection.name
                collected.setdefault(alias.value, []).append(selection)
                continue
            fragment: InlineFragmentNode | FragmentDefinitionNode | None
            if isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                fragment = self._fragments.get(name)
                if fragment is None or name in visited:
                    continue
                visited.add(name)
            else:
                assert isinstance(selection, InlineFragmentNode)
                fragment = selection
            if self._applies(fragment, parent):
                self._collect(parent, fragment.selection_set, collected, visited)

    def _applies(self, fragment: InlineFragmentNode | FragmentDefinitionNode, parent: Any) -> bool:
        if fragment.type_condition is None or fragment.type_condition.name.value == parent.name:
            return True
        condition: Any = self._prices.schema.type_map.get(fragment.type_condition.name.value)
        return is_abstract_type(condition) and self._prices.schema.is_sub_type(condition, parent)

    def _is_included(self, selection: Any) -> bool:
        """Respect `@skip` and `@include`. A condition that is no boolean is refused later."""
        for directive in selection.directives:
            excluding = {"skip": True, "include": False}.get(directive.name.value)
            if excluding is not None and directive.arguments:
                value = value_from_ast_untyped(directive.arguments[0].value, self._variables)
                if value is excluding:
                    return False
        return True


def _page_size(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_valid = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_PAGE
    return value if is_valid else MAX_PAGE
