"""An ordinary client. It sends each request on time, however long the earlier ones take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from backend.local.console import Refusal

TIMEOUT_S = 10.0


@dataclass
class Samples:
    """The response times of a period, in milliseconds since each request was due."""

    took_ms: list[float] = field(default_factory=list)
    # Statuses other than 200, and 0 for a lost or late response.
    failures: list[int] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        if not self.took_ms:
            raise Refusal("The ordinary client sent no request.")
        ordered = sorted(self.took_ms)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def send_on_time(port: int, requests: Sequence[bytes], *, per_s: float, seconds: float) -> Samples:
    """Send the requests in turn, at an even rate, each on a connection of its own. Wait for all responses."""
    samples = Samples()
    start = time.perf_counter()
    sending = []
    for number in count():
        due = start + number / per_s
        if due >= start + seconds:
            break
        await asyncio.sleep(due - time.perf_counter())
        sending.append(asyncio.create_task(_send(port, requests[number % len(requests)], due, samples)))
    await asyncio.gather(*sending)
    return samples


async def _send(port: int, request: bytes, due: float, samples: Samples) -> None:
    status = 0
    try:
        async with asyncio.timeout(TIMEOUT_S):
            status = await send(port, request)
    except (OSError, EOFError, TimeoutError):
        pass
    samples.took_ms.append(1000 * (time.perf_counter() - due))
    if status != 200:
        samples.failures.append(status)


async def send(port: int, request: bytes) -> int:
    """Send a request, read the whole response, and return its status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await reader.readexactly(int(line.partition(b":")[2]))
        return int(head.split(b" ", 2)[1])
    finally:
        writer.transport.abort()
