"""Executes an event once for all subscriptions with the same document and variables (docs/decisions/0005-fan-out.md).

An event becomes a payload in one of two ways. If the document selects only fields that the event itself contains, the
schema resolves all of these once per event, and each document selects its part of the data (`_Plan`). If it selects
more (the project's name, comments), graphql-core executes it once for all subscribers with the same document and
variables, as a project observer; each subscriber's access to the project is checked afterwards. The rows that these
documents load are cached for the most recently used events, and shared by all documents and subscribers.

The event loop selects and sends. Documents are parsed, compiled and executed in the threads of requests.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary, WeakValueDictionary

import orjson
from django.conf import settings
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
    visit,
)
from graphql.execution import ExecutionResult, Executor, create_source_event_stream
from graphql.execution.collect_fields import FieldDetailsList, collect_fields, collect_subfields
from graphql.utilities import get_operation_ast

from backend.projects import access, threads
from backend.projects.access import Viewer
from backend.projects.budget import charge, cost_policy, give_back
from backend.projects.errors import RateLimited
from backend.projects.events import EventKind
from backend.projects.journal import JournalEvent
from backend.projects.threads import ClientLeft, Job

from ..context import Context, run_in_thread
from ..encoding import encode, require_size
from ..errors import describe
from ..events import EVENT_TYPES
from ..loaders import RowCache
from ..schema import schema
from .charging import affordable_price
from .columns import InterruptibleExecutor
from .limits import MAX_TOKENS, validate_document

T = TypeVar("T")

# Longer documents are parsed for each subscriber, so that no client can fill the memory.
_MAX_CACHED_LENGTH = 4_000
_MAX_CACHED_DOCUMENTS = 64
# Events whose rows are cached, and events whose payload is cached per document. Subscribers that keep up need the same
# event at about the same time.
_MAX_CACHED_EVENTS = 32
_MAX_CACHED_PAYLOADS = 2
# Events that a subscription pays at once, as far as they cost no more than this.
_PREPAID_EVENTS = 50
_MAX_PREPAID = 1_000

_core = schema._schema
_TYPES: dict[str, GraphQLObjectType] = {
    event_type.of_kind: _core.type_map[event_type.__strawberry_definition__.name]  # type: ignore[attr-defined,misc]
    for event_type in EVENT_TYPES
}


# --- Documents -------------------------------------------------------------------------------------------
class _Subscription(NamedTuple):
    document: DocumentNode
    operation: OperationDefinitionNode
    # The variables that affect the payload; the others only set the position and the filter of `events`.
    payload_variables: frozenset[str]


def _parse_subscription(query: str, operation_name: str | None) -> _Subscription | None:
    """None if it is another operation or invalid; Strawberry reports the error."""
    try:
        document = parse(query, max_tokens=MAX_TOKENS)
        operation = get_operation_ast(document, operation_name)
        if operation is None or operation.operation is not OperationType.SUBSCRIPTION:
            return None
        if validate_document(_core, document):
            return None
    except (GraphQLError, RecursionError, ValueError):
        return None
    return _Subscription(document, operation, frozenset(_payload_variables(document, operation)))


_cached_subscription = lru_cache(_MAX_CACHED_DOCUMENTS)(_parse_subscription)


def _payload_variables(document: DocumentNode, operation: OperationDefinitionNode) -> Iterator[str]:
    fragments = (node for node in document.definitions if isinstance(node, FragmentDefinitionNode))
    for node in (operation.selection_set, *fragments):
        visitor = _VariableNames()
        visit(node, visitor)
        yield from visitor.names


class _VariableNames(Visitor):
    """Collects the variables that are used anywhere but as arguments of the root field `events`."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_variable(self, node: VariableNode, key: Any, parent: Any, path: Any, ancestors: list[Any]) -> None:
        fields = [ancestor for ancestor in ancestors if isinstance(ancestor, FieldNode)]
        is_argument = "arguments" in path
        if not (is_argument and len(fields) == 1 and fields[0].name.value == "events" and "directives" not in path):
            self.names.add(node.name.value)


# --- Subscribers -----------------------------------------------------------------------------------------
class Subscriber:
    """One client's subscription, created by `subscriber`."""

    def __init__(self, executor: Executor[Any], operation: _SharedOperation, price: int) -> None:
        self._executor = executor
        self._operation = operation
        self._price = price
        # Units that are charged already, for the next events.
        self._prepaid = 0

    async def events(self) -> AsyncGenerator[JournalEvent]:
        """The source events. Raises GraphQLError; iterating it raises the errors of `Subscription.events`."""
        source = create_source_event_stream(self._executor)
        if not isinstance(source, AsyncIterable | ExecutionResult):
            source = await source
        if isinstance(source, ExecutionResult):
            assert source.errors
            raise source.errors[0]
        return cast(AsyncGenerator[JournalEvent], source)

    async def payload(self, event: JournalEvent) -> str:
        """The `payload` of a `next` message, as JSON. A payload that the event itself contains is free.

        Raises OperationTimedOut, ResponseTooLarge, RateLimited if the viewer's budget is spent.
        """
        payload = self._operation.selected_payload(event)
        if payload is not None:
            return payload
        await self._pay()
        context: Context = self._executor.context_value
        execution = _shared_execution(event)
        payload = await self._operation.executed_payload(event, execution, account_of(context.viewer))
        with suppress(DatabaseError, InterfaceError):  # the execution below reports these
            if await execution.is_visible_to(context.viewer):
                return payload
            # The viewer may have been staff when the event was read.
            context = replace(context, viewer=replace(context.viewer, sees_all=False))
        execute = partial(_execute, self._executor, replace(context), event)
        return (await threads.requests.run(Job(account_of(context.viewer)), execute)).payload

    async def _pay(self) -> None:
        """Pay for one event. Several are charged at once, so that most cost no command in Redis."""
        if self._prepaid < self._price:
            try:
                await self._prepay(min(_PREPAID_EVENTS * self._price, _MAX_PREPAID))
            except RateLimited:
                await self._prepay(self._price)
        self._prepaid -= self._price

    async def _prepay(self, units: int) -> None:
        context: Context = self._executor.context_value
        units = max(units, self._price)
        await threads.requests.call(charge, context.viewer, [(cost_policy(), units)])
        self._prepaid += units

    def close(self) -> None:
        """Give back what is charged for events that are no longer sent."""
        give_back(self._executor.context_value.viewer, cost_policy(), self._prepaid)
        self._prepaid = 0


def account_of(viewer: Viewer) -> Hashable:
    """Whom the operations of a socket count for. In open mode, all clients are one account."""
    return "open" if viewer.user_id is None else viewer.user_id


def subscriber(
    query: str, variables: dict[str, Any] | None, operation_name: str | None, context: Context
) -> Subscriber | None:
    """None if the operation is not a subscription or cannot be executed; Strawberry reports the error.

    May take long: to be called in a thread. Raises GraphQLError if one event costs more than `COST_MAX`.
    """
    is_short = len(query) + len(operation_name or "") <= _MAX_CACHED_LENGTH
    parse_subscription = _cached_subscription if is_short else _parse_subscription
    subscription = parse_subscription(query, operation_name)
    if subscription is None:
        return None
    executor = InterruptibleExecutor.build(_core, subscription.document, None, context, variables, operation_name)
    if isinstance(executor, list):
        return None
    price = affordable_price(_core, subscription.document, subscription.operation, variables)
    used = {name: value for name, value in (variables or {}).items() if name in subscription.payload_variables}
    key = (query, operation_name, json.dumps(used, sort_keys=True))
    with _operations_lock:
        operation = _operations.get(key)
    if operation is None:
        operation = _SharedOperation(executor)
        with _operations_lock:
            operation = _operations.setdefault(key, operation)
    return Subscriber(executor, operation, settings.COST_MAX if price is None else price.total)


# --- Payloads --------------------------------------------------------------------------------------------
# Per selected field of an object: its response key, its name in the schema, and the plan of its own fields, if any.
_Plan = list[tuple[str, str, "_Plan | None"]]


class _SharedOperation:
    """One document with one set of variables, shared by its subscribers."""

    def __init__(self, executor: Executor[Any]) -> None:
        self._executor = _executor_of(None, executor)
        self._executor.context_value = None
        self._plans = {kind: self._compile(kind) for kind in _TYPES}
        self._newest: tuple[JournalEvent, str] | None = None
        self._executed: dict[_EventKey, _SharedPayload] = {}

    def selected_payload(self, event: JournalEvent) -> str | None:
        """None if the document selects more than the event itself contains."""
        if self._newest is not None and self._newest[0] is event:
            return self._newest[1]
        plan = self._plans[event.kind]
        data = None if plan is None else _event_data(event)
        if plan is None or data is None:
            return None
        payload = orjson.dumps({"data": _select(plan, data)}).decode()
        self._newest = event, payload
        return payload

    async def executed_payload(self, event: JournalEvent, execution: _SharedExecution, account: Hashable) -> str:
        """The payload for a project observer. The first subscriber's account is the one that the execution counts for.

        Raises OperationTimedOut, ResponseTooLarge.
        """
        key = _event_key(event)
        shared = self._executed.get(key)
        if shared is None:
            _evict_oldest(self._executed, _MAX_CACHED_PAYLOADS)
            context = Context(viewer=execution.viewer, row_cache=execution.row_cache)
            shared = _SharedPayload(account, partial(_execute, self._executor, context, event))
            self._executed[key] = shared
            shared.executing.add_done_callback(partial(self._forget_if_failed, key, shared))
        try:
            return await shared.get()
        finally:
            if shared.is_abandoned:
                self._forget(key, shared)

    def _forget_if_failed(self, key: _EventKey, shared: _SharedPayload, executing: asyncio.Future[_Executed]) -> None:
        """Let the next subscriber try again."""
        if executing.cancelled() or executing.exception() is not None or executing.result().has_errors:
            self._forget(key, shared)

    def _forget(self, key: _EventKey, shared: _SharedPayload) -> None:
        if self._executed.get(key) is shared:
            del self._executed[key]
            _shared_executions.pop(key, None)

    def _compile(self, kind: str) -> _Plan | None:
        executor, root = self._executor, _core.subscription_type
        assert root is not None
        collected = collect_fields(
            _core, executor.fragments, executor.variable_values, root, executor.operation, executor.hide_suggestions
        )
        [(key, details)] = collected.grouped_field_set.items()
        plan = self._compile_fields(_TYPES[kind], details)
        return None if plan is None else [(key, "events", plan)]

    def _compile_fields(self, parent: GraphQLObjectType, details: FieldDetailsList) -> _Plan | None:
        """None if a selected field is not contained in the event."""
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
        for key, field_details in collected.grouped_field_set.items():
            name = field_details[0].node.name.value
            inner: _Plan | None = None
            if name != "__typename":
                fields = _event_fields(parent)
                if name not in fields:
                    return None
                object_type = fields[name]
                if object_type is not None and (inner := self._compile_fields(object_type, field_details)) is None:
                    return None
            plan.append((key, name, inner))
        return plan


_operations: WeakValueDictionary[tuple[str, str | None, str], _SharedOperation] = WeakValueDictionary()
_operations_lock = threading.Lock()


class _SharedPayload:
    """One execution for all subscribers that wait for it. It is interrupted once all of them have left."""

    def __init__(self, account: Hashable, execute: Callable[[], _Executed]) -> None:
        self._job = Job(account)
        self._waiting = 0
        self.executing = threads.requests.start(self._job, execute)

    @property
    def is_abandoned(self) -> bool:
        return self._job.is_interrupted

    async def get(self) -> str:
        self._waiting += 1
        try:
            return (await asyncio.shield(self.executing)).payload
        finally:
            self._waiting -= 1
            if not self._waiting and not self.executing.done():
                self._job.interrupt(ClientLeft())


def _select(plan: _Plan, data: dict[str, Any]) -> dict[str, Any]:
    return {
        key: data[name] if inner is None or data[name] is None else _select(inner, data[name])
        for key, name, inner in plan
    }


def _executor_of(event: JournalEvent | None, executor: Executor[Any]) -> Executor[Any]:
    """A copy of `executor` for one event.

    graphql-core's copies share a memo of selected fields with their original. Every execution adds entries under the
    ids of its own lists, which no other execution finds, and the original keeps them for as long as it lives.
    """
    copy = executor.build_per_event_executor(event)
    copy._relevant_sub_fields = {}
    copy.background_futures = set()
    return copy


class _Executed(NamedTuple):
    payload: str
    has_errors: bool


def _execute(executor: Executor[Any], context: Context, event: JournalEvent) -> _Executed:
    """Execute in the calling thread. Raises ResponseTooLarge."""
    copy = _executor_of(event, executor)
    copy.context_value = context

    async def execute() -> ExecutionResult:
        result = copy.execute_operation(False)
        executed: ExecutionResult = result if isinstance(result, ExecutionResult) else await result  # type: ignore[misc]
        return executed

    result = run_in_thread(execute())
    payload: dict[str, Any] = {"data": result.data}
    if result.errors:
        payload["errors"] = [describe(error).formatted for error in result.errors]
    return _Executed(require_size(encode(payload)).decode(), bool(result.errors))


# --- The data of an event --------------------------------------------------------------------------------
@lru_cache
def _event_fields(parent: GraphQLObjectType) -> dict[str, GraphQLObjectType | None]:
    """The fields that the event alone resolves (no arguments, no async resolver), each with its object type, if any."""
    return {
        name: get_named_type(field.type) if is_object_type(get_named_type(field.type)) else None
        for name, field in parent.fields.items()
        if not field.args and not field.extensions["strawberry-definition"].is_async
    }


def _full_selection(parent: GraphQLObjectType) -> str:
    fields = (
        f"{name} {{ {_full_selection(object_type)} }}" if object_type else name
        for name, object_type in _event_fields(parent).items()
    )
    return " ".join(["__typename", *fields])


@lru_cache
def _full_executor(kind: str) -> Executor[Any]:
    document = f"subscription {{ events {{ ... on {_TYPES[kind].name} {{ {_full_selection(_TYPES[kind])} }} }} }}"
    executor = InterruptibleExecutor.build(_core, parse(document))
    assert isinstance(executor, Executor)
    return executor


# Data is cached while a listener's queue or a subscriber still refers to the event.
_data_of_events: WeakKeyDictionary[JournalEvent, dict[str, Any] | None] = WeakKeyDictionary()


def _event_data(event: JournalEvent) -> dict[str, Any] | None:
    """All data that the event contains, by the schema's field names; None if a field failed."""
    if event not in _data_of_events:
        result = _executor_of(event, _full_executor(event.kind)).execute_operation(False)
        assert isinstance(result, ExecutionResult)
        _data_of_events[event] = None if result.errors else result.data
    return _data_of_events[event]


# --- Rows beyond the event -------------------------------------------------------------------------------
class _SharedExecution:
    """What the executions of an event for all its subscribers share: a project observer and the rows that it reads."""

    def __init__(self, event: JournalEvent) -> None:
        assert event.project_id is not None
        self._project_id = event.project_id
        self._is_deleted = event.kind == EventKind.PROJECT_DELETED
        self.viewer = access.project_observer(event.project_id)
        self.row_cache = RowCache()
        self._checking = asyncio.Lock()
        # The check that more viewers can join: it has not begun.
        self._next_check: asyncio.Future[frozenset[Viewer]] | None = None
        self._viewers: set[Viewer] = set()

    async def is_visible_to(self, viewer: Viewer) -> bool:
        """Whether the viewer may see the rows that were read. All calls during one check share the next one.

        Must be called after the read. A deleted project has no rows to read.
        """
        if self._is_deleted or not viewer.is_signed_in:
            return True
        if self._next_check is None:
            self._next_check = asyncio.ensure_future(self._check())
            self._next_check.add_done_callback(lambda check: check.cancelled() or check.exception())
        self._viewers.add(viewer)
        return viewer in await asyncio.shield(self._next_check)

    async def _check(self) -> frozenset[Viewer]:
        async with self._checking:
            viewers, self._viewers, self._next_check = list(self._viewers), set(), None
            return frozenset(await threads.requests.call(access.viewers_who_see, self._project_id, viewers))


# Identifies an event, however often it is read. After a restored backup another event may have the same position.
_EventKey: TypeAlias = tuple[int, datetime]


def _event_key(event: JournalEvent) -> _EventKey:
    return event.position, event.at


# Least recently used first.
_shared_executions: dict[_EventKey, _SharedExecution] = {}


def _shared_execution(event: JournalEvent) -> _SharedExecution:
    key = _event_key(event)
    execution = _shared_executions.pop(key, None)
    if execution is None:
        _evict_oldest(_shared_executions, _MAX_CACHED_EVENTS)
        execution = _SharedExecution(event)
    _shared_executions[key] = execution
    return execution


def _evict_oldest(cache: dict[_EventKey, T], max_size: int) -> None:
    while len(cache) >= max_size:
        del cache[next(iter(cache))]
