"""What subscribers hear of an event, worked out once for all who ask the same.

Two ways lead from an event to the text of an answer. Where a document asks for nothing but what the event itself holds,
all of that is resolved once per event, by the schema, and each document picks its part (`_Plan`). Where it asks for
more (the project's name, comments), graphql-core executes it once for all who gave the same document and variables, as
somebody who sees the event's project and nothing else; each of them is asked for their right to it afterwards. The rows
that such documents show are kept for an event while it is among the newest, for all documents and subscribers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary, WeakValueDictionary

import orjson
from django.db import DatabaseError, InterfaceError
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLObjectType,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    get_named_type,
    is_object_type,
    parse,
    specified_rules,
    validate,
    visit,
)
from graphql.execution import ExecutionResult, Executor, create_source_event_stream
from graphql.execution.collect_fields import FieldDetailsList, collect_fields, collect_subfields
from graphql.utilities import get_operation_ast
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from backend.projects import access
from backend.projects.access import Viewer
from backend.projects.events import EventKind
from backend.projects.journal import JournalEvent

from ..context import Context
from ..errors import describe
from ..events import EVENT_TYPES
from ..loaders import Loader
from ..schema import schema
from .limits import MAX_TOKENS, RULES

T = TypeVar("T")

# Longer documents are read anew for each subscriber: what is kept must not be anybody's to fill.
_KEPT_LENGTH = 4_000
_KEPT_DOCUMENTS = 64
# Events of which rows are kept, and of which each document's answers are. Those who keep up ask at about the same time.
_KEPT_EVENTS = 32
_KEPT_ANSWERS = 2

_core = schema._schema
_TYPES: dict[str, GraphQLObjectType] = {
    one.of_kind: _core.type_map[one.__strawberry_definition__.name]  # type: ignore[attr-defined,misc]
    for one in EVENT_TYPES
}


# --- Documents -------------------------------------------------------------------------------------------
class _Subscription(NamedTuple):
    document: DocumentNode
    operation: OperationDefinitionNode
    # Of the variables those that shape the answers; the others say from where and what of to hear.
    shaping: frozenset[str]


def _read_subscription(query: str, operation_name: str | None) -> _Subscription | None:
    """None where it is something else, or not valid: there are others to say what is wrong with it."""
    try:
        document = parse(query, max_tokens=MAX_TOKENS)
        operation = get_operation_ast(document, operation_name)
        if operation is None or operation.operation is not OperationType.SUBSCRIPTION:
            return None
        if validate(_core, document, [*specified_rules, *RULES]):
            return None
    except (GraphQLError, RecursionError, ValueError):
        return None
    return _Subscription(document, operation, frozenset(_shaping_variables(document, operation)))


_kept_subscription = lru_cache(_KEPT_DOCUMENTS)(_read_subscription)


def _shaping_variables(document: DocumentNode, operation: OperationDefinitionNode) -> Iterator[str]:
    fragments = (node for node in document.definitions if isinstance(node, FragmentDefinitionNode))
    for node in (operation.selection_set, *fragments):
        names = _VariableNames()
        visit(node, names)
        yield from names.found


class _VariableNames(Visitor):
    """Of all variables but the arguments of `events`, which is a field of the subscription alone."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def enter_variable(self, node: VariableNode, key: Any, parent: Any, path: Any, ancestors: list[Any]) -> None:
        fields = [one for one in ancestors if isinstance(one, FieldNode)]
        is_argument = "arguments" in path
        if not (is_argument and len(fields) == 1 and fields[0].name.value == "events" and "directives" not in path):
            self.found.add(node.name.value)


# --- Subscribers -----------------------------------------------------------------------------------------
class Subscriber:
    """One subscription. Made by `subscriber`."""

    def __init__(self, executor: Executor[Any], shape: _Shape) -> None:
        self._executor = executor
        self._shape = shape

    async def events(self) -> AsyncGenerator[JournalEvent]:
        """What its field brings. Raises GraphQLError, and while it is iterated whatever the field raises."""
        source = create_source_event_stream(self._executor)
        if not isinstance(source, AsyncIterable | ExecutionResult):
            source = await source
        if isinstance(source, ExecutionResult):
            assert source.errors
            raise source.errors[0]
        return cast(AsyncGenerator[JournalEvent], source)

    async def answer(self, event: JournalEvent) -> str:
        """The `payload` of a `next` message, as JSON."""
        shared = self._shape.plain_answer(event)
        if shared is not None:
            return shared
        viewer: Viewer = self._executor.context_value.viewer
        observed = _observe(event)
        answer = await self._shape.nested_answer(event, observed)
        with suppress(DatabaseError, InterfaceError):  # of which the fields will tell
            if await observed.is_shown_to(viewer):
                return answer
        return _text(await _execute(self._executor, event))


def subscriber(
    query: str, variables: dict[str, Any] | None, operation_name: str | None, context: Context
) -> Subscriber | None:
    """None where the operation is no subscription, or cannot be executed: there are others to say why."""
    is_short = len(query) + len(operation_name or "") <= _KEPT_LENGTH
    read = _kept_subscription if is_short else _read_subscription
    subscription = read(query, operation_name)
    if subscription is None:
        return None
    executor = StrawberryGraphQLCoreExecutionContext.build(
        _core, subscription.document, None, context, variables, operation_name
    )
    if isinstance(executor, list):
        return None
    shaping = {name: value for name, value in (variables or {}).items() if name in subscription.shaping}
    key = (query, operation_name, json.dumps(shaping, sort_keys=True))
    shape = _shapes.get(key)
    if shape is None:
        shape = _shapes[key] = _Shape(executor)
    return Subscriber(executor, shape)


# --- Answers ---------------------------------------------------------------------------------------------
# Of an object: the key of each field in the answer, its name in the schema, and of an object below it the same.
_Plan = list[tuple[str, str, "_Plan | None"]]


class _Shape:
    """What one document asks for with the same variables, for all who do."""

    def __init__(self, executor: Executor[Any]) -> None:
        self._executor = executor.build_per_event_executor(None)
        self._executor.context_value = None
        self._plans: dict[str, _Plan | None] = {}
        self._newest: tuple[JournalEvent, str] | None = None
        self._nested: dict[_Key, asyncio.Future[str]] = {}

    def plain_answer(self, event: JournalEvent) -> str | None:
        """None where the event itself does not hold all that is asked for."""
        if self._newest is not None and self._newest[0] is event:
            return self._newest[1]
        if event.kind not in self._plans:
            self._plans[event.kind] = self._planned(event.kind)
        plan = self._plans[event.kind]
        whole = None if plan is None else _whole(event)
        if plan is None or whole is None:
            return None
        text = orjson.dumps({"data": _pick(plan, whole)}).decode()
        self._newest = event, text
        return text

    async def nested_answer(self, event: JournalEvent, observed: _ObservedEvent) -> str:
        """As an project_observer sees it."""
        key = _key(event)
        if key not in self._nested:
            _make_room(self._nested, _KEPT_ANSWERS)
            self._nested[key] = asyncio.ensure_future(self._executed(event, observed))
        return await asyncio.shield(self._nested[key])

    async def _executed(self, event: JournalEvent, observed: _ObservedEvent) -> str:
        executor = self._executor.build_per_event_executor(None)
        executor.context_value = observed.context
        is_good = False
        try:
            result = await _execute(executor, event)
            is_good = not result.errors
            return _text(result)
        finally:
            if not is_good:  # the next who asks may have more luck
                self._nested.pop(_key(event), None)
                _observed_events.pop(_key(event), None)

    def _planned(self, kind: str) -> _Plan | None:
        executor, root = self._executor, _core.subscription_type
        assert root is not None
        collected = collect_fields(
            _core, executor.fragments, executor.variable_values, root, executor.operation, executor.hide_suggestions
        )
        [(key, details)] = collected.grouped_field_set.items()
        plan = self._plan(_TYPES[kind], details)
        return None if plan is None else [(key, "events", plan)]

    def _plan(self, parent: GraphQLObjectType, details: FieldDetailsList) -> _Plan | None:
        """None where something is asked for that the event does not hold."""
        executor = self._executor
        collected = collect_subfields(
            _core,
            executor.fragments,
            executor.variable_values,
            executor.operation,
            parent,
            details,
            executor.hide_suggestions,
        )
        plan: _Plan = []
        for key, below in collected.grouped_field_set.items():
            name = below[0].node.name.value
            inner: _Plan | None = None
            if name != "__typename":
                fields = _plain_fields(parent)
                if name not in fields:
                    return None
                kind = fields[name]
                if kind is not None and (inner := self._plan(kind, below)) is None:
                    return None
            plan.append((key, name, inner))
        return plan


_shapes: WeakValueDictionary[tuple[str, str | None, str], _Shape] = WeakValueDictionary()


def _pick(plan: _Plan, whole: dict[str, Any]) -> dict[str, Any]:
    return {
        key: whole[name] if below is None or whole[name] is None else _pick(below, whole[name])
        for key, name, below in plan
    }


async def _execute(executor: Executor[Any], event: JournalEvent) -> ExecutionResult:
    result = executor.build_per_event_executor(event).execute_operation(False)
    executed: ExecutionResult = result if isinstance(result, ExecutionResult) else await result  # type: ignore[misc]
    return executed


def _text(result: ExecutionResult) -> str:
    answer: dict[str, Any] = {"data": result.data}
    if result.errors:
        answer["errors"] = [describe(error).formatted for error in result.errors]
    return orjson.dumps(answer).decode()


# --- What an event holds ---------------------------------------------------------------------------------
@lru_cache
def _plain_fields(parent: GraphQLObjectType) -> dict[str, GraphQLObjectType | None]:
    """The fields that are resolved from the event alone: they take no arguments, and wait for nothing."""
    return {
        name: get_named_type(field.type) if is_object_type(get_named_type(field.type)) else None
        for name, field in parent.fields.items()
        if not field.args and not field.extensions["strawberry-definition"].is_async
    }


def _all_plain(parent: GraphQLObjectType) -> str:
    fields = (f"{name} {{ {_all_plain(below)} }}" if below else name for name, below in _plain_fields(parent).items())
    return " ".join(["__typename", *fields])


@lru_cache
def _whole_of(kind: str) -> Executor[Any]:
    document = f"subscription {{ events {{ ... on {_TYPES[kind].name} {{ {_all_plain(_TYPES[kind])} }} }} }}"
    executor = StrawberryGraphQLCoreExecutionContext.build(_core, parse(document))
    assert isinstance(executor, Executor)
    return executor


# As long as it waits for somebody.
_wholes: WeakKeyDictionary[JournalEvent, dict[str, Any] | None] = WeakKeyDictionary()


def _whole(event: JournalEvent) -> dict[str, Any] | None:
    """All that the event holds, under the names of the schema; None where that went wrong."""
    if event not in _wholes:
        result = _whole_of(event.kind).build_per_event_executor(event).execute_operation(False)
        assert isinstance(result, ExecutionResult)
        _wholes[event] = None if result.errors else result.data
    return _wholes[event]


# --- What it leads to ------------------------------------------------------------------------------------
class _ObservedEvent:
    """What those who see an event's project see beside the event, read once for all of them."""

    def __init__(self, event: JournalEvent) -> None:
        assert event.project_id is not None
        self._project_id = event.project_id
        self._is_deleted = event.kind == EventKind.PROJECT_DELETED
        self.context = Context(viewer=access.project_observer(event.project_id), is_long_lived=True, caches_rows=True)
        self._visible: Loader[Viewer, bool] = Loader(load_fn=self._who_see, cache=False)

    async def is_shown_to(self, viewer: Viewer) -> bool:
        """Whether the viewer may see what was read, asked after it was; all who ask together are asked for together.

        Of a project that is deleted there was nothing to read.
        """
        return self._is_deleted or not viewer.is_signed_in or await self._visible.load(viewer)

    async def _who_see(self, viewers: list[Viewer]) -> list[bool]:
        seeing = await self.context.in_database(access.who_see, self._project_id, viewers)
        return [viewer in seeing for viewer in viewers]


# Of an event, however often it is read; after a restored backup another has its position.
_Key: TypeAlias = tuple[int, datetime]


def _key(event: JournalEvent) -> _Key:
    return event.position, event.at


_observed_events: dict[_Key, _ObservedEvent] = {}


def _observe(event: JournalEvent) -> _ObservedEvent:
    key = _key(event)
    found = _observed_events.pop(key, None)
    if found is None:
        _make_room(_observed_events, _KEPT_EVENTS)
        found = _ObservedEvent(event)
    _observed_events[key] = found  # the last to go
    return found


def _make_room(kept: dict[_Key, T], size: int) -> None:
    while len(kept) >= size:
        del kept[next(iter(kept))]
