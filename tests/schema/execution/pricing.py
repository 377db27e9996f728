"""Prices a document from the SDL alone, as a client would (docs/cost.md), and generates documents.

The price follows the specification of the directives and uses no code of the product: every fragment is expanded, and
the selection is executed without rows.
"""

from __future__ import annotations

import json
from math import ceil
from random import Random
from typing import Any

from graphql import (
    DirectiveNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLSchema,
    Undefined,
    get_named_type,
    is_abstract_type,
    is_composite_type,
    is_input_object_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
    parse,
    value_from_ast_untyped,
)
from graphql.utilities import get_operation_ast

LARGEST_PAGE = 100


# --- Prices ----------------------------------------------------------------------------------------------
def price_from_sdl(schema: GraphQLSchema, document: str, variables: dict[str, Any]) -> int:
    return _Pricer(schema, document, variables).total()


def _arguments_of(directive_name: str, directives: tuple[DirectiveNode, ...]) -> dict[str, Any] | None:
    for directive in directives or ():
        if directive.name.value == directive_name:
            return {
                argument.name.value: value_from_ast_untyped(argument.value) for argument in directive.arguments or ()
            }
    return None


def _arguments(node: DirectiveNode | FieldNode, variables: dict[str, Any]) -> dict[str, Any]:
    return {argument.name.value: value_from_ast_untyped(argument.value, variables) for argument in node.arguments or ()}


class _Pricer:
    def __init__(self, schema: GraphQLSchema, document: str, variables: dict[str, Any]) -> None:
        self.schema = schema
        parsed = parse(document)
        operation = get_operation_ast(parsed, None)
        assert operation is not None
        self.operation = operation
        self.fragments = {
            node.name.value: node for node in parsed.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self.variables = {
            node.variable.name.value: value_from_ast_untyped(node.default_value)
            for node in operation.variable_definitions or ()
            if node.default_value is not None
        } | variables

    def total(self) -> int:
        root = self.schema.get_root_type(self.operation.operation)
        return max(1, ceil(round(self.fields(root, [self.operation.selection_set], {}), 6)))

    def fields(self, parent: Any, selection_sets: list[Any], sized: dict[str, int]) -> float:
        by_key: dict[str, list[FieldNode]] = {}
        for selection_set in selection_sets:
            for node in self.expanded(parent, selection_set):
                by_key.setdefault((node.alias or node.name).value, []).append(node)
        return sum(self.field(parent, nodes, sized) for nodes in by_key.values())

    def expanded(self, parent: Any, selection_set: Any) -> list[FieldNode]:
        found: list[FieldNode] = []
        for selection in selection_set.selections:
            conditions = [
                (directive.name.value, value_from_ast_untyped(directive.arguments[0].value, self.variables))
                for directive in selection.directives or ()
            ]
            if ("skip", True) in conditions or ("include", False) in conditions:
                continue
            if isinstance(selection, FieldNode):
                found.append(selection)
                continue
            fragment = self.fragments[selection.name.value] if isinstance(selection, FragmentSpreadNode) else selection
            condition = fragment.type_condition
            on: Any = parent if condition is None else self.schema.type_map[condition.name.value]
            if on is parent or (is_abstract_type(on) and self.schema.is_sub_type(on, parent)):
                found += self.expanded(parent, fragment.selection_set)
        return found

    def field(self, parent: Any, nodes: list[FieldNode], sized: dict[str, int]) -> float:
        name = nodes[0].name.value
        if name == "__typename":
            return 0.0
        field = parent.fields[name]
        named = get_named_type(field.type)
        cost = _arguments_of("cost", field.ast_node.directives)
        weight = float(cost["weight"]) if cost else 1.0 if is_composite_type(named) else 0.0
        arguments = {
            node.name.value: value_from_ast_untyped(node.value, self.variables) for node in nodes[0].arguments or ()
        }
        of_arguments = 0.0
        for argument, definition in field.args.items():
            input_type = get_named_type(definition.type)
            if isinstance(input_type, GraphQLInputObjectType) and isinstance(arguments.get(argument), dict):
                for key, value in arguments[argument].items():
                    input_cost = _arguments_of("cost", input_type.fields[key].ast_node.directives)
                    if input_cost and value is not None and value is not Undefined:
                        of_arguments += float(input_cost["weight"])
        list_size = _arguments_of("listSize", field.ast_node.directives)
        inner: dict[str, int] = {}
        if list_size is not None:
            sizes = [arguments.get(slicing) for slicing in list_size["slicingArguments"]]
            values = [size for size in sizes if size is not None and size is not Undefined]
            valid = [size if isinstance(size, int) and 1 <= size <= LARGEST_PAGE else LARGEST_PAGE for size in values]
            inner = dict.fromkeys(list_size["sizedFields"], max(valid, default=list_size["assumedSize"]))
        selection_sets = [node.selection_set for node in nodes if node.selection_set]
        types = self.schema.get_possible_types(named) if is_abstract_type(named) else [named]
        selected = (
            max((self.fields(type_, selection_sets, inner) for type_ in types), default=0.0) if selection_sets else 0.0
        )
        return of_arguments + sized.get(name, 1) * (weight + selected)


# --- Documents -------------------------------------------------------------------------------------------
class DocumentGenerator:
    """Generates valid documents over every operation type, with variables, fragments, aliases and directives."""

    def __init__(self, schema: GraphQLSchema, random: Random) -> None:
        self.schema = schema
        self.random = random

    def document(self) -> tuple[str, dict[str, Any]]:
        self.fragments: list[str] = []
        self.declared: dict[str, tuple[str, Any, Any]] = {}
        self.aliases = 0
        kind = self.random.choices(["query", "mutation", "subscription"], [8, 1, 1])[0]
        root = {
            "query": self.schema.query_type,
            "mutation": self.schema.mutation_type,
            "subscription": self.schema.subscription_type,
        }[kind]
        selection = self.selection(root, depth=self.random.randint(2, 5), is_root=kind == "subscription")
        variables = {name: value for name, (_, _, value) in self.declared.items() if value is not _ABSENT}
        definitions = ", ".join(
            f"${name}: {type_}" + ("" if default is _ABSENT else f" = {default}")
            for name, (type_, default, _) in self.declared.items()
        )
        head = f"{kind} Generated" + (f" ({definitions})" if definitions else "")
        return " ".join([head, selection, *self.fragments]), variables

    def variable(self, type_: str, choices: list[Any]) -> str:
        """Declare a variable, with or without a default and a value. Returns its reference."""
        name = f"v{len(self.declared)}"
        is_required = type_.endswith("!")
        default = _ABSENT if is_required or self.random.random() < 0.5 else self.random.choice(choices)
        value = self.random.choice(choices if is_required else [*choices, None, _ABSENT])
        literal = default if default is _ABSENT else _literal(default)
        self.declared[name] = (type_, literal, value)
        return f"${name}"

    def selection(self, parent: Any, depth: int, *, is_root: bool = False) -> str:
        fields = list(parent.fields) if not is_abstract_type(parent) or hasattr(parent, "fields") else []
        leaves = [name for name in fields if not is_composite_type(get_named_type(parent.fields[name].type))]
        nested = [name for name in fields if name not in leaves]
        parts: list[str] = [] if is_root else ["__typename"]
        if leaves and not is_root:
            parts += self.random.sample(leaves, self.random.randint(0, min(3, len(leaves))))
        if depth > 0 and nested:
            for name in self.random.sample(nested, 1 if is_root else self.random.randint(1, min(3, len(nested)))):
                parts.append(self.field(parent, name, depth, is_root=is_root))
        if is_abstract_type(parent):
            for type_ in self.random.sample(list(self.schema.get_possible_types(parent)), 2):
                parts.append(f"... on {type_.name} {self.selection(type_, depth - 1)}")
        if not is_root and self.random.random() < 0.2:
            # Repeats the fields, so that equal response keys are merged.
            parts.append(f"... {{ {' '.join(parts)} }}")
        return f"{{ {' '.join(parts)} }}"

    def field(self, parent: Any, name: str, depth: int, *, is_root: bool) -> str:
        field = parent.fields[name]
        named = get_named_type(field.type)
        alias = ""
        if self.aliases < 25 and (field.args or self.random.random() < 0.3):
            # Each selection with arguments has an alias of its own, so that merged fields have equal arguments.
            self.aliases += 1
            alias = f"a{self.aliases}: "
        elif field.args and not is_root:
            return "__typename"
        selected = f"{alias}{name}{self.arguments(field)}"
        if not is_root and self.random.random() < 0.15:
            condition = self.random.choice(["true", "false", None]) or self.variable("Boolean!", [True, False])
            selected += f" @{self.random.choice(['skip', 'include'])}(if: {condition})"
        inner = self.selection(named, depth - 1)
        if self.random.random() < 0.2:
            fragment = f"F{len(self.fragments)}"
            self.fragments.append("")
            self.fragments[int(fragment[1:])] = f"fragment {fragment} on {named.name} {inner}"
            inner = f"{{ ...{fragment} ...{fragment} }}"
        return f"{selected} {inner}"

    def arguments(self, field: Any) -> str:
        chosen = []
        for name, argument in field.args.items():
            if not is_required_argument(argument) and self.random.random() < 0.5:
                continue
            if name in ("first", "last"):
                choices = [1, 2, 7, 50, 100, 0, 101, -3]
                is_variable = self.random.random() < 0.5
                value = self.variable("Int", choices) if is_variable else _literal(self.random.choice(choices))
            else:
                value = self.value(argument.type)
            chosen.append(f"{name}: {value}")
        return f"({', '.join(chosen)})" if chosen else ""

    def value(self, type_: Any) -> str:
        named = get_named_type(type_)
        if is_list_type(type_.of_type if is_non_null_type(type_) else type_):
            return f"[{self.value(named)}]"
        if is_input_object_type(named):
            fields = [
                f"{name}: {self.value(field.type)}"
                for name, field in named.fields.items()
                if is_non_null_type(field.type) or self.random.random() < 0.5
            ]
            return f"{{{', '.join(fields)}}}"
        if isinstance(named, GraphQLEnumType):
            return str(self.random.choice(list(named.values)))
        if named.name == "Int":
            return "3"
        if named.name == "DateTime":
            return '"2030-01-01T00:00:00Z"'
        if named.name == "String" and not is_non_null_type(type_) and self.random.random() < 0.5:
            return self.variable("String", ["sink"])
        return {"Boolean": "true", "Date": '"2030-01-01"'}.get(named.name, '"1"')


class _Absent:
    pass


_ABSENT = _Absent()


def _literal(value: Any) -> str:
    return json.dumps(value)
