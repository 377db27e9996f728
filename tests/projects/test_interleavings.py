"""No read that starts after the response to a write returns an older list, in thousands of interleavings.

A seed determines a schedule: its reads, its writes, its faults, and which actor runs at every Redis command and every
SQL statement (`turns`). INTERLEAVINGS is the number of schedules: 200 by default, 2,000 in CI and `make faults`.
INTERLEAVINGS_SEED is the first seed. A schedule that fails is printed step by step.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings
from redis import Redis

from backend.local.console import say
from backend.local.testing import throwaway_folder
from backend.projects import journal, services
from backend.projects.access import SYSTEM, Viewer, viewer_for
from backend.projects.cache import versions
from backend.projects.cache.validators import NotModified
from backend.projects.models import Event, Membership, Project, Task
from backend.projects.resolvers.page import Order, PageRequest
from backend.projects.resolvers.project import ProjectFilter, list_projects
from backend.projects.resolvers.task import TaskFilter, list_tasks
from backend.web.handler import Handler
from backend.web.response_cache import ResponseCache
from tests.cases import IS_THOROUGH, CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, TokenFactory, UserFactory
from tests.projects.turns import Actor, Process, ProcessConnectionFactory, Schedule, in_turns
from tests.servers import FaultyValkey

SCHEDULES = int(os.environ.get("INTERLEAVINGS", "2000" if IS_THOROUGH else "200"))
FIRST_SEED = int(os.environ.get("INTERLEAVINGS_SEED", "0"))
# The share of reads that must be cache hits: with fewer the schedules would prove nothing.
MIN_HIT_RATIO = 0.15

# The share of schedules with some reads over HTTP, through all of the web process: each costs as much as two others.
HTTP_SHARE = 0.2

PROCESSES = 3
ACTORS_PER_PROCESS = 2
# The faults of a schedule are spread over at most this many steps of all actors.
FAULT_STEPS = 120
# The last steps of a schedule's trace, which a failure shows.
STEPS_SHOWN = 150
# The faults of a schedule, in this order: one of these lists. Each has few kinds, so that chains of one kind occur.
FAULTS: list[list[str]] = [
    [],
    ["evict", "evict", "evict", "evict"],
    ["evict"] * 8,
    ["evict"] * 12,
    ["empty", "evict", "empty"],
    ["save", "restart with old data"],
    ["save", "kill", "restart with old data", "restart with old data"],
    ["kill", "restart empty"],
    ["full"],
    ["full", "not full", "full", "not full"],
    ["full, evicting", "not full"],
    ["cut off", "heal"],
    ["lose a reply", "cut off", "lose a reply", "heal"],
]

# Weights of what a client does: read, write, be killed after a commit, poll the journal, let time pass.
READS = [80, 5, 0, 5, 10]
WRITES = [5, 75, 10, 5, 5]
CLIENT_WEIGHTS = [READS, WRITES, [60, 25, 4, 5, 6]]

# Each written subject and its number: the name of a project, the title of its task, or the membership.
Facts = dict[Any, int]


class Stale(AssertionError):
    pass


@dataclass
class Known:
    """The facts whose writers have received a response."""

    facts: Facts = field(default_factory=dict)

    def add(self, facts: Facts) -> None:
        for subject, number in facts.items():
            self.facts[subject] = max(number, self.facts.get(subject, 0))


@dataclass
class PendingWrite:
    """A write whose process could not send the bumps to Redis."""

    facts: Facts
    process: Process
    run_number: int


class World:
    """Redis, the rows, and the facts that each process must see."""

    def __init__(self, redis: Any, case: InterleavingTests) -> None:
        self.redis = redis
        self.case = case
        self.django = Handler()
        self.run_number = 0
        self.is_killed = False
        self.snapshot: list[tuple[bytes, int, bytes]] = []
        self.number = 0
        self.processes = [Process(f"P{number}", lambda: self.run_number) for number in range(PROCESSES)]

    # --- Faults ------------------------------------------------------------------------------------------
    def begin(self, rng: random.Random) -> None:
        self.rng = rng
        self.known_by_all = Known()
        self.known_by_process = {process.name: Known() for process in self.processes}
        self.pending: list[PendingWrite] = []
        self.unannounced: list[tuple[int, Facts, int]] = []
        self.number = self.run_number = 0
        self.start(snapshot=[])
        self.snapshot = []
        for process in self.processes:
            process.reset()
        self.members = [rng.random() < 0.5]
        self.case.reset_rows(is_member=self.members[0])
        self.known_by_all.add({"member": 0})
        self.polled = Event.head()

    def start(self, snapshot: list[tuple[bytes, int, bytes]]) -> None:
        """Start another run of the server, with the data of `snapshot` and without connections."""
        self.lift_memory_limit()
        self.redis.flushdb()
        for key, ttl_ms, value in snapshot:
            self.redis.restore(key, ttl_ms, value)
        self.run_number += 1
        self.is_killed = False
        self.redis.client_kill_filter(_type="normal", skipme=True)
        for process in self.processes:
            process.is_cut_off = False

    def kill(self) -> None:
        self.is_killed = True
        for process in self.processes:
            process.is_cut_off = True

    def fault(self, name: str) -> None:
        process = self.rng.choice(self.processes)
        match name:
            case "evict":
                # Mostly versions of tags: the loss of a list affects only that list.
                keys = sorted(self.redis.keys("*tag:*" if self.rng.random() < 0.8 else "*"))
                if keys:
                    self.redis.delete(self.rng.choice(keys))
            case "empty":
                self.redis.flushdb()
            case "save":
                keys = sorted(self.redis.keys("*"))
                self.snapshot = [(key, self.redis.pttl(key), self.redis.dump(key)) for key in keys]
            case "restart with old data":
                self.start(self.snapshot)
            case "restart empty":
                self.start([])
            case "kill":
                self.kill()
            case "full":
                self.redis.config_set("maxmemory-policy", "noeviction")
                self.redis.config_set("maxmemory", "1")
            case "full, evicting":
                self.redis.config_set("maxmemory-policy", "volatile-lru")
                self.redis.config_set("maxmemory", "1")
            case "not full":
                self.lift_memory_limit()
            case "cut off":
                process.is_cut_off = True
            case "lose a reply":
                process.loses_reply = True
            case "heal":
                self.heal()

    def lift_memory_limit(self) -> None:
        self.redis.config_set("maxmemory", "0")

    def heal(self) -> None:
        if not self.is_killed:
            for process in self.processes:
                process.is_cut_off = process.loses_reply = False

    # --- Facts -------------------------------------------------------------------------------------------
    def add_facts(self, process: Process, facts: Facts, run_number: int, *, failed: bool) -> None:
        """Add facts whose writer has received a response, or whose events were read from the journal.

        Where commands to Redis `failed` meanwhile, only this process must see them at once. Others may read the old
        list from a Redis that this process alone cannot reach, until it sends its pending bumps: the only such delay.
        """
        self.known_by_process[process.name].add(facts)
        if failed:
            self.pending.append(PendingWrite(facts, process, run_number))
        else:
            self.known_by_all.add(facts)

    def must_see(self, process: Process) -> Facts:
        still_pending = []
        for write in self.pending:
            if write.process.pending_bumps.exist and write.run_number == self.run_number and not self.is_killed:
                still_pending.append(write)
            else:
                self.known_by_all.add(write.facts)
        self.pending = still_pending
        known = Known(dict(self.known_by_all.facts))
        known.add(self.known_by_process[process.name].facts)
        return known.facts

    def check(self, query: ListQuery, rows: dict[int, int], expected: Facts) -> None:
        """Raise Stale where a read is older than `expected`. `rows` maps project ids to the numbers that were read."""
        for project_id in query.projects:
            least = expected.get((query.noun, project_id), 0)
            if project_id == self.case.other.pk and not query.viewer.sees_all:
                possible = set(self.members[expected["member"] :])
                if (project_id in rows) not in possible:
                    raise Stale(
                        f"{query}: {rows} was read, but membership of project {project_id} must be in {possible}."
                    )
                if project_id not in rows:
                    continue
            if rows.get(project_id, -1) < least:
                raise Stale(f"{query}: {rows} was read, but number {least} of project {project_id} was written before.")
        if not rows.keys() <= set(query.projects):
            raise Stale(f"{query}: {rows} was read.")


@dataclass(frozen=True)
class ListQuery:
    """One list, as one viewer reads it, from a resolver or over HTTP."""

    noun: str
    viewer: Viewer
    projects: tuple[int, ...]
    project_id: int | None = None
    token: str | None = None

    def __str__(self) -> str:
        who = "staff" if self.viewer.sees_all else "member"
        where = "everywhere" if self.project_id is None else f"in project {self.project_id}"
        return f"{self.noun}s {where} for {who} {'by resolver' if self.token is None else 'by HTTP'}"

    @property
    def path_and_query(self) -> tuple[str, str]:
        return f"/{self.noun}s/", "" if self.project_id is None else f"project={self.project_id}"


class Client(Actor):
    """Reads and writes in turn. It sends the ETag of its last read of a list with the next one."""

    def prepare(self, world: World) -> None:
        self.world = world
        self.last_reads: dict[ListQuery, tuple[str, dict[int, int]]] = {}
        self.application = ResponseCache(world.django)
        if not hasattr(self, "loop"):
            self.loop = asyncio.new_event_loop()

    # --- Reads -------------------------------------------------------------------------------------------
    def read(self, query: ListQuery) -> None:
        self.step(f"starts to read {query}")
        expected = self.world.must_see(self.process)
        before = self.statements
        last_etag, last_rows = self.last_reads.get(query, (None, {}))
        read = self.read_resolver if query.token is None else self.read_http
        etag, rows = read(query, last_etag, last_rows)
        if etag is not None:
            self.last_reads[query] = etag, rows
        counts = self.world.case.counts
        counts["reads"] += 1
        counts[f"{'hits' if self.statements == before else 'misses'} {'HTTP' if query.token else 'resolver'}"] += 1
        counts["not modified"] += rows is last_rows
        assert self.schedule is not None
        self.schedule.trace.append(f"{self.name}: has read {rows}")
        self.world.check(query, rows, expected)

    def read_resolver(
        self, query: ListQuery, etag: str | None, last_rows: dict[int, int]
    ) -> tuple[str, dict[int, int]]:
        arguments: dict[str, Any] = {"order": Order(), "page": PageRequest(default_size=9), "if_none_match": etag}
        try:
            if query.noun == "project":
                projects = list_projects(query.viewer, filter=ProjectFilter(), **arguments)
                return projects.etag, {row.id: int(row.name) for row in projects.page.rows}
            tasks = list_tasks(query.viewer, filter=TaskFilter(project_id=query.project_id), **arguments)
            return tasks.etag, {row.project_id: int(row.title) for row in tasks.page.rows}
        except NotModified as not_modified:
            return not_modified.etag, last_rows

    def read_http(self, query: ListQuery, etag: str | None, last_rows: dict[int, int]) -> tuple[str, dict[int, int]]:
        status, headers, body = self.loop.run_until_complete(self.get(query, etag))
        if status == 304:
            return headers[b"etag"], last_rows
        assert status == 200, body
        project, number = ("id", "name") if query.noun == "project" else ("project", "title")
        return headers[b"etag"], {row[project]: int(row[number]) for row in orjson.loads(body)}

    async def get(self, query: ListQuery, etag: str | None) -> tuple[int, dict[bytes, str], bytes]:
        path, query_string = query.path_and_query
        headers = [(b"host", b"testserver"), (b"authorization", f"Bearer {query.token}".encode())]
        if etag is not None:
            headers.append((b"if-none-match", etag.encode()))
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "query_string": query_string.encode(),
            "headers": headers,
        }
        request_messages = [{"type": "http.request", "body": b"", "more_body": False}]
        response_messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return request_messages.pop() if request_messages else await asyncio.get_running_loop().create_future()

        async def send(message: dict[str, Any]) -> None:
            response_messages.append(message)

        await self.application(scope, receive, send)
        start, *parts = response_messages
        response_headers = {name.lower(): value.decode() for name, value in start["headers"]}
        return start["status"], response_headers, b"".join(message.get("body", b"") for message in parts)

    # --- Writes ------------------------------------------------------------------------------------------
    def write(self, subject: Any, *, is_announced: bool = True) -> None:
        facts: Facts = {}
        run_numbers: list[int] = []
        failures: list[int] = []
        world = self.world

        def on_commit() -> None:
            run_numbers.append(world.run_number)
            failures.append(self.process.failures)
            if "member" in facts:
                world.members.append(not world.members[-1])

        with self.writing(on_commit):
            world.number += 1
            facts[subject] = len(world.members) if subject == "member" else world.number
            write = partial(self.change, subject, str(world.number))
            if is_announced:
                write()
            else:
                world.case.write_unannounced(write)
                world.unannounced.append((_head_without_step(), facts, world.run_number))
        if is_announced:
            world.add_facts(self.process, facts, run_numbers[0], failed=self.process.failures > failures[0])
        world.case.counts["writes"] += 1
        assert self.schedule is not None
        self.schedule.trace.append(f"{self.name}: has written {facts}{'' if is_announced else ', and is killed'}")

    def change(self, subject: Any, number: str) -> None:
        case = self.world.case
        match subject:
            case "member" if self.world.members[-1]:
                services.membership.remove_member(actor=SYSTEM, project_id=case.other.pk, user_id=case.member.pk)
            case "member":
                services.membership.add_member(actor=SYSTEM, project_id=case.other.pk, username=case.member.username)
            case "project", project_id:
                services.project.update_project(actor=SYSTEM, project_id=project_id, changes={"name": number})
            case "task", project_id:
                task_id = case.tasks[project_id]
                services.task.update_task(actor=SYSTEM, task_id=task_id, changes={"title": number})

    def poll(self) -> None:
        """Poll the journal, as the reader in every live process does."""
        self.step("polls the journal")
        world, failures = self.world, self.process.failures
        events = journal.read_after(world.polled, limit=1000)
        journal.bump_tags(events)
        world.polled = max(world.polled, *(event.position for event in events)) if events else world.polled
        for write in [write for write in world.unannounced if write[0] <= world.polled]:
            world.unannounced.remove(write)
            world.add_facts(self.process, write[1], write[2], failed=self.process.failures > failures)

    def let_time_pass(self) -> None:
        self.step("lets time pass")
        self.process.let_time_pass()


def _head_without_step() -> int:
    """Return the newest position, without a step."""
    with connection.connection.cursor() as cursor:
        cursor.execute(f"SELECT max(position) FROM {Event._meta.db_table}")
        return int(cursor.fetchone()[0])


@pytest.mark.faults
@pytest.mark.slow
class InterleavingTests(CommittingCase):
    reset_sequences = True  # so that the keys in Redis are the same in every run of a seed

    def setUp(self) -> None:
        self.counts: Counter[str] = Counter()
        self.project, self.other = ProjectFactory(name="0"), ProjectFactory(name="0")
        projects = (self.project.pk, self.other.pk)
        self.tasks = {project.pk: TaskFactory(project=project, title="0").pk for project in (self.project, self.other)}
        self.member, staff = UserFactory(), UserFactory(is_staff=True)
        MembershipFactory(user=self.member, project=self.project)
        # In the future: a use is stored once a minute, which would add a step to some runs of a seed.
        last_used_at = datetime(2100, 1, 1, tzinfo=UTC)
        secrets = {user.pk: f"tw_{user.pk:043}" for user in (self.member, staff)}
        for user in (self.member, staff):
            TokenFactory(user=user, secret=secrets[user.pk], last_used_at=last_used_at)
        self.queries = [
            ListQuery(noun, viewer_for(user), projects if project_id is None else (project_id,), project_id, token)
            for user in (self.member, staff)
            for token in (None, secrets[user.pk])
            for noun, project_id in (("project", None), ("task", None), ("task", self.other.pk))
        ]
        logging.disable(logging.WARNING)  # thousands of faults are logged, as they should be
        self.addCleanup(logging.disable, logging.NOTSET)

    def test_no_read_after_the_response_to_a_write_is_stale(self) -> None:
        with throwaway_folder() as folder, FaultyValkey(folder) as valkey, Redis.from_url(valkey.url) as redis:
            options = {
                **settings.CACHES["default"]["OPTIONS"],
                "CONNECTION_FACTORY": f"{ProcessConnectionFactory.__module__}.{ProcessConnectionFactory.__name__}",
            }
            caches = {"default": {**settings.CACHES["default"], "LOCATION": valkey.url, "OPTIONS": options}}
            layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
            with override_settings(CACHES=caches, CHANNEL_LAYERS=layers), in_turns(redis):
                world = World(redis, self)
                clients = [
                    Client(f"{process.name}.{number}", process)
                    for process in world.processes
                    for number in range(ACTORS_PER_PROCESS)
                ]
                faults = Client("faults", Process("faults", lambda: world.run_number))
                try:
                    for seed in range(FIRST_SEED, FIRST_SEED + SCHEDULES):
                        self.play(seed, world, clients, faults)
                finally:
                    for client in (*clients, faults):
                        client.stop()
        hits = self.counts["hits resolver"] + self.counts["hits HTTP"]
        say(f"{SCHEDULES} schedules: {', '.join(f'{count} {name}' for name, count in sorted(self.counts.items()))}")
        if SCHEDULES > 1:
            self.assertGreater(hits, MIN_HIT_RATIO * self.counts["reads"])

    def play(self, seed: int, world: World, clients: list[Client], faults: Client) -> None:
        rng = random.Random(seed)
        world.begin(rng)
        schedule = Schedule(rng)
        actors = rng.sample(clients, rng.choice((2, 2, 2, 3)))
        uses_http = rng.random() < HTTP_SHARE
        candidates = [query for query in self.queries if uses_http or query.token is None]
        if rng.random() < 0.5:
            # Lists that share their tags.
            viewer = rng.choice(candidates).viewer
            candidates = [query for query in candidates if query.viewer == viewer and query.project_id is None]
        queries = rng.sample(candidates, min(len(candidates), rng.choice((1, 2))))
        subjects = [(query.noun, project_id) for query in queries for project_id in query.projects]
        if rng.random() < 0.5 and not all(query.viewer.sees_all for query in queries):
            # A new member must see every later change of that project.
            subjects = ["member", (queries[0].noun, self.other.pk)]
        jobs: dict[Actor, Callable[[], None]] = {}
        for client in actors:
            client.prepare(world)
            weights = rng.choice(CLIENT_WEIGHTS)
            steps = [self.random_step(client, queries, subjects, weights, rng) for _ in range(rng.choice((2, 3)))]
            if weights is not WRITES:
                steps.insert(0, partial(client.read, rng.choice(queries)))
            jobs[client] = partial(self.run_all, steps)
        names = rng.choice(FAULTS)
        if names:
            faults.prepare(world)
            delay = FAULT_STEPS // len(names)
            jobs[faults] = partial(self.run_all, [partial(self.fault, faults, name, delay) for name in names])
        max_tags, versions._MAX_TAGS = versions._MAX_TAGS, rng.choice((1, 200, 200))
        try:
            schedule.run(jobs)
            # What the schedule left in Redis is still served.
            reader = rng.choice(clients)
            reader.prepare(world)
            schedule.run({reader: partial(self.run_all, [partial(reader.read, query) for query in queries])})
        except Exception as error:
            steps = "\n".join(schedule.trace[-STEPS_SHOWN:])
            raise AssertionError(f"Schedule INTERLEAVINGS_SEED={seed}, {names}: {error!r}\n{steps}") from error
        finally:
            versions._MAX_TAGS = max_tags

    def reset_rows(self, *, is_member: bool) -> None:
        """Reset the rows to those that every schedule starts with. Positions go on."""
        Project.objects.exclude(name="0").update(name="0")
        Task.objects.exclude(title="0").update(title="0")
        membership = Membership.objects.filter(user=self.member, project=self.other)
        if is_member and not membership.exists():
            MembershipFactory(user=self.member, project=self.other)
        elif not is_member:
            membership.delete()

    def run_all(self, steps: list[Callable[[], None]]) -> None:
        for step in steps:
            step()

    def random_step(
        self, client: Client, queries: list[ListQuery], subjects: list[Any], weights: list[int], rng: random.Random
    ) -> Callable[[], None]:
        subject = rng.choice(subjects)
        steps = [
            partial(client.read, rng.choice(queries)),
            partial(client.write, subject),
            partial(client.write, subject, is_announced=False),
            client.poll,
            client.let_time_pass,
        ]
        return rng.choices(steps, weights)[0]

    def fault(self, actor: Client, name: str, max_delay: int) -> None:
        assert actor.schedule is not None
        actor.schedule.delay(actor, actor.world.rng.randrange(max_delay))
        actor.step(name)
        actor.world.fault(name)
