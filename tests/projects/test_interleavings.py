"""After a write is answered, no read that starts later sees the old list: in thousands of interleavings.

A schedule is a seed: who reads and writes what, which faults there are, and who has the turn at every command to Redis
and every statement (`turns`). INTERLEAVINGS is the number of schedules: 200 unless it is set, 2,000 in CI and
`make faults`. INTERLEAVINGS_SEED is the first of their seeds. A schedule that fails is printed, step by step.
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
from tests.cases import CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, TokenFactory, UserFactory
from tests.projects.turns import Actor, ConnectionsOfProcess, Process, Turns, in_turns
from tests.servers import FaultyValkey

IS_THOROUGH = os.environ.get("CI") == "true" or os.environ.get("FAULTS") == "long"
SCHEDULES = int(os.environ.get("INTERLEAVINGS", "2000" if IS_THOROUGH else "200"))
FIRST_SEED = int(os.environ.get("INTERLEAVINGS_SEED", "0"))
# Of all reads, those that must have been answered out of Redis: or the schedules would prove nothing.
LEAST_HITS = 0.15

# Of the schedules, those in which some lists are read through all of the web process: each costs as much as two others.
BY_HTTP = 0.2

PROCESSES = 3
ACTORS_PER_PROCESS = 2
# Steps of everybody over which a schedule's faults are spread at most.
STEPS_OF_FAULTS = 120
# Steps of a schedule's trace that a failure shows.
STEPS_SHOWN = 150
# What happens to Redis in a schedule: one of these, in this order. Of few kinds at once, so that chains are met.
FAULTS: list[list[str]] = [
    [],
    ["evict", "evict", "evict", "evict"],
    ["evict"] * 8,
    ["evict"] * 12,
    ["empty", "evict", "empty"],
    ["remember", "restart with old data"],
    ["remember", "kill", "restart with old data", "restart with old data"],
    ["kill", "restart empty"],
    ["full"],
    ["full", "room", "full", "room"],
    ["full, evicting", "room"],
    ["cut off", "heal"],
    ["lose an answer", "cut off", "lose an answer", "heal"],
]

# How likely a client is to read, to write, to be killed after a commit, to poll the journal, to let time pass.
READS = [80, 5, 0, 5, 10]
WRITES = [5, 75, 10, 5, 5]
LEANINGS = [READS, WRITES, [60, 25, 4, 5, 6]]

# What has changed, and the number that it had then: a project's name, its task's title, or who is a member.
Facts = dict[Any, int]


class Stale(AssertionError):
    pass


@dataclass
class Known:
    """Facts as far as their writers have been answered."""

    facts: Facts = field(default_factory=dict)

    def add(self, facts: Facts) -> None:
        for what, number in facts.items():
            self.facts[what] = max(number, self.facts.get(what, 0))


@dataclass
class Pending:
    """What was written, while Redis could not be told by the process that should have."""

    facts: Facts
    process: Process
    life: int


class World:
    """Redis, what there is to read, and what everybody must see of it."""

    def __init__(self, redis: Any, case: InterleavingTests) -> None:
        self.redis = redis
        self.case = case
        self.django = Handler()
        self.life = 0
        self.is_killed = False
        self.kept: list[tuple[bytes, int, bytes]] = []
        self.number = 0
        self.processes = [Process(f"P{number}", lambda: self.life) for number in range(PROCESSES)]

    # --- Faults ------------------------------------------------------------------------------------------
    def begin(self, chance: random.Random) -> None:
        self.chance = chance
        self.answered = Known()
        self.of_process = {process.name: Known() for process in self.processes}
        self.pending: list[Pending] = []
        self.unheard: list[tuple[int, Facts, int]] = []
        self.number = self.life = 0
        self.start(kept=[])
        self.kept = []
        for process in self.processes:
            process.reset()
        self.members = [chance.random() < 0.5]
        self.case.set_back(is_member=self.members[0])
        self.answered.add({"member": 0})
        self.polled = Event.head()

    def start(self, kept: list[tuple[bytes, int, bytes]]) -> None:
        """Another run of the server, with what an earlier one held; nobody is connected any more."""
        self.give_room()
        self.redis.flushdb()
        for key, lives_ms, value in kept:
            self.redis.restore(key, lives_ms, value)
        self.life += 1
        self.is_killed = False
        self.redis.client_kill_filter(_type="normal", skipme=True)
        for process in self.processes:
            process.is_cut_off = False

    def kill(self) -> None:
        self.is_killed = True
        for process in self.processes:
            process.is_cut_off = True

    def fault(self, name: str) -> None:
        process = self.chance.choice(self.processes)
        match name:
            case "evict":
                # Mostly versions of tags: a list that is gone costs only itself.
                keys = sorted(self.redis.keys("*tag:*" if self.chance.random() < 0.8 else "*"))
                if keys:
                    self.redis.delete(self.chance.choice(keys))
            case "empty":
                self.redis.flushdb()
            case "remember":
                keys = sorted(self.redis.keys("*"))
                self.kept = [(key, self.redis.pttl(key), self.redis.dump(key)) for key in keys]
            case "restart with old data":
                self.start(self.kept)
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
            case "room":
                self.give_room()
            case "cut off":
                process.is_cut_off = True
            case "lose an answer":
                process.loses_answer = True
            case "heal":
                self.heal()

    def give_room(self) -> None:
        self.redis.config_set("maxmemory", "0")

    def heal(self) -> None:
        if not self.is_killed:
            for process in self.processes:
                process.is_cut_off = process.loses_answer = False

    # --- What everybody must see -------------------------------------------------------------------------
    def tell(self, process: Process, facts: Facts, life: int, *, failed: bool) -> None:
        """A writer was answered, or what it wrote was read in the journal.

        Where commands to Redis `failed` meanwhile, its own process knows all the same. Another may be shown the old
        list by a Redis that only this process cannot reach, until it can: the one case in which it takes a moment.
        """
        self.of_process[process.name].add(facts)
        if failed:
            self.pending.append(Pending(facts, process, life))
        else:
            self.answered.add(facts)

    def must_see(self, process: Process) -> Facts:
        owing = []
        for one in self.pending:
            if one.process.pending_bumps.exist and one.life == self.life and not self.is_killed:
                owing.append(one)
            else:
                self.answered.add(one.facts)
        self.pending = owing
        known = Known(dict(self.answered.facts))
        known.add(self.of_process[process.name].facts)
        return known.facts

    def check(self, kind: Kind, rows: dict[int, int], must: Facts) -> None:
        """`rows` are project ids, with the number in the name or title that was read."""
        for project_id in kind.projects:
            least = must.get((kind.noun, project_id), 0)
            if project_id == self.case.other.pk and not kind.viewer.sees_all:
                may_be = set(self.members[must["member"] :])
                if (project_id in rows) not in may_be:
                    raise Stale(f"{kind}: of project {project_id} the viewer sees {rows}, membership is {may_be}.")
                if project_id not in rows:
                    continue
            if rows.get(project_id, -1) < least:
                raise Stale(f"{kind}: {rows} was read, but number {least} of {project_id} was answered before.")
        if not rows.keys() <= set(kind.projects):
            raise Stale(f"{kind}: {rows} was read.")


@dataclass(frozen=True)
class Kind:
    """One list, as one viewer sees it, through one door."""

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
    def path(self) -> tuple[str, str]:
        return f"/{self.noun}s/", "" if self.project_id is None else f"project={self.project_id}"


class Client(Actor):
    """Reads and writes, one after the other; holds what it read, and tells so when it reads it again."""

    def prepare(self, world: World) -> None:
        self.world = world
        self.held: dict[Kind, tuple[str, dict[int, int]]] = {}
        self.door = ResponseCache(world.django)
        if not hasattr(self, "loop"):
            self.loop = asyncio.new_event_loop()

    # --- Reads -------------------------------------------------------------------------------------------
    def read(self, kind: Kind) -> None:
        self.step(f"starts to read {kind}")
        must = self.world.must_see(self.process)
        before = self.statements
        held_etag, held_rows = self.held.get(kind, (None, {}))
        etag, rows = (self.by_resolver if kind.token is None else self.by_http)(kind, held_etag, held_rows)
        if etag is not None:
            self.held[kind] = etag, rows
        counts = self.world.case.counts
        counts["reads"] += 1
        counts[f"{'hits' if self.statements == before else 'misses'} {'HTTP' if kind.token else 'resolver'}"] += 1
        counts["not modified"] += rows is held_rows
        assert self.turns is not None
        self.turns.trace.append(f"{self.name}: has read {rows}")
        self.world.check(kind, rows, must)

    def by_resolver(self, kind: Kind, etag: str | None, held: dict[int, int]) -> tuple[str, dict[int, int]]:
        asked: dict[str, Any] = {"order": Order(), "page": PageRequest(default_size=9), "if_none_match": etag}
        try:
            if kind.noun == "project":
                projects = list_projects(kind.viewer, filter=ProjectFilter(), **asked)
                return projects.etag, {row.id: int(row.name) for row in projects.page.rows}
            tasks = list_tasks(kind.viewer, filter=TaskFilter(project_id=kind.project_id), **asked)
            return tasks.etag, {row.project_id: int(row.title) for row in tasks.page.rows}
        except NotModified as same:
            return same.etag, held

    def by_http(self, kind: Kind, etag: str | None, held: dict[int, int]) -> tuple[str, dict[int, int]]:
        status, headers, body = self.loop.run_until_complete(self.ask(kind, etag))
        if status == 304:
            return headers[b"etag"], held
        assert status == 200, body
        of, number = ("id", "name") if kind.noun == "project" else ("project", "title")
        return headers[b"etag"], {row[of]: int(row[number]) for row in orjson.loads(body)}

    async def ask(self, kind: Kind, etag: str | None) -> tuple[int, dict[bytes, str], bytes]:
        path, query = kind.path
        headers = [(b"host", b"testserver"), (b"authorization", f"Bearer {kind.token}".encode())]
        if etag is not None:
            headers.append((b"if-none-match", etag.encode()))
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "query_string": query.encode(),
            "headers": headers,
        }
        request = [{"type": "http.request", "body": b"", "more_body": False}]
        answer: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return request.pop() if request else await asyncio.get_running_loop().create_future()

        async def send(message: dict[str, Any]) -> None:
            answer.append(message)

        await self.door(scope, receive, send)
        told = {name.lower(): value.decode() for name, value in answer[0]["headers"]}
        return answer[0]["status"], told, b"".join(message.get("body", b"") for message in answer[1:])

    # --- Writes ------------------------------------------------------------------------------------------
    def write(self, what: Any, *, is_announced: bool = True) -> None:
        facts: Facts = {}
        life: list[int] = []
        failures: list[int] = []
        world = self.world

        def committed() -> None:
            life.append(world.life)
            failures.append(self.process.failures)
            if "member" in facts:
                world.members.append(not world.members[-1])

        with self.writing(committed):
            world.number += 1
            facts[what] = len(world.members) if what == "member" else world.number
            write = partial(self.change, what, str(world.number))
            if is_announced:
                write()
            else:
                world.case.write_unannounced(write)
                world.unheard.append((_head_unseen(), facts, world.life))
        if is_announced:
            world.tell(self.process, facts, life[0], failed=self.process.failures > failures[0])
        world.case.counts["writes"] += 1
        assert self.turns is not None
        self.turns.trace.append(f"{self.name}: has written {facts}{'' if is_announced else ', and is killed'}")

    def change(self, what: Any, number: str) -> None:
        case = self.world.case
        match what:
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
        """As the reader of the journal does in every live process."""
        self.step("polls the journal")
        world, failures = self.world, self.process.failures
        events = journal.read_after(world.polled, limit=1000)
        journal.bump_tags(events)
        world.polled = max(world.polled, *(event.position for event in events)) if events else world.polled
        for unheard in [one for one in world.unheard if one[0] <= world.polled]:
            world.unheard.remove(unheard)
            world.tell(self.process, unheard[1], unheard[2], failed=self.process.failures > failures)

    def let_time_pass(self) -> None:
        self.step("lets time pass")
        self.process.let_time_pass()


def _head_unseen() -> int:
    """The newest position, without a step."""
    with connection.connection.cursor() as cursor:
        cursor.execute(f"SELECT max(position) FROM {Event._meta.db_table}")
        return int(cursor.fetchone()[0])


@pytest.mark.faults
@pytest.mark.slow
class InterleavingTests(CommittingCase):
    reset_sequences = True  # so that a key of Redis is the same one in every run of a seed

    def setUp(self) -> None:
        self.counts: Counter[str] = Counter()
        self.project, self.other = ProjectFactory(name="0"), ProjectFactory(name="0")
        projects = (self.project.pk, self.other.pk)
        self.tasks = {one.pk: TaskFactory(project=one, title="0").pk for one in (self.project, self.other)}
        self.member, staff = UserFactory(), UserFactory(is_staff=True)
        MembershipFactory(user=self.member, project=self.project)
        # Used in a while: a use is written down once a minute, which would be a step more in some run of a seed.
        used = datetime(2100, 1, 1, tzinfo=UTC)
        secrets = {user.pk: f"tw_{user.pk:043}" for user in (self.member, staff)}
        for user in (self.member, staff):
            TokenFactory(user=user, secret=secrets[user.pk], last_used_at=used)
        self.kinds = [
            Kind(noun, viewer_for(user), projects if project_id is None else (project_id,), project_id, token)
            for user in (self.member, staff)
            for token in (None, secrets[user.pk])
            for noun, project_id in (("project", None), ("task", None), ("task", self.other.pk))
        ]
        logging.disable(logging.WARNING)  # of thousands of faults, each told of as it should be
        self.addCleanup(logging.disable, logging.NOTSET)

    def test_whatever_the_order_nobody_sees_an_old_list_after_a_write_was_answered(self) -> None:
        with throwaway_folder() as folder, FaultyValkey(folder) as valkey, Redis.from_url(valkey.url) as redis:
            options = {
                **settings.CACHES["default"]["OPTIONS"],
                "CONNECTION_FACTORY": f"{ConnectionsOfProcess.__module__}.{ConnectionsOfProcess.__name__}",
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
                faults = Client("faults", Process("faults", lambda: world.life))
                try:
                    for seed in range(FIRST_SEED, FIRST_SEED + SCHEDULES):
                        self.play(seed, world, clients, faults)
                finally:
                    for client in (*clients, faults):
                        client.end()
        hits = self.counts["hits resolver"] + self.counts["hits HTTP"]
        say(f"{SCHEDULES} schedules: {', '.join(f'{count} {what}' for what, count in sorted(self.counts.items()))}")
        if SCHEDULES > 1:
            self.assertGreater(hits, LEAST_HITS * self.counts["reads"])

    def play(self, seed: int, world: World, clients: list[Client], faults: Client) -> None:
        chance = random.Random(seed)
        world.begin(chance)
        turns = Turns(chance)
        actors = chance.sample(clients, chance.choice((2, 2, 2, 3)))
        by_http = chance.random() < BY_HTTP
        able = [kind for kind in self.kinds if by_http or kind.token is None]
        if chance.random() < 0.5:
            # Lists that stand under the same tags.
            viewer = chance.choice(able).viewer
            able = [kind for kind in able if kind.viewer == viewer and kind.project_id is None]
        kinds = chance.sample(able, min(len(able), chance.choice((1, 2))))
        facts = [(kind.noun, project_id) for kind in kinds for project_id in kind.projects]
        if chance.random() < 0.5 and not all(kind.viewer.sees_all for kind in kinds):
            # Who joins must be shown what happens in that project from then on.
            facts = ["member", (kinds[0].noun, self.other.pk)]
        jobs: dict[Actor, Callable[[], None]] = {}
        for client in actors:
            client.prepare(world)
            weights = chance.choice(LEANINGS)
            steps = [self.step_of(client, kinds, facts, weights, chance) for _ in range(chance.choice((2, 3)))]
            if weights is not WRITES:
                steps.insert(0, partial(client.read, chance.choice(kinds)))
            jobs[client] = partial(self.run_all, steps)
        names = chance.choice(FAULTS)
        if names:
            faults.prepare(world)
            every = STEPS_OF_FAULTS // len(names)
            jobs[faults] = partial(self.run_all, [partial(self.fault, faults, name, every) for name in names])
        many, versions._MAX_TAGS = versions._MAX_TAGS, chance.choice((1, 200, 200))
        try:
            turns.play(jobs)
            # What was left behind in Redis is served for a while.
            reader = chance.choice(clients)
            reader.prepare(world)
            turns.play({reader: partial(self.run_all, [partial(reader.read, kind) for kind in kinds])})
        except Exception as error:
            steps = "\n".join(turns.trace[-STEPS_SHOWN:])
            raise AssertionError(f"Schedule INTERLEAVINGS_SEED={seed}, {names}: {error!r}\n{steps}") from error
        finally:
            versions._MAX_TAGS = many

    def set_back(self, *, is_member: bool) -> None:
        """Every schedule begins with the same rows; positions go on."""
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

    def step_of(
        self, client: Client, kinds: list[Kind], facts: list[Any], weights: list[int], chance: random.Random
    ) -> Callable[[], None]:
        what = chance.choice(facts)
        steps = [
            partial(client.read, chance.choice(kinds)),
            partial(client.write, what),
            partial(client.write, what, is_announced=False),
            client.poll,
            client.let_time_pass,
        ]
        return chance.choices(steps, weights)[0]

    def fault(self, actor: Client, name: str, steps: int) -> None:
        assert actor.turns is not None
        actor.turns.hold_back(actor, actor.world.chance.randrange(steps))
        actor.step(name)
        actor.world.fault(name)
