from django.db import OperationalError, connection
from django.test import override_settings

from backend.web.sessions import SessionStore
from tests.cases import Case, OpenCase


class RequestErrorTests(Case):
    def test_an_unknown_path_is_a_404_in_json(self) -> None:
        response = self.client.get("/nowhere/")
        self.assertEqual((response.status_code, response.json()), (404, {"detail": "Not found."}))

    def test_a_post_without_the_final_slash_is_redirected_as_a_post(self) -> None:
        response = self.client.post("/tasks", {}, "application/json")
        self.assertEqual((response.status_code, response["Location"]), (308, "/tasks/"))

    def test_an_unknown_host_is_a_400_in_json(self) -> None:
        response = self.client.get("/healthz", headers={"host": "evil.example"})
        self.assertEqual((response.status_code, response.json()), (400, {"detail": "Bad request."}))


class SessionTests(Case):
    def test_a_malformed_session_cookie_is_ignored(self) -> None:
        for cookie in ('"a\\000b1234567890"', "\xff" * 32, "a b c d e f g h", "short", "x" * 5000):
            with self.subTest(cookie):
                response = self.client.get("/projects/", headers={"cookie": f"sessionid={cookie}"})
                self.assertEqual(response.status_code, 401)

    def test_an_unreachable_database_does_not_end_the_session(self) -> None:
        """Django treats every database error as a deletion of the session, which is a 400."""
        session = SessionStore()
        session.create()

        def refuse(*args: object) -> None:
            raise OperationalError

        with connection.execute_wrapper(refuse), self.assertRaises(OperationalError):
            session.save()


class HealthTests(Case):
    def test_the_health_check_responds_without_authentication(self) -> None:
        response = self.client.get("/healthz")
        self.assertEqual((response.status_code, response.json()), (200, {"status": "ok"}))

    def test_the_health_check_responds_with_503_without_a_database(self) -> None:
        def refuse(*args: object) -> None:
            raise OperationalError

        with connection.execute_wrapper(refuse):
            response = self.client.get("/healthz")
        self.assertEqual((response.status_code, response.json()), (503, {"status": "no database"}))


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100)
class BodyLimitTests(OpenCase):
    def test_a_body_over_the_limit_is_a_413_on_every_edge(self) -> None:
        for path in ("/graphql/", "/projects/", "/accounts/sign-in/"):
            with self.subTest(path):
                response = self.client.post(path, b"x" * 101, content_type="application/json")
                self.assertEqual(response.status_code, 413)
                self.assertEqual(response.json(), {"detail": "The body may have at most 100 bytes."})

    def test_a_body_of_exactly_the_limit_is_read(self) -> None:
        body = b'{"name": "Engine"}'.ljust(100)
        self.assertEqual(self.client.post("/projects/", body, content_type="application/json").status_code, 201)


class SignInTests(Case):
    def test_the_sign_in_page_has_its_stylesheet_and_policy(self) -> None:
        page = self.client.get("/accounts/sign-in/")
        self.assertContains(page, "<h1>Taskwire</h1>", html=True)
        self.assertContains(page, "site/sign-in.css")
        self.assertIn("default-src 'none'", page["Content-Security-Policy"])
