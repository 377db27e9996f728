"""`/openapi.json` and `/docs/`: the document matches the endpoints."""

from __future__ import annotations

import json
import re
from functools import cache
from io import StringIO
from typing import Any
from unittest.mock import patch

from django.core.management import call_command
from drf_spectacular.openapi import AutoSchema

from backend.projects.models import Scope
from tests.cases import token_of
from tests.factories import (
    CommentFactory,
    InvitationFactory,
    MembershipFactory,
    SummaryReportFactory,
    UserFactory,
)
from tests.rest.cases import ClosedCase, OpenCase


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
        self.assertEqual(set(listed["responses"]["200"]["headers"]), {"ETag", "Link", "X-Cursor", "X-Total-Count"})
        changed = document()["paths"]["/tasks/{id}/"]["patch"]
        self.assertIn("If-Match", {parameter["name"] for parameter in changed["parameters"]})
        self.assertEqual(set(changed["responses"]), {"200", "400", "401", "403", "404", "412", "413", "415"})
        created = document()["paths"]["/projects/"]["post"]
        self.assertEqual(set(created["responses"]["201"]["headers"]), {"Location"})
        events = document()["paths"]["/events/"]["get"]["responses"]
        self.assertEqual(set(events["200"]["content"]), {"application/json", "text/event-stream"})
        self.assertLessEqual({"410", "429"}, set(events))

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
        self.assertEqual(set(added["responses"]["201"]["headers"]), {"Location"})
        schema = document()["components"]["schemas"]["MemberInput"]
        self.assertEqual((schema["required"], schema["properties"]["role"]["default"]), (["username"], "editor"))
        changed = paths["/projects/{id}/members/{user_id}/"]["patch"]
        self.assertEqual([parameter["name"] for parameter in changed["parameters"]], ["id", "user_id"])
        self.assertEqual(set(changed["responses"]), {"200", "400", "401", "403", "404", "413", "415"})
        self.assertEqual(
            set(paths["/projects/{id}/members/{user_id}/"]["get"]["responses"]), {"200", "400", "401", "404"}
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
        self.assertEqual(set(response["headers"]), {"WWW-Authenticate"})
        schema = document()["components"]["schemas"]["RefusedAction"]
        token = token_of(UserFactory(), Scope.READ)
        refused = self.send("POST", "/projects/", {"name": "Garden"}, Authorization=f"Bearer {token}")
        self.assertEqual((refused.status_code, list(refused.json())), (403, list(schema["properties"])))

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
