"""`/openapi.json` and `/docs/`: the document matches the endpoints."""

from __future__ import annotations

import json
import re
from functools import cache
from io import StringIO
from typing import Any
from unittest.mock import patch

from django.core.management import call_command
from django.db import OperationalError
from django.test import Client
from django.test.utils import override_settings
from drf_spectacular.openapi import AutoSchema

from backend.projects.models import Role, Scope
from tests.cases import token_of
from tests.factories import (
    CommentFactory,
    InvitationFactory,
    MembershipFactory,
    SummaryReportFactory,
    TaskFactory,
    UserFactory,
)
from tests.rest.cases import ClosedCase, OpenCase
from tests.schema.test_budget import fresh_budgets

RATE_LIMITS = {"RateLimit", "RateLimit-Policy"}
# Headers of every response, which the document leaves to HTTP.
OF_HTTP = {
    "Allow",
    "Cache-Control",
    "Content-Length",
    "Content-Security-Policy",
    "Content-Type",
    "Cross-Origin-Opener-Policy",
    "Referrer-Policy",
    "Strict-Transport-Security",
    "Vary",
    "X-Content-Type-Options",
    "X-Frame-Options",
}


class OpenApiTest(OpenCase):
    def test_the_document_is_valid_and_free_of_warnings(self) -> None:
        call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())

    def test_the_document_is_served_as_json_and_generated_once(self) -> None:
        for path in ("/openapi.json", "/openapi.json?version=2"):
            with self.subTest(path):
                response = self.client.get(path)
                self.assertEqual(response.status_code, 200)
                self.assertEqual(json.loads(response.content), document())
        with patch.object(AutoSchema, "get_operation", side_effect=AssertionError("generated again")):
            self.assertEqual(self.client.get("/openapi.json").content, response.content)

    def test_the_document_has_every_endpoint_and_method(self) -> None:
        self.assertEqual(
            {path: sorted(methods) for path, methods in document()["paths"].items()},
            {
                "/events/": ["get"],
                "/projects/": ["get", "post"],
                "/projects/{id}/": ["delete", "get", "patch", "put"],
                "/invitations/": ["get"],
                "/invitations/{id}/accept/": ["post"],
                "/invitations/{id}/decline/": ["post"],
                "/projects/{id}/invitations/": ["get", "post"],
                "/projects/{id}/invitations/{invitation_id}/": ["delete"],
                "/projects/{id}/members/": ["get", "post"],
                "/projects/{id}/members/{user_id}/": ["delete", "get", "patch", "put"],
                "/reports/": ["get"],
                "/reports/{id}/": ["get"],
                "/tasks/": ["get", "post"],
                "/tasks/{id}/": ["delete", "get", "patch", "put"],
                "/tasks/{id}/comments/": ["get", "post"],
            },
        )

    def test_the_document_has_parameters_headers_and_status_codes(self) -> None:
        listed = document()["paths"]["/tasks/"]["get"]
        names = {parameter["name"] for parameter in listed["parameters"] if parameter["in"] == "query"}
        filters = {"project", "status", "assignee", "due_after", "due_before", "search", "ordering"}
        self.assertEqual(names, filters | {"page_size", "cursor", "count"})
        headers = {"ETag", "Link", "X-Cursor", "X-Total-Count"}
        self.assertEqual(set(listed["responses"]["200"]["headers"]), headers | RATE_LIMITS)
        changed = document()["paths"]["/tasks/{id}/"]["patch"]
        self.assertIn("If-Match", {parameter["name"] for parameter in changed["parameters"]})
        statuses = {"200", "400", "401", "403", "404", "412", "413", "415", "429", "503"}
        self.assertEqual(set(changed["responses"]), statuses)
        created = document()["paths"]["/projects/"]["post"]
        self.assertEqual(set(created["responses"]["201"]["headers"]), {"Location"} | RATE_LIMITS)
        events = document()["paths"]["/events/"]["get"]["responses"]
        self.assertEqual(set(events["200"]["content"]), {"application/json", "text/event-stream"})
        self.assertIn("410", events)

    def test_the_document_states_the_maximum_lengths_of_texts(self) -> None:
        schemas = document()["components"]["schemas"]
        for name, field, length in (
            ("ProjectInput", "description", 65_536),
            ("PatchedProjectInput", "description", 65_536),
            ("TaskInput", "description", 65_536),
            ("TaskUpdate", "description", 65_536),
            ("PatchedTaskUpdate", "description", 65_536),
            ("CommentInput", "content", 16_384),
        ):
            with self.subTest(name):
                stated = schemas[name]["properties"][field]
                self.assertEqual((stated["type"], stated["maxLength"]), ("string", length))
                self.assertEqual(stated.get("nullable", False), field == "description")
        self.assertNotIn("maxLength", schemas["Task"]["properties"]["description"])

    def test_the_document_describes_members_correctly(self) -> None:
        paths = document()["paths"]
        added = paths["/projects/{id}/members/"]["post"]
        self.assertEqual(set(added["responses"]["201"]["headers"]), {"Location"} | RATE_LIMITS)
        schema = document()["components"]["schemas"]["MemberInput"]
        self.assertEqual((schema["required"], schema["properties"]["role"]["default"]), (["username"], "editor"))
        changed = paths["/projects/{id}/members/{user_id}/"]["patch"]
        self.assertEqual([parameter["name"] for parameter in changed["parameters"]], ["id", "user_id"])
        self.assertEqual(set(changed["responses"]), {"200", "400", "401", "403", "404", "413", "415", "429", "503"})
        self.assertEqual(
            set(paths["/projects/{id}/members/{user_id}/"]["get"]["responses"]),
            {"200", "400", "401", "404", "429", "503"},
        )

    def test_the_document_has_tokens_and_sessions_as_security_schemes(self) -> None:
        self.assertEqual(
            document()["components"]["securitySchemes"],
            {
                "session": {"type": "apiKey", "in": "cookie", "name": "sessionid"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        )
        for path, methods in document()["paths"].items():
            for method, operation in methods.items():
                with self.subTest(path, method=method):
                    self.assertEqual(operation["security"], [{"token": []}, {"session": []}])

    def test_the_document_describes_the_response_to_a_missing_scope(self) -> None:
        response = document()["paths"]["/projects/"]["post"]["responses"]["403"]
        self.assertEqual(set(response["headers"]), {"WWW-Authenticate"} | RATE_LIMITS)
        schema = document()["components"]["schemas"]["RefusedAction"]
        token = token_of(UserFactory(), Scope.READ)
        refused = self.send("POST", "/projects/", {"name": "Garden"}, Authorization=f"Bearer {token}")
        self.assertEqual((refused.status_code, list(refused.json())), (403, list(schema["properties"])))

    def test_refusals_over_budget_and_of_the_database_are_shared_components(self) -> None:
        components = document()["components"]
        self.assertEqual(set(components["headers"]), {"RateLimit", "RateLimitPolicy", "RetryAfter"})
        for path, methods in document()["paths"].items():
            for method, operation in methods.items():
                with self.subTest(path, method=method):
                    refused = {status: operation["responses"][status] for status in ("429", "503")}
                    self.assertEqual(
                        refused,
                        {
                            "429": {"$ref": "#/components/responses/RateLimited"},
                            "503": {"$ref": "#/components/responses/Unavailable"},
                        },
                    )
        for name in ("RateLimited", "Unavailable"):
            headers = components["responses"][name]["headers"]
            self.assertEqual(set(headers), {"Retry-After"} | RATE_LIMITS)
            self.assertEqual(headers["Retry-After"], {"$ref": "#/components/headers/RetryAfter"})
            self.assertTrue(components["headers"]["RetryAfter"]["required"])

    def test_the_schemas_have_the_fields_of_the_responses(self) -> None:
        comment, member = CommentFactory(), MembershipFactory()
        SummaryReportFactory()
        InvitationFactory(project=member.project)
        for name, path in [
            ("Project", "/projects/"),
            ("Member", f"/projects/{member.project_id}/members/"),
            ("Invitation", f"/projects/{member.project_id}/invitations/"),
            ("Task", "/tasks/"),
            ("Comment", f"/tasks/{comment.task_id}/comments/"),
            ("SummaryReport", "/reports/"),
        ]:
            with self.subTest(name):
                row, schema = self.client.get(path).json()[0], document()["components"]["schemas"][name]
                self.assertEqual(list(row), list(schema["properties"]))
                self.assertEqual(sorted(schema["required"]), sorted(row))


class HeaderTest(ClosedCase):
    """The headers of responses are those of the document."""

    def setUp(self) -> None:
        fresh_budgets(self)
        self.member = MembershipFactory(role=Role.OWNER)
        self.task = f"/tasks/{TaskFactory(project=self.member.project).pk}/"
        self.client = Client(headers={"Authorization": f"Bearer {token_of(self.member.user)}"})

    def test_a_response_has_headers_of_the_document_only(self) -> None:
        read, tasks, task = self.client.get, "/tasks/", "/tasks/{id}/"
        for status, path, response in (
            (200, tasks, read("/tasks/?page_size=1&count=1")),
            (200, task, read(self.task)),
            (304, task, read(self.task, headers={"If-None-Match": '"1"'})),
            (200, "/events/", read("/events/")),
            (400, tasks, read("/tasks/?page_size=0")),
            (404, task, read("/tasks/0/")),
            (201, "/projects/", self.send("POST", "/projects/", {"name": "Garden"})),
            (400, "/projects/", self.send("POST", "/projects/", {})),
            (412, task, self.send("PATCH", self.task, {"title": "Sow"}, If_Match='"7"')),
            (204, task, self.send("DELETE", self.task)),
            (401, tasks, Client().get("/tasks/")),
        ):
            with self.subTest(path, status=status):
                self.assertEqual(response.status_code, status, response.content)
                self.check_headers(path, response)
                is_charged = status != 401 and "page_size=0" not in response.request["QUERY_STRING"]
                self.assertEqual(set(response.headers) >= RATE_LIMITS, is_charged)

    @override_settings(WRITES_PER_MINUTE=1)
    def test_a_refusal_over_budget_is_the_429_of_the_document(self) -> None:
        self.send("POST", "/projects/", {"name": "Garden"})
        response = self.send("POST", "/projects/", {"name": "Garden"})
        self.assertEqual(response.status_code, 429)
        self.check_headers("/projects/", response)
        self.assertLess({"Retry-After"} | RATE_LIMITS, set(response.headers))
        self.check_body(response)

    def test_a_refusal_of_the_database_is_the_503_of_the_document(self) -> None:
        with patch("backend.projects.resolvers.report.list_reports", side_effect=OperationalError):
            response = self.client.get("/reports/")
        self.assertEqual((response.status_code, response["Retry-After"]), (503, "2"))
        self.check_headers("/reports/", response)
        self.check_body(response)

    def check_headers(self, path: str, response: Any) -> None:
        described = self.described(path, response)["headers"]
        self.assertLessEqual(set(response.headers) - OF_HTTP, set(described))
        for name, header in described.items():
            if "$ref" in header:
                header = document()["components"]["headers"][header["$ref"].rpartition("/")[2]]
            if header.get("required"):
                self.assertIn(name, response.headers)

    def check_body(self, response: Any) -> None:
        schema = self.described(response.request["PATH_INFO"], response)["content"]["application/json"]["schema"]
        self.assertEqual(list(response.json()), list(schema["properties"]))

    def described(self, path: str, response: Any) -> Any:
        """Return the response object of the document."""
        operation = document()["paths"][path][response.request["REQUEST_METHOD"].lower()]
        described = operation["responses"][str(response.status_code)]
        if "$ref" in described:
            return document()["components"]["responses"][described["$ref"].rpartition("/")[2]]
        return described


class DocsTest(OpenCase):
    def test_the_page_allows_only_get_and_head(self) -> None:
        for method in ("OPTIONS", "POST", "DELETE"):
            response = self.send(method, "/docs/")
            self.assertEqual((response.status_code, response["Allow"]), (405, "GET, HEAD"))

    def test_the_page_loads_everything_from_this_server(self) -> None:
        page = self.client.get("/docs/", headers={"Accept": "text/html"})
        self.assertEqual(page.status_code, 200)
        self.assertNotIn("://", page.content.decode())
        addresses = re.findall(r'(?:src|href)="([^"]+)"', page.content.decode())
        self.assertEqual(len(addresses), 5)
        for address in addresses:
            with self.subTest(address):
                self.assertEqual(self.client.get(address).status_code, 200)

    def test_the_page_has_no_inline_script_or_style(self) -> None:
        page = self.client.get("/docs/").content.decode()
        self.assertNotRegex(page, r"<script(?![^>]*src=)")
        self.assertNotIn("<style", page)
        self.assertNotIn(" style=", page)


class ClosedDocsTest(ClosedCase):
    def test_the_document_requires_a_signed_in_user(self) -> None:
        self.assert_refused(self.client.get("/openapi.json"), 401, "detail")
        self.client.force_login(UserFactory())
        response = self.client.get("/openapi.json")
        self.assertEqual((response.status_code, response["Cache-Control"]), (200, "private, no-cache"))

    def test_the_page_redirects_an_anonymous_user_to_the_sign_in_page(self) -> None:
        response = self.client.get("/docs/", headers={"Accept": "text/html"})
        self.assertRedirects(response, "/accounts/sign-in/?next=/docs/", fetch_redirect_response=False)
        self.client.force_login(UserFactory())
        self.assertEqual(self.client.get("/docs/").status_code, 200)


@cache
def document() -> dict[str, Any]:
    written = StringIO()
    call_command("spectacular", "--format", "openapi-json", stdout=written)
    response: dict[str, Any] = json.loads(written.getvalue())
    return response
