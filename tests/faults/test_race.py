"""No reader gets a stale list, over REST, GraphQL or a resolver, while other processes write and Redis is killed.

RACE_S is the duration in seconds. FAULTS_SEED repeats the choices of every process.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from contextlib import suppress
from subprocess import PIPE
from typing import Any

import pytest
from redis import Redis

from backend.local.console import say
from backend.local.testing import throwaway_folder
from tests import processes
from tests.cases import IS_THOROUGH, CommittingCase, database_url, start_server, token_of
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.faults.cases import PATIENCE_S, figures
from tests.faults.racer import WRITERS, SharedState
from tests.processes import Process
from tests.servers import FaultyValkey

RACE_S = float(os.environ.get("RACE_S", "20" if IS_THOROUGH else "8"))
# Seconds between two faults of Redis, and between its kill and its start.
FAULT_EVERY_S = 0.1
GONE_S = 0.3
KILLS = 4
READERS = {"http": 3, "resolver": 2}
PROJECTS = 3
# Minimum totals per second of the race: far fewer than a slow machine reaches, and enough to be meaningful.
MINIMUM = {"http reads": 4, "http not modified": 0.2, "resolver reads": 10, "resolver hits": 2, "write writes": 2}


@pytest.mark.faults
@pytest.mark.server
@pytest.mark.slow
class RaceTests(CommittingCase):
    def test_a_read_after_an_acknowledged_write_shows_it_whatever_happens_to_redis(self) -> None:
        seed = os.environ.get("FAULTS_SEED") or str(random.randrange(10**6))
        say(f"FAULTS_SEED={seed}")
        chance = random.Random(seed)
        member, staff = UserFactory(), UserFactory(is_staff=True)
        projects = [ProjectFactory() for _ in range(PROJECTS)]
        tasks = [TaskFactory(project=project) for project in projects]
        for project in projects[:-1]:
            MembershipFactory(user=member, project=project)
        folder = self.enterContext(throwaway_folder())
        valkey = self.enterContext(FaultyValkey(folder))
        environment = {
            "ACCESS": "closed",
            "COST_MODE": "measure",
            "DATABASE_URL": database_url(),
            "REDIS_URL": valkey.url,
        }
        addresses = [start_server("backend.server", environment, self.addCleanup)[1] for _ in range(2)]
        state = SharedState(folder / "state", 2 * PROJECTS)
        common = ["--seconds", RACE_S, "--state", folder / "state", "--member", member.pk]
        common += ["--projects", *(project.pk for project in projects), "--tasks", *(task.pk for task in tasks)]
        common += ["--addresses", *addresses, "--tokens", token_of(member), token_of(staff)]
        roles = ["write"] * WRITERS + [role for role, count in READERS.items() for _ in range(count)]
        racers = []
        for number, role in enumerate(roles):
            arguments = [role, "--number", number, "--seed", f"{seed}-{number}", *common]
            racer = processes.libraries().start(
                "tests.faults.racer",
                list(map(str, arguments)),
                environment={**os.environ, **environment},
                stdin=PIPE,
                stdout=PIPE,
            )
            self.addCleanup(_end, racer)
            racers.append(racer)
        for racer in racers:
            assert racer.stdout is not None
            self.assertEqual(racer.stdout.readline(), "ready\n")
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()

        kills = self.cause_faults(valkey, state, chance)

        counts: Counter[str] = Counter()
        for role, racer in zip(roles, racers, strict=True):
            assert racer.stdout is not None
            result: dict[str, Any] = json.loads(racer.stdout.readline() or "{}")
            self.assertNotIn("stale", result)
            self.assertEqual(racer.wait(PATIENCE_S), 0)
            counts.update({f"{role} {what}": count for what, count in result.items()})
        figure = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        say(figure)
        figures.append(f"{self._testMethodName} (seed {seed}): {figure}; {kills} kills")
        for what, minimum in MINIMUM.items():
            self.assertGreater(counts[what], minimum * RACE_S, what)

    def cause_faults(self, valkey: FaultyValkey, state: SharedState, chance: random.Random) -> int:
        """Evict keys from Redis, and kill it now and then. Returns the number of kills.

        After the first kill Redis comes back empty, after later ones with an old snapshot.
        """
        kills = 0
        began = time.monotonic()
        while (passed := time.monotonic() - began) < RACE_S:
            with Redis.from_url(valkey.url) as redis:
                if passed > (kills + 1) * RACE_S / (KILLS + 1):
                    if kills % 2:
                        redis.save()
                        time.sleep(FAULT_EVERY_S)  # the snapshot becomes outdated
                    state.life += 1
                    valkey.kill()
                    time.sleep(GONE_S)
                    valkey.start()
                    state.life += 1
                    kills += 1
                elif chance.random() < 0.05:
                    redis.flushdb()
                elif keys := redis.keys("*tag:*" if chance.random() < 0.8 else "*list:*"):
                    redis.delete(chance.choice(keys))
            time.sleep(FAULT_EVERY_S)
        return kills


def _end(racer: Process) -> None:
    racer.kill()
    racer.wait()
    for pipe in (racer.stdin, racer.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()
