"""Every cell of `docs/access.md`, tried at every door of its row."""

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

from tests.access.answers import Visit, word_of_answer
from tests.access.doors import FREE_PARAMETERS, all_doors
from tests.access.hearing import hear, line, refused
from tests.access.probes import PROBES, Ask, Hear, Knock, Page, Probe, Send
from tests.access.table import KINDS, OPEN_MODE, TABLE
from tests.access.world import World
from tests.cases import Case, CommittingCase
from tests.schema.sockets import GraphQLSocket

# What is slow about Django's own is nothing that these tests are about.
FAST = override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])

P = TypeVar("P", bound=Probe)


@dataclass(frozen=True)
class Tried(Generic[P]):
    """One door of one row."""

    action: str
    door: str
    probe: P


def tried(*kinds: type[P]) -> list[Tried[P]]:
    """All the doors that are tried in one of these ways."""
    doors = [(row.action, door, PROBES[row.action][door]) for row in TABLE for door in row.doors]
    return [Tried(action, door, probe) for action, door, probe in doors if isinstance(probe, kinds)]


def cells_of(kind: str) -> dict[str, str]:
    return {row.action: row.expected(kind) for row in TABLE}


def cells_in_open_mode() -> dict[str, str]:
    """Whoever is not signed in acts as staff, but for what the page names."""
    return cells_of("staff") | OPEN_MODE


def is_refusal(word: str) -> bool:
    return word.partition(" ")[0] in {"hidden", "forbidden", "scope", "sign"}


class TableTests(SimpleTestCase):
    def test_it_names_every_door_and_none_that_is_not_there(self) -> None:
        named = {door for row in TABLE for door in row.doors}
        there_are = all_doors()
        self.assertEqual(there_are - named, set(), "missing in docs/access.md")
        unknown = {door for door in named - there_are if door.partition("?")[0] not in FREE_PARAMETERS}
        self.assertEqual(unknown, set(), "no such door")

    def test_every_door_is_tried(self) -> None:
        tried = {action: set(probes) for action, probes in PROBES.items()}
        self.assertEqual({row.action: set(row.doors) for row in TABLE}, tried)

    def test_what_open_mode_changes_is_in_the_table(self) -> None:
        self.assertLessEqual(set(OPEN_MODE), {row.action for row in TABLE})


@pytest.mark.slow
@FAST
class HttpTests(Case):
    """GraphQL over HTTP, REST and pages."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.world = World()

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        with transaction.atomic():
            yield
            transaction.set_rollback(True)

    def walk(self, kind: str, cells: dict[str, str]) -> None:
        """Try every door as somebody of this kind: first what reads, then each write for itself."""
        every = tried(Ask, Send, Page)
        with self.nothing_changes():
            for one in every:
                if not one.probe.done:
                    for who, word in self.expected(kind, cells[one.action]):
                        with self.subTest(one.action, door=one.door, kind=who):
                            self.assertEqual(one.probe.try_over_http(one.door, Visit(self.world, who)), word)
        for one in every:
            if one.probe.done:
                for who, word in self.expected(kind, cells[one.action]):
                    with self.subTest(one.action, door=one.door, kind=who), self.taken_back():
                        self.write(one.door, one.probe, who, word)

    def expected(self, kind: str, word: str) -> list[tuple[str, str]]:
        """What is granted is refused to staff who were granted nothing."""
        return [("staff", "forbidden"), ("superuser", "yes")] if word == "granted" else [(kind, word)]

    def write(self, door: str, probe: Any, kind: str, word: str) -> None:
        visit = Visit(self.world, kind)
        if is_refusal(word):
            with self.nothing_changes():
                self.assertEqual(probe.try_over_http(door, visit), word)
        else:
            self.assertFalse(probe.done(visit.names))
            self.assertEqual(probe.try_over_http(door, visit), word)
            self.assertTrue(probe.done(visit.names))

    def test_every_door_answers_each_kind_of_viewer_as_the_table_says(self) -> None:
        for kind in KINDS:
            self.walk(kind, cells_of(kind))

    @override_settings(ACCESS="open")
    def test_in_open_mode_who_is_not_signed_in_acts_as_staff(self) -> None:
        self.walk("anonymous", cells_in_open_mode())

    @override_settings(ACCESS="open")
    def test_in_open_mode_a_token_is_what_it_is_in_closed_mode(self) -> None:
        self.walk("read token", cells_of("read token"))


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


class SocketTests(LiveCase):
    """GraphQL over a socket, all that one kind of viewer asks on one."""

    @asynccontextmanager
    async def opened(self, kind: str) -> AsyncIterator[tuple[GraphQLSocket, str]]:
        """A socket, and the word for how it was received."""
        socket = GraphQLSocket(**self.world.credentials(kind))
        await socket.connect()
        await socket.init()
        yield socket, await refused(socket) or "yes"
        await socket.disconnect()

    async def answers(self, kind: str, asked: list[Tried[Ask | Knock]]) -> list[str]:
        """The word of each answer; of a socket that is not let in it is the same for all."""
        async with self.opened(kind) as (socket, word):
            return [
                await self.answer(socket, await sync_to_async(Visit)(self.world, kind), one.probe)
                if word == "yes" and isinstance(one.probe, Ask)
                else word
                for one in asked
            ]

    async def answer(self, socket: GraphQLSocket, visit: Visit, probe: Ask) -> str:
        answer = await socket.answer(probe.document % visit.names)
        return await sync_to_async(word_of_answer)(visit, answer, probe.read)

    async def test_every_query_and_every_refusal_is_as_the_table_says(self) -> None:
        asked = {
            kind: [one for one in tried(Ask, Knock) if not one.probe.done or is_refusal(cells_of(kind)[one.action])]
            for kind in KINDS
        }
        async with self.nothing_changes_meanwhile():
            answers = await asyncio.gather(*(self.answers(kind, asked[kind]) for kind in KINDS))
            for kind, words in zip(KINDS, answers, strict=True):
                for one, word in zip(asked[kind], words, strict=True):
                    with self.subTest(one.action, door=one.door, kind=kind):
                        self.assertEqual(word, cells_of(kind)[one.action])

    async def test_every_mutation_that_the_table_allows_is_done(self) -> None:
        for kind in KINDS:
            cells = cells_of(kind)
            async with self.opened(kind) as (socket, _):
                for one in tried(Ask):
                    if one.probe.done and not is_refusal(cells[one.action]):
                        with self.subTest(one.action, door=one.door, kind=kind):
                            await self.change(socket, kind, one.probe, cells[one.action])

    async def change(self, socket: GraphQLSocket, kind: str, probe: Ask, word: str) -> None:
        assert probe.done is not None
        is_done = sync_to_async(probe.done)
        visit = await sync_to_async(Visit)(self.world, kind)
        self.assertFalse(await is_done(visit.names))
        self.assertEqual(await self.answer(socket, visit, probe), word)
        self.assertTrue(await is_done(visit.names))
        if await is_done({**visit.names, "word": "another"}):  # so it could not be done again
            await sync_to_async(self.world.renew)()


@override_settings(SOCKET_INIT_S=1.0)
class HearingTests(LiveCase):
    """Subscriptions, notifications and the stream."""

    async def walk(self, kind: str, cells: dict[str, str]) -> None:
        """Listen at every door at once."""
        doors = tried(Hear)
        visit = await sync_to_async(Visit)(self.world, kind)
        expected = [await self.expected(one.door, visit, cells[one.action]) for one in doors]
        heard = await asyncio.gather(
            *(
                hear(line(one.door, one.probe.narrowed % visit.names, self.world.credentials(kind)), len(told))
                for one, told in zip(doors, expected, strict=True)
            )
        )
        for one, told, was_told in zip(doors, heard, expected, strict=True):
            with self.subTest(one.action, door=one.door, kind=kind):
                self.assertEqual(told, was_told)

    async def expected(self, door: str, visit: Visit, word: str) -> list[int] | str:
        """The positions that are to be heard, or the word of a refusal."""
        if is_refusal(word):
            return word
        narrowed = {"task_id": visit.names["task"]} if "taskId" in door else {}
        return await sync_to_async(self.world.positions)(visit.kind, word, **narrowed)

    async def test_every_kind_of_viewer_hears_what_the_table_says(self) -> None:
        async with self.nothing_changes_meanwhile():
            for kind in KINDS:
                await self.walk(kind, cells_of(kind))

    @override_settings(ACCESS="open")
    async def test_in_open_mode_who_is_not_signed_in_hears_what_staff_do(self) -> None:
        await self.walk("anonymous", cells_in_open_mode())
