"""Processes of the product within one, that take turns: what each does next is decided by a seed, not by the machine.

An actor is a thread. Before every command to Redis and every statement it hands on the turn, to whichever actor the
seed says; nobody else runs meanwhile. What a process keeps for itself (its connections, its pending bumps, which
server it has met, whom it has checked) every process here has of its own; all of it is the product's code. Time does
not pass by itself: the seconds after which Redis is asked again are over when an actor says so.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any
from unittest.mock import patch

from django.conf import settings
from django.db import connections
from django.db.backends.signals import connection_created
from redis.asyncio import Connection as AsyncConnection
from redis.connection import Connection, ConnectionPool
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as NotAnswered

from backend.projects import authentication
from backend.projects.cache import lists, redis, versions
from backend.projects.cache.redis import IdentifyingConnectionFactory, RedisServer
from backend.web import response_cache

# Seconds. Far beyond what a schedule takes: who waits this long for a turn never gets one.
PATIENCE_S = 60.0
# Said on every new connection, whatever is asked: nobody else's business.
_GREETINGS = ("CLIENT", "HELLO", "SELECT")

_acting: ContextVar[Actor | None] = ContextVar("acting", default=None)


class Turns:
    """One schedule. `trace` is who did what, in order."""

    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        # How likely it is that the turn stays where it is: some schedules switch at every step, others seldom.
        self.stays = random_.choice((0.0, 0.3, 0.7, 0.9))
        # And in some, now and then somebody is very slow.
        self.dawdles = random_.choice((0.0, 0.02, 0.05, 0.1))
        self.trace: list[str] = []
        self.raised: Exception | None = None
        self.writer: Actor | None = None
        self._acting: list[Actor] = []
        self._steps = 0
        self._over = threading.Event()

    def play(self, jobs: dict[Actor, Callable[[], None]]) -> None:
        """Have the actors do these jobs, and raise what one of them raised."""
        self._acting = list(jobs)
        self._over.clear()
        for actor, job in jobs.items():
            actor.begin(self, job)
        self.random.choice(self._acting).go()
        if not self._over.wait(PATIENCE_S):
            raise AssertionError("Nobody has the turn.")
        if self.raised is not None:
            raise self.raised

    def hand_on(self, actor: Actor) -> None:
        self._steps += 1
        if self.random.random() < self.dawdles:
            self.hold_back(actor, self.random.randrange(60))
        ready = self._ready()
        if actor in ready and self.random.random() < self.stays:
            return
        chosen = self.random.choice(ready)
        if chosen is not actor:
            chosen.go()
            actor.wait()

    def hold_back(self, actor: Actor, steps: int) -> None:
        """Let others do so many steps before this one does another."""
        actor.held_back_until = self._steps + steps

    def leave(self, actor: Actor) -> None:
        self._acting.remove(actor)
        if self._acting:
            self.random.choice(self._ready()).go()
        else:
            self._over.set()

    def _ready(self) -> list[Actor]:
        able = [actor for actor in self._acting if not (actor.waits_to_write and self.writer)]
        return [actor for actor in able if actor.held_back_until <= self._steps] or able


class Actor:
    """A thread of a process, with connections of its own, for many schedules."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process
        self.turns: Turns | None = None
        self.waits_to_write = False
        self.held_back_until = 0
        self.statements = 0
        self._committed: Callable[[], None] | None = None
        self._turn = threading.Semaphore(0)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def begin(self, turns: Turns, job: Callable[[], None]) -> None:
        self.turns = turns
        self.held_back_until = 0
        self._jobs.put(job)

    def go(self) -> None:
        self._turn.release()

    def wait(self) -> None:
        if not self._turn.acquire(timeout=PATIENCE_S):
            raise AssertionError(f"{self.name} never had the turn again.")

    def end(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def step(self, what: str) -> None:
        """Hand on the turn; what comes after this is done while nobody else does anything."""
        turns = self.turns
        if turns is None:
            return
        turns.hand_on(self)
        turns.trace.append(f"{self.name}: {what}")

    @contextmanager
    def writing(self, committed: Callable[[], None]) -> Iterator[None]:
        """One transaction at a time: who waits for another's lock in PostgreSQL would never give back the turn.

        It is over with the commit, when `committed` is called; what is announced after that is nobody's turn alone.
        """
        assert self.turns is not None
        self.waits_to_write = True
        self.step("wants to write")
        self.waits_to_write = False
        self.turns.writer, self._committed = self, committed
        try:
            yield
        finally:
            self.end_write()

    def end_write(self) -> None:
        assert self.turns is not None
        if self.turns.writer is self:
            self.turns.writer, committed = None, self._committed
            assert committed is not None
            committed()

    def fail(self, error: Exception) -> None:
        """Whatever becomes of it further up: the web process answers it with a 500."""
        assert self.turns is not None
        self.turns.raised = self.turns.raised or error

    def _run(self) -> None:
        _acting.set(self)
        while (job := self._jobs.get()) is not None:
            assert self.turns is not None
            turns = self.turns
            self.wait()
            try:
                job()
            except Exception as error:
                self.fail(error)
            finally:
                self.turns = None
                turns.leave(self)
        connections.close_all()


class Process:
    """What a process of the product keeps for itself."""

    def __init__(self, name: str, life: Callable[[], int]) -> None:
        self.name = name
        self._life = life
        self.pool: ConnectionPool | None = None
        self.reset()

    def reset(self) -> None:
        """As after a start, but with the connections that it had."""
        self.server: RedisServer = _Server(self._life)
        self.pending_bumps = _PendingBumps()
        self.checked: dict[str, Any] = {}
        # Commands do not reach Redis; the answer to the next one is lost.
        self.is_cut_off = False
        self.loses_answer = False
        self.failures = 0

    def let_time_pass(self) -> None:
        """Redis is asked again, and what it did not hear of it is told."""
        self.server.ask_again_at = 0.0
        versions.retry_pending_bumps()


class _Server(RedisServer):
    """That a server was started again is said by the test, which lets one server be many in turn."""

    def __init__(self, life: Callable[[], int]) -> None:
        super().__init__()
        self._life = life

    @property
    def is_away(self) -> bool:
        return self.ask_again_at > 0

    def identify(self, info: bytes | str) -> None:
        assert "run_id" in str(info)
        super().identify(f"run_id:life{self._life()}")

    def _async_client(self) -> Any:
        client = super()._async_client()
        client.connection_pool.connection_class = _AsyncSteps
        return client


class _PendingBumps(versions._PendingBumps):
    """Pending bumps are retried when an actor says that time has passed."""

    def _retry_until_sent(self) -> None:
        pass


class _OfProcess:
    """In the place of what a module holds once per process: that of whoever acts."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(acting().process, self._name), name)

    def __setitem__(self, key: str, value: Any) -> None:
        acting().process.checked[key] = value

    def __len__(self) -> int:
        return len(acting().process.checked)


def acting() -> Actor:
    actor = _acting.get()
    assert actor is not None
    return actor


# --- Where the turn is handed on -------------------------------------------------------------------------
class ConnectionsOfProcess(IdentifyingConnectionFactory):
    def get_or_create_connection_pool(self, params: dict[str, Any]) -> Any:
        process = acting().process
        if process.pool is None:
            process.pool = self.get_connection_pool({**params, "connection_class": _Steps})
        return process.pool


class _Filing:
    """Watches what is filed: an entry never gives way to one that was read earlier."""

    held: tuple[str, bytes] | None = None

    def before(self, arguments: tuple[Any, ...]) -> None:
        self.held = None
        if arguments[0] in _GREETINGS:
            return
        actor = acting()
        actor.step(_said(arguments))
        if actor.process.is_cut_off:
            actor.process.failures += 1
            raise NotConnected("Cut off.")
        if arguments[0] == "EVAL" and arguments[1] == lists._STORE:
            self.held = (arguments[3], control().getrange(arguments[3], 0, 20))

    def after(self) -> None:
        held, self.held = self.held, None
        actor = acting()
        process = actor.process
        if held is not None:
            key, was = held
            now = control().getrange(key, 0, 20)
            if was and now and int(was.split()[0]) > int(now.split()[0]):
                actor.fail(AssertionError(f"An older list was filed over a newer one: {was!r}, then {now!r}."))
        if process.loses_answer:
            process.loses_answer = False
            process.failures += 1
            raise NotAnswered("Lost.")


class _Steps(Connection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._filing = _Filing()

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        self._filing.before(args)
        super().send_command(*args, **kwargs)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = super().read_response(*args, **kwargs)
        self._filing.after()
        return answer


class _AsyncSteps(AsyncConnection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._filing = _Filing()

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        self._filing.before(args)
        await super().send_command(*args, **kwargs)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = await super().read_response(*args, **kwargs)
        self._filing.after()
        return answer


def _at_statement(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    actor = _acting.get()
    if actor is not None and actor.turns is not None:
        actor.statements += 1
        actor.step(" ".join(str(sql).partition(' "s1')[0].split())[:70])  # without the names of savepoints
    return execute(sql, params, many, context)


def _watch(sender: Any, connection: Any, **_: Any) -> None:
    """Have a step before each statement and commit of a connection."""
    if _at_statement in connection.execute_wrappers:
        return
    connection.execute_wrappers.append(_at_statement)
    commit = connection._commit

    def commit_in_turn() -> None:
        actor = _acting.get()
        if actor is None or actor.turns is None:
            commit()
            return
        actor.step("commits")
        commit()
        actor.end_write()

    connection._commit = commit_in_turn


def _said(arguments: tuple[Any, ...]) -> str:
    """A command and its keys, for people."""
    name, keys = arguments[0], arguments[1:]
    if name == "EVAL":
        script, count, *rest = keys
        name, keys = {versions._BUMP: "bumps", lists._STORE: "stores"}[script], rest[:count]
    return f"{name} {' '.join(str(key).rpartition(f'{settings.REDIS_PREFIX}:1:')[2] for key in keys)}"


_control: list[Any] = []


def control() -> Any:
    """A client of the same Redis that takes no turns."""
    return _control[-1]


@contextmanager
def in_turns(client: Any) -> Iterator[None]:
    """Within the block, whoever asks Redis or the database does so as an actor; `client` is for everybody else."""
    _control.append(client)
    connection_created.connect(_watch)
    with (
        patch.object(redis, "server", _OfProcess("server")),
        patch.object(versions, "server", _OfProcess("server")),
        patch.object(lists, "server", _OfProcess("server")),
        patch.object(response_cache, "server", _OfProcess("server")),
        patch.object(versions, "_pending_bumps", _OfProcess("pending_bumps")),
        patch.object(authentication, "_checked", _OfProcess("checked")),
    ):
        yield
    connection_created.disconnect(_watch)
    _control.pop()
