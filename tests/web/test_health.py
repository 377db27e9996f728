from django.test import Client

from tests.cases import Case


class HealthMethodTests(Case):
    def test_writing_methods_get_a_405(self) -> None:
        strict = Client(enforce_csrf_checks=True)
        for method in ("post", "put", "delete"):
            with self.subTest(method):
                response = getattr(strict, method)("/healthz")
                self.assertEqual((response.status_code, response["Allow"]), (405, "GET, HEAD"))
                self.assertEqual(response.json(), {"detail": "Use GET."})

    def test_head_is_allowed(self) -> None:
        response = self.client.head("/healthz")
        self.assertEqual((response.status_code, response.content), (200, b""))
