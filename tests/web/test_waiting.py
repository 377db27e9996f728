"""The number of sockets whose clients have not signed in is bounded, per address and in total."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from typing import Any

from channels.testing import WebsocketCommunicator
from django.test import SimpleTestCase, override_settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from backend.web.waiting import WaitingSockets, stop_waiting
from tests.cases import ServerCase, token_of
from tests.factories import UserFactory
from tests.schema.sockets import PROTOCOL, TIMEOUT_S


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An application that accepts a socket, and signs its client in at the first message."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        stop_waiting(scope)


@override_settings(WAITING_CONNECTIONS=4, WAITING_CONNECTIONS_PER_ADDRESS=2)
class BoundTests(SimpleTestCase):
    def setUp(self) -> None:
        self.sockets = WaitingSockets(application)
        self.communicators: list[WebsocketCommunicator] = []  # a communicator without a reference closes its socket

    async def open(self, address: str, forwarded: str | None = None) -> WebsocketCommunicator | None:
        """Return the socket; None if it is refused."""
        headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
        socket = WebsocketCommunicator(self.sockets, "/", headers=headers)
        socket.scope["client"] = (address, 1)
        self.communicators.append(socket)
        is_open, _ = await socket.connect(timeout=10)
        return socket if is_open else None

    async def opened(self, *addresses: str) -> list[bool]:
        return [await self.open(address) is not None for address in addresses]

    async def test_the_sockets_of_an_address_are_bounded(self) -> None:
        self.assertEqual(await self.opened(*["192.0.2.1"] * 3, "192.0.2.2"), [True, True, False, True])

    async def test_an_ipv6_network_counts_as_one_address(self) -> None:
        addresses = [f"2001:db8:1:2::{number}" for number in range(3)]
        self.assertEqual(await self.opened(*addresses, "2001:db8:1:3::1"), [True, True, False, True])

    async def test_the_sockets_of_all_addresses_are_bounded(self) -> None:
        self.assertEqual(await self.opened(*(f"192.0.2.{number}" for number in range(5))), [True] * 4 + [False])

    async def test_behind_our_proxy_the_forwarded_address_counts(self) -> None:
        with override_settings(TLS_PROXY=True):
            opened = [await self.open("127.0.0.1", f"192.0.2.{number // 2}") is not None for number in range(4)]
            self.assertEqual(opened, [True] * 4)
            self.assertIsNone(await self.open("127.0.0.1", "192.0.2.0"))

    async def test_a_socket_that_has_signed_in_or_ended_does_not_count(self) -> None:
        first, second = await self.open("192.0.2.1"), await self.open("192.0.2.1")
        assert first is not None and second is not None  # noqa: PT018
        await first.disconnect()
        self.assertEqual(await self.opened("192.0.2.1", "192.0.2.1"), [True, False])
        await second.send_to(text_data="x")
        await second.send_to(text_data="x")
        while self.sockets._waiting["192.0.2.1"] != 1:
            await second.receive_nothing(0.01)
        self.assertEqual(await self.opened("192.0.2.1", "192.0.2.1"), [True, False])
        await second.disconnect()
        self.assertEqual(await self.opened("192.0.2.1"), [False])


class WaitingCase(ServerCase):
    environment = {"ACCESS": "closed", "WAITING_CONNECTIONS_PER_ADDRESS": "2"}


class Waiting:
    """Tests of both servers."""

    def test_sockets_over_the_bound_get_a_503_until_others_sign_in(self) -> None:
        token = token_of(UserFactory())
        with ExitStack() as stack:

            def plain() -> ClientConnection:
                return stack.enter_context(connect(f"{self.ws_url}/ws/notifications/"))

            first = plain()
            second = stack.enter_context(connect(f"{self.ws_url}/graphql/", subprotocols=[PROTOCOL]))
            self.assert_refused()

            first.send(json.dumps({"type": "authenticate", "token": token}))
            self.assertEqual(json.loads(first.recv(TIMEOUT_S))["type"], "ready")
            third = plain()
            self.assert_refused()

            second.send(json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}))
            self.assertEqual(json.loads(second.recv(TIMEOUT_S))["type"], "connection_ack")
            plain()
            self.assert_refused()

            self.assertEqual(json.loads(third.recv(TIMEOUT_S))["type"], "error")  # after SOCKET_INIT_S
            third.close()
            for _ in range(1000):  # until the server has noticed that it is closed
                with suppress(InvalidStatus):
                    plain()
                    break
            else:
                self.fail("The slot of a closed socket is still occupied.")

    def assert_refused(self) -> None:
        for path in ("/ws/notifications/", "/graphql/"):
            with self.assertRaises(InvalidStatus) as refusal:
                connect(f"{self.ws_url}{path}", subprotocols=[PROTOCOL]).__enter__()
            self.assertEqual(refusal.exception.response.status_code, 503)


class DaphneWaitingTests(Waiting, WaitingCase):
    environment = {**WaitingCase.environment, "SERVER": "daphne"}


class UvicornWaitingTests(Waiting, WaitingCase):
    environment = {**WaitingCase.environment, "SERVER": "uvicorn"}
