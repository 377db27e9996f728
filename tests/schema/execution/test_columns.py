"""Lists that are completed column by column have the same results as in graphql-core."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from django.test import override_settings
from msgspec.structs import replace
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from backend.projects.access import SYSTEM, Viewer, viewer_for
from backend.projects.models import Role, Task
from backend.projects.rows import TaskRow
from schema.context import Context, run_in_thread
from schema.execution.columns import Executor
from schema.schema import schema
from tests.cases import Case
from tests.factories import CommentFactory, MembershipFactory, SummaryReportFactory, TaskFactory, UserFactory

DOCUMENTS = (
    "{ tasks { nodes { id title description status dueDate createdAt updatedAt version } } }",
    "{ tasks { nodes { __typename id project { __typename id name } assignee { name id } } } }",
    "{ tasks { edges { cursor node { id project { name } } } pageInfo { endCursor } totalCount } }",
    "{ tasks { a: nodes { b: title c: title project { d: name } } nodes { title project { version } } } }",
    "{ tasks { ...Page } } fragment Page on TaskConnection { nodes { ...Row id } nodes { ... on Task { status } } }"
    " fragment Row on Task { title project { name ...Named } } fragment Named on Project { version }",
    "query ($no: Boolean = false) { tasks { nodes { id title @include(if: $no) project @skip(if: true) { id } } } }",
    "query ($no: Boolean = false) { tasks { nodes { id @include(if: $no) } edges { node { id @include(if: $no) } } } }",
    "query ($no: Boolean = false) { tasks { edges { cursor node { id @include(if: $no) } } } }",
    "{ tasks { nodes { project { id @skip(if: true) } } } }",
    "{ tasks { nodes { id comments { nodes { content task { title project { name } } } totalCount } } } }",
    "{ tasks { nodes { comments { totalCount } id a: title b: title project { id members { nodes { role } } } } } }",
    "{ projects { nodes { name members { nodes { role user { name } } } } } }",
    "{ projects { nodes { tasks { edges { node { title assignee { id } } } } } } }",
    "{ reports { nodes { id date figures generatedAt project { name } } } }",
    "{ tasks { nodes { id comments(first: -1) { nodes { id } } } } }",
    "{ tokens { nodes { id name scope expiresAt } } auditLog { nodes { id action at actor { name } userId } } }",
    "{ events(after: \"0\") { nodes { cursor kind ... on TaskCreated { task { title project { name } } } } } }",
    "{ tasks(first: 1, filter: {search: \"nothing of the kind\"}) { nodes { id project { name } } } }",
    "{ __schema { types { name fields { name args { name } } } } }",
)  # fmt: skip


class ResultTests(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        membership = MembershipFactory(role=Role.OWNER)
        cls.viewer = viewer_for(membership.user)
        other = UserFactory(first_name="Ada")
        for assignee in (membership.user, None, other):
            task = TaskFactory(project=membership.project, assignee=assignee, status="in_progress")
            CommentFactory(task=task)
        TaskFactory(project=MembershipFactory(user=membership.user).project, version=2**31 - 1)
        TaskFactory()
        SummaryReportFactory(project=membership.project)

    def execute(self, document: str, viewer: Viewer, executor: type) -> Any:
        with patch.object(schema, "execution_context_class", executor):
            result = run_in_thread(schema.execute(document, context_value=Context(viewer=viewer)))
        return json.dumps([result.data, [error.formatted for error in result.errors or ()]])

    @override_settings(CACHE_LIST_S=0)
    def test_results_equal_those_of_the_stock_executor(self) -> None:
        for viewer in (self.viewer, SYSTEM):
            for document in DOCUMENTS:
                with self.subTest(document):
                    stock = self.execute(document, viewer, StrawberryGraphQLCoreExecutionContext)
                    self.assertEqual(self.execute(document, viewer, Executor), stock)

    def test_no_resolver_runs_per_row(self) -> None:
        """The fields of rows are not executed one by one."""
        with patch.object(Executor, "execute_field", autospec=True, side_effect=Executor.execute_field) as executed:
            self.execute(DOCUMENTS[1], self.viewer, Executor)
        names = [call.args[3][0].node.name.value for call in executed.call_args_list]
        self.assertEqual(names, ["tasks", "nodes"])

    @override_settings(CACHE_LIST_S=0)
    def test_no_resolver_runs_for_the_attributes_of_rows_with_nested_lists(self) -> None:
        document = "{ tasks { nodes { id title comments { totalCount } dueDate } } }"
        with patch.object(Executor, "execute_field", autospec=True, side_effect=Executor.execute_field) as executed:
            self.execute(document, self.viewer, Executor)
        names = {call.args[3][0].node.name.value for call in executed.call_args_list}
        self.assertEqual(names, {"tasks", "nodes", "comments", "totalCount"})

    def test_graphql_core_reports_values_of_the_wrong_type(self) -> None:
        """The error names the field of a row with a value of the wrong type."""
        row = TaskRow.of(Task.objects.filter(assignee=None).earliest("pk"))
        for wrong, message in (
            ({"title": None}, "Cannot return null for non-nullable field Task.title."),
            ({"version": 2**31}, "Int cannot represent non 32-bit signed integer value: 2147483648"),
            ({"status": "lost"}, "Enum 'TaskStatus' cannot represent value: 'lost'"),
        ):
            for nested in ("", "comments { totalCount }"):
                document = f"{{ tasks {{ nodes {{ id {nested} title version status }} }} }}"
                with self.subTest(document, wrong=wrong), override_settings(CACHE_LIST_S=0):
                    with patch.object(TaskRow, "read", return_value=[replace(row, **wrong)]):
                        results = [
                            self.execute(document, SYSTEM, executor)
                            for executor in (Executor, StrawberryGraphQLCoreExecutionContext)
                        ]
                    self.assertEqual(results[0], results[1])
                    self.assertIn(json.dumps(message)[1:-1], results[0])

    @override_settings(CACHE_LIST_S=0)
    def test_an_internal_error_is_logged_once_per_document_and_does_not_change_the_result(self) -> None:
        documents = ("{ tasks { nodes { id } } }", "{ tasks { nodes { id title } } }")
        fault = patch("schema.execution.columns.attrgetter", side_effect=RuntimeError("on purpose"))
        with fault, self.assertLogs("schema.execution.columns", "ERROR") as logs:
            for document in (*documents, *documents):
                result = self.execute(document, self.viewer, Executor)
                self.assertEqual(result, self.execute(document, self.viewer, StrawberryGraphQLCoreExecutionContext))
        message = (
            "ERROR:schema.execution.columns:The columns of tasks.nodes could not be read; it is completed row by row."
        )
        self.assertEqual([line.splitlines()[0] for line in logs.output], [message] * 2)
        self.assertIn("RuntimeError: on purpose", logs.output[0])

    @override_settings(CACHE_LIST_S=0)
    def test_a_value_of_the_wrong_type_is_not_logged(self) -> None:
        row = TaskRow.of(Task.objects.filter(assignee=None).earliest("pk"))
        wrong = patch.object(TaskRow, "read", return_value=[replace(row, title=None)])
        with wrong, self.assertNoLogs("schema.execution.columns"):
            self.execute("{ tasks { nodes { version title } } }", SYSTEM, Executor)
