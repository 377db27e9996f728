"""Limits of an operation. An operation that exceeds a limit is not executed."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from django.test.utils import override_settings
from graphql import get_introspection_query, parse

from schema.execution import documents
from schema.execution.limits import MAX_ALIASES, MAX_DEPTH, MAX_ERRORS, MAX_TOKENS
from tests.factories import TaskFactory
from tests.schema.cases import OpenCase


def nested(depth: int) -> str:
    """A selection on a task of this depth."""
    document = "totalCount" if depth % 3 == 2 else "id"
    for level in range(depth, 0, -1):
        document = f"{['project', 'tasks(first: 1)', 'nodes'][(level - 1) % 3]} {{ {document} }}"
    return document


class LimitTests(OpenCase):
    def assert_refused(self, document: str, reason: str, code: str = "GRAPHQL_VALIDATION_FAILED") -> None:
        error = self.request_error(document)
        self.assertEqual(error["extensions"], {"code": code})
        self.assertIn(reason, error["message"])

    def test_an_operation_may_have_the_maximum_depth_and_no_more(self) -> None:
        task = TaskFactory()
        document = f"{{ task(id: {task.pk}) {{ %s }} }}"
        self.data(document % nested(MAX_DEPTH - 1))
        self.assert_refused(document % nested(MAX_DEPTH), f"exceeds maximum operation depth of {MAX_DEPTH}")

    def test_fragments_count_towards_the_depth(self) -> None:
        inline = nested(MAX_DEPTH).replace("{ ", "{ ... { ").replace(" }", " } }")
        spread = f"{{ task(id: 1) {{ ...A }} }} fragment A on Task {{ {nested(MAX_DEPTH)} }}"
        for document in (f"{{ task(id: 1) {{ {inline} }} }}", spread):
            with self.subTest(document):
                self.assert_refused(document, f"exceeds maximum operation depth of {MAX_DEPTH}")

    def test_an_operation_may_have_the_maximum_number_of_aliases_and_no_more(self) -> None:
        aliases = [f"a{n}: cursor" for n in range(MAX_ALIASES + 1)]
        self.data(f"{{ {' '.join(aliases[1:])} }}")
        self.assert_refused(f"{{ {' '.join(aliases)} }}", f"{MAX_ALIASES + 1} aliases found. Allowed: {MAX_ALIASES}")

    def test_aliases_in_fragments_count(self) -> None:
        half = " ".join(f"a{n}: cursor" for n in range(MAX_ALIASES // 2 + 1))
        document = f"{{ ...A project(id: 1) {{ b: id }} ... {{ ...A }} }} fragment A on Query {{ {half} }}"
        self.assert_refused(document, "aliases found")

    def test_an_operation_may_have_the_maximum_number_of_tokens_and_no_more(self) -> None:
        self.data("{ cursor }" + "#\n" * (MAX_TOKENS - 3))
        fields = ["{", *(["__typename"] * (MAX_TOKENS - 3)), "}"]
        self.assert_refused(" ".join([*fields, "#", "\n{"]), f"more than {MAX_TOKENS} tokens", "GRAPHQL_PARSE_FAILED")
        self.assert_refused(" ".join(fields[:-1] + ["x"] * 3), f"more than {MAX_TOKENS} tokens", "GRAPHQL_PARSE_FAILED")

    def test_a_document_that_is_nested_too_deeply_to_parse_is_refused(self) -> None:
        for document in (
            "{a" * 900 + "}" * 900,
            "{ task(id: " + "[" * 1400 + "]" * 1400 + ") { id } }",
            "query ($a: " + "[" * 1400 + "ID" + "]" * 1400 + ") { cursor }",
            "{" + "... {" * 700 + "cursor" + "}" * 700 + "}",
        ):
            with self.subTest(document[:20]):
                self.assert_refused(document, "nested too deeply", "GRAPHQL_PARSE_FAILED")

    def test_fragments_that_double_at_every_level_are_counted_once(self) -> None:
        """A validator that visited a fragment at each spread would make 2 ** 100 visits."""
        levels = 100
        doubling = [f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(levels)]
        for leaf, data in (("cursor", {"cursor": "0"}), ("__typename", {"__typename": "Query"})):
            document = f"{{ ...F0 }} {' '.join(doubling)} fragment F{levels} on Query {{ {leaf} }}"
            self.assertEqual(self.data(document), data)

    def test_the_standard_introspection_query_passes(self) -> None:
        """Apollo, the code generators and Relay send it, with 7 or 9 levels of `ofType`."""
        for levels in (7, 9):
            schema = self.data(get_introspection_query(type_depth=levels))["__schema"]
            self.assertEqual(schema["subscriptionType"]["name"], "Subscription")

    def test_introspection_that_nests_its_lists_is_refused(self) -> None:
        fields = "fields { name type { ...%s } }"
        fragments = " ".join(f"fragment F{n} on __Type {{ {fields % f'F{n + 1}'} }}" for n in range(20))
        document = f"{{ __schema {{ types {{ ...F0 }} }} }} {fragments} fragment F20 on __Type {{ name }}"
        self.assert_refused(document, "Maximum introspection depth exceeded")

    def test_aliases_in_introspection_count(self) -> None:
        aliases = " ".join(f"a{n}: name" for n in range(MAX_ALIASES + 1))
        self.assert_refused(f"{{ __schema {{ types {{ {aliases} }} }} }}", "aliases found")

    def test_the_introspection_of_graphiql_passes(self) -> None:
        document = get_introspection_query(
            specified_by_url=True,
            directive_is_repeatable=True,
            schema_description=True,
            input_value_deprecation=True,
            one_of=True,
        )
        types = {type_["name"] for type_ in self.data(document)["__schema"]["types"]}
        self.assertLess({"Query", "Mutation", "Subscription", "Event", "Cursor", "OperationInfo"}, types)


class ValidationTests(OpenCase):
    """Validation takes a bounded time, however many errors a document has."""

    def errors(self, query: str, **variables: Any) -> list[str]:
        response = self.post(query, variables)
        self.assertEqual(response.status_code, 400)
        return [error["message"] for error in response.json()["errors"]]

    def test_validation_stops_after_the_first_errors(self) -> None:
        errors = self.errors(f"{{ {' '.join(f'nothing{n}' for n in range(100))} }}")
        self.assertEqual(errors[:-1], [f"Cannot query field 'nothing{n}' on type 'Query'." for n in range(MAX_ERRORS)])
        self.assertIn("Validation aborted", errors[-1])

    def test_errors_suggest_no_names(self) -> None:
        mistakes: list[tuple[str, dict[str, Any]]] = [
            ("{ taskz { totalCount } }", {}),
            ("{ tasks(firzt: 1) { totalCount } }", {}),
            ("{ tasks(filter: {statuz: PENDING}) { totalCount } }", {}),
            ("{ tasks(filter: {status: PENDNG}) { totalCount } }", {}),
            ("{ node: task(id: 1) { ... on Tazk { id } } }", {}),
            ("query ($filter: TaskFilter) { tasks(filter: $filter) { totalCount } }", {"filter": {"statuz": "x"}}),
            ("query ($filter: TaskFilter) { tasks(filter: $filter) { totalCount } }", {"filter": {"status": "PENDNG"}}),
        ]
        for query, variables in mistakes:
            with self.subTest(query, variables=variables):
                self.assertNotIn("Did you mean", " ".join(self.errors(query, **variables)))
                with override_settings(DEBUG=True):
                    self.assertIn("Did you mean", " ".join(self.errors(query, **variables)))

    def test_a_document_that_compares_too_many_fields_is_refused(self) -> None:
        """graphql-core compares each pair of fields with the same response key."""
        [error] = self.errors("{" + " me { id }" * 390 + "}")
        self.assertIn("Validation aborted", error)


class CachedDocumentTests(OpenCase):
    """A cached document is neither parsed nor validated again. Its variables are."""

    def setUp(self) -> None:
        self.enterContext(patch.dict(documents._documents, clear=True))

    def test_a_valid_document_is_parsed_and_validated_once(self) -> None:
        query = "query ($n: Int) { tasks(first: $n) { nodes { id } } }"
        self.data(query)
        self.assertEqual(list(documents._documents), [query])
        self.assertEqual(self.gql(query, n=0)["errors"][0]["extensions"]["argument"], "first")
        response = self.client.post("/graphql/", {"query": query, "variables": {"n": "x"}}, "application/json")
        self.assertEqual(response.status_code, 400)
        # The cached document is executed, without validation.
        documents._documents[query] = parse("{ nothing }")
        self.assertEqual(self.data(query), {})

    def test_an_invalid_document_is_refused_again(self) -> None:
        two = "query A { cursor } query B { me { name } }"
        for query in ("{ nothing }", "{ tasks {", two, "{ cursor " * 13 + "}" * 13):
            for _ in range(2):
                response = self.client.post("/graphql/", {"query": query}, "application/json")
                self.assertEqual((query, response.status_code), (query, 400))
        self.assertEqual(documents._documents, {})
        named = self.client.post("/graphql/", {"query": two, "operationName": "A"}, "application/json")
        self.assertEqual(named.status_code, 200)
        # The document is valid with an operation name, and still refused without one.
        self.assertEqual(self.client.post("/graphql/", {"query": two}, "application/json").status_code, 400)

    def test_the_newest_documents_are_cached_and_long_ones_are_not(self) -> None:
        with patch.object(documents, "_MAX_DOCUMENTS", 2):
            for name in ("a", "b", "c"):
                self.data(f"{{ {name}: cursor }}")
        self.assertEqual(list(documents._documents), ["{ b: cursor }", "{ c: cursor }"])
        self.data("{ cursor }" + " " * documents._MAX_LENGTH)
        self.assertEqual(list(documents._documents), ["{ b: cursor }", "{ c: cursor }"])
