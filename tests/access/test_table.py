"""Every cell of `docs/access.md`, tested at every endpoint of its row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import SimpleTestCase, override_settings

from tests.access.endpoints import FREE_PARAMETERS, all_endpoints
from tests.access.listeners import listen, receive, refusal_of
from tests.access.outcomes import Caller, word_of_result
from tests.access.probes import PROBES, GraphQLProbe, LiveProbe, PageProbe, Probe, RestProbe, SocketProbe
from tests.access.table import KINDS, OPEN_MODE, TABLE
from tests.access.world import World
from tests.cases import Case, CommittingCase
from tests.schema.sockets import GraphQLSocket

# Django's own hasher is slow by design, and these tests are not about it.
FAST = override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])

P = TypeVar("P", bound=Probe)


@dataclass(frozen=True)
class Entry(Generic[P]):
    """An endpoint of a row, and its probe."""

    action: str
    endpoint: str
    probe: P


def entries(*kinds: type[P]) -> list[Entry[P]]:
    """Return the entries whose probe is of one of these kinds."""
    probes = [(row.action, endpoint, PROBES[row.action][endpoint]) for row in TABLE for endpoint in row.endpoints]
    return [Entry(action, endpoint, probe) for action, endpoint, probe in probes if isinstance(probe, kinds)]


def cells_of(kind: str) -> dict[str, str]:
    return {row.action: row.expected(kind) for row in TABLE}


def cells_in_open_mode() -> dict[str, str]:
    """Return the words for an anonymous caller: those of staff, with the exceptions of the page."""
    return cells_of("staff") | OPEN_MODE


def is_refusal(word: str) -> bool:
    return word.partition(" ")[0] in {"hidden", "forbidden", "scope", "sign"}


class TableTests(SimpleTestCase):
    def test_the_table_names_exactly_the_existing_endpoints(self) -> None:
        named = {endpoint for row in TABLE for endpoint in row.endpoints}
        existing = all_endpoints()
        self.assertEqual(existing - named, set(), "missing in docs/access.md")
        unknown = {endpoint for endpoint in named - existing if endpoint.partition("?")[0] not in FREE_PARAMETERS}
        self.assertEqual(unknown, set(), "no such endpoint")

    def test_every_endpoint_has_a_probe(self) -> None:
        probed = {action: set(probes) for action, probes in PROBES.items()}
        self.assertEqual({row.action: set(row.endpoints) for row in TABLE}, probed)

    def test_each_exception_of_open_mode_is_an_action_of_the_table(self) -> None:
        self.assertLessEqual(set(OPEN_MODE), {row.action for row in TABLE})


@pytest.mark.slow
@FAST
class HttpTests(Case):
    """GraphQL over HTTP, REST and pages."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.world = World()

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        with transaction.atomic():
            yield
            transaction.set_rollback(True)

    def check_all(self, kind: str, cells: dict[str, str]) -> None:
        """Test every endpoint as this kind of caller: first all reads, then each write, rolled back."""
        every = entries(GraphQLProbe, RestProbe, PageProbe)
        with self.nothing_changes():
            for entry in every:
                if not entry.probe.done:
                    for who, word in self.expected(kind, cells[entry.action]):
                        with self.subTest(entry.action, endpoint=entry.endpoint, kind=who):
                            self.assertEqual(entry.probe.try_over_http(entry.endpoint, Caller(self.world, who)), word)
        for entry in every:
            if entry.probe.done:
                for who, word in self.expected(kind, cells[entry.action]):
                    with self.subTest(entry.action, endpoint=entry.endpoint, kind=who), self.rolled_back():
                        self.write(entry.endpoint, entry.probe, who, word)

    def expected(self, kind: str, word: str) -> list[tuple[str, str]]:
        """Return kinds of callers and their words. `granted` needs a permission, which only the superuser has."""
        return [("staff", "forbidden"), ("superuser", "yes")] if word == "granted" else [(kind, word)]

    def write(self, endpoint: str, probe: Any, kind: str, word: str) -> None:
        caller = Caller(self.world, kind)
        if is_refusal(word):
            with self.nothing_changes():
                self.assertEqual(probe.try_over_http(endpoint, caller), word)
        else:
            self.assertFalse(probe.done(caller.names))
            self.assertEqual(probe.try_over_http(endpoint, caller), word)
            self.assertTrue(probe.done(caller.names))

    def test_every_endpoint_responds_to_each_caller_as_the_table_says(self) -> None:
        for kind in KINDS:
            self.check_all(kind, cells_of(kind))

    @override_settings(ACCESS="open")
    def test_an_anonymous_caller_acts_as_staff_in_open_mode(self) -> None:
        self.check_all("anonymous", cells_in_open_mode())

    @override_settings(ACCESS="open")
    def test_a_token_works_in_open_mode_as_in_closed_mode(self) -> None:
        self.check_all("read token", cells_of("read token"))


@pytest.mark.slow
class LiveCase(CommittingCase):
    def setUp(self) -> None:
        self.world = World()

    @asynccontextmanager
    async def nothing_changes_meanwhile(self) -> AsyncIterator[None]:
        unchanged = self.nothing_changes()
        await sync_to_async(unchanged.__enter__)()
        yield
        await sync_to_async(unchanged.__exit__)(None, None, None)


@override_settings(INVITATIONS_PER_HOUR=1000)  # each renewal of the world invites its members
class SocketTests(LiveCase):
    """GraphQL over sockets, one for each kind of caller."""

    @asynccontextmanager
    async def opened(self, kind: str) -> AsyncIterator[tuple[GraphQLSocket, str]]:
        """Open a socket, and return it with `yes` or the word of the refusal."""
        socket = GraphQLSocket(**self.world.credentials(kind))
        await socket.connect()
        await socket.init()
        yield socket, await refusal_of(socket) or "yes"
        await socket.disconnect()

    async def words(self, kind: str, tested: list[Entry[GraphQLProbe | SocketProbe]]) -> list[str]:
        """Return the word for each entry. A refused socket has the same word for all."""
        async with self.opened(kind) as (socket, word):
            return [
                await self.word(socket, await sync_to_async(Caller)(self.world, kind), entry.probe)
                if word == "yes" and isinstance(entry.probe, GraphQLProbe)
                else word
                for entry in tested
            ]

    async def word(self, socket: GraphQLSocket, caller: Caller, probe: GraphQLProbe) -> str:
        response = await socket.answer(probe.document % caller.names)
        return await sync_to_async(word_of_result)(caller, response, probe.read)

    async def test_every_query_and_every_refusal_matches_the_table(self) -> None:
        tested = {
            kind: [
                entry
                for entry in entries(GraphQLProbe, SocketProbe)
                if not entry.probe.done or is_refusal(cells_of(kind)[entry.action])
            ]
            for kind in KINDS
        }
        async with self.nothing_changes_meanwhile():
            words_by_kind = await asyncio.gather(*(self.words(kind, tested[kind]) for kind in KINDS))
            for kind, words in zip(KINDS, words_by_kind, strict=True):
                for entry, word in zip(tested[kind], words, strict=True):
                    with self.subTest(entry.action, endpoint=entry.endpoint, kind=kind):
                        self.assertEqual(word, cells_of(kind)[entry.action])

    async def test_every_mutation_that_the_table_allows_is_done(self) -> None:
        for kind in KINDS:
            cells = cells_of(kind)
            async with self.opened(kind) as (socket, _):
                for entry in entries(GraphQLProbe):
                    if entry.probe.done and not is_refusal(cells[entry.action]):
                        with self.subTest(entry.action, endpoint=entry.endpoint, kind=kind):
                            await self.change(socket, kind, entry.probe, cells[entry.action])

    async def change(self, socket: GraphQLSocket, kind: str, probe: GraphQLProbe, word: str) -> None:
        assert probe.done is not None
        is_done = sync_to_async(probe.done)
        caller = await sync_to_async(Caller)(self.world, kind)
        self.assertFalse(await is_done(caller.names))
        self.assertEqual(await self.word(socket, caller, probe), word)
        self.assertTrue(await is_done(caller.names))
        if await is_done({**caller.names, "word": "another"}):  # the mutation cannot be done a second time
            await sync_to_async(self.world.renew)()


@override_settings(SOCKET_INIT_S=1.0)
class LiveTests(LiveCase):
    """Subscriptions, notifications and the stream."""

    async def check_all(self, kind: str, cells: dict[str, str]) -> None:
        """Listen at all endpoints at the same time."""
        live_entries = entries(LiveProbe)
        caller = await sync_to_async(Caller)(self.world, kind)
        expected = [await self.expected(entry.endpoint, caller, cells[entry.action]) for entry in live_entries]
        received = await asyncio.gather(
            *(
                receive(
                    listen(entry.endpoint, entry.probe.filters % caller.names, self.world.credentials(kind)),
                    len(expected_result),
                )
                for entry, expected_result in zip(live_entries, expected, strict=True)
            )
        )
        for entry, result, expected_result in zip(live_entries, received, expected, strict=True):
            with self.subTest(entry.action, endpoint=entry.endpoint, kind=kind):
                self.assertEqual(result, expected_result)

    async def expected(self, endpoint: str, caller: Caller, word: str) -> list[int] | str:
        """Return the expected positions, or the word of a refusal."""
        if is_refusal(word):
            return word
        filters = {"task_id": caller.names["task"]} if "taskId" in endpoint else {}
        return await sync_to_async(self.world.positions)(caller.kind, word, **filters)

    async def test_each_caller_receives_the_events_that_the_table_says(self) -> None:
        async with self.nothing_changes_meanwhile():
            for kind in KINDS:
                await self.check_all(kind, cells_of(kind))

    @override_settings(ACCESS="open")
    async def test_an_anonymous_caller_receives_the_events_of_staff_in_open_mode(self) -> None:
        await self.check_all("anonymous", cells_in_open_mode())
