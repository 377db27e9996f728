"""Base classes and helpers of the GraphQL tests."""

from __future__ import annotations

from typing import Any

from django.test.utils import override_settings

from tests.cases import Case
from tests.factories import ProjectFactory, UserFactory, create_member_of_each_role

# No row has one of these ids. Only the first five are numbers.
ABSENT_IDS = ["999999", "0", "-1", "2147483648", "9223372036854775808", "nine", "1.0", "", " 1", "\x00", "\ud800", "٣"]

MEMBER = "Member { user { id name } role }"
_SHOWN = {
    "Project": "id name description version",
    "Task": "id title description status dueDate version project { id } assignee { name }",
    "Comment": "id author content task { id }",
}


def mutation(name: str) -> str:
    """The document of a mutation, with the variable `input` and the alias `result`."""
    [noun] = [noun for noun in _SHOWN if name.endswith(noun)]
    return f"""mutation ($input: {name[0].upper()}{name[1:]}Input!) {{
      result: {name}(input: $input) {{
        ... on {noun} {{ {_SHOWN[noun]} }}
        ... on OperationInfo {{ messages {{ kind field message code }} }}
      }}
    }}"""


class GraphQLCase(Case):
    def post(self, query: Any, variables: Any = None, **headers: str) -> Any:
        """Send a well-formed request. Headers are keyword arguments: `X_CSRFToken`."""
        return self.client.post(
            "/graphql/",
            {"query": query, "variables": variables},
            "application/json",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    def request_error(self, query: str, **variables: Any) -> dict[str, Any]:
        """The first error of a rejected request: status 400, no `data`."""
        response = self.post(query, variables)
        self.assertEqual(response.status_code, 400, response.content)
        result = response.json()
        self.assertEqual(list(result), ["errors"])
        error: dict[str, Any] = result["errors"][0]
        return error

    def request_error_code(self, query: str, **variables: Any) -> str:
        code: str = self.request_error(query, **variables)["extensions"]["code"]
        return code

    def field_error(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `extensions` of the only error of an executed query without data."""
        result = self.gql(query, **variables)
        self.assertIsNone(result["data"])
        [error] = result["errors"]
        extensions: dict[str, Any] = error["extensions"]
        return extensions

    def change(self, name: str, /, **input: Any) -> dict[str, Any]:
        """Run a mutation that has to succeed. Returns its object."""
        result: dict[str, Any] = self.data(mutation(name), input=input)["result"]
        self.assertNotIn("messages", result)
        return result

    def messages(self, name: str, /, **input: Any) -> list[tuple[str, str | None, str]]:
        """Kind, field and code of each message of a mutation that has to be refused."""
        with self.nothing_changes():
            result = self.data(mutation(name), input=input)["result"]
        self.assertEqual(list(result), ["messages"])
        return [(message["kind"], message["field"], message["code"]) for message in result["messages"]]


@override_settings(ACCESS="open")
class OpenCase(GraphQLCase):
    """An anonymous client may do everything."""


@override_settings(ACCESS="closed")
class ClosedCase(GraphQLCase):
    """An anonymous client has no access."""


def member_mutation(name: str, result: str = MEMBER) -> str:
    """The document of a mutation of members or invitations. `result` is the selection on the object that it returns."""
    return f"""mutation ($input: {name[0].upper()}{name[1:]}Input!) {{
      result: {name}(input: $input) {{
        __typename
        ... on {result}
        ... on OperationInfo {{ messages {{ kind field code }} }}
      }}
    }}"""


class MembershipCase(ClosedCase):
    """A project with a member of each role, and Alice, who is no member. The owner is signed in."""

    document = staticmethod(member_mutation)

    @classmethod
    def setUpTestData(cls) -> None:
        cls.garden = ProjectFactory(name="Garden")
        cls.owner, cls.editor, cls.viewer = create_member_of_each_role(cls.garden)
        cls.alice = UserFactory(username="alice", first_name="Alice", last_name="Liddell")

    def setUp(self) -> None:
        self.client.force_login(self.owner)

    def mutate(self, name: str, input: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self.data(self.document(name), input=input)["result"]
        return result

    def assert_refused(self, name: str, input: dict[str, Any], kind: str, field: str | None, code: str) -> None:
        with self.subTest(name, input=input), self.nothing_changes():
            self.assertEqual(
                self.mutate(name, input),
                {"__typename": "OperationInfo", "messages": [{"kind": kind, "field": field, "code": code}]},
            )
