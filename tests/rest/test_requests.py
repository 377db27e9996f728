"""Malformed requests to any endpoint."""

from __future__ import annotations

from django.test import Client, RequestFactory
from django.test.utils import override_settings
from rest_framework.request import Request
from rest_framework.response import Response

from rest.base import View
from tests.cases import CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory
from tests.rest.asgi import Exchange
from tests.rest.cases import ClosedCase, OpenCase


class BodyTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.task = TaskFactory()
        cls.writes = [
            ("POST", "/projects/"),
            ("PUT", f"/projects/{cls.task.project_id}/"),
            ("PATCH", f"/projects/{cls.task.project_id}/"),
            ("POST", "/tasks/"),
            ("PUT", f"/tasks/{cls.task.pk}/"),
            ("PATCH", f"/tasks/{cls.task.pk}/"),
            ("POST", f"/tasks/{cls.task.pk}/comments/"),
        ]

    def test_a_body_that_is_not_json_is_refused(self) -> None:
        for body in (
            b"{",
            b"name=Garden",
            b'{"name": NaN}',
            b'{"name": "\xff"}',
            b'{"name": "\\ud800"}',
            '{"name": "Garden"}'.encode("utf-16"),
            b"[" * 100_000,
            b'{"a":' * 100_000,
        ):
            for method, path in self.writes:
                with self.subTest(body=body[:20], method=method, path=path), self.nothing_changes():
                    self.assert_refused(self.send(method, path, body), 400, "detail")

    def test_json_that_is_not_an_object_is_refused(self) -> None:
        for body in (b"[]", b'"name"', b"5", b"true", b"null"):
            for method, path in self.writes:
                with self.subTest(body=body, method=method, path=path), self.nothing_changes():
                    self.assert_refused(self.send(method, path, body), 400, "non_field_errors")

    def test_other_media_types_are_refused(self) -> None:
        for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
            for method, path in self.writes:
                with self.subTest(media_type=media_type, method=method, path=path), self.nothing_changes():
                    response = self.client.generic(method, path, b'{"name": "Garden"}', content_type=media_type)
                    self.assert_refused(response, 415, "detail")

    def test_a_body_of_ten_megabytes_is_refused(self) -> None:
        body = b'{"name": "%s"}' % (b"n" * 10_000_000)
        for method, path in self.writes:
            with self.subTest(method=method, path=path), self.nothing_changes():
                self.assert_refused(self.send(method, path, body), 413, "detail")


class AnyRequestTest(OpenCase):
    def test_the_refusal_of_a_method_names_the_allowed_ones(self) -> None:
        project = ProjectFactory()
        for method, path, allowed in [
            ("DELETE", "/projects/", "GET, POST, HEAD, OPTIONS"),
            ("PUT", "/tasks/", "GET, POST, HEAD, OPTIONS"),
            ("POST", f"/projects/{project.pk}/", "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"),
            ("POST", "/events/", "GET, HEAD, OPTIONS"),
        ]:
            with self.subTest(method=method, path=path), self.nothing_changes():
                response = self.send(method, path)
                self.assert_refused(response, 405, "detail")
                self.assertEqual(response["Allow"], allowed)

    def test_options_names_the_allowed_methods(self) -> None:
        response = self.client.options("/tasks/")
        self.assertEqual((response.status_code, response["Allow"]), (200, "GET, POST, HEAD, OPTIONS"))

    def test_only_json_is_served(self) -> None:
        self.assertEqual(self.client.get("/tasks/", headers={"Accept": "text/html,*/*;q=0.8"}).status_code, 200)
        self.assert_refused(self.client.get("/tasks/", headers={"Accept": "application/xml"}), 406, "detail")

    def test_more_parameters_than_django_parses_are_refused(self) -> None:
        self.assert_refused(self.client.get("/tasks/?" + "a=1&" * 2000), 400, "detail")

    def test_an_internal_error_is_logged_and_shows_no_details(self) -> None:
        with self.assertLogs("rest.errors", "ERROR") as logged:
            response = Broken.as_view()(RequestFactory().get("/broken/"))
        self.assertEqual((response.status_code, response.data), (500, {"detail": "Something went wrong on our side."}))
        self.assertIn("the password is 1234", logged.output[0])


@override_settings(ACCESS="open")
class ChunkedBodyTest(CommittingCase):
    def setUp(self) -> None:
        self.project = ProjectFactory(name="Garden")

    async def patch(self, *chunks: bytes) -> tuple[int, str]:
        json = {"Content-Type": "application/json"}
        async with Exchange("PATCH", f"/projects/{self.project.pk}/", headers=json, body=chunks) as response:
            return response.status, response.json(await response.read()).get("name")

    async def test_a_chunked_body_is_read(self) -> None:
        self.assertEqual(await self.patch(b'{"name": ', b'"Kitchen"}'), (200, "Kitchen"))

    async def test_a_chunked_body_has_the_same_limit(self) -> None:
        self.assertEqual(await self.patch(b'{"name": "', *[b"n" * 600_000] * 2, b'"}'), (413, None))


class Broken(View):
    authentication_classes = []

    def get(self, request: Request) -> Response:
        raise RuntimeError("the password is 1234")


class SessionTest(ClosedCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.membership = MembershipFactory()
        cls.path = f"/projects/{cls.membership.project_id}/"

    def setUp(self) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.client.force_login(self.membership.user)

    def test_a_session_may_read_without_a_csrf_token(self) -> None:
        self.assertEqual(self.client.get(self.path).status_code, 200)

    def test_a_session_may_write_only_with_its_csrf_token(self) -> None:
        for method in ("PUT", "PATCH", "DELETE"):
            with self.subTest(method), self.nothing_changes():
                self.assert_refused(self.send(method, self.path, {"name": "Mine"}), 403, "detail")
        self.client.cookies["csrftoken"] = token = "t" * 32
        response = self.send("PATCH", self.path, {"name": "Mine"}, X_CSRFToken=token)
        self.assertEqual((response.status_code, response.json()["name"]), (200, "Mine"))

    def test_a_deactivated_account_is_anonymous(self) -> None:
        self.membership.user.is_active = False
        self.membership.user.save()
        self.assert_refused(self.client.get(self.path), 401)
