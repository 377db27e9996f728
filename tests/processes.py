"""Processes of the product, used like those of `subprocess.Popen`, but forked from a long-lived process (`prefork`)."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache, partial
from subprocess import PIPE
from typing import IO, Any

from tests.prefork import Order

# Modules that can be imported without settings.
LIBRARIES = (
    "axes",
    "celery.app.base",
    "channels.routing",
    "channels_redis.pubsub",
    "corsheaders.middleware",
    "csp",
    "django.contrib.auth.hashers",
    "django.core.handlers.asgi",
    "django.db.models",
    "django_redis.cache",
    "drf_spectacular",
    "msgspec",
    "orjson",
    "psycopg2",
    "redis.asyncio",
    "rest_framework",
    "strawberry.channels",
    "strawberry_django",
    "twisted.internet.asyncioreactor",
    "twisted.web.http",
)
# These import everything that a web process needs. They read the settings, so they fit one environment only.
WEB = ("backend.asgi", "backend.urls")


class Process:
    """The part of `subprocess.Popen` that tests use."""

    def __init__(self, connection: socket.socket, streams: Sequence[IO[str] | None]) -> None:
        self.stdin, self.stdout, self.stderr = streams
        self.returncode: int | None = None
        self._connection = connection
        self._messages = connection.makefile()
        self.pid = int(self._messages.readline())

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._messages.readline())
            self._messages.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # its exit code is on the way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> None:
        """Wait for the end, and read the output meanwhile: a process blocks when its pipe is full."""
        deadline = time.monotonic() + timeout
        streams = [stream for stream in (self.stdout, self.stderr) if stream is not None and not stream.closed]
        while streams:
            readable = select.select(streams, [], [], max(0, deadline - time.monotonic()))[0]
            if not readable:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            for stream in readable:
                if not os.read(stream.fileno(), 2**16):
                    stream.close()
                    streams.remove(stream)
        self.wait(max(0, deadline - time.monotonic()))


class Prefork:
    """A process that forks others, and ends with this one. `start` starts it with a socket as its standard input."""

    def __init__(self, start: Callable[..., Any]) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = start(stdin=theirs.fileno())

    def start(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        stdout: int = 1,
        stderr: int = 2,
    ) -> Process:
        """Run `python -m module`. A stream is a descriptor, PIPE or, for input, DEVNULL."""
        order = Order(module=module, arguments=list(arguments), environment=dict(environment))
        ours, theirs = socket.socketpair()
        streams: list[IO[str] | None] = []
        with theirs, ExitStack() as closing:
            descriptors = [theirs.fileno()]
            for stream, mode in ((stdin, "w"), (stdout, "r"), (stderr, "r")):
                file: IO[str] | None = None
                if stream == PIPE:
                    reads, writes = os.pipe()
                    file = os.fdopen(reads if mode == "r" else writes, mode)
                    stream = writes if mode == "r" else reads
                    closing.callback(os.close, stream)
                elif stream == subprocess.DEVNULL:
                    stream = os.open(os.devnull, os.O_RDWR)
                    closing.callback(os.close, stream)
                streams.append(file)
                descriptors.append(stream)
            socket.send_fds(self._orders, [json.dumps(order).encode()], descriptors)
        return Process(ours, streams)


@cache
def libraries() -> Prefork:
    """A process with the libraries imported. It forks processes for any module, in any environment."""
    # Some libraries read a setting when they are imported. They must find no settings.
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return Prefork(partial(subprocess.Popen, [sys.executable, "-m", "tests.prefork", *LIBRARIES], env=environment))


def web(environment: Mapping[str, str]) -> Prefork:
    """A process with all modules of a web process imported, in this environment. It starts both servers."""
    return _web(tuple(sorted((name, value) for name, value in environment.items() if name != "SERVER")))


@cache
def _web(environment: tuple[tuple[str, str], ...]) -> Prefork:
    return Prefork(partial(libraries().start, "tests.prefork", WEB, environment=dict(environment)))
