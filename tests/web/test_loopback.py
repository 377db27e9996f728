from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.test import SimpleTestCase, override_settings

from backend.web.loopback import LoopbackOnly

HERE = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"]
ELSEWHERE = ["192.168.1.7", "10.0.0.1", "8.8.8.8", "fe80::1", "::ffff:8.8.8.8", "0.0.0.0", "localhost", "", None]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Stands for the application behind the middleware."""
    await send({"type": "let.in"})


class LoopbackTests(SimpleTestCase):
    async def messages(self, kind: str, address: str | None, forwarded_for: str = "") -> list[dict[str, Any]]:
        headers = [(b"x-forwarded-for", forwarded_for.encode())] if forwarded_for else []
        scope = {"type": kind, "client": None if address is None else (address, 4711), "headers": headers}
        client = ApplicationCommunicator(LoopbackOnly(application), scope)
        await client.wait()
        return [await client.receive_output() for _ in range(client.output_queue.qsize())]

    @override_settings(ACCESS="open")
    async def test_open_access_allows_clients_on_this_machine(self) -> None:
        for kind in ("http", "websocket"):
            for address in HERE:
                with self.subTest(kind=kind, address=address):
                    self.assertEqual(await self.messages(kind, address), [{"type": "let.in"}])

    @override_settings(ACCESS="open")
    async def test_open_access_refuses_all_other_clients(self) -> None:
        for address in ELSEWHERE:
            with self.subTest(address=address):
                self.assertEqual(await self.messages("websocket", address), [{"type": "websocket.close"}])
                start, body = await self.messages("http", address)
                self.assertEqual(start["status"], 403)
                self.assertEqual(body["body"], b'{"detail": "Open access is for this machine alone."}')

    @override_settings(ACCESS="open")
    async def test_open_access_refuses_other_clients_behind_a_local_proxy(self) -> None:
        for forwarded_for in ("192.168.1.7", "127.0.0.1, 192.168.1.7", "192.168.1.7, 127.0.0.1", "unknown"):
            with self.subTest(forwarded_for):
                start, _ = await self.messages("http", "127.0.0.1", forwarded_for)
                self.assertEqual(start["status"], 403)
        self.assertEqual(await self.messages("http", "127.0.0.1", "127.0.0.1, ::1"), [{"type": "let.in"}])

    @override_settings(ACCESS="closed")
    async def test_closed_access_allows_clients_anywhere(self) -> None:
        for address in (*HERE, *ELSEWHERE):
            self.assertEqual(await self.messages("http", address), [{"type": "let.in"}])
