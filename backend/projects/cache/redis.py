"""Redis as this process sees it: there or away, and the same server as before or not.

A server that was started again may hold what it held hours ago, or be another one that took over. So every key names
the id that a server gives itself at each start: what was stored under an earlier one is not found any more, and nobody
needs to know how old it is.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from django.conf import settings
from django.core.cache import cache as django_cache
from django_redis import get_redis_connection
from django_redis.pool import ConnectionFactory
from redis import asyncio as async_redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds without a command after one that was not answered: a Redis that hangs is not waited for at every list.
_RETRY_S = 1.0
# Of a command that met another server than the one whose keys it named.
_TRIES = 3

_RUN_ID = re.compile(rb"run_id:(\w+)")


class RedisServer:
    """`call` and `call_async` run one command, and answer None where Redis does not."""

    def __init__(self) -> None:
        self.run_id: str | None = None
        self._prefix = ""
        self.ask_again_at = 0.0
        self._is_down = False
        self._refusal = ""
        self._found: tuple[str, Any] | None = None
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, async_redis.Redis] = WeakKeyDictionary()

    @property
    def is_away(self) -> bool:
        """It did not answer within the last second."""
        return time.monotonic() < self.ask_again_at

    def key(self, name: str) -> str:
        """What `name` is called in Redis; to be asked for within a command."""
        return self._prefix + name

    def call(self, command: Callable[[Any], T], *, is_urgent: bool = False) -> T | None:
        """The answer to one command; None where Redis does not answer, or did not within the last second.

        What `is_urgent` is tried all the same.
        """
        if self.is_away and not is_urgent:
            return None
        try:
            redis = self._client()
            if self.run_id is None:
                redis.ping()  # which says hello first
            for _ in range(_TRIES):
                asked = self.run_id
                answer = command(redis)
                if asked == self.run_id:
                    self._answers()
                    return answer
        except RedisError as error:
            self._fails(error)
        return None

    async def call_async(self, command: Callable[[Any], Awaitable[T]]) -> T | None:
        """As `call`, from the event loop, over connections of its own."""
        if self.is_away:
            return None
        try:
            redis = self._async_client()
            if self.run_id is None:
                await redis.ping()
            for _ in range(_TRIES):
                asked = self.run_id
                answer = await command(redis)
                if asked == self.run_id:
                    self._answers()
                    return answer
        except RedisError as error:
            self._fails(error)
        return None

    def met(self, info: bytes | str) -> None:
        """Called with what a server says of itself on a new connection, before anything else is sent on it."""
        found = _RUN_ID.search(info.encode() if isinstance(info, str) else info)
        if found is None:
            raise NotConnected("The server does not tell its run_id.")
        run_id = found[1].decode()
        # The keys first: a command of another thread that names them already is right, and one that names the old ones
        # finds the id changed.
        self._prefix = django_cache.make_key(f"{run_id}:")
        self.run_id = run_id

    def _client(self) -> Any:
        """django-redis', which is looked for once: that takes as long as to ask it something."""
        location = settings.CACHES["default"]["LOCATION"]
        if self._found is None or self._found[0] != location:
            self._found = (location, get_redis_connection("default"))
        return self._found[1]

    def _async_client(self) -> async_redis.Redis:
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            options = settings.CACHES["default"]["OPTIONS"]
            self._async_clients[loop] = async_redis.Redis.from_url(
                settings.CACHES["default"]["LOCATION"],
                socket_connect_timeout=options["SOCKET_CONNECT_TIMEOUT"],
                socket_timeout=options["SOCKET_TIMEOUT"],
                retry=AsyncRetry(NoBackoff(), 1, supported_errors=(NotConnected,)),
                redis_connect_func=_say_hello_async,
            )
        return self._async_clients[loop]

    def _answers(self) -> None:
        if self._is_down:
            logger.info("Redis answers again.")
            self._is_down = False

    def _fails(self, error: RedisError) -> None:
        if isinstance(error, ResponseError) and self.run_id is not None:
            if str(error) != self._refusal:
                logger.warning("Redis refuses a command, lists are built without it: %s", error)
                self._refusal = str(error)
            return
        if not self._is_down:
            logger.warning("Redis does not answer, lists are built without it: %s", error)
        self._is_down = True
        self.ask_again_at = time.monotonic() + _RETRY_S


server = RedisServer()


class Connections(ConnectionFactory):  # type: ignore[misc]
    """django-redis', each of whose connections begins by asking which server it is (`CONNECTION_FACTORY`)."""

    def make_connection_params(self, url: str) -> dict[str, Any]:
        return {
            **super().make_connection_params(url),
            "redis_connect_func": _say_hello,
            "retry": Retry(NoBackoff(), 1, supported_errors=(NotConnected,)),
        }


def _say_hello(connection: Any) -> None:
    connection.on_connect()
    connection.send_command("INFO", "server")
    server.met(connection.read_response())


async def _say_hello_async(connection: Any) -> None:
    await connection.on_connect()
    await connection.send_command("INFO", "server")
    server.met(await connection.read_response())
