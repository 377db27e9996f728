"""What the settings refuse before anything starts, and what they make of it: each in a process of its own."""

import json
import os
import secrets
import subprocess
import sys
from functools import cache
from typing import Any

from django.test import SimpleTestCase

# The names that a key of the cache, a channel and a message of the broker begin with.
PREFIXES = """
import json, backend.settings as settings
print(json.dumps([
    settings.CACHES["default"]["KEY_PREFIX"],
    settings.CHANNEL_LAYERS["default"]["CONFIG"]["prefix"],
    settings.CELERY_BROKER_TRANSPORT_OPTIONS["global_keyprefix"],
]))
"""

# What a browser or a script is answered, behind a proxy that speaks TLS and before it.
ASK = """
import json, django
django.setup()
from django.test import Client

def ask(path, **headers):
    answer = Client().get(path, headers={"host": "tasks.example.org", **headers})
    cookies = {name: cookie.OutputString() for name, cookie in answer.cookies.items()}
    return {"status": answer.status_code, "headers": dict(answer.headers), "cookies": cookies}

tls = {"x-forwarded-proto": "https"}
paths = ("/accounts/sign-in/", "/projects/", "/healthz")
print(json.dumps({path: {"tls": ask(path, **tls), "plain": ask(path)} for path in paths}))
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "ENV_FILE": "", "ACCESS": "closed", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def production(**environment: str) -> dict[str, str]:
    named = {"SECRET_KEY": secrets.token_urlsafe(50), "ALLOWED_HOSTS": "tasks.example.org", "DEBUG": "false"}
    return {**named, "TLS_PROXY": "on", **environment}


class RefusalTests(SimpleTestCase):
    def loaded(self, **environment: str) -> str:
        """What loading the settings raises, in one line; nothing where they load."""
        loading = run("-c", "import backend.settings", **environment)
        return "" if loading.returncode == 0 else loading.stderr.strip().splitlines()[-1]

    def test_what_they_say_is_named(self) -> None:
        for environment, said in (
            ({"ACCESS": "ajar"}, "ACCESS"),
            ({"ACCESS": "open", "BIND": "0.0.0.0"}, "BIND"),
            ({"ACCESS": "open", "BIND": "127.0.0.1", "ALLOWED_HOSTS": "localhost,example.org"}, "ALLOWED_HOSTS"),
            ({"ACCESS": "open", "ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
            ({"ACCESS": "open", "BIND": "127.0.0.1", "ALLOWED_HOSTS": "localhost", "TLS_PROXY": "on"}, "TLS_PROXY"),
            ({"SUMMARY_TIME_ZONE": "Europe/Atlantis"}, "SUMMARY_TIME_ZONE"),
            ({"SUMMARY_HOUR": "24"}, "SUMMARY_HOUR"),
            ({"JOURNAL_DAYS": "9"}, "JOURNAL_DAYS"),
            ({"AUDIT_DAYS": "0"}, "AUDIT_DAYS"),
            ({"SERVER": "nginx"}, "SERVER"),
        ):
            with self.subTest(environment):
                error = self.loaded(**environment)
                self.assertIn("ImproperlyConfigured", error)
                self.assertIn(said, error)

    def test_open_access_on_this_machine_is_fine(self) -> None:
        self.assertEqual(self.loaded(ACCESS="open", BIND="127.0.0.1", ALLOWED_HOSTS="localhost,127.0.0.1"), "")

    def test_the_prefix_begins_every_key_and_channel_in_redis(self) -> None:
        asking = run("-c", PREFIXES, BROKER_URL="redis://127.0.0.1/1", REDIS_PREFIX="other")
        self.assertEqual(json.loads(asking.stdout), ["other", "other:notify", "other:"], asking.stderr)


class ProductionTests(SimpleTestCase):
    @staticmethod
    @cache
    def answers(**environment: str) -> Any:
        asking = run("-c", ASK, **production(**environment))
        assert asking.returncode == 0, asking.stderr
        return json.loads(asking.stdout)

    def test_django_finds_nothing_to_say_about_a_deployment(self) -> None:
        check = run("manage.py", "check", "--deploy", "--fail-level", "WARNING", **production())
        self.assertEqual((check.returncode, check.stdout), (0, "System check identified no issues (0 silenced).\n"))

    def test_pages_and_api_answers_carry_every_header(self) -> None:
        answers = self.answers()
        for path, status in (("/accounts/sign-in/", 200), ("/projects/", 401)):
            with self.subTest(path):
                answer = answers[path]["tls"]
                self.assertEqual(answer["status"], status)
                headers = answer["headers"]
                self.assertEqual(headers["Strict-Transport-Security"], "max-age=31536000; includeSubDomains; preload")
                self.assertEqual(headers["X-Frame-Options"], "DENY")
                self.assertEqual(headers["Referrer-Policy"], "same-origin")
                self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
                policy = headers["Content-Security-Policy"].split("; ")
                self.assertLessEqual({"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"}, {*policy})

    def test_what_comes_without_tls_is_sent_on_but_for_the_health_check(self) -> None:
        answers = self.answers()
        for path in ("/accounts/sign-in/", "/projects/"):
            answer = answers[path]["plain"]
            self.assertEqual(
                (answer["status"], answer["headers"]["Location"]), (301, f"https://tasks.example.org{path}")
            )
        self.assertEqual(answers["/healthz"]["plain"]["status"], answers["/healthz"]["tls"]["status"])
        self.assertNotEqual(answers["/healthz"]["plain"]["status"], 301)

    def test_without_a_proxy_plain_http_is_served_and_nobody_can_claim_that_it_is_tls(self) -> None:
        answers = self.answers(TLS_PROXY="off")
        for way in ("plain", "tls"):
            answer = answers["/accounts/sign-in/"][way]
            self.assertEqual(answer["status"], 200)
            self.assertNotIn("Strict-Transport-Security", answer["headers"])
            self.assertIn("Secure", answer["cookies"]["csrftoken"])  # which browsers take from http://localhost too
