"""Redis as this process sees it: whether it answers, and whether it is the same server as before.

A restarted server may have the data of hours ago, and another server may have taken over. So every key contains the id
that a server generates at each start (`run_id`). Entries under an earlier id are not found, however old they are.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
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

# Seconds without commands after one that was not answered, so that not every list waits for a Redis that hangs.
_RETRY_S = 1.0
# Seconds that the event loop waits for an answer. Threads wait for less (REDIS_TIMEOUT_S), but a busy loop takes an
# answer late. No write waits for a command of the loop.
_LOOP_TIMEOUT_S = 1.0
# Attempts at a command, in case each is run by another server than the one whose keys it names.
_ATTEMPTS = 3

_RUN_ID = re.compile(rb"run_id:(\w+)")


class RedisServer:
    """`call` and `call_async` run one command, and return None where Redis does not answer."""

    def __init__(self) -> None:
        self.run_id: str | None = None
        self._prefix = ""
        self.ask_again_at = 0.0
        self._is_down = False
        self._refusal = ""
        self._located_client: tuple[str, Any] | None = None
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, async_redis.Redis] = WeakKeyDictionary()

    @property
    def is_away(self) -> bool:
        """Whether it left a command unanswered within the last second."""
        return time.monotonic() < self.ask_again_at

    def key(self, name: str) -> str:
        """The key of `name`. Call it within a command: another server has other keys."""
        return self._prefix + name

    def call(self, command: Callable[[Any], T], *, is_urgent: bool = False) -> T | None:
        """The answer to one command; None where Redis does not answer, or did not within the last second.

        An urgent command is tried all the same.
        """
        if self.is_away and not is_urgent:
            return None
        with self._reporting_errors():
            redis = self._client()
            if self.run_id is None:
                redis.ping()  # opens a connection, which asks for the run_id
            for _ in range(_ATTEMPTS):
                run_id = self.run_id
                answer = command(redis)
                if run_id == self.run_id:
                    self._report_answer()
                    return answer
        return None

    async def call_async(self, command: Callable[[Any], Awaitable[T]]) -> T | None:
        """As `call`, from the event loop, over connections of its own."""
        if self.is_away:
            return None
        with self._reporting_errors():
            redis = self._async_client()
            if self.run_id is None:
                await redis.ping()
            for _ in range(_ATTEMPTS):
                run_id = self.run_id
                answer = await command(redis)
                if run_id == self.run_id:
                    self._report_answer()
                    return answer
        return None

    def identify(self, info: bytes | str) -> None:
        """Take the run_id from a server's INFO. Called on each new connection, before its first command."""
        found = _RUN_ID.search(info.encode() if isinstance(info, str) else info)
        if found is None:
            raise NotConnected("The server does not report its run_id.")
        run_id = found[1].decode()
        # The prefix first: a command of another thread that already uses it is right, and one that used the old prefix
        # finds another run_id afterwards, and is repeated.
        self._prefix = django_cache.make_key(f"{run_id}:")
        self.run_id = run_id

    def _client(self) -> Any:
        """The client of django-redis. Getting it takes as long as a command, so it is cached per location."""
        location = settings.CACHES["default"]["LOCATION"]
        if self._located_client is None or self._located_client[0] != location:
            self._located_client = (location, get_redis_connection("default"))
        return self._located_client[1]

    def _async_client(self) -> async_redis.Redis:
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            self._async_clients[loop] = async_redis.Redis.from_url(
                settings.CACHES["default"]["LOCATION"],
                socket_connect_timeout=_LOOP_TIMEOUT_S,
                socket_timeout=_LOOP_TIMEOUT_S,
                retry=AsyncRetry(NoBackoff(), 1, supported_errors=(NotConnected,)),
                redis_connect_func=_identify_server_async,
            )
        return self._async_clients[loop]

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            self._report_error(error)

    def _report_answer(self) -> None:
        if self._is_down:
            logger.info("Redis answers again.")
            self._is_down = False

    def _report_error(self, error: RedisError) -> None:
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


class IdentifyingConnectionFactory(ConnectionFactory):  # type: ignore[misc]
    """For django-redis (`CONNECTION_FACTORY`): each new connection asks the server for its run_id first."""

    def make_connection_params(self, url: str) -> dict[str, Any]:
        return {
            **super().make_connection_params(url),
            "redis_connect_func": _identify_server,
            "retry": Retry(NoBackoff(), 1, supported_errors=(NotConnected,)),
        }


def _identify_server(connection: Any) -> None:
    connection.on_connect()
    connection.send_command("INFO", "server")
    server.identify(connection.read_response())


async def _identify_server_async(connection: Any) -> None:
    await connection.on_connect()
    await connection.send_command("INFO", "server")
    server.identify(await connection.read_response())
