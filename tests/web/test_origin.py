"""Requests of pages of other sites over HTTP, through all layers of the application."""

from __future__ import annotations

import json
from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.test import SimpleTestCase, override_settings

from backend.asgi import http
from backend.projects.models import Event, Project
from backend.web.origin import SameSiteRequests, SameSiteSockets
from tests.cases import CommittingCase
from tests.factories import UserFactory
from tests.rest.asgi import Exchange

# Sent by an application behind the middleware.
REACHED = {"type": "application.reached"}
HOST = "127.0.0.1:8000"
OURS = f"http://{HOST}"
CREATE = 'mutation { createProject(input: {name: "Garden"}) { __typename } }'
QUERY = "query=%7Bprojects%7Bnodes%7Bname%7D%7D%7D"
# Headers that a browser sends for a page of another site, or of another port or subdomain.
FOREIGN = (
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
)
# Headers that a browser sends for our own pages and for a typed address, and those of a script.
OWN = ({"Origin": OURS, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": OURS}, {})


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send(REACHED)


async def send(
    method: str, path: str, headers: dict[str, str], *, query: str = "", body: str = ""
) -> tuple[int, dict[str, str], str]:
    """The status, the headers and the body of the response."""
    headers = {"host": HOST, **headers}
    exchange = Exchange(method, path, query=query, headers=headers, body=[body.encode()], application=http)
    async with exchange as response:
        return response.status, response.headers, await response.read()


async def graphql_get(headers: dict[str, str], query: str = QUERY) -> int:
    status, _, _ = await send("GET", "/graphql/", headers, query=query)
    return status


@override_settings(ACCESS="open")
class OpenTests(CommittingCase):
    async def test_a_foreign_page_cannot_write_whatever_the_content_type(self) -> None:
        project = await Project.objects.acreate(name="Kitchen")
        graphql, rest = json.dumps({"query": CREATE}), json.dumps({"name": "Garden"})
        for headers in FOREIGN:
            for media_type in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
                for method, path, body in (
                    ("POST", "/graphql/", graphql),
                    ("POST", "/projects/", rest),
                    ("PUT", f"/projects/{project.pk}/", rest),
                    ("PATCH", f"/projects/{project.pk}/", rest),
                    ("DELETE", f"/projects/{project.pk}/", ""),
                    ("POST", "/accounts/sign-out/", ""),
                    ("POST", "/nowhere/", ""),
                ):
                    with self.subTest(headers=headers, media_type=media_type, method=method, path=path):
                        status, _, text = await send(method, path, {"Content-Type": media_type, **headers}, body=body)
                        self.assertEqual(status, 403)
                        detail = json.loads(text)
                        if path == "/graphql/":
                            self.assertEqual(detail["errors"][0]["extensions"], {"code": "FORBIDDEN"})
                        else:
                            self.assertEqual(list(detail), ["detail"])
        self.assertEqual([project.name async for project in Project.objects.all()], ["Kitchen"])
        self.assertEqual(await Event.objects.acount(), 0)

    async def test_our_pages_and_scripts_may_write(self) -> None:
        for number, headers in enumerate(OWN, start=1):
            with self.subTest(headers):
                headers = {"Content-Type": "application/json", **headers}
                status, _, _ = await send("POST", "/graphql/", headers, body=json.dumps({"query": CREATE}))
                self.assertEqual(status, 200)
                status, _, _ = await send("POST", "/projects/", headers, body=json.dumps({"name": "Garden"}))
                self.assertEqual((status, await Project.objects.acount()), (201, 2 * number))

    async def test_a_foreign_page_cannot_execute_a_query(self) -> None:
        self.assertEqual([await graphql_get(headers) for headers in OWN], [200] * len(OWN))  # also fills the cache
        self.assertEqual([await graphql_get(headers) for headers in FOREIGN], [403] * len(FOREIGN))
        encoded = QUERY.replace("query", "%71uery")
        self.assertEqual(await graphql_get({"Sec-Fetch-Site": "cross-site"}, f"a=1&{encoded}"), 403)

    async def test_a_link_on_another_site_opens_graphiql_and_lists(self) -> None:
        for path, query in (("/graphql/", ""), ("/graphql/", "operationName=query"), ("/projects/", "page_size=1")):
            with self.subTest(path=path, query=query):
                headers = {
                    "Accept": "text/html,*/*;q=0.8",
                    "Sec-Fetch-Site": "cross-site",
                    "Sec-Fetch-Mode": "navigate",
                }
                status, _, _ = await send("GET", path, headers, query=query)
                self.assertEqual(status, 200)

    @override_settings(
        CORS_ALLOWED_ORIGINS=["https://app.example.org"], CSRF_TRUSTED_ORIGINS=["https://*.trusted.example"]
    )
    async def test_a_page_of_a_trusted_origin_may_read_and_write(self) -> None:
        body = json.dumps({"query": CREATE})
        for origin in ("https://app.example.org", "https://one.trusted.example"):
            with self.subTest(origin):
                headers = {"Content-Type": "application/json", "Origin": origin, "Sec-Fetch-Site": "cross-site"}
                self.assertEqual((await send("POST", "/graphql/", headers, body=body))[0], 200)
                self.assertEqual(await graphql_get(headers), 200)
        preflight = {"Origin": "https://app.example.org", "Access-Control-Request-Method": "POST"}
        _, headers, _ = await send("OPTIONS", "/graphql/", {**preflight, "Sec-Fetch-Site": "cross-site"})
        self.assertEqual(headers["access-control-allow-origin"], "https://app.example.org")


@override_settings(ACCESS="closed")
class ClosedTests(CommittingCase):
    def setUp(self) -> None:
        self.client.force_login(UserFactory(is_staff=True))
        self.session = {"Cookie": f"sessionid={self.client.cookies['sessionid'].value}"}

    async def test_a_foreign_page_cannot_execute_a_query_with_a_session(self) -> None:
        for headers in OWN:
            self.assertEqual(await graphql_get({**headers, **self.session}), 200)
        for headers in FOREIGN:
            with self.subTest(headers):
                self.assertEqual(await graphql_get({**headers, **self.session}), 403)

    async def test_without_a_session_the_response_is_a_401(self) -> None:
        self.assertEqual([await graphql_get(headers) for headers in FOREIGN], [401] * len(FOREIGN))


@override_settings(TLS_PROXY=True, ALLOWED_HOSTS=["tasks.example.org"])
class ForwardedSchemeTests(SimpleTestCase):
    async def first_messages(self, *schemes: str) -> list[Any]:
        """The first message over HTTP and over a socket, if the application behind the checks sends REACHED."""
        headers = [(b"host", b"tasks.example.org"), *((b"x-forwarded-proto", scheme.encode()) for scheme in schemes)]
        scope = {"path": "/", "query_string": b"", "headers": headers}
        messages = []
        for middleware, kind in (
            (SameSiteRequests, {"type": "http", "method": "GET"}),
            (SameSiteSockets, {"type": "websocket"}),
        ):
            client = ApplicationCommunicator(middleware(application), {**scope, **kind})
            messages.append(await client.receive_output())
            await client.wait()
        return messages

    async def test_a_list_of_schemes_is_refused(self) -> None:
        for schemes in (["https, http"], ["http,https"], ["https, https"], ["https", "http"], ["http", "https"]):
            with self.subTest(schemes):
                request, socket = await self.first_messages(*schemes)
                self.assertEqual((request["status"], socket), (400, {"type": "websocket.close"}))

    async def test_a_socket_requires_https_as_the_only_scheme(self) -> None:
        self.assertEqual(await self.first_messages("https"), [REACHED] * 2)
        for schemes in (["http"], ["wss"], []):  # requests over HTTP are redirected later
            self.assertEqual(await self.first_messages(*schemes), [REACHED, {"type": "websocket.close"}])

    @override_settings(TLS_PROXY=False, ALLOWED_HOSTS=["tasks.example.org"])
    async def test_without_a_proxy_the_header_is_ignored(self) -> None:
        self.assertEqual(await self.first_messages("https, http"), [REACHED] * 2)
