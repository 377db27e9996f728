"""Whatever is killed, whenever: every listener hears every event once, in order.

`make test` runs these short, `make faults` long. FAULTS_SEED repeats a run's choices.
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
# Of what is written to those who stop reading: many times what the kernel keeps for them.
DESCRIPTION = 12_000
# Seconds that a writer dawdles at most: what it writes must not be more than hundreds of listeners can take.
SLOWLY_S = 0.1
# More than read the journal in a web process: one that kept its dead session may hide behind the others for a while.
THREADS = 8


class FaultTests(FaultCase):
    async def test_listeners_that_come_and_go_while_writers_dawdle_and_roll_back_miss_nothing(self) -> None:
        async with self.listening(SIZES.listeners, drops=lambda _: True):
            writer = self.start_writer(writers=SIZES.writers, changes=SIZES.changes, delay_s=0.02)
            self.assertEqual(await self.end_of(writer), 0)
            await self.assert_nothing_missed()
            # And the project and task that the writers wrote to.
            self.assertEqual(len(self.listeners[0].record), SIZES.writers * SIZES.changes + 2)

    async def test_a_killed_redis_that_comes_back_empty_costs_no_event(self) -> None:
        async with self.listening(SIZES.listeners):
            writer = self.start_writer(writers=4, changes=FOREVER, delay_s=SLOWLY_S)
            await self.all_heard(10)
            self.valkey.kill()
            await self.all_heard_more(5)
            await asyncio.sleep(SIZES.redis_away_s)
            self.valkey.start()
            await self.all_heard_more(10)
            self.assertEqual(await self.stop(writer), 0)
            await self.assert_nothing_missed()

    async def test_listeners_of_a_killed_web_process_resume_on_another(self) -> None:
        self.start_web()
        async with self.listening(SIZES.hanging):
            writer = self.start_writer(writers=4, changes=FOREVER, delay_s=SLOWLY_S)
            await self.all_heard(10)
            self.assertEqual({listener.connections for listener in self.listeners}, {1})
            self.webs[0].kill()
            await self.all_heard_more(10)
            self.assertGreater(min(listener.connections for listener in self.listeners), 1)
            self.assertEqual(await self.stop(writer), 0)
            await self.assert_nothing_missed()

    async def test_what_a_writer_killed_before_its_bell_wrote_is_heard_and_no_list_is_stale(self) -> None:
        async with self.listening(SIZES.listeners):
            writer = self.start_writer(writers=2, changes=5, dies=True)
            await self.all_heard(12)
            await asyncio.to_thread(self.titles)  # which files them
            self.assertEqual(await self.stop(writer), -signal.SIGKILL)
            await self.all_heard(13)
            self.assertIn("The last words", await asyncio.to_thread(self.titles))
            await self.assert_nothing_missed()

    def titles(self) -> list[str]:
        with urlopen(f"{self.base_url}/tasks/", timeout=20) as answer:  # noqa: S310
            tasks: list[dict[str, Any]] = json.load(answer)
        return [task["title"] for task in tasks]

    async def test_a_restarted_postgresql_and_ended_sessions_cost_no_event(self) -> None:
        self.start_web()
        async with self.listening(SIZES.listeners, drops=lambda number: number % 4 > 1):
            writer = self.start_writer(writers=4, changes=FOREVER, delay_s=SLOWLY_S)
            await self.all_heard(10)
            self.postgres.stop()
            self.postgres.start()
            await self.all_heard_more(10)
            for _ in range(THREADS):
                self.assertGreater(self.postgres.end_backends(), 0)
                await self.all_heard_more(3)
            self.assertEqual(await self.stop(writer), 0)
            await self.assert_nothing_missed()
        self.assertEqual([web.poll() for web in self.webs], [None, None])


class StoppedListenerTests(FaultCase):
    queue_events = 300

    async def test_who_stops_reading_costs_no_memory_and_nobody_else_an_event(self) -> None:
        async with self.listening(SIZES.listeners):
            writer = self.start_writer(writers=4, changes=SIZES.passing // 4, length=DESCRIPTION)
            await self.all_heard(10)
            door = self.doors[0]
            async with StoppedListener.plain(door) as plain, StoppedListener.subscribed(door) as subscribed:
                await self.all_heard(SIZES.passing // 4)
                before = memory_kb(self.webs[0])
                self.assertEqual(await self.end_of(writer), 0)
                await self.assert_nothing_missed()
                growth = memory_kb(self.webs[0]) - before
                # What would wait for each of them otherwise.
                self.assertLess(growth, SIZES.passing * DESCRIPTION / 1024 / 2)
                ends = [await plain.end(), await subscribed.end()]
                self.assertLessEqual(set(ends), {"resync", "cut off"})
                figures.append(f"    the two who stopped cost {growth:,} KB, and came to: {', '.join(ends)}")
