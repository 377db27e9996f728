"""The ordinary client of `make bench abuse`, with a server that responds late or refuses."""

from __future__ import annotations

import asyncio

from django.test import SimpleTestCase

from bench.support.client import Samples, send_on_time


class ClientTests(SimpleTestCase):
    def test_percentiles_are_those_of_the_sorted_samples(self) -> None:
        samples = Samples([float(n) for n in range(100, 0, -1)])
        self.assertEqual([samples.percentile(percent) for percent in (0, 50, 99, 100)], [1, 51, 100, 100])

    async def test_a_request_is_sent_on_time_while_others_wait(self) -> None:
        """The server answers none of the requests before all have arrived."""
        waiting = asyncio.Barrier(5)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await waiting.wait()
            writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            samples = await send_on_time(port, [b"GET / HTTP/1.1\r\n\r\n"], per_s=50, seconds=0.1)
        self.assertEqual((len(samples.took_ms), samples.failures), (5, [503] * 5))
