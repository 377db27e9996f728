"""The memory of a process does not grow with the events that it executes or with its past listeners."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import replace

from django.test import override_settings

from backend.projects import journal
from backend.projects.access import SYSTEM
from backend.projects.journal import JournalEvent
from backend.projects.services.task import update_task
from schema.context import Context
from schema.execution.fan_out import Subscriber, subscriber
from tests.cases import CommittingCase
from tests.factories import CommentFactory, TaskFactory

PLAIN = "subscription { events { kind cursor ... on TaskUpdated { task { id title } changes } } }"
NESTED = """subscription { events { cursor ... on TaskUpdated { task { project { name tasks { nodes { title } } }
    assignee { name } comments { nodes { author } totalCount } } } } }"""


@override_settings(ACCESS="open")
class LevelTests(CommittingCase):
    def setUp(self) -> None:
        task = TaskFactory()
        CommentFactory(task=task)
        update_task(actor=SYSTEM, task_id=task.pk, changes={"title": "Weed"})
        [self.event] = journal.read_after(0, limit=1).events

    def events(self, first: int, count: int) -> list[JournalEvent]:
        return [replace(self.event, position=position) for position in range(first, first + count)]

    def subscribe(self, document: str) -> Subscriber:
        subscribed = subscriber(document, None, None, Context(viewer=SYSTEM))
        assert subscribed is not None
        return subscribed

    async def growth(self, execute: Callable[[list[JournalEvent]], Awaitable[None]], *, events: int) -> int:
        """The number of objects that remain after `events` events. As many events before them fill the caches."""
        await execute(self.events(1, events))
        gc.collect()
        before = len(gc.get_objects())
        await execute(self.events(1 + events, events))
        gc.collect()
        return len(gc.get_objects()) - before

    def assert_level(self, execute: Callable[[list[JournalEvent]], Awaitable[None]], *, events: int) -> None:
        # An entry per event would be `events` objects at least. A thread that is new takes up to 150 of them.
        self.assertLess(asyncio.run(self.growth(execute, events=events)), events // 2)

    def test_memory_does_not_grow_with_the_events_of_a_listener(self) -> None:
        for name, document, events in (("plain", PLAIN, 3000), ("nested", NESTED, 500)):
            with self.subTest(name):
                listener = self.subscribe(document)

                async def execute(events: list[JournalEvent], listener: Subscriber = listener) -> None:
                    for event in events:
                        await listener.payload(event)

                self.assert_level(execute, events=events)

    def test_memory_does_not_grow_with_listeners_that_resume_and_disconnect(self) -> None:
        """Each listener resumes and executes an event that other listeners have executed before."""
        stays = {document: self.subscribe(document) for document in (PLAIN, NESTED)}

        async def execute(events: list[JournalEvent]) -> None:
            for event in events:
                for document in stays:
                    await self.subscribe(document).payload(event)

        self.assert_level(execute, events=200)
