"""A scheduler that simulates several Taskwire processes in one. A seed, not the machine, decides which runs next.

Each actor is a thread. Before every Redis command and every SQL statement it yields the turn to an actor that the seed
chooses, and no other actor runs meanwhile. Each process has its own copy of what is per process in production: its
connections, its pending bumps, the Redis server that it has identified, the tokens that it has checked. The code that
runs is the product's. Time does not pass by itself: an actor ends the delay after which Redis is tried again.
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

from backend.projects import authentication, budget, threads
from backend.projects.cache import lists, redis, versions
from backend.projects.cache.redis import IdentifyingConnectionFactory, RedisServer
from backend.web import response_cache

# Far longer than a schedule takes: an actor that waits this long never gets a turn.
TURN_TIMEOUT_S = 60.0
# Commands that open a connection. They affect no other actor, so they are not steps.
_HANDSHAKE = ("CLIENT", "HELLO", "SELECT")
# The names of our scripts in a trace.
_SCRIPTS = {versions._BUMP: "bumps", lists._STORE: "stores", budget._CHARGE: "charges"}

_current_actor: ContextVar[Actor | None] = ContextVar("current_actor", default=None)


class Schedule:
    """One schedule. `trace` lists the steps and their actors, in order."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        # The chance that an actor keeps the turn: some schedules switch at every step, others seldom.
        self.keep_chance = rng.choice((0.0, 0.3, 0.7, 0.9))
        # The chance at each step that the actor is delayed by many steps.
        self.delay_chance = rng.choice((0.0, 0.02, 0.05, 0.1))
        self.trace: list[str] = []
        self.error: Exception | None = None
        self.writer: Actor | None = None
        self._actors: list[Actor] = []
        self._steps = 0
        self._finished = threading.Event()

    def run(self, jobs: dict[Actor, Callable[[], None]]) -> None:
        """Run each actor's job. Raises the first error of an actor."""
        self._actors = list(jobs)
        self._finished.clear()
        for actor, job in jobs.items():
            actor.start(self, job)
        self.rng.choice(self._actors).give_turn()
        if not self._finished.wait(TURN_TIMEOUT_S):
            raise AssertionError("No actor has the turn.")
        if self.error is not None:
            raise self.error

    def yield_turn(self, actor: Actor) -> None:
        self._steps += 1
        if self.rng.random() < self.delay_chance:
            self.delay(actor, self.rng.randrange(60))
        ready = self._ready()
        if actor in ready and self.rng.random() < self.keep_chance:
            return
        chosen = self.rng.choice(ready)
        if chosen is not actor:
            chosen.give_turn()
            actor.wait_for_turn()

    def delay(self, actor: Actor, steps: int) -> None:
        """Let the other actors take this many steps before the actor takes its next one."""
        actor.delayed_until = self._steps + steps

    def finish(self, actor: Actor) -> None:
        self._actors.remove(actor)
        if self._actors:
            self.rng.choice(self._ready()).give_turn()
        else:
            self._finished.set()

    def _ready(self) -> list[Actor]:
        unblocked = [actor for actor in self._actors if not (actor.waits_to_write and self.writer)]
        return [actor for actor in unblocked if actor.delayed_until <= self._steps] or unblocked


class Actor:
    """A thread of a process, with its own connections. It runs in many schedules."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process
        self.schedule: Schedule | None = None
        self.waits_to_write = False
        self.delayed_until = 0
        self.statements = 0
        self._on_commit: Callable[[], None] | None = None
        self._turn = threading.Semaphore(0)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(self, schedule: Schedule, job: Callable[[], None]) -> None:
        self.schedule = schedule
        self.delayed_until = 0
        self._jobs.put(job)

    def give_turn(self) -> None:
        self._turn.release()

    def wait_for_turn(self) -> None:
        if not self._turn.acquire(timeout=TURN_TIMEOUT_S):
            raise AssertionError(f"{self.name} never had the turn again.")

    def stop(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def step(self, description: str) -> None:
        """Yield the turn. Up to the next step, no other actor runs."""
        schedule = self.schedule
        if schedule is None:
            return
        schedule.yield_turn(self)
        schedule.trace.append(f"{self.name}: {description}")

    @contextmanager
    def writing(self, on_commit: Callable[[], None]) -> Iterator[None]:
        """Allow one transaction at a time: an actor that waits for a lock in PostgreSQL would never yield the turn.

        The transaction ends with its commit, which calls `on_commit`. Other actors may write while its bumps are sent.
        """
        assert self.schedule is not None
        self.waits_to_write = True
        self.step("wants to write")
        self.waits_to_write = False
        self.schedule.writer, self._on_commit = self, on_commit
        try:
            yield
        finally:
            self.end_write()

    def end_write(self) -> None:
        assert self.schedule is not None
        if self.schedule.writer is self:
            self.schedule.writer, on_commit = None, self._on_commit
            assert on_commit is not None
            on_commit()

    def fail(self, error: Exception) -> None:
        """Fail the schedule, even if a caller handles the error, as the web process does with a 500."""
        assert self.schedule is not None
        self.schedule.error = self.schedule.error or error

    def _run(self) -> None:
        _current_actor.set(self)
        while (job := self._jobs.get()) is not None:
            assert self.schedule is not None
            schedule = self.schedule
            self.wait_for_turn()
            try:
                job()
            except Exception as error:
                self.fail(error)
            finally:
                self.schedule = None
                schedule.finish(self)
        connections.close_all()


class Process:
    """The state of one Taskwire process."""

    def __init__(self, name: str, run_number: Callable[[], int]) -> None:
        self.name = name
        self._run_number = run_number
        self.pool: ConnectionPool | None = None
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new process, except for the connections."""
        self.server: RedisServer = _Server(self._run_number)
        self.pending_bumps = _PendingBumps()
        self.checked: dict[str, Any] = {}
        self.is_cut_off = False  # no command reaches Redis
        self.loses_reply = False  # the reply to the next command is lost
        self.failures = 0

    def let_time_pass(self) -> None:
        """End the delay after which Redis is tried again, and retry the pending bumps."""
        self.server.ask_again_at = 0.0
        versions.retry_pending_bumps()


class _Server(RedisServer):
    """A server whose run_id comes from the test, so that one Redis stands for several runs."""

    def __init__(self, run_number: Callable[[], int]) -> None:
        super().__init__()
        self._run_number = run_number

    @property
    def is_away(self) -> bool:
        return self.ask_again_at > 0

    def identify(self, info: bytes | str) -> None:
        assert "run_id" in str(info)
        super().identify(f"run_id:run{self._run_number()}")

    def _async_client(self) -> Any:
        client = super()._async_client()
        client.connection_pool.connection_class = _AsyncSteps
        return client


class _PendingBumps(versions._PendingBumps):
    """Pending bumps that are retried when an actor lets time pass, not by a thread."""

    def _retry_until_sent(self) -> None:
        pass


class _PerProcess:
    """Replaces a module's per-process state with that of the current actor's process."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(current_actor().process, self._name), name)

    def __setitem__(self, key: str, value: Any) -> None:
        current_actor().process.checked[key] = value

    def __len__(self) -> int:
        return len(current_actor().process.checked)


def current_actor() -> Actor:
    actor = _current_actor.get()
    assert actor is not None
    return actor


# --- Steps -----------------------------------------------------------------------------------------------
class ProcessConnectionFactory(IdentifyingConnectionFactory):
    def get_or_create_connection_pool(self, params: dict[str, Any]) -> Any:
        process = current_actor().process
        if process.pool is None:
            process.pool = self.get_connection_pool({**params, "connection_class": _Steps})
        return process.pool


class _CommandHooks:
    """Code before and after each command. It checks that a store never replaces an entry with an older one."""

    stored_before: tuple[str, bytes] | None = None

    def before(self, arguments: tuple[Any, ...]) -> None:
        self.stored_before = None
        if arguments[0] in _HANDSHAKE:
            return
        actor = current_actor()
        actor.step(_describe(arguments))
        if actor.process.is_cut_off:
            actor.process.failures += 1
            raise NotConnected("Cut off.")
        if arguments[0] == "EVAL" and arguments[1] == lists._STORE:
            self.stored_before = (arguments[3], control().getrange(arguments[3], 0, 20))

    def after(self) -> None:
        stored_before, self.stored_before = self.stored_before, None
        actor = current_actor()
        process = actor.process
        if stored_before is not None:
            key, old = stored_before
            new = control().getrange(key, 0, 20)
            if old and new and int(old.split()[0]) > int(new.split()[0]):
                actor.fail(AssertionError(f"An older list was stored over a newer one: {old!r}, then {new!r}."))
        if process.loses_reply:
            process.loses_reply = False
            process.failures += 1
            raise NotAnswered("Lost.")


class _Steps(Connection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hooks = _CommandHooks()

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        self._hooks.before(args)
        super().send_command(*args, **kwargs)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().read_response(*args, **kwargs)
        self._hooks.after()
        return response


class _AsyncSteps(AsyncConnection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hooks = _CommandHooks()

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        self._hooks.before(args)
        await super().send_command(*args, **kwargs)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        response = await super().read_response(*args, **kwargs)
        self._hooks.after()
        return response


def _before_statement(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    actor = _current_actor.get()
    if actor is not None and actor.schedule is not None:
        actor.statements += 1
        actor.step(" ".join(str(sql).partition(' "s1')[0].split())[:70])  # without the name of a savepoint
    return execute(sql, params, many, context)


def _add_steps(sender: Any, connection: Any, **_: Any) -> None:
    """Add a step before each statement and each commit of a connection."""
    if _before_statement in connection.execute_wrappers:
        return
    connection.execute_wrappers.append(_before_statement)
    commit = connection._commit

    def commit_in_turn() -> None:
        actor = _current_actor.get()
        if actor is None or actor.schedule is None:
            commit()
            return
        actor.step("commits")
        commit()
        actor.end_write()

    connection._commit = commit_in_turn


def _describe(arguments: tuple[Any, ...]) -> str:
    """Return a command and its keys, for the trace."""
    name, keys = arguments[0], arguments[1:]
    if name == "EVAL":
        script, count, *rest = keys
        name, keys = _SCRIPTS[script], rest[:count]
    return f"{name} {' '.join(str(key).rpartition(f'{settings.REDIS_PREFIX}:1:')[2] for key in keys)}"


_control: list[Any] = []


def control() -> Any:
    """Return a client of the same Redis. Its commands are not steps."""
    return _control[-1]


@contextmanager
def in_turns(client: Any) -> Iterator[None]:
    """Within the block, only actors may use Redis and the database. `client` is what `control` returns."""
    _control.append(client)
    connection_created.connect(_add_steps)
    with (
        patch.object(redis, "server", _PerProcess("server")),
        patch.object(budget, "server", _PerProcess("server")),
        patch.object(versions, "server", _PerProcess("server")),
        patch.object(lists, "server", _PerProcess("server")),
        patch.object(response_cache, "server", _PerProcess("server")),
        patch.object(versions, "_pending_bumps", _PerProcess("pending_bumps")),
        patch.object(authentication, "_checked_tokens", _PerProcess("checked")),
        # An actor that waits for another one's thread would keep the turn for ever.
        patch.object(threads.requests, "_limiter", threads._AccountLimiter(100)),
    ):
        yield
    connection_created.disconnect(_add_steps)
    _control.pop()
