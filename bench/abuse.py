"""How much each attack, anonymous or by an account, slows an ordinary client, compared with a quiet server.

Run: `make bench abuse`, for uvicorn `SERVER=uvicorn make bench abuse`. Each attack (`bench/support/attacker.py`) has a
fresh server in closed mode. An ordinary client sends 20 requests per second, each on time: `/healthz`, a list and a
GraphQL query. First the server is quiet, then the attack runs for ABUSE_S seconds (10), in a process of its own. The
ratio compares the 99th percentiles. The growth of memory is that of the highest sample. All connections are on this
machine; the attacker has another loopback address than the ordinary client. An attack ends early once the server has
grown by 2 GB. ABUSE selects attacks by parts of their names: `ABUSE=sign,bodies make bench abuse`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from backend.local.console import say
from backend.local.processes import Tethered
from backend.local.run import CHECKOUT

from .support import servers  # first: it sets up Django
from .support.attacker import ATTACKS
from .support.client import Samples, send_on_time
from .support.figures import Figure, report
from .support.load import request
from .support.rows import fill

from backend.projects import access, services  # isort:skip
from backend.projects.models import Scope, Task, User  # isort:skip

ATTACK_S = float(os.environ.get("ABUSE_S", "10"))
SELECTED = os.environ.get("ABUSE", "").split(",")
QUIET_S = 5.0
PER_S = 20.0
PROJECTS, TASKS_EACH = 4, 150
WRITES_PER_S = 4.0
SAMPLE_S = 0.1
MAX_GROWTH_KB = 2 * 1024 * 1024

MAX_RATIO, MAX_P99_MS, MAX_GROWTH_MB = 3.0, 250.0, 50.0


def main() -> None:
    server_name = os.environ.get("SERVER", "daphne")
    with servers.database("abuse") as url:
        _, token = fill(PROJECTS, TASKS_EACH, Scope.WRITE)
        attackers_token = _attackers_token()
        task_id = Task.objects.order_by("pk").values_list("pk", flat=True)[0]
        for name in (name for name in ATTACKS if any(part in name for part in SELECTED)):
            bounds = {"COST_MODE": "enforce", "CONNECTIONS_PER_S": "100"}
            environment = {"DATABASE_URL": url, "ACCESS": "closed", "SERVER": server_name, **bounds}
            with servers.run_server(**environment) as server:
                asyncio.run(_measure(f"{name} ({server_name})", name, server, token, attackers_token, task_id))


def _attackers_token() -> str:
    """A token with the scope `read`, of another member of every project."""
    user = User(username="mallory")
    user.set_unusable_password()
    services.user.save_user(actor=access.SYSTEM, user=user)
    for project_id in Task.objects.order_by().values_list("project_id", flat=True).distinct():
        services.membership.add_member(actor=access.SYSTEM, project_id=project_id, username=user.username)
    _, token = services.token.create_token(actor=access.SYSTEM, user_id=user.pk, name="bench", scope=Scope.READ, days=1)
    return token


async def _measure(
    title: str, name: str, server: servers.Server, token: str, attackers_token: str, task_id: int
) -> None:
    ordinary = [
        request(server, "/healthz"),
        request(server, "/tasks/?page_size=20", token=token),
        request(server, "/graphql/", token=token, json=b'{"query":"{tasks(first:20){nodes{id title}}}"}'),
    ]
    await send_on_time(server.port, ordinary, per_s=PER_S, seconds=1)  # warm-up: the first requests are slower
    quiet = await send_on_time(server.port, ordinary, per_s=PER_S, seconds=QUIET_S)
    before_kb, before_log = server.memory_kb, server.log.stat().st_size
    command = [sys.executable, "-m", "bench.support.attacker", name, str(server.port), attackers_token]
    attack = Tethered(command, cwd=CHECKOUT, env={**os.environ}, grace_s=1)
    watching = asyncio.create_task(_highest_kb(server, before_kb, attack))
    try:
        writes = send_on_time(server.port, _writes(server, token, task_id), per_s=WRITES_PER_S, seconds=ATTACK_S)
        attacked, _ = await asyncio.gather(send_on_time(server.port, ordinary, per_s=PER_S, seconds=ATTACK_S), writes)
    finally:
        ended_early = attack.exit_code() is not None
        attack.stop()
    growth_mb = (await watching - before_kb) / 1024
    early = "; the attack ended early" if ended_early else ""
    say(f"{title}: quiet {_shown(quiet)}; under attack {_shown(attacked)}{early}")
    report(Figure(f"{title}: p99 / quiet", attacked.percentile(99) / quiet.percentile(99), "", MAX_RATIO, True))
    report(Figure(f"{title}: p99", attacked.percentile(99), "ms", MAX_P99_MS, True))
    report(Figure(f"{title}: memory", growth_mb, "MB", MAX_GROWTH_MB, True))
    report(Figure(f"{title}: requests of the client that failed", len(attacked.failures), "", 0, True))
    report(Figure(f"{title}: log", (server.log.stat().st_size - before_log) / 1024, "KB", is_cost=True))


async def _highest_kb(server: servers.Server, before_kb: int, attack: Tethered) -> int:
    """The highest memory until the attack ends. Ends the attack before the machine runs out of memory."""
    highest_kb = before_kb
    while attack.exit_code() is None:
        highest_kb = max(highest_kb, server.memory_kb)
        if highest_kb - before_kb > MAX_GROWTH_KB:
            attack.request_stop()
        await asyncio.sleep(SAMPLE_S)
    return highest_kb


def _writes(server: servers.Server, token: str, task_id: int) -> list[bytes]:
    """Changes of one task: attacks on live delivery need events."""
    query = "mutation ($input: UpdateTaskInput!) { updateTask(input: $input) { __typename } }"
    inputs = [{"id": task_id, "title": f"Weed the bed {number}"} for number in range(2)]
    bodies = [json.dumps({"query": query, "variables": {"input": values}}) for values in inputs]
    return [request(server, "/graphql/", token=token, json=body.encode()) for body in bodies]


def _shown(samples: Samples) -> str:
    failed = f", {len(samples.failures)} failed ({sorted(set(samples.failures))})" if samples.failures else ""
    return f"p50 {samples.percentile(50):.1f} ms, p99 {samples.percentile(99):.1f} ms{failed}"
