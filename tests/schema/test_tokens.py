"""Tokens: creating, listing and revoking them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from backend.projects.authentication import viewer_by_token
from backend.projects.models import AuditEntry, Scope, Token
from backend.projects.rows import iso
from tests.cases import token_of
from tests.factories import TokenFactory, UserFactory
from tests.schema.cases import ABSENT_IDS, ClosedCase, OpenCase

LIST = """{ tokens { totalCount nodes { id name scope createdAt expiresAt lastUsedAt } } }"""
CREATE = """mutation ($input: CreateTokenInput!) { result: createToken(input: $input) {
  ... on NewToken { token { id name scope createdAt expiresAt lastUsedAt } secret }
  ... on OperationInfo { messages { kind field code } }
} }"""
REVOKE = """mutation ($input: RevokeTokenInput!) { result: revokeToken(input: $input) {
  ... on Token { id name scope }
  ... on OperationInfo { messages { kind field code } }
} }"""


class TokenCase(ClosedCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory(first_name="Ada", last_name="Lovelace")

    def setUp(self) -> None:
        self.client.force_login(self.ada)

    def assert_refused(self, document: str, input: dict[str, Any], kind: str, field: str | None, code: str) -> None:
        with self.subTest(input=input), self.nothing_changes():
            result = self.data(document, input=input)["result"]
            self.assertEqual(result, {"messages": [{"kind": kind, "field": field, "code": code}]})


class CreateTests(TokenCase):
    def create(self, **fields: Any) -> dict[str, Any]:
        result: dict[str, Any] = self.data(CREATE, input={"name": "laptop", "scope": "WRITE", **fields})["result"]
        return result

    def test_the_secret_of_a_new_token_is_shown_once_and_authenticates_its_user(self) -> None:
        created = self.create()
        stored = Token.objects.get()
        self.assertEqual(
            created["token"],
            {
                "id": str(stored.pk),
                "name": "laptop",
                "scope": "WRITE",
                "createdAt": iso(stored.created_at),
                "expiresAt": iso(stored.expires_at),
                "lastUsedAt": None,
            },
        )
        script = Client(headers={"Authorization": f"Bearer {created['secret']}"})
        result = script.post("/graphql/", {"query": "{ me { id name } }"}, "application/json").json()
        self.assertEqual(result["data"], {"me": {"id": str(self.ada.pk), "name": "Ada Lovelace"}})
        self.assertNotIn(created["secret"], str(self.data(LIST)))

    def test_a_token_lasts_90_days_by_default_and_does_not_expire_with_null(self) -> None:
        for fields, days in (({}, 90), ({"days": 1}, 1), ({"days": 3660}, 3660)):
            with self.subTest(fields):
                token = Token.objects.get(pk=self.create(**fields)["token"]["id"])
                self.assertEqual(round((token.expires_at - token.created_at) / timedelta(days=1)), days)
        self.assertIsNone(self.create(days=None)["token"]["expiresAt"])

    def test_a_token_may_have_any_scope(self) -> None:
        for scope in ("READ", "WRITE", "ADMIN"):
            created = self.create(scope=scope)
            self.assertEqual(created["token"]["scope"], scope)
            self.assertEqual(viewer_by_token(created["secret"], address="").scope, Scope[scope])

    def test_invalid_values_are_refused_by_field(self) -> None:
        valid = {"name": "laptop", "scope": "READ"}
        for days in (0, -1, 3661, 2**31 - 1, -(2**31)):
            self.assert_refused(CREATE, {**valid, "days": days}, "VALIDATION", "days", "OUT_OF_RANGE")
        for name, code in (
            ("", "BLANK"),
            (" ", "BLANK"),
            ("x" * 101, "MAX_LENGTH"),
            ("a\x00b", "NULL_CHARACTERS"),
            ("a\ud800b", "SURROGATES"),
        ):
            self.assert_refused(CREATE, {**valid, "name": name}, "VALIDATION", "name", code)

    def test_an_input_of_another_shape_is_not_executed(self) -> None:
        valid = {"name": "laptop", "scope": "READ"}
        for bad in (
            {"name": "laptop"},
            {"scope": "READ"},
            {**valid, "scope": "read"},
            {**valid, "scope": None},
            {**valid, "name": None},
            {**valid, "days": 2**31},
            {**valid, "days": "7"},
            {**valid, "userId": self.ada.pk},
        ):
            with self.subTest(bad), self.nothing_changes():
                self.assertEqual(self.request_error_code(CREATE, input=bad), "GRAPHQL_VALIDATION_FAILED")


class ListTests(TokenCase):
    def test_own_tokens_are_listed_newest_first(self) -> None:
        used = TokenFactory(user=self.ada, scope=Scope.READ, last_used_at=timezone.now())
        ending = TokenFactory(user=self.ada, scope=Scope.ADMIN, expires_at=timezone.now() + timedelta(days=1))
        TokenFactory()
        self.assertEqual(
            self.data(LIST)["tokens"],
            {
                "totalCount": 2,
                "nodes": [
                    {
                        "id": str(token.pk),
                        "name": token.name,
                        "scope": scope,
                        "createdAt": iso(token.created_at),
                        "expiresAt": token.expires_at and iso(token.expires_at),
                        "lastUsedAt": token.last_used_at and iso(token.last_used_at),
                    }
                    for token, scope in ((ending, "ADMIN"), (used, "READ"))
                ],
            },
        )

    def test_the_list_shows_the_last_use_of_a_token_although_a_use_takes_no_position(self) -> None:
        secret = token_of(self.ada, Scope.READ)
        document = "{ tokens { nodes { lastUsedAt } } }"
        self.assertEqual(self.data(document), {"tokens": {"nodes": [{"lastUsedAt": None}]}})
        viewer_by_token(secret, address="")
        used_at = Token.objects.get().last_used_at
        self.assertEqual(self.data(document), {"tokens": {"nodes": [{"lastUsedAt": iso(used_at)}]}})

    def test_pages_are_walked_in_both_directions(self) -> None:
        first, second, third = (str(token.pk) for token in TokenFactory.create_batch(3, user=self.ada))
        document = """query ($first: Int, $after: String, $last: Int, $before: String) {
          tokens(first: $first, after: $after, last: $last, before: $before) {
            edges { node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
          }
        }"""
        forward = self.data(document, first=2)["tokens"]
        onward = self.data(document, first=2, after=forward["pageInfo"]["endCursor"])["tokens"]
        back = self.data(document, last=1, before=onward["pageInfo"]["startCursor"])["tokens"]
        self.assertEqual(
            [
                (
                    [edge["node"]["id"] for edge in page["edges"]],
                    page["pageInfo"]["hasPreviousPage"],
                    page["pageInfo"]["hasNextPage"],
                )
                for page in (forward, onward, back)
            ],
            [([third, second], False, True), ([first], True, False), ([second], True, True)],
        )

    def test_invalid_page_arguments_are_refused(self) -> None:
        for arguments, argument in (("first: 0", "first"), ("last: 101", "last"), ('after: "x"', "after")):
            with self.subTest(arguments):
                error = self.field_error(f"{{ tokens({arguments}) {{ totalCount }} }}")
                self.assertEqual(error, {"code": "BAD_USER_INPUT", "argument": argument})

    def test_twenty_tokens_cost_as_many_queries_as_one(self) -> None:
        for count in (1, 19):
            TokenFactory.create_batch(count, user=self.ada)
            with self.assertNumQueries(4):  # the session and its user, the page and the count
                self.data(LIST)


class RevokeTests(TokenCase):
    def test_a_revoked_token_stops_working_at_once_and_is_returned_as_it_was(self) -> None:
        secret = token_of(self.ada, Scope.READ)
        script = Client(headers={"Authorization": f"Bearer {secret}"})
        self.assertEqual(script.get("/graphql/", {"query": "{ cursor }"}).status_code, 200)
        token = Token.objects.get()
        with self.committed():
            result = self.data(REVOKE, input={"id": token.pk})
        self.assertEqual(result, {"result": {"id": str(token.pk), "name": "script", "scope": "READ"}})
        self.assertEqual(script.get("/graphql/", {"query": "{ cursor }"}).status_code, 401)
        self.assertEqual(self.data(LIST), {"tokens": {"totalCount": 0, "nodes": []}})

    def test_a_token_of_another_user_is_refused_like_an_absent_one(self) -> None:
        for absent in [*ABSENT_IDS, str(TokenFactory().pk)]:
            self.assert_refused(REVOKE, {"id": absent}, "ERROR", None, "NOT_FOUND")

    def test_staff_revoke_any_token(self) -> None:
        self.client.force_login(UserFactory(is_staff=True))
        token = TokenFactory(user=self.ada)
        self.assertEqual(self.data(REVOKE, input={"id": token.pk})["result"]["id"], str(token.pk))
        self.assertFalse(Token.objects.filter(pk=token.pk).exists())


class ScopeTests(ClosedCase):
    """The scope that managing tokens requires."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = UserFactory()
        cls.token = TokenFactory(user=cls.ada)
        cls.operations = [
            (LIST, None),
            ("{ tokens { nodes { id } edges { cursor } pageInfo { hasNextPage } totalCount } }", None),
            (CREATE, {"input": {"name": "laptop", "scope": "READ"}}),
            (REVOKE, {"input": {"id": cls.token.pk}}),
        ]

    def test_a_token_without_admin_scope_is_refused_with_the_required_scope(self) -> None:
        for scope in (Scope.READ, Scope.WRITE):
            secret = token_of(self.ada, scope)
            for document, variables in self.operations:
                with self.subTest(document, scope=scope), self.nothing_changes():
                    result = self.post(document, variables, Authorization=f"Bearer {secret}").json()
                    self.assertIsNone(result["data"])
                    self.assertEqual(
                        [error["extensions"] for error in result["errors"]],
                        [{"code": "INSUFFICIENT_SCOPE", "scope": "admin"}],
                    )

    def test_a_token_with_admin_scope_manages_tokens_and_is_recorded_in_the_audit_log(self) -> None:
        secret = token_of(self.ada)
        using = Token.objects.latest("pk").pk
        AuditEntry.objects.all().delete()
        for document, variables in self.operations:
            result = self.post(document, variables, Authorization=f"Bearer {secret}").json()
            self.assertNotIn("errors", result)
        entries = AuditEntry.objects.order_by("pk").values_list("action", "actor_id", "actor_token_id", "address")
        self.assertEqual(
            list(entries),
            [
                ("token_created", self.ada.pk, using, "127.0.0.1"),
                ("token_revoked", self.ada.pk, using, "127.0.0.1"),
            ],
        )


class OpenTests(OpenCase):
    """An anonymous client has no tokens."""

    def test_the_list_is_empty(self) -> None:
        TokenFactory()
        self.assertEqual(self.data(LIST), {"tokens": {"totalCount": 0, "nodes": []}})

    def test_no_token_can_be_created(self) -> None:
        with self.nothing_changes():
            error = self.field_error(CREATE, input={"name": "laptop", "scope": "READ"})
        self.assertEqual(error, {"code": "UNAUTHENTICATED"})
