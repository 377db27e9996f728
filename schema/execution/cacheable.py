"""Which answers may be kept: those to queries for projects, tasks and reports, and for what belongs to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

from graphql import FieldNode, OperationType, value_from_ast_untyped
from graphql.utilities import get_operation_ast
from strawberry.extensions import SchemaExtension
from strawberry.types import ExecutionResult

from backend.projects.access import parse_id_filter
from backend.projects.cache.versions import versions_after_reading, versions_before_reading

from ..context import Context
from .documents import root_fields

# Of the fields of Query those that show nothing but what the tags of projects tell of.
_LISTS = frozenset(["project", "projects", "report", "reports", "task", "tasks"])
_BESIDE_LISTS = frozenset(["__typename", "cursor"])


class RecordTagVersions(SchemaExtension):
    """Notes in the context what an answer that may be kept will have been read from, before its first row is read.

    Nothing is executed for a client that holds the answer already.
    """

    async def on_execute(self) -> AsyncIterator[None]:
        context = self.execution_context.context
        project_ids: Collection[int] | None = None
        if isinstance(context, Context) and context.records_tag_versions:
            project_ids = await self._note(context)
        yield
        if isinstance(context, Context) and context.tag_versions is not None and not context.etag_matches:
            context.tag_versions = await context.in_database(
                versions_after_reading, context.tag_versions, context.viewer, project_ids
            )

    async def _note(self, context: Context) -> Collection[int] | None:
        """The projects that the operation is narrowed to."""
        document = self.execution_context.graphql_document
        if document is None:
            return None
        operation = get_operation_ast(document, self.execution_context.operation_name)
        if operation is None or operation.operation is not OperationType.QUERY:
            return None
        fields = list(root_fields(document, operation))
        names = {field.name.value for field in fields}
        if not names & _LISTS or names - _LISTS - _BESIDE_LISTS:
            return None
        defaults = {
            node.variable.name.value: value_from_ast_untyped(node.default_value)
            for node in operation.variable_definitions or ()
            if node.default_value is not None
        }
        project_ids = _project_ids(fields, defaults | (self.execution_context.variables or {}))
        context.tag_versions = await context.in_database(versions_before_reading, context.viewer, project_ids)
        if context.etag_matches:
            self.execution_context.result = ExecutionResult(data=None, errors=None)
        return project_ids


def _project_ids(fields: Iterable[FieldNode], variables: dict[str, Any]) -> Collection[int] | None:
    """The projects that all of the fields are narrowed to; None where one of them is not."""
    found = set()
    for field in fields:
        if field.name.value in _BESIDE_LISTS:
            continue
        given = {node.name.value: value_from_ast_untyped(node.value, variables) for node in field.arguments or ()}
        match field.name.value, given:
            case ("project", {"id": str() | int() as text}):
                found.add(parse_id_filter(text))
            case ("tasks", {"filter": {"projectId": str() | int() as text}}):
                found.add(parse_id_filter(text))
            case ("reports", {"projectId": str() | int() as text}):
                found.add(parse_id_filter(text))
            case _:
                return None
    return found
