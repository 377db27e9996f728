"""`make run`: the whole product on this machine, until Ctrl-C.

Each server and process runs under a tether (`processes.py`), so that none outlives this one. An embedded server that
ends by itself is started again. `.local` has two lock files. `run.lock` allows one run per checkout. `running.lock`
stays locked until every process that the run started has ended.
"""

import fcntl
import http.client
import importlib
import json
import os
import secrets
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

import environ

from backend.local.caller import Caller
from backend.local.console import Refusal, say
from backend.local.postgres import Postgres
from backend.local.processes import Tethered, wait_until
from backend.local.supervisor import Supervisor
from backend.local.valkey import Valkey

CHECKOUT = Path(__file__).resolve().parents[2]
LOCAL = CHECKOUT / ".local"
# The variables that a run writes to ENVIRONMENT, so that `make manage` uses the same servers and settings.
ENVIRONMENT = LOCAL / "environment.json"
SHARED_VARIABLES = ("ACCESS", "BIND", "BROKER_URL", "DATABASE_URL", "EMAIL_URL", "PORT", "REDIS_URL", "SECRET_KEY")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The processes of a killed run stop within their grace periods.
EARLIER_RUN_TIMEOUT_S = 60.0


class StopRequested(BaseException):
    """Ctrl-C, or another signal that requests a stop."""


def main() -> int:
    for number in STOP_SIGNALS:
        signal.signal(number, _request_stop)
    try:
        with ExitStack() as cleanup:
            say(_run(cleanup))
            _ignore_stop_signals()
        return 1
    except StopRequested:
        say("Stopped. The next 'make run' continues with the same data.")
        return 0
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"Taskwire has no permission for {error.filename}: did another user run it here?", file=sys.stderr)
        return 1


def _request_stop(*_signal: object) -> None:
    _ignore_stop_signals()
    raise StopRequested


def _ignore_stop_signals() -> None:
    """Ignore further signals: stopping takes a bounded time and must not be interrupted."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _run(cleanup: ExitStack) -> str:
    """Run everything until a process ends, and return a message about it."""
    caller = Caller()
    LOCAL.mkdir(exist_ok=True)
    lock_fd = _lock_this_checkout(cleanup)
    _set_defaults()
    _check_port()
    _check_settings()

    is_embedded = "DATABASE_URL" not in os.environ
    if is_embedded:
        say("Starting PostgreSQL ...")
        postgres = cleanup.enter_context(Postgres(LOCAL, lock_fd=lock_fd))
        postgres.keep_running()
        os.environ["DATABASE_URL"] = postgres.url
    if not {"REDIS_URL", "BROKER_URL"} <= os.environ.keys():
        say("Starting Valkey ...")
        valkey = cleanup.enter_context(Valkey(LOCAL, lock_fd=lock_fd))
        valkey.keep_running()
        os.environ.setdefault("REDIS_URL", valkey.url)
        os.environ.setdefault("BROKER_URL", valkey.broker_url)

    cleanup.callback(ENVIRONMENT.unlink, missing_ok=True)
    ENVIRONMENT.touch(mode=0o600)
    ENVIRONMENT.write_text(json.dumps({name: os.environ[name] for name in SHARED_VARIABLES}))

    say("Preparing the database ...")
    _manage("migrate", "--verbosity", "0", lock_fd=lock_fd)
    if is_embedded:
        _manage("demo", lock_fd=lock_fd)

    say("Starting web, worker and beat ...")
    supervisor = cleanup.enter_context(Supervisor(CHECKOUT / "Procfile", os.environ, lock_fd=lock_fd))
    return supervisor.wait(on_poll=_Watch(caller))


def _lock_this_checkout(cleanup: ExitStack) -> int:
    """Lock this checkout for this run. Return the lock's descriptor, which every started process inherits."""
    run = cleanup.enter_context((LOCAL / "run.lock").open("a+"))
    if not _try_lock(run):
        run.seek(0)
        raise Refusal(f"Taskwire already runs in this folder, as process {run.read().strip() or 'unknown'}.")
    run.truncate(0)
    run.write(f"{os.getpid()}\n")
    run.flush()
    running = cleanup.enter_context((LOCAL / "running.lock").open("w"))
    if not _try_lock(running):
        say("Waiting for the processes of a killed run to stop ...")
        if not wait_until(lambda: _try_lock(running), timeout_s=EARLIER_RUN_TIMEOUT_S):
            raise Refusal(f"Processes of an earlier run do not stop: 'fuser {running.name}' names them.")
    return running.fileno()


def is_running() -> bool:
    """Whether `make run` is running in this checkout, with its servers started."""
    if not ENVIRONMENT.exists():
        return False
    with (LOCAL / "run.lock").open("a+") as run:
        return not _try_lock(run)


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _set_defaults() -> None:
    """Fill in the environment: its own variables take precedence, then `.env`, then defaults for one machine."""
    environ.Env.read_env(CHECKOUT / ".env")
    os.environ.setdefault("ACCESS", "open")
    os.environ.setdefault("BIND", "127.0.0.1")
    os.environ.setdefault("PORT", "8000")
    # The host is empty and ends at the third slash; the path starts with the fourth.
    os.environ.setdefault("EMAIL_URL", f"filemail:///{quote(str(LOCAL / 'outbox'))}")
    if "SECRET_KEY" not in os.environ:
        os.environ["SECRET_KEY"] = _stored_secret_key()
    # The commands of the Procfile come from this virtual environment.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _stored_secret_key() -> str:
    file = LOCAL / "secret_key"
    if not file.exists():
        fresh = file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(50))
        fresh.replace(file)
    return file.read_text()


def _check_settings() -> None:
    """Load the settings before anything starts: a wrong one is reported in one line, without a traceback."""
    try:
        importlib.import_module("backend.settings")
    except (ValueError, environ.ImproperlyConfigured) as error:
        raise Refusal(f"A setting is wrong: {error}") from None


def _check_port() -> None:
    bind, port = os.environ["BIND"], os.environ["PORT"]
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(bind, _number(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        advice = "set PORT (or BIND) to a free one, as in 'make run PORT=8001'"
        raise Refusal(f"Cannot listen on {bind}, port {port} ({reason}): {advice}.") from None


def _number(port: str) -> int:
    if not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("no such port")
    return int(port)


def _manage(*arguments: str, lock_fd: int) -> None:
    process = Tethered([sys.executable, CHECKOUT / "manage.py", *arguments], cwd=CHECKOUT, inherited_fd=lock_fd)
    try:
        code = process.wait()
    finally:
        process.stop()
    if code != 0:
        raise Refusal(f"'manage.py {arguments[0]}' failed with exit code {code}; its reason is above.")


class _Watch:
    """Called at every poll: prints the addresses once the web process answers, and stops the run if `make` stops."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._has_answered = False

    def __call__(self) -> None:
        if self._caller.has_stopped():
            _request_stop()
        if not self._has_answered and _web_answers():
            self._has_answered = True
            say(_welcome())


def _web_answers() -> bool:
    connection = http.client.HTTPConnection(_reachable_host(), int(os.environ["PORT"]), timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reachable_host() -> str:
    """The host at which this machine reaches a server that listens on BIND."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(os.environ["BIND"], os.environ["BIND"])


def _welcome() -> str:
    host = _reachable_host()
    address = f"[{host}]:{os.environ['PORT']}" if ":" in host else f"{host}:{os.environ['PORT']}"
    lines = [
        "",
        "Taskwire is ready. Ctrl-C stops all of it.",
        "",
        f"  GraphiQL   http://{address}/graphql/",
        f"  REST       http://{address}/projects/",
        f"  REST docs  http://{address}/docs/",
        f"  Admin      http://{address}/admin/",
        f"  Socket     ws://{address}/ws/notifications/",
    ]
    if os.environ["EMAIL_URL"].startswith("filemail:"):
        lines.append("  Mail       files in .local/outbox")
    if os.environ["ACCESS"] == "open":
        next_step = f"curl http://{address}/projects/"
    else:
        next_step = "Access needs an account: make manage ARGS=createsuperuser"
    return "\n".join([*lines, "", f"  {next_step}", ""])


if __name__ == "__main__":
    sys.exit(main())
