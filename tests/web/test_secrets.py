"""No log line, error, event or record contains a password, a token or a session key."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.test import Client, override_settings

from backend.projects.models import AuditEntry, Event, Role, User
from tests.cases import Case
from tests.factories import MembershipFactory

CREATE = """mutation { createToken(input: {name: "laptop", scope: READ}) {
    ... on NewToken { secret token { id } } } }"""
PASSWORD, NEW_PASSWORD, MISTYPED = "Difference Engine", "Analytical Engine", "difference engine"


class SecretTests(Case):
    def setUp(self) -> None:
        permissions = {"user__is_staff": True, "user__is_superuser": True}
        self.membership = MembershipFactory(role=Role.OWNER, user__username="ada", **permissions)
        self.membership.user.set_password(PASSWORD)
        self.membership.user.save()
        self.responses: list[str] = []

    def record(self, response: Any) -> Any:
        self.responses.append(f"{response.status_code} {response.headers} {response.content.decode()}")
        return response

    def sign_in(self, **form: str) -> Any:
        return self.client.post("/accounts/sign-in/", form)

    def use_secrets(self) -> list[str]:
        """Use secrets in every way, valid and invalid. Returns them."""
        self.record(self.sign_in(username="ada", password=MISTYPED))
        self.sign_in(username=PASSWORD, password="ada")  # its response is not recorded: the page repeats the name
        self.record(self.sign_in(username="ada", password=PASSWORD))
        session = self.client.cookies[settings.SESSION_COOKIE_NAME].value
        created = self.data(CREATE)["createToken"]
        secret, token_id = created["secret"], created["token"]["id"]
        script = Client(headers={"Authorization": f"Bearer {secret}"}, raise_request_exception=False)
        project = f"/projects/{self.membership.project_id}/"
        self.record(script.get(project))
        self.record(script.delete(project))
        self.record(script.post("/graphql/", {"query": "mutation { x }"}, "application/json"))
        for header in (f"Bearer {secret[:-1]}", f"Bearer {secret}x", f"Token {secret}", secret):
            self.record(script.get(project, headers={"Authorization": header}))
            self.record(script.post("/graphql/", {"query": "{ me { id } }"}, headers={"Authorization": header}))
        with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=None):  # causes an internal error
            self.record(script.post("/projects/", {"name": "New"}, "application/json"))
        self.record(self.client.get("/admin/projects/token/"))
        self.record(self.client.get("/admin/projects/auditentry/"))
        self.record(self.client.get(f"/admin/projects/token/{token_id}/change/"))
        form = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
        self.record(self.client.post("/accounts/password/", form))
        with self.committed():
            self.data(f"mutation {{ revokeToken(input: {{id: {token_id}}}) {{ __typename }} }}")
        self.assertEqual(self.record(script.get(project)).status_code, 401)
        self.client.post("/accounts/sign-out/")
        return [secret, secret[:-1], session, PASSWORD, NEW_PASSWORD, MISTYPED]

    def test_no_secret_is_logged_stored_or_returned(self) -> None:
        with self.assertLogs(level="DEBUG") as logged:
            secrets = self.use_secrets()
        self.assertTrue(User.objects.get().check_password(NEW_PASSWORD))
        self.assertEqual(AuditEntry.objects.count(), 7)
        texts = {
            "logs": "\n".join(logged.output),
            "events": str(list(Event.objects.values())),
            "audit log": str(list(AuditEntry.objects.values())),
            "responses": "\n".join(self.responses),
        }
        for where, text in texts.items():
            for number, secret in enumerate(secrets):
                with self.subTest(where=where, secret=number):
                    self.assertNotIn(secret, text)
