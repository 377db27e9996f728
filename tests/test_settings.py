"""Invalid settings are refused, and valid ones take effect. Each test loads them in a new process."""

import json
import os
import re
import secrets
import subprocess
import sys
from functools import cache
from typing import Any

from django.conf import settings
from django.test import SimpleTestCase

# Prints the prefixes of cache keys, channels and broker keys.
PREFIXES = """
import json, backend.settings as settings
print(json.dumps([
    settings.CACHES["default"]["KEY_PREFIX"],
    settings.CHANNEL_LAYERS["default"]["CONFIG"]["prefix"],
    settings.CELERY_BROKER_TRANSPORT_OPTIONS["global_keyprefix"],
]))
"""

# Loads the settings once per environment in the argument, and prints the messages of the errors.
LOAD_ERRORS = """
import json, os, runpy, sys
from django.core.exceptions import ImproperlyConfigured

def error(environment):
    os.environ.clear()
    os.environ.update(initial | environment)
    try:
        runpy.run_module("backend.settings")
    except ImproperlyConfigured as error:
        return str(error)
    return ""

initial = dict(os.environ)
print(json.dumps([error(environment) for environment in json.loads(sys.argv[1])]))
"""

# Prints each variable that the settings read, with its default.
DEFAULTS = """
import json, environ

defaults = {}
get_value = environ.Env.get_value

def record(self, var, *args, **options):
    default = options.get("default")
    defaults[var] = None if default is environ.Env.NOTSET else default
    return get_value(self, var, *args, **options)

environ.Env.get_value = record
import backend.settings
print(json.dumps(defaults))
"""

# Prints the responses to requests with TLS, through a proxy, and without TLS.
RESPONSES = """
import json, django
django.setup()
from django.test import Client

def get(path, **headers):
    response = Client().get(path, headers={"host": "tasks.example.org", **headers})
    cookies = {name: cookie.OutputString() for name, cookie in response.cookies.items()}
    return {"status": response.status_code, "headers": dict(response.headers), "cookies": cookies}

tls = {"x-forwarded-proto": "https"}
paths = ("/accounts/sign-in/", "/projects/", "/healthz")
print(json.dumps({path: {"tls": get(path, **tls), "plain": get(path)} for path in paths}))
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
    required = {"SECRET_KEY": secrets.token_urlsafe(50), "ALLOWED_HOSTS": "tasks.example.org", "DEBUG": "false"}
    return {**required, "TLS_PROXY": "on", **environment}


def example_secret_key() -> str:
    found = re.search(r"^SECRET_KEY=(.+)$", (settings.BASE_DIR / ".env.example").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


class RefusalTests(SimpleTestCase):
    def test_the_refusal_of_an_invalid_setting_names_it(self) -> None:
        refused = (
            ({"ACCESS": "ajar"}, "ACCESS"),
            ({"ACCESS": "open", "BIND": "0.0.0.0"}, "BIND"),
            ({"ACCESS": "open", "BIND": "127.0.0.1", "ALLOWED_HOSTS": "localhost,example.org"}, "ALLOWED_HOSTS"),
            ({"ACCESS": "open", "ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
            ({"ACCESS": "open", "BIND": "127.0.0.1", "ALLOWED_HOSTS": "localhost", "TLS_PROXY": "on"}, "TLS_PROXY"),
            ({"SUMMARY_TIME_ZONE": "Europe/Atlantis"}, "SUMMARY_TIME_ZONE"),
            ({"SUMMARY_HOUR": "24"}, "SUMMARY_HOUR"),
            ({"JOURNAL_DAYS": "9"}, "JOURNAL_DAYS"),
            ({"AUDIT_DAYS": "0"}, "AUDIT_DAYS"),
            ({"INVITATION_DAYS": "0"}, "INVITATION_DAYS"),
            ({"MAILS_PER_HOUR": "0"}, "MAILS_PER_HOUR"),
            ({"SERVER": "nginx"}, "SERVER"),
            ({"COST_MODE": "off"}, "COST_MODE"),
            ({"COST_MAX": "0"}, "COST_MAX"),
            ({"COST_MAX": "10", "COST_BUDGET": "9"}, "COST_BUDGET"),
            ({"COST_RESTORE_RATE": "0"}, "COST_RESTORE_RATE"),
            ({"WRITES_PER_MINUTE": "0"}, "WRITES_PER_MINUTE"),
            ({"TOKENS_PER_HOUR": "0"}, "TOKENS_PER_HOUR"),
            ({"INVITATIONS_PER_HOUR": "0"}, "INVITATIONS_PER_HOUR"),
            ({"SIGN_INS_PER_HOUR": "0"}, "SIGN_INS_PER_HOUR"),
            ({"REQUEST_HEAD_S": "0"}, "REQUEST_HEAD_S"),
            ({"REQUEST_BODY_S": "0.5"}, "REQUEST_BODY_S"),
            ({"DESCRIPTION_CHARACTERS": "0"}, "DESCRIPTION_CHARACTERS"),
            ({"LIVE_QUEUE_BYTES": "65535"}, "LIVE_QUEUE_BYTES"),
            ({"EVENT_BYTES": "1000001"}, "EVENT_BYTES"),
            ({"JOURNAL_PAGE_BYTES": "0"}, "JOURNAL_PAGE_BYTES"),
            ({"COMMENT_CHARACTERS": "1000001"}, "COMMENT_CHARACTERS"),
            ({"SOCKET_FRAMES_PER_S": "0"}, "SOCKET_FRAMES_PER_S"),
            ({"PASSWORD_CHECKS": "0"}, "PASSWORD_CHECKS"),
            ({"WAITING_CONNECTIONS": "0"}, "WAITING_CONNECTIONS"),
            ({"WAITING_CONNECTIONS_PER_ADDRESS": "0"}, "WAITING_CONNECTIONS_PER_ADDRESS"),
            ({"CONNECTIONS_PER_S": "0"}, "CONNECTIONS_PER_S"),
            ({"SIGN_IN_FAILURES_PER_ADDRESS": "4"}, "SIGN_IN_FAILURES_PER_ADDRESS"),
            ({"SIGN_IN_FAILURES_PER_NAME": "4"}, "SIGN_IN_FAILURES_PER_NAME"),
        )
        errors = self.load_errors(*(environment for environment, _ in refused))
        for (environment, name), error in zip(refused, errors, strict=True):
            with self.subTest(environment):
                self.assertIn(name, error)

    def test_a_public_server_needs_a_secret_key_named_hosts_and_no_debug(self) -> None:
        for environment, reason in (
            ({"SECRET_KEY": example_secret_key()}, "SECRET_KEY is the one of .env.example"),
            ({"SECRET_KEY": secrets.token_hex(24)}, "SECRET_KEY is too easy to guess"),
            ({"SECRET_KEY": "abcd" * 20}, "SECRET_KEY is too easy to guess"),
            ({"ALLOWED_HOSTS": "localhost,*"}, "ALLOWED_HOSTS is *"),
            ({"DEBUG": "true"}, "DEBUG is on"),
        ):
            with self.subTest(environment):
                addresses = ["0.0.0.0", "::", "192.168.1.7", "tasks.example.org"]
                errors = self.load_errors(*({**environment, "BIND": address} for address in addresses))
                self.assertEqual([error[: len(reason)] for error in errors], [reason] * 4)
                addresses = ["127.0.0.1", "127.0.0.2", "::1", "localhost"]
                errors = self.load_errors(*({**environment, "BIND": address} for address in addresses))
                self.assertEqual(errors, [""] * 4)
        self.assertEqual(self.load_errors({"BIND": "0.0.0.0", "SECRET_KEY": secrets.token_hex(32)}), [""])

    def test_the_example_secret_key_is_refused_behind_a_proxy_too(self) -> None:
        proxies = [{"TLS_PROXY": "on"}, {"ALLOWED_HOSTS": "localhost,tasks.example.org"}]
        for error in self.load_errors(*({"SECRET_KEY": example_secret_key(), **proxy} for proxy in proxies)):
            self.assertIn("SECRET_KEY", error)

    def load_errors(self, *environments: dict[str, str]) -> list[str]:
        """The message of the ImproperlyConfigured that each environment raises; empty where the settings load."""
        process = run("-c", LOAD_ERRORS, json.dumps(environments))
        self.assertEqual(process.returncode, 0, process.stderr)
        errors: list[str] = json.loads(process.stdout)
        return errors

    def test_open_access_on_loopback_is_accepted(self) -> None:
        environment = {"ACCESS": "open", "BIND": "127.0.0.1", "ALLOWED_HOSTS": "localhost,127.0.0.1"}
        self.assertEqual(self.load_errors(environment), [""])

    def test_the_prefix_begins_every_key_and_channel_in_redis(self) -> None:
        process = run("-c", PREFIXES, BROKER_URL="redis://127.0.0.1/1", REDIS_PREFIX="other")
        self.assertEqual(json.loads(process.stdout), ["other", "other:notify", "other:"], process.stderr)


class ReadmeTests(SimpleTestCase):
    """The table of settings in README.md. A row may have several names, with as many defaults."""

    def test_the_table_has_every_setting_with_its_default(self) -> None:
        section = (settings.BASE_DIR / "README.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
        documented: list[tuple[str, str]] = []
        for names, defaults in re.findall(r"^\| (`[A-Z].*?) \| (.*?) \|", section, re.MULTILINE):
            documented += zip(names.split(", "), defaults.split(", "), strict=True)
        loaded = json.loads(run("-c", DEFAULTS).stdout)

        self.assertEqual(sorted(documented), sorted((f"`{name}`", self._shown(loaded[name])) for name in loaded))

    @staticmethod
    def _shown(default: Any) -> str:
        if default in (None, "", []):
            return "none"
        if isinstance(default, bool):
            return "on" if default else "off"
        if isinstance(default, list):
            default = ",".join(default)
        return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


class ProductionTests(SimpleTestCase):
    @staticmethod
    @cache
    def responses(**environment: str) -> Any:
        process = run("-c", RESPONSES, **production(**environment))
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    def test_the_deployment_check_of_django_finds_nothing(self) -> None:
        for preload, silenced in (("off", 2), ("on", 0)):
            environment = production(HSTS_PRELOAD=preload)
            check = run("manage.py", "check", "--deploy", "--fail-level", "WARNING", **environment)
            output = f"System check identified no issues ({silenced} silenced).\n"
            self.assertEqual((check.returncode, check.stdout), (0, output))

    def test_pages_and_api_responses_have_every_security_header(self) -> None:
        responses = self.responses()
        for path, status in (("/accounts/sign-in/", 200), ("/projects/", 401)):
            with self.subTest(path):
                response = responses[path]["tls"]
                self.assertEqual(response["status"], status)
                headers = response["headers"]
                self.assertEqual(headers["Strict-Transport-Security"], "max-age=31536000")
                self.assertEqual(headers["X-Frame-Options"], "DENY")
                self.assertEqual(headers["Referrer-Policy"], "same-origin")
                self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
                policy = headers["Content-Security-Policy"].split("; ")
                self.assertLessEqual({"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"}, {*policy})

    def test_hsts_includes_subdomains_and_preloading_only_on_demand(self) -> None:
        headers = self.responses(HSTS_PRELOAD="on")["/projects/"]["tls"]["headers"]
        self.assertEqual(headers["Strict-Transport-Security"], "max-age=31536000; includeSubDomains; preload")

    def test_requests_without_tls_are_redirected_except_for_the_health_check(self) -> None:
        responses = self.responses()
        for path in ("/accounts/sign-in/", "/projects/"):
            response = responses[path]["plain"]
            self.assertEqual(
                (response["status"], response["headers"]["Location"]), (301, f"https://tasks.example.org{path}")
            )
        self.assertEqual(responses["/healthz"]["plain"]["status"], responses["/healthz"]["tls"]["status"])
        self.assertNotEqual(responses["/healthz"]["plain"]["status"], 301)

    def test_without_a_proxy_plain_http_is_served_and_x_forwarded_proto_is_ignored(self) -> None:
        responses = self.responses(TLS_PROXY="off")
        for way in ("plain", "tls"):
            response = responses["/accounts/sign-in/"][way]
            self.assertEqual(response["status"], 200)
            self.assertNotIn("Strict-Transport-Security", response["headers"])
            self.assertIn("Secure", response["cookies"]["csrftoken"])  # browsers accept it from http://localhost too
