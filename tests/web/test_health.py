from django.test import Client

from tests.cases import Case


class HealthMethodTests(Case):
    def test_it_is_asked_and_not_told(self) -> None:
        strict = Client(enforce_csrf_checks=True)
        for method in ("post", "put", "delete"):
            with self.subTest(method):
                answer = getattr(strict, method)("/healthz")
                self.assertEqual((answer.status_code, answer["Allow"]), (405, "GET, HEAD"))
                self.assertEqual(answer.json(), {"detail": "Use GET."})

    def test_head_will_do(self) -> None:
        answer = self.client.head("/healthz")
        self.assertEqual((answer.status_code, answer.content), (200, b""))
