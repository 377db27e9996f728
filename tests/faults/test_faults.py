"""Every listener receives every event once and in order, whichever process is killed.

`make test` runs the short form, `make faults` the long one. FAULTS_SEED repeats the choices of a run.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any
from urllib.request import urlopen

from tests.cases import memory_kb
from tests.faults.cases import SIZES, FaultCase, StoppedListener, figures

FOREVER = 10**9
# Characters of the description in each unread event. All of them are many times what the kernel buffers.
DESCRIPTION = 12_000
# The longest delay of a commit, in seconds: hundreds of listeners must be able to follow the writers.
DELAY_S = 0.1
# More than the threads that read the journal in a web process: one with a dead session may go unnoticed while the
# others work.
THREADS = 8


class FaultTests(FaultCase):
    async def test_listeners_that_reconnect_miss_nothing_while_writers_delay_commits_and_roll_back(self) -> None:
        async with self.listening(SIZES.listeners, drops=lambda _: True):
            writer = self.start_writer(writers=SIZES.writers, changes=SIZES.changes, delay_s=0.02)
            self.assertEqual(await self.end_of(writer), 0)
            await self.assert_nothing_missed()
            # Plus the creation of the project and of the task.
            self.assertEqual(len(self.listeners[0].record), SIZES.writers * SIZES.changes + 2)

    async def test_no_event_is_lost_when_redis_is_killed_and_comes_back_empty(self) -> None:
        async with self.listening(SIZES.listeners):
            writer = self.start_writer(writers=4, changes=FOREVER, delay_s=DELAY_S)
            await self.all_reach(10)
            self.valkey.kill()
            await self.all_advance(5)
            await asyncio.sleep(SIZES.redis_away_s)
            self.valkey.start()
            await self.all_advance(10)
            self.assertEqual(await self.stop(writer), 0)
            await self.assert_nothing_missed()

    async def test_listeners_of_a_killed_web_process_resume_on_another(self) -> None:
        self.start_web()
        async with self.listening(SIZES.orphans):
            writer = self.start_writer(writers=4, changes=FOREVER, delay_s=DELAY_S)
            await self.all_reach(10)
            self.assertEqual({listener.connections for listener in self.listeners}, {1})
            self.webs[0].kill()
            await self.all_advance(10)
            self.assertGreater(min(listener.connections for listener in self.listeners), 1)
            self.assertEqual(await self.stop(writer), 0)
            await self.assert_nothing_missed()

    async def test_a_change_whose_writer_is_killed_before_its_notification_is_received_and_listed(self) -> None:
        async with self.listening(SIZES.listeners):
            writer = self.start_writer(writers=2, changes=5, dies=True)
            await self.all_reach(12)
            await asyncio.to_thread(self.titles)  # stores the list
            self.assertEqual(await self.stop(writer), -signal.SIGKILL)
            await self.all_reach(13)
            self.assertIn("The last words", await asyncio.to_thread(self.titles))
            await self.assert_nothing_missed()

    def titles(self) -> list[str]:
        with urlopen(f"{self.base_url}/tasks/", timeout=20) as response:  # noqa: S310
            tasks: list[dict[str, Any]] = json.load(response)
        return [task["title"] for task in tasks]

    async def test_no_event_is_lost_when_postgresql_restarts_or_ends_its_sessions(self) -> None:
        self.start_web()
        async with self.listening(SIZES.listeners, drops=lambda number: number % 4 > 1):
            writer = self.start_writer(writers=4, changes=FOREVER, delay_s=DELAY_S)
            await self.all_reach(10)
            self.postgres.stop()
            self.postgres.start()
            await self.all_advance(10)
            for _ in range(THREADS):
                self.assertGreater(self.postgres.end_backends(), 0)
                await self.all_advance(3)
            self.assertEqual(await self.stop(writer), 0)
            await self.assert_nothing_missed()
        self.assertEqual([web.poll() for web in self.webs], [None, None])


class StoppedListenerTests(FaultCase):
    queue_events = 300

    async def test_listeners_that_stop_reading_use_no_memory_and_cost_other_listeners_no_event(self) -> None:
        async with self.listening(SIZES.listeners):
            writer = self.start_writer(writers=4, changes=SIZES.unread // 4, length=DESCRIPTION)
            await self.all_reach(10)
            url = self.urls[0]
            async with StoppedListener.plain(url) as plain, StoppedListener.subscribed(url) as subscribed:
                await self.all_reach(SIZES.unread // 4)
                before = memory_kb(self.webs[0])
                self.assertEqual(await self.end_of(writer), 0)
                await self.assert_nothing_missed()
                growth = memory_kb(self.webs[0]) - before
                # Half the size of the events: without a limit, each of the two would queue them all.
                self.assertLess(growth, SIZES.unread * DESCRIPTION / 1024 / 2)
                ends = [await plain.end(), await subscribed.end()]  # a listener that does not end times out
                figures.append(f"    the two stopped listeners cost {growth:,} KB and ended with: {', '.join(ends)}")
