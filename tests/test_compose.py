"""The image, the Compose file and the example settings match each other and the code. No Docker engine is needed."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml
from celery.beat import beat_nodename
from celery.bin.beat import beat
from celery.bin.worker import worker
from celery.utils.nodenames import default_nodename, gethostname
from django.conf import settings
from django.test import SimpleTestCase

from backend import server
from backend.local import supervisor

ROOT: Path = settings.BASE_DIR
COMPOSE_FILE = ROOT / "docker-compose.yml"
COMPOSE_TEXT = COMPOSE_FILE.read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "taskwire"}
# One instruction per line.
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
EXAMPLE = (ROOT / ".env.example").read_text()

# Reads an .env file from standard input, loads the settings without the checkout's .env, and prints them.
LOAD_SETTINGS = """
import sys, environ
environ.Env.read_env(sys.stdin)
environ.Env.read_env = lambda *_: None
from backend import settings
print({name: repr(value) for name, value in vars(settings).items() if name.isupper()})
"""

SECRETS = {"SECRET_KEY", "POSTGRES_PASSWORD", "RABBITMQ_PASSWORD"}


def run_tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this virtual environment."""
    program = Path(sys.executable).with_name(name)
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())


def settings_names() -> set[str]:
    """Every variable that the settings module reads."""
    tree = ast.parse((ROOT / "backend/settings.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {ast.literal_eval(call.args[0]) for call in calls if re.match(r"env(\.\w+)?\(", ast.unparse(call))}


def interpolated_names() -> set[str]:
    """Every variable that docker-compose.yml interpolates into a value, without those that it passes on by name."""
    return set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE_TEXT))


class DockerfileTests(SimpleTestCase):
    def test_hadolint_finds_nothing(self) -> None:
        hadolint = run_tool("hadolint", "Dockerfile")

        self.assertEqual((hadolint.returncode, hadolint.stdout + hadolint.stderr), (0, ""))

    def test_every_copied_file_exists_and_is_not_ignored(self) -> None:
        ignored, *exceptions = [
            line for line in (ROOT / ".dockerignore").read_text().splitlines() if line == "*" or line.startswith("!")
        ]
        copied = [line.removeprefix("--chmod=755 ").split()[0] for line in instructions("COPY")]

        self.assertEqual(ignored, "*")
        self.assertEqual(sorted(copied), sorted(line.removeprefix("!") for line in exceptions))
        self.assertEqual([path for path in copied if not (ROOT / path).exists()], [])

    def test_the_image_runs_as_an_ordinary_user(self) -> None:
        self.assertEqual(instructions("USER"), ["10001:10001"])

    def test_no_secret_stays_in_the_image(self) -> None:
        self.assertEqual(SECRETS & image_environment().keys(), set())
        self.assertEqual(instructions("ARG"), [])

    def test_the_settings_load_with_the_variables_of_the_build(self) -> None:
        [command] = [line for line in instructions("RUN") if "manage.py" in line]
        variables = dict(word.split("=", 1) for word in command.partition(" python ")[0].split())
        environment = {**image_environment(), **variables, "ENV_FILE": ""}
        arguments = [sys.executable, "-c", "import backend.settings"]
        loaded = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

        self.assertEqual((loaded.returncode, loaded.stderr), (0, ""))

    def test_the_web_process_listens_on_the_exposed_port(self) -> None:
        environment = image_environment()

        self.assertEqual(json.loads(instructions("CMD")[0]), ["python", "-m", "backend.server"])
        self.assertEqual((environment["BIND"], environment["PORT"]), ("0.0.0.0", "8000"))
        self.assertEqual(instructions("EXPOSE"), [environment["PORT"]])

    def test_the_grace_periods_are_longer_than_the_stop_of_a_web_process(self) -> None:
        grace_s = int(SERVICES["web"]["stop_grace_period"].removesuffix("s"))

        self.assertGreater(min(grace_s, supervisor.GRACE_S), server.STOP_S + 1)


class HealthCheckTests(SimpleTestCase):
    """The health check of the image, with a substitute for the web process."""

    def test_200_is_healthy_and_503_is_not(self) -> None:
        with self._server(200) as (port, _):
            self.assertEqual(self._check(port), 0)
        with self._server(503) as (port, _):
            self.assertEqual(self._check(port), 1)

    def test_a_closed_port_is_not_healthy(self) -> None:
        with self._server(200) as (port, _):
            pass
        self.assertEqual(self._check(port), 1)

    def test_the_check_requests_an_allowed_host(self) -> None:
        for allowed, host in {
            None: "localhost",
            "tasks.example.org,localhost": "tasks.example.org",
            ".example.org": "example.org",
            "*": "localhost",
        }.items():
            with self.subTest(allowed=allowed), self._server(200) as (port, requests):
                self._check(port, allowed)
                self.assertEqual(requests, [("/healthz", host)])

    def _check(self, port: int, allowed_hosts: str | None = None) -> int:
        python, *arguments = json.loads(instructions("HEALTHCHECK")[0].split(" CMD ", 1)[1])
        self.assertEqual(python, "python")
        env = {"PORT": str(port)} | ({"ALLOWED_HOSTS": allowed_hosts} if allowed_hosts else {})
        return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, check=False).returncode

    @contextmanager
    def _server(self, status: int) -> Iterator[tuple[int, list[tuple[str, str]]]]:
        """A server that responds with `status`. Yields its port and the path and Host of each request."""
        requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append((self.path, self.headers["Host"]))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
            try:
                yield server.server_port, requests
            finally:
                server.shutdown()


class ComposeTests(SimpleTestCase):
    def test_the_file_conforms_to_the_compose_specification(self) -> None:
        check = run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")

        self.assertEqual(check.returncode, 0, check.stdout + check.stderr)

    def test_docker_compose_accepts_the_file_with_the_example_settings(self) -> None:
        docker = shutil.which("docker")
        if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
            self.skipTest("needs the docker compose client")
        env = {name: value for name, value in os.environ.items() if name not in SECRETS}
        command = [docker, "compose", "--env-file", ".env.example", "config", "--quiet"]
        compose = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

        self.assertEqual((compose.returncode, compose.stderr), (0, ""))

    def test_the_file_has_all_services_and_volumes(self) -> None:
        self.assertEqual(OURS.keys(), {"migrate", "web", "worker", "beat"})
        self.assertEqual(SERVICES.keys() - OURS.keys(), {"postgres", "rabbitmq", "redis"})
        self.assertEqual(COMPOSE["volumes"].keys(), {"postgres", "rabbitmq"})

    def test_every_long_running_service_has_a_health_check_and_restarts(self) -> None:
        running = {name: service for name, service in SERVICES.items() if name != "migrate"}
        checked = {name for name, service in running.items() if "test" in service.get("healthcheck", {})}

        self.assertEqual(checked, running.keys() - {"web"})
        self.assertEqual(len(instructions("HEALTHCHECK")), 1)  # in the image, for the web service
        self.assertEqual({service["restart"] for service in running.values()}, {"unless-stopped"})

    def test_no_process_starts_before_the_database_is_migrated(self) -> None:
        for name in OURS.keys() - {"migrate"}:
            self.assertEqual(OURS[name]["depends_on"]["migrate"], {"condition": "service_completed_successfully"}, name)
        self.assertEqual(OURS["migrate"]["depends_on"], {"postgres": {"condition": "service_healthy"}})
        self.assertEqual(OURS["migrate"]["command"], ["python", "manage.py", "migrate", "--noinput"])

    def test_only_the_web_service_is_published_and_only_on_this_machine(self) -> None:
        self.assertEqual({name for name, service in SERVICES.items() if "ports" in service}, {"web"})
        [port] = SERVICES["web"]["ports"]
        self.assertEqual((port["host_ip"], port["published"]), ("${BIND:-127.0.0.1}", "${PORT:-8000}"))
        self.assertEqual(str(port["target"]), image_environment()["PORT"])

    def test_access_is_closed_and_debug_is_off_whatever_the_environment_says(self) -> None:
        for name, service in OURS.items():
            environment = service["environment"]
            self.assertEqual((environment["ACCESS"], environment["DEBUG"]), ("closed", "false"), name)

    def test_our_containers_are_read_only_and_gain_no_privileges(self) -> None:
        for name, service in OURS.items():
            self.assertTrue(service["read_only"] and service["init"], name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
        for name, service in SERVICES.items():
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)
            self.assertNotIn("privileged", service, name)

    def test_every_secret_is_required(self) -> None:
        self.assertEqual(set(re.findall(r"\$\{(\w+):\?", COMPOSE_TEXT)), SECRETS)

    def test_every_setting_is_set_by_the_file_or_by_the_image(self) -> None:
        by_file = OURS["web"]["environment"].keys()
        by_image = settings_names() & image_environment().keys()

        self.assertEqual(by_file | by_image, settings_names())
        self.assertEqual(by_image, {"STATIC_ROOT", "BIND", "PORT"})
        self.assertEqual(by_file & by_image, set())  # BIND and PORT of .env are only for the published port

    def test_redis_evicts_only_keys_with_a_lifetime_and_writes_no_file(self) -> None:
        self.assertEqual(
            SERVICES["redis"]["command"],
            shlex.split("redis-server --maxmemory 256mb --maxmemory-policy volatile-lru --save '' --appendonly no"),
        )

    def test_celery_knows_every_option(self) -> None:
        for name, command in {"worker": worker, "beat": beat}.items():
            program = SERVICES[name]["command"]
            known = {option for parameter in command.params for option in parameter.opts}

            self.assertEqual(program[:4], ["celery", "--app", "backend", name])
            self.assertLessEqual(set(program[4:]), known)

    def test_the_health_checks_ping_the_nodes_that_celery_starts(self) -> None:
        for name, node in {"worker": default_nodename(None), "beat": beat_nodename()}.items():
            script = SERVICES[name]["healthcheck"]["test"][1].replace("$$HOSTNAME", gethostname())

            self.assertEqual(shlex.split(script)[-2:], ["--destination", node])


class ExampleTests(SimpleTestCase):
    """`.env.example`: each variable has a comment line above it, and is commented out if it has a usable default."""

    # (comment, "# " if commented out, name, value)
    entries = re.findall(r"^(# \S.*\.)\n(# )?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE)

    def test_the_file_has_exactly_the_variables_of_the_settings_and_the_compose_file(self) -> None:
        names = [name for _, _, name, _ in self.entries]

        self.assertEqual(sorted(names), sorted(settings_names() | interpolated_names()))

    def test_each_variable_has_a_comment(self) -> None:
        self.assertEqual(len(self.entries), len(re.findall(r"^(?:# )?[A-Z_]+=", EXAMPLE, re.MULTILINE)))

    def test_only_secrets_have_to_be_set(self) -> None:
        self.assertEqual({name for _, commented_out, name, _ in self.entries if not commented_out}, SECRETS)

    def test_the_settings_load_with_all_example_values(self) -> None:
        loaded = self._settings("".join(f"{name}={value}\n" for _, _, name, value in self.entries))

        self.assertEqual((loaded["NOTIFY_EMAIL"], loaded["STATIC_ROOT"]), ("'team@localhost'", "'staticfiles'"))

    def test_a_value_is_the_default_unless_the_comment_states_the_default(self) -> None:
        shown = [f"{name}={value}\n" for comment, _, name, value in self.entries if "(default: " not in comment]

        self.assertEqual(self._settings("".join(shown)), self._settings(EXAMPLE))

    def _settings(self, env_file: str) -> dict[str, str]:
        """All settings, loaded from `env_file` alone."""
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD_SETTINGS],
            cwd=ROOT,
            env={},
            input=env_file,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(loaded.returncode, 0, loaded.stderr)
        return ast.literal_eval(loaded.stdout)
