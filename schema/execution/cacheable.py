"""Decides which responses are cacheable: those of queries that select projects, tasks, reports and their contents."""

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

# Fields of Query whose contents change only with a bump of a project's tag.
_TAGGED_FIELDS = frozenset(["project", "projects", "report", "reports", "task", "tasks"])
# Further fields that a cacheable query may select.
_UNTAGGED_FIELDS = frozenset(["__typename", "cursor"])


class RecordTagVersions(SchemaExtension):
    """Records the tag versions of a cacheable response in the context, before its first row is read.

    If the ETag matches already, the operation is not executed.
    """

    async def on_execute(self) -> AsyncIterator[None]:
        context = self.execution_context.context
        project_ids: Collection[int] | None = None
        if isinstance(context, Context) and context.records_tag_versions:
            project_ids = await self._record(context)
        yield
        if isinstance(context, Context) and context.tag_versions is not None and not context.etag_matches:
            context.tag_versions = await context.in_database(
                versions_after_reading, context.tag_versions, context.viewer, project_ids
            )

    async def _record(self, context: Context) -> Collection[int] | None:
        """Returns the ids of the projects that the operation is filtered by."""
        document = self.execution_context.graphql_document
        if document is None:
            return None
        operation = get_operation_ast(document, self.execution_context.operation_name)
        if operation is None or operation.operation is not OperationType.QUERY:
            return None
        fields = list(root_fields(document, operation))
        names = {field.name.value for field in fields}
        if not names & _TAGGED_FIELDS or names - _TAGGED_FIELDS - _UNTAGGED_FIELDS:
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
    """Ids of the projects that the fields are filtered by; None if a field is not filtered by project."""
    project_ids = set()
    for field in fields:
        if field.name.value in _UNTAGGED_FIELDS:
            continue
        arguments = {node.name.value: value_from_ast_untyped(node.value, variables) for node in field.arguments or ()}
        match field.name.value, arguments:
            case ("project", {"id": str() | int() as text}):
                project_ids.add(parse_id_filter(text))
            case ("tasks", {"filter": {"projectId": str() | int() as text}}):
                project_ids.add(parse_id_filter(text))
            case ("reports", {"projectId": str() | int() as text}):
                project_ids.add(parse_id_filter(text))
            case _:
                return None
    return project_ids
