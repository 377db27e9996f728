"""No read that starts after the response to a write returns an older list, in thousands of interleavings.

Some of the writes change what a user may see: their membership and its role, or the staff or active flag. A read that
starts after the response to such a write has the new permissions, however the user signs in.

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
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

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
from backend.projects.authentication import current_viewer, viewer_by_token
from backend.projects.cache import versions
from backend.projects.cache.validators import NotModified
from backend.projects.errors import InvalidCredential, ProjectNotFound
from backend.projects.models import Event, Membership, Project, Role, Task, User
from backend.projects.resolvers.membership import list_members
from backend.projects.resolvers.page import Order, PageRequest
from backend.projects.resolvers.project import ProjectFilter, list_projects
from backend.projects.resolvers.task import TaskFilter, list_tasks
from backend.web import response_cache
from backend.web.handler import Handler
from backend.web.response_cache import ResponseCache
from tests.cases import IS_THOROUGH, CommittingCase
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, TokenFactory, UserFactory
from tests.projects.turns import Actor, Process, ProcessConnectionFactory, Schedule, in_turns
from tests.servers import FaultyValkey

SCHEDULES = int(os.environ.get("INTERLEAVINGS", "2000" if IS_THOROUGH else "200"))
FIRST_SEED = int(os.environ.get("INTERLEAVINGS_SEED", "0"))
# The share of reads that must be cache hits. With fewer, the schedules would prove nothing.
MIN_HIT_RATIO = 0.15

# The share of schedules with reads over HTTP, through the whole web process. Such a schedule takes twice as long.
HTTP_SHARE = 0.2
# The share of schedules in which the member's permissions change, and of concentrated ones. In a concentrated schedule
# the member and staff read one list over HTTP, while the member gets and loses the staff flag.
PERMISSIONS_SHARE = 0.2
CONCENTRATED_SHARE = 0.1

PROCESSES = 3
ACTORS_PER_PROCESS = 2
# The faults of a schedule are spread over at most this many steps of all actors.
FAULT_STEPS = 120
# A failure shows this many steps, from the end of the trace.
STEPS_SHOWN = 150
# A schedule has the faults of one list, in its order. A list has few kinds of faults, so that sequences of one occur.
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

# Weights of a client's actions: read, write, be killed after a commit, poll the journal, let time pass.
READS = [80, 5, 0, 5, 10]
WRITES = [5, 75, 10, 5, 5]
CLIENT_WEIGHTS = [READS, WRITES, [60, 25, 4, 5, 6]]

# The last number written to each subject: the name of a project, the title of its task, or the member's permissions.
Facts = dict[Any, int]

# How a client reads: from a resolver as a known viewer; from a resolver after authentication by a token or, like a
# socket, by an account; or over HTTP with a token.
RESOLVER, TOKEN, ACCOUNT = "resolver", "token", "account"
REST, GRAPHQL_GET, GRAPHQL_POST = "REST", "GraphQL by GET", "GraphQL by POST"
BY_HTTP = (REST, GRAPHQL_GET, GRAPHQL_POST)


class Stale(AssertionError):
    pass


@dataclass(frozen=True)
class Permissions:
    """What the member may see. `role` is their role in the other project, None without a membership."""

    role: str | None
    is_staff: bool = False
    is_active: bool = True

    @property
    def sees_other(self) -> bool:
        return self.is_staff or self.role is not None

    def after(self, change: str) -> Permissions:
        """The permissions after a change. An account that is not active is activated before it joins a project."""
        match change:
            case "staff":
                return replace(self, is_staff=not self.is_staff)
            case "active":
                return replace(self, is_active=not self.is_active)
            case "role" if self.role is not None:
                return replace(self, role=Role.VIEWER if self.role == Role.EDITOR else Role.EDITOR)
        if self.role is not None:
            return replace(self, role=None)
        return replace(self, role=Role.EDITOR) if self.is_active else replace(self, is_active=True)


# The subjects of writes that change permissions.
PERMISSION_CHANGES = ("staff", "active", "role", "member")

# The result of a read: a number per project, or the members' roles in the other project. None if the viewer was
# refused or does not see the project.
Rows = dict[Any, Any] | None


@dataclass
class Known:
    """Facts that every later read must see, because their writers have received a response."""

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
        self.permissions = [Permissions(Role.EDITOR if rng.random() < 0.5 else None)]
        self.case.reset_rows(self.permissions[0])
        self.known_by_all.add({"permissions": 0})
        self.polled = Event.head()

    def start(self, snapshot: list[tuple[bytes, int, bytes]]) -> None:
        """Start another run of the Redis server, with the data of `snapshot` and without connections."""
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

        If commands to Redis `failed` meanwhile, only this process must see the facts at once. Until it sends its
        pending bumps, the others may read the old list from Redis. No other delay is allowed.
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

    def check(self, query: ListQuery, rows: Rows, expected: Facts) -> None:
        """Raise Stale if a read is older than `expected`."""
        possible = self.permissions[expected["permissions"] :]
        is_member = query.viewer.user_id == self.case.member.pk
        if rows is None:
            # The account was not active at the sign-in, or the project was hidden.
            is_refused = is_member and not all(each.is_active for each in possible)
            is_hidden = is_member and query.noun == "member" and _may_be_hidden(possible)
            if not (is_refused or is_hidden):
                raise Stale(f"{query}: the read was refused, but the member's permissions are {possible}.")
            return
        if is_member and query.via is not RESOLVER and not any(each.is_active for each in possible):
            raise Stale(f"{query}: {rows} was read, but the account is not active.")
        if query.noun == "member":
            if is_member and not any(each.sees_other for each in possible):
                raise Stale(f"{query}: {rows} was read, but the member's permissions are {possible}.")
            if rows.get(self.case.member.pk) not in {each.role for each in possible}:
                raise Stale(f"{query}: {rows} was read, but the member's role must be one of {possible}.")
            return
        for project_id in query.projects:
            if is_member and project_id == self.case.other.pk:
                is_visible = project_id in rows
                if not (any(each.sees_other for each in possible) if is_visible else _may_be_hidden(possible)):
                    raise Stale(f"{query}: {rows} was read, but the member's permissions are {possible}.")
                if not is_visible:
                    continue
            least = expected.get((query.noun, project_id), 0)
            if rows.get(project_id, -1) < least:
                raise Stale(f"{query}: {rows} was read, but number {least} of project {project_id} was written before.")
        if not rows.keys() <= set(query.projects):
            raise Stale(f"{query}: {rows} was read.")


def _may_be_hidden(possible: list[Permissions]) -> bool:
    """Whether the other project may be hidden. A read may see the flag and the role at different times."""
    return not all(each.is_staff for each in possible) and any(each.role is None for each in possible)


@dataclass(frozen=True)
class ListQuery:
    """A list and the way in which a user reads it."""

    noun: str
    viewer: Viewer
    projects: tuple[int, ...]
    project_id: int | None = None
    via: str = RESOLVER
    token: str = ""

    def __str__(self) -> str:
        who = "staff" if self.viewer.sees_all else "member"
        where = "everywhere" if self.project_id is None else f"in project {self.project_id}"
        return f"{self.noun}s {where} for {who} by {self.via}"

    @property
    def path_and_query(self) -> tuple[str, str]:
        if self.noun == "member":
            return f"/projects/{self.project_id}/members/", ""
        return f"/{self.noun}s/", "" if self.project_id is None else f"project={self.project_id}"

    @property
    def document(self) -> str:
        arguments = "" if self.project_id is None else f"(filter: {{projectId: {self.project_id}}})"
        return f"{{ {self.noun}s{arguments} {{ nodes {{ id {'name' if self.noun == 'project' else 'title'} }} }} }}"


class Client(Actor):
    """A client that reads and writes. It sends the ETag of its last read of a list with the next one."""

    def prepare(self, world: World) -> None:
        self.world = world
        self.last_reads: dict[ListQuery, tuple[str, Rows]] = {}
        self.application = ResponseCache(world.django)
        if not hasattr(self, "loop"):
            self.loop = asyncio.new_event_loop()

    # --- Reads -------------------------------------------------------------------------------------------
    def read(self, query: ListQuery) -> None:
        self.step(f"starts to read {query}")
        expected = self.world.must_see(self.process)
        before = self.statements
        last_etag, last_rows = self.last_reads.get(query, (None, {}))
        read = self.read_http if query.via in BY_HTTP else self.read_resolver
        etag, rows = read(query, last_etag, last_rows)
        if etag is not None:
            self.last_reads[query] = etag, rows
        counts = self.world.case.counts
        counts["reads"] += 1
        by = "HTTP" if query.via in BY_HTTP else "resolver"
        counts[f"{'hits' if self.statements == before else 'misses'} {by}"] += 1
        counts["refused"] += rows is None
        counts["not modified"] += rows is last_rows
        assert self.schedule is not None
        self.schedule.trace.append(f"{self.name}: has read {rows}")
        self.world.check(query, rows, expected)

    def read_resolver(self, query: ListQuery, etag: str | None, last_rows: Rows) -> tuple[str | None, Rows]:
        page, arguments = PageRequest(default_size=9), {"order": Order(), "if_none_match": etag}
        try:
            viewer = self.sign_in(query)
            match query.noun:
                case "project":
                    projects = list_projects(viewer, filter=ProjectFilter(), page=page, **arguments)
                    return projects.etag, {row.id: int(row.name) for row in projects.page.rows}
                case "member":
                    members = list_members(viewer, query.project_id, page=page, if_none_match=etag)
                    return members.etag, {row.user_id: row.role for row in members.page.rows}
            tasks = list_tasks(viewer, filter=TaskFilter(project_id=query.project_id), page=page, **arguments)
            return tasks.etag, {row.project_id: int(row.title) for row in tasks.page.rows}
        except NotModified as not_modified:
            return not_modified.etag, last_rows
        except (InvalidCredential, ProjectNotFound):
            return None, None

    def sign_in(self, query: ListQuery) -> Viewer:
        """Raises InvalidCredential."""
        match query.via:
            case "token":
                return viewer_by_token(query.token, address="")
            case "account":
                return current_viewer(query.viewer)
        return query.viewer

    def read_http(self, query: ListQuery, etag: str | None, last_rows: Rows) -> tuple[str | None, Rows]:
        status, headers, body = self.loop.run_until_complete(self.request(query, etag))
        if status == 304:
            return headers[b"etag"], last_rows
        if status in (401, 404):
            return None, None
        assert status == 200, body
        etag = headers.get(b"etag")
        found = orjson.loads(body)
        if query.via != REST:
            [(_, found)] = found["data"].items()
            if query.noun == "project":
                return etag, {int(row["id"]): int(row["name"]) for row in found["nodes"]}
            project_of = {task_id: project_id for project_id, task_id in self.world.case.tasks.items()}
            return etag, {project_of[int(row["id"])]: int(row["title"]) for row in found["nodes"]}
        if query.noun == "member":
            return etag, {row["user"]: row["role"] for row in found}
        project, number = ("id", "name") if query.noun == "project" else ("project", "title")
        return etag, {row[project]: int(row[number]) for row in found}

    async def request(self, query: ListQuery, etag: str | None) -> tuple[int, dict[bytes, str], bytes]:
        method, body = "GET", b""
        headers = [(b"host", b"testserver"), (b"authorization", f"Bearer {query.token}".encode())]
        match query.via:
            case "REST":
                path, query_string = query.path_and_query
            case "GraphQL by GET":
                path, query_string = "/graphql/", urlencode({"query": query.document})
            case _:
                method, path, query_string = "POST", "/graphql/", ""
                body = orjson.dumps({"query": query.document})
                headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if etag is not None:
            headers.append((b"if-none-match", etag.encode()))
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "query_string": query_string.encode(),
            "headers": headers,
        }
        request_messages = [{"type": "http.request", "body": body, "more_body": False}]
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
            if "permissions" in facts:
                world.permissions.append(world.permissions[-1].after(subject))

        with self.writing(on_commit):
            world.number += 1
            if subject in PERMISSION_CHANGES:
                facts["permissions"] = len(world.permissions)
            else:
                facts[subject] = world.number
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
            case str():
                self.change_permissions(self.world.permissions[-1], self.world.permissions[-1].after(subject))
            case "project", project_id:
                services.project.update_project(actor=SYSTEM, project_id=project_id, changes={"name": number})
            case "task", project_id:
                task_id = case.tasks[project_id]
                services.task.update_task(actor=SYSTEM, task_id=task_id, changes={"title": number})

    def change_permissions(self, before: Permissions, after: Permissions) -> None:
        project, member = self.world.case.other, self.world.case.member
        if before.role == after.role:
            user = copy(member)
            user.is_staff, user.is_active = after.is_staff, after.is_active
            services.user.save_user(actor=SYSTEM, user=user, fields=["is_staff", "is_active"])
        elif after.role is None:
            services.membership.remove_member(actor=SYSTEM, project_id=project.pk, user_id=member.pk)
        elif before.role is None:
            services.membership.add_member(
                actor=SYSTEM, project_id=project.pk, username=member.username, role=after.role
            )
        else:
            services.membership.change_role(actor=SYSTEM, project_id=project.pk, user_id=member.pk, role=after.role)

    def poll(self) -> None:
        """Poll the journal, as the reader in every live process does."""
        self.step("polls the journal")
        world, failures = self.world, self.process.failures
        events = journal.read_after(world.polled, limit=1000).events
        journal.bump_tags(events)
        world.polled = max(world.polled, *(event.position for event in events)) if events else world.polled
        for write in [write for write in world.unannounced if write[0] <= world.polled]:
            world.unannounced.remove(write)
            world.add_facts(self.process, write[1], write[2], failed=self.process.failures > failures)

    def let_time_pass(self) -> None:
        self.step("lets time pass")
        self.process.let_time_pass()


def _head_without_step() -> int:
    """Return the newest position, without a step of the schedule."""
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
        # In the future, so that no use is stored: one per minute would add a step to some runs of a seed.
        last_used_at = datetime(2100, 1, 1, tzinfo=UTC)
        secrets = {user.pk: f"tw_{user.pk:043}" for user in (self.member, staff)}
        for user in (self.member, staff):
            TokenFactory(user=user, secret=secrets[user.pk], last_used_at=last_used_at)
        lists = [("project", None), ("task", None), ("task", self.other.pk)]

        def query(user: User, via: str, noun: str, project_id: int | None) -> ListQuery:
            of = projects if project_id is None else (project_id,)
            return ListQuery(noun, viewer_for(user), of, project_id, via, secrets[user.pk])

        self.queries = [
            query(user, via, *of) for user in (self.member, staff) for via in (RESOLVER, REST) for of in lists
        ]
        # For schedules in which the member's permissions change. Each read authenticates first.
        self.permission_queries = [
            query(user, via, *of)
            for user in (self.member, staff)
            for via in (TOKEN, ACCOUNT, REST, GRAPHQL_GET, GRAPHQL_POST)
            for of in [*lists, ("member", self.other.pk)]
            if via not in (GRAPHQL_GET, GRAPHQL_POST) or of in lists
        ]
        logging.disable(logging.WARNING)  # the product logs thousands of faults
        self.addCleanup(logging.disable, logging.NOTSET)

    def test_no_read_after_the_response_to_a_write_is_stale(self) -> None:
        self.play_all()
        hits = self.counts["hits resolver"] + self.counts["hits HTTP"]
        say(f"{SCHEDULES} schedules: {', '.join(f'{count} {name}' for name, count in sorted(self.counts.items()))}")
        if SCHEDULES > 1:
            self.assertGreater(hits, MIN_HIT_RATIO * self.counts["reads"])

    def test_the_schedules_find_a_response_stored_under_a_remembered_viewer(self) -> None:
        """The patches restore a former fault of the product. Concentrated schedules find it in fewer than 200."""

        def key(viewer: Viewer) -> str:
            return "all" if viewer.sees_all else f"user:{viewer.user_id}"

        def may_store(request: Any, cacheable: Any, start: Any) -> bool:
            return bool(start["status"] == 200)

        with (
            patch.object(response_cache, "_may_store", may_store),
            patch.object(Viewer, "key", property(key)),
            self.assertRaisesRegex(AssertionError, "Stale"),
        ):
            self.play_all(is_concentrated=True)

    def play_all(self, *, is_concentrated: bool = False) -> None:
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
                        self.play(seed, world, clients, faults, is_concentrated=is_concentrated)
                finally:
                    for client in (*clients, faults):
                        client.stop()

    def play(
        self, seed: int, world: World, clients: list[Client], faults: Client, *, is_concentrated: bool = False
    ) -> None:
        rng = random.Random(seed)
        world.begin(rng)
        schedule = Schedule(rng)
        actors = rng.sample(clients, rng.choice((2, 2, 2, 3)))
        if is_concentrated or rng.random() < CONCENTRATED_SHARE:
            is_concentrated = True
            queries, subjects = self.choose_staff_changes(rng)
        elif rng.random() >= PERMISSIONS_SHARE:
            queries, subjects = self.choose_row_changes(rng)
        else:
            queries, subjects = self.choose_permission_changes(rng)
        jobs: dict[Actor, Callable[[], None]] = {}
        for client in actors:
            client.prepare(world)
            weights, number = rng.choice(CLIENT_WEIGHTS), rng.choice((2, 3))
            if is_concentrated:
                weights, number = (WRITES if client is actors[0] else READS), 4
            steps = [self.random_step(client, queries, subjects, weights, rng) for _ in range(number)]
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
            # Read once more, from what the schedule has left in Redis.
            reader = rng.choice(clients)
            reader.prepare(world)
            schedule.run({reader: partial(self.run_all, [partial(reader.read, query) for query in queries])})
        except Exception as error:
            steps = "\n".join(schedule.trace[-STEPS_SHOWN:])
            raise AssertionError(f"Schedule INTERLEAVINGS_SEED={seed}, {names}: {error!r}\n{steps}") from error
        finally:
            versions._MAX_TAGS = max_tags

    def choose_row_changes(self, rng: random.Random) -> tuple[list[ListQuery], list[Any]]:
        """Choose the lists that a schedule reads, and the subjects that it writes."""
        uses_http = rng.random() < HTTP_SHARE
        candidates = [query for query in self.queries if uses_http or query.via == RESOLVER]
        if rng.random() < 0.5:
            # Lists that share their tags.
            viewer = rng.choice(candidates).viewer
            candidates = [query for query in candidates if query.viewer == viewer and query.project_id is None]
        queries = rng.sample(candidates, min(len(candidates), rng.choice((1, 2))))
        subjects = [(query.noun, project_id) for query in queries for project_id in query.projects]
        if rng.random() < 0.5 and not all(query.viewer.sees_all for query in queries):
            # A new member must see every later change of that project.
            subjects = ["member", (queries[0].noun, self.other.pk)]
        return queries, subjects

    def choose_permission_changes(self, rng: random.Random) -> tuple[list[ListQuery], list[Any]]:
        """The same for a schedule in which the member's permissions change."""
        uses_http = rng.random() < HTTP_SHARE / 2
        candidates = [query for query in self.permission_queries if uses_http == (query.via in BY_HTTP)]
        queries = [rng.choice([query for query in candidates if query.viewer.user_id == self.member.pk])]
        if rng.random() < 0.3:
            queries.append(rng.choice(candidates))
        # Few kinds of changes, so that one is undone while entries from before it are still in Redis.
        subjects: list[Any] = rng.sample(PERMISSION_CHANGES, rng.choice((1, 1, 2)))
        if rng.random() < 0.2:
            subjects.append(("task", self.other.pk))
        return queries, subjects

    def choose_staff_changes(self, rng: random.Random) -> tuple[list[ListQuery], list[Any]]:
        """The same for a concentrated schedule."""
        via, noun = rng.choice(BY_HTTP), rng.choice(("project", "task"))
        read = [query for query in self.permission_queries if query.via == via and query.noun == noun]
        return [query for query in read if query.project_id is None], ["staff"]

    def reset_rows(self, permissions: Permissions) -> None:
        """Reset the rows to those that every schedule starts with. Positions continue."""
        Project.objects.exclude(name="0").update(name="0")
        Task.objects.exclude(title="0").update(title="0")
        flags = {"is_staff": permissions.is_staff, "is_active": permissions.is_active}
        User.objects.filter(pk=self.member.pk).exclude(**flags).update(**flags)
        membership = Membership.objects.filter(user=self.member, project=self.other)
        if permissions.role is None:
            membership.delete()
        elif not membership.exclude(role=permissions.role).update(role=permissions.role) and not membership.exists():
            MembershipFactory(user=self.member, project=self.other, role=permissions.role)

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
