from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.test import SimpleTestCase, override_settings

from backend.web.loopback import LoopbackOnly

# Sent by the application behind the middleware.
REACHED = {"type": "application.reached"}
LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"]
OTHER_ADDRESSES = ["192.168.1.7", "10.0.0.1", "8.8.8.8", "fe80::1", "::ffff:8.8.8.8", "0.0.0.0", "localhost", "", None]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send(REACHED)


class LoopbackTests(SimpleTestCase):
    async def messages(self, kind: str, address: str | None, forwarded_for: str = "") -> list[dict[str, Any]]:
        return await self.messages_to(kind, address, *([("x-forwarded-for", forwarded_for)] if forwarded_for else []))

    async def messages_to(self, kind: str, address: str | None, *fields: tuple[str, str]) -> list[dict[str, Any]]:
        headers = [(name.encode(), value.encode()) for name, value in fields]
        scope = {"type": kind, "client": None if address is None else (address, 4711), "headers": headers}
        client = ApplicationCommunicator(LoopbackOnly(application), scope)
        await client.wait()
        return [await client.receive_output() for _ in range(client.output_queue.qsize())]

    @override_settings(ACCESS="open")
    async def test_open_access_allows_clients_on_this_machine(self) -> None:
        for kind in ("http", "websocket"):
            for address in LOOPBACK:
                with self.subTest(kind=kind, address=address):
                    self.assertEqual(await self.messages(kind, address), [REACHED])

    @override_settings(ACCESS="open")
    async def test_open_access_refuses_all_other_clients(self) -> None:
        for address in OTHER_ADDRESSES:
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
        self.assertEqual(await self.messages("http", "127.0.0.1", "127.0.0.1, ::1"), [REACHED])

    @override_settings(ACCESS="open")
    async def test_a_request_with_a_header_that_names_another_client_is_refused(self) -> None:
        others = [
            ("forwarded", "for=192.0.2.60"),
            ("forwarded", "FOR=192.0.2.60;proto=http;by=127.0.0.1"),
            ("forwarded", 'for="[2001:db8::1]:4711"'),
            ("forwarded", "for=127.0.0.1, for=192.0.2.60"),
            ("forwarded", 'for=127.0.0.1;ext=",for=::1", for=192.0.2.60'),
            ("forwarded", "for=127.0.0.1;for=192.0.2.60"),
            ("forwarded", "for=unknown"),
            ("forwarded", "for=_hidden"),
            ("forwarded", "for="),
            ("forwarded", "for"),
            ("forwarded", "127.0.0.1"),
            ("forwarded", 'for="127.0.0.1'),
            ("forwarded", "by=127.0.0.1"),
            ("forwarded", ""),
            ("forwarded", ";  " * 5_000 + "!"),  # a regular expression that backtracks over the spaces never ends
            ("x-real-ip", "192.0.2.60"),
            ("x-client-ip", "192.0.2.60"),
            ("true-client-ip", "192.0.2.60"),
            ("cf-connecting-ip", "192.0.2.60"),
            # A proxy that does not name its client.
            ("via", "1.1 proxy"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "localhost"),
        ]
        for field in others:
            with self.subTest(field):
                self.assertEqual(await self.messages_to("websocket", "127.0.0.1", field), [{"type": "websocket.close"}])
                start, _ = await self.messages_to("http", "127.0.0.1", field)
                self.assertEqual(start["status"], 403)

    @override_settings(ACCESS="open")
    async def test_a_proxy_that_names_clients_on_this_machine_is_allowed(self) -> None:
        for fields in (
            [("forwarded", "for=127.0.0.1")],
            [("forwarded", 'For="127.0.0.1:4711";proto=http , for="[::1]"')],
            [("forwarded", 'for="[::1]:4711";host="a,b;for=c"')],
            [("x-real-ip", "::1")],
            [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-host", "localhost"), ("via", "1.1 proxy")],
        ):
            with self.subTest(fields):
                for kind in ("http", "websocket"):
                    self.assertEqual(await self.messages_to(kind, "127.0.0.1", *fields), [REACHED])

    @override_settings(ACCESS="closed")
    async def test_closed_access_allows_clients_anywhere(self) -> None:
        for address in (*LOOPBACK, *OTHER_ADDRESSES):
            self.assertEqual(await self.messages("http", address), [REACHED])
