"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/)."""

from __future__ import annotations

import json
from typing import Any

from django.db import connection

from backend.projects.models import Event, Project, Task
from tests.factories import ProjectFactory
from tests.schema.cases import OpenCase, mutation

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

CREATE = 'mutation { createProject(input: {name: "Garden"}) { __typename } }'
# Each has one error: in the document, its types, its variables, or the operation name.
REQUEST_ERRORS: list[dict[str, Any]] = [
    {"query": "{"},
    {"query": " "},
    {"query": "# nothing"},
    {"query": "{ colour }"},
    {"query": "{ task { id } }"},
    {"query": "{ cursor ...Nowhere }"},
    {"query": "{ ...A } fragment A on Query { cursor ...A }"},
    {"query": f"{{ tasks(first: {'9' * 5000}) {{ totalCount }} }}"},
    {"query": "fragment A on Query { cursor }"},
    {"query": "type A { b: Int }"},
    {"query": "{ cursor } { cursor }"},
    {"query": "query A { cursor } query A { cursor }", "operationName": "A"},
    {"query": "query A { cursor } query B { cursor }"},
    {"query": "query A { cursor } query B { cursor }", "operationName": "C"},
    {"query": "query A { cursor }", "operationName": "B"},
    {"query": "{ cursor }", "operationName": "\ud800"},
    {"query": "query ($id: ID!) { task(id: $id) { id } }"},
    {"query": "query ($id: ID!) { task(id: $id) { id } }", "variables": {"id": None}},
    {"query": "query ($id: ID!) { task(id: $id) { id } }", "variables": {"id": []}},
    {"query": "query ($id: Nothing) { task(id: $id) { id } }", "variables": {"id": 1}},
    {"query": "subscription { events { kind } }"},
]


class HttpCase(OpenCase):
    def send(self, body: Any, content_type: str = JSON, method: str = "POST", **headers: str) -> Any:
        """Send a request with this body, as JSON unless it is bytes. Headers are keyword arguments."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.generic(method, "/graphql/", data, content_type=content_type, headers=headers)

    def assert_refused(self, response: Any, status: int, code: str) -> None:
        """Check a response to a malformed request: JSON in the shape of a GraphQL response."""
        self.assertEqual(response.status_code, status, response.content)
        self.assertEqual(response["Content-Type"], "application/json; charset=utf-8")
        body = response.json()
        self.assertEqual(list(body), ["errors"])
        [error] = body["errors"]
        self.assertEqual(error["extensions"], {"code": code})
        self.assert_shows_no_details(response)

    def assert_shows_no_details(self, response: Any) -> None:
        for trace in (b"Traceback", b'File \\"', b"SELECT", b"projects_"):
            self.assertNotIn(trace, response.content)


class MediaTypeTests(HttpCase):
    def test_the_response_has_the_media_type_that_the_client_prefers(self) -> None:
        for accept, expected in [
            (None, GRAPHQL),
            ("*/*", GRAPHQL),
            ("application/*", GRAPHQL),
            (GRAPHQL, GRAPHQL),
            (f"{GRAPHQL}; charset=utf-8", GRAPHQL),
            (f"{GRAPHQL}, {JSON};q=0.9", GRAPHQL),
            (f"{JSON};q=0.9, {GRAPHQL}", GRAPHQL),
            (f"{GRAPHQL};q=0.5, */*;q=0.1", GRAPHQL),
            (JSON, JSON),
            (JSON.upper(), JSON),
            (f"{JSON}, {GRAPHQL};q=0.5", JSON),
            (f"text/html, {JSON}", JSON),
            (f"{JSON}; charset=utf-8", JSON),
        ]:
            with self.subTest(accept):
                headers = {} if accept is None else {"Accept": accept}
                response = self.send({"query": "{ cursor }"}, **headers)
                self.assertEqual((response.status_code, response.json()["data"]), (200, {"cursor": "0"}))
                self.assertEqual(response["Content-Type"], f"{expected}; charset=utf-8")
                self.assertIn("Accept", response["Vary"])

    def test_an_unsupported_response_type_is_refused(self) -> None:
        for accept in ("text/plain", "text/html", "image/*", f"{JSON};q=0", "nonsense"):
            with self.subTest(accept), self.nothing_changes():
                self.assert_refused(self.send({"query": CREATE}, Accept=accept), 406, "NOT_ACCEPTABLE")

    def test_a_request_error_is_a_400_without_data(self) -> None:
        for body in REQUEST_ERRORS:
            with self.subTest(body), self.nothing_changes():
                response = self.send(body)
                self.assertEqual((response.status_code, list(response.json())), (400, ["errors"]), response.content)
                self.assertEqual(response["Content-Type"], f"{GRAPHQL}; charset=utf-8")
                for error in response.json()["errors"]:
                    self.assertIn(error["extensions"]["code"], ("GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"))
                self.assert_shows_no_details(response)

    def test_a_request_error_in_application_json_is_a_200_without_data(self) -> None:
        for body in REQUEST_ERRORS:
            with self.subTest(body), self.nothing_changes():
                response = self.send(body, Accept=JSON)
                self.assertEqual((response.status_code, list(response.json())), (200, ["errors"]), response.content)
                self.assertEqual(response["Content-Type"], f"{JSON}; charset=utf-8")

    def test_a_field_error_is_a_200_with_data(self) -> None:
        for accept in (JSON, GRAPHQL):
            with self.subTest(accept):
                response = self.send({"query": "{ cursor tasks(first: 0) { totalCount } }"}, Accept=accept)
                self.assertEqual((response.status_code, response.json()["data"]), (200, None))


class BodyTests(HttpCase):
    def test_a_body_that_is_not_json_is_refused(self) -> None:
        for body in (
            b"{",
            b"query=%7Bcursor%7D",
            b"{ cursor }",
            b'{"query": "{ cursor }"',
            b'{"query": "{ cursor }"}}',
            b"{'query': '{ cursor }'}",
            b'{"query": "\xff"}',
            b'\xef\xbb\xbf{"query": "{ cursor }"}',
            '{"query": "{ cursor }"}'.encode("utf-16"),
            b'{"query": "{ cursor }", "variables": {"a": %s}}' % (b"9" * 5000),
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"query": "{ cursor }", "variables": {"a": %s%s}}' % (b"[" * 100_000, b"]" * 100_000),
        ):
            with self.subTest(body[:40]):
                self.assert_refused(self.send(body), 400, "BAD_REQUEST")

    def test_json_that_is_not_a_graphql_request_is_refused(self) -> None:
        query = {"query": CREATE}
        for body in (
            [],
            [query],
            "x",
            5,
            True,
            None,
            {},
            {"query": None},
            {"query": ""},
            {"query": 5},
            {"query": []},
            {"query": {}},
            {"mutation": CREATE},
            {**query, "variables": []},
            {**query, "variables": "{}"},
            {**query, "variables": 5},
            {**query, "variables": False},
            {**query, "operationName": 5},
            {**query, "operationName": []},
            {**query, "operationName": {}},
            {**query, "extensions": []},
            {**query, "extensions": "x"},
            {**query, "extensions": 5},
        ):
            for accept in (GRAPHQL, JSON):
                with self.subTest(body, accept=accept), self.nothing_changes():
                    self.assert_refused(self.send(body, Accept=accept), 400, "BAD_REQUEST")

    def test_a_null_or_unknown_parameter_counts_as_absent(self) -> None:
        for more in (
            {"variables": None, "operationName": None, "extensions": None},
            {"variables": {}, "extensions": {"persistedQuery": {"version": 1}}},
            {"variables": {"unused": [1, {"a": "\ud800"}]}},
            {"id": 1, "documentId": "x"},
        ):
            with self.subTest(more):
                response = self.send({"query": "{ cursor }", **more})
                self.assertEqual((response.status_code, response.json()["data"]), (200, {"cursor": "0"}))

    def test_one_operation_of_several_is_executed_by_its_name(self) -> None:
        document = f"query A {{ a: cursor }} query B {{ b: cursor }} {CREATE.replace('mutation', 'mutation C')}"
        with self.nothing_changes():
            response = self.send({"query": document, "operationName": "B"})
            self.assertEqual(response.json()["data"], {"b": "0"})
        self.assertEqual(self.send({"query": document, "operationName": "C"}).status_code, 200)
        self.assertEqual(self.events(), ["project.created"])

    def test_other_media_types_are_refused(self) -> None:
        for media_type in (
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/plain",
            "application/graphql",
            GRAPHQL,
            "application/json; charset=utf-16",
            "application/jsonp",
            "",
        ):
            with self.subTest(media_type), self.nothing_changes():
                self.assert_refused(self.send({"query": CREATE}, media_type), 415, "UNSUPPORTED_MEDIA_TYPE")

    def test_the_charset_may_be_written_out(self) -> None:
        for media_type in ('application/json; charset="utf-8"', "Application/JSON;charset=UTF-8", "application/json;"):
            with self.subTest(media_type):
                self.assertEqual(self.send({"query": "{ cursor }"}, media_type).status_code, 200)

    def test_a_body_of_ten_megabytes_is_refused(self) -> None:
        with self.nothing_changes():
            response = self.send({"query": f"{CREATE} # {'x' * 10_000_000}"})
        self.assertEqual((response.status_code, response["Content-Type"]), (413, JSON))

    def test_a_body_within_the_limit_is_read_whole(self) -> None:
        padding = {"extensions": {"padding": "x" * 1_000_000}}
        response = self.send({**padding, "query": mutation("createProject"), "variables": {"input": {"name": "A"}}})
        self.assertEqual(response.json()["data"]["result"]["name"], "A")


class MethodTests(HttpCase):
    def get(self, accept: str = GRAPHQL, **parameters: str) -> Any:
        return self.client.get("/graphql/", parameters, headers={"Accept": accept})

    def test_a_query_may_be_sent_by_get(self) -> None:
        project = ProjectFactory()
        response = self.get(
            query="query A { cursor } query B($id: ID!) { project(id: $id) { id } }",
            variables=json.dumps({"id": project.pk}),
            operationName="B",
            extensions="{}",
        )
        self.assertEqual(response.json()["data"], {"project": {"id": str(project.pk)}})
        self.assertEqual(response["Content-Type"], f"{GRAPHQL}; charset=utf-8")

    def test_an_empty_parameter_counts_as_absent(self) -> None:
        response = self.get(query="{ cursor }", variables="", operationName="", extensions="")
        self.assertEqual(response.json()["data"], {"cursor": "0"})
        self.assertEqual(self.get(query="{ cursor }", variables="null").status_code, 200)

    def test_a_mutation_by_get_is_refused_with_allow_post(self) -> None:
        named = f"query A {{ cursor }} {CREATE.replace('mutation', 'mutation B')}"
        for accept in (JSON, GRAPHQL):
            for parameters in ({"query": CREATE}, {"query": named, "operationName": "B"}):
                with self.subTest(accept, parameters=parameters), self.nothing_changes():
                    response = self.get(accept, **parameters)
                    self.assert_refused(response, 405, "METHOD_NOT_ALLOWED")
                    self.assertEqual(response["Allow"], "POST")

    def test_a_subscription_by_get_is_not_executed(self) -> None:
        self.assertEqual(self.get(query="subscription { events { kind } }").status_code, 400)

    def test_parameters_that_are_not_a_graphql_request_are_refused(self) -> None:
        for parameters in (
            {},
            {"query": ""},
            {"variables": "{}"},
            {"query": "{ cursor }", "variables": "{"},
            {"query": "{ cursor }", "variables": "[]"},
            {"query": "{ cursor }", "variables": "[" * 1000},
            {"query": "{ cursor }", "extensions": "5"},
        ):
            with self.subTest(parameters):
                self.assert_refused(self.get(**parameters), 400, "BAD_REQUEST")

    def test_a_request_error_by_get_is_a_400_too(self) -> None:
        for query in ("{", "{ colour }", "query A { cursor } query B { cursor }", "\x00"):
            with self.subTest(query):
                response = self.get(query=query)
                self.assertEqual((response.status_code, list(response.json())), (400, ["errors"]))
                self.assertEqual(self.get(JSON, query=query).status_code, 200)

    def test_other_methods_are_refused_with_the_allowed_ones(self) -> None:
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            with self.subTest(method), self.nothing_changes():
                response = self.send({"query": CREATE}, method=method)
                self.assert_refused(response, 405, "METHOD_NOT_ALLOWED")
                self.assertEqual(response["Allow"], "GET, POST")
        self.assertEqual(self.send(b"", method="HEAD").status_code, 405)


class PageTests(HttpCase):
    def test_a_browser_gets_graphiql(self) -> None:
        response = self.client.get("/graphql/", headers={"Accept": BROWSER})
        self.assertEqual((response.status_code, response["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertIn(b"graphiql", response.content)

    def test_the_page_and_the_responses_vary_by_accept(self) -> None:
        for accept in (BROWSER, JSON):
            with self.subTest(accept):
                response = self.client.get("/graphql/", headers={"Accept": accept})
                self.assertIn("Accept", response.get("Vary", ""))

    def test_only_text_html_gets_the_page(self) -> None:
        for accept in ("*/*", JSON, "application/xhtml+xml", ""):
            with self.subTest(accept):
                response = self.client.get("/graphql/", headers={"Accept": accept})
                self.assertNotIn("html", response["Content-Type"])
                self.assertIn(response.status_code, (400, 406))


def without_cost(response: Any) -> Any:
    result = response.json()
    result.pop("extensions", None)
    return result


class InternalErrorTests(HttpCase):
    """A missing table causes the internal error."""

    def remove_table(self, model: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {model._meta.db_table} RENAME TO lost")

    def test_an_internal_error_of_a_field_is_logged_and_shows_no_details(self) -> None:
        self.remove_table(Task)
        with self.assertLogs("schema.errors", "ERROR") as logs:
            response = self.send({"query": "{ tasks { totalCount } }"})
        self.assertIn('relation "projects_task" does not exist', logs.output[0])
        self.assertEqual(response.status_code, 200)
        self.assertEqual(
            without_cost(response),
            {
                "data": None,
                "errors": [
                    {
                        "message": "Something went wrong on our side.",
                        "locations": [{"line": 1, "column": 11}],
                        "path": ["tasks", "totalCount"],
                        "extensions": {"code": "INTERNAL_SERVER_ERROR"},
                    }
                ],
            },
        )

    def test_an_internal_error_of_a_mutation_is_a_top_level_error(self) -> None:
        self.remove_table(Project)
        with self.assertLogs("schema.errors", "ERROR"):
            response = self.send({"query": CREATE})
        [error] = response.json()["errors"]
        self.assertEqual(error["extensions"], {"code": "INTERNAL_SERVER_ERROR"})
        self.assert_shows_no_details(response)

    def test_an_internal_error_before_execution_is_a_500(self) -> None:
        self.remove_table(Event)
        with self.assertLogs("schema.errors", "ERROR"):
            response = self.send({"query": "{ cursor }"})
        self.assertEqual(response.status_code, 500)
        self.assertEqual(
            without_cost(response),
            {
                "errors": [
                    {
                        "message": "Something went wrong on our side.",
                        "extensions": {"code": "INTERNAL_SERVER_ERROR"},
                    }
                ]
            },
        )
