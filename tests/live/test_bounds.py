"""Limits on the open connections of an account. Closed connections leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from django.test import Client, override_settings

from backend.asgi import sockets
from backend.projects import live
from backend.projects.access import SYSTEM
from backend.projects.models import User
from tests.cases import token_of
from tests.factories import MembershipFactory, UserFactory
from tests.live.test_notifications import SocketCase
from tests.rest.asgi import Exchange
from tests.schema.sockets import Communicator, GraphQLSocket, accepted, ready

LISTEN = "subscription { events { cursor } }"


class BoundCase(SocketCase):
    @asynccontextmanager
    async def plain(self, token: str | None = None) -> AsyncIterator[None]:
        """An open plain socket."""
        socket = await self.connect(**bearer(token))
        self.assertEqual((await self.frame(socket))["type"], "ready")
        yield
        await socket.disconnect()

    def stream(self, token: str | None = None) -> Exchange:
        return Exchange("GET", "/events/", headers={"Accept": "text/event-stream", **bearer(token)})

    async def assert_all_refused(self, token: str | None = None) -> None:
        async with accepted(**bearer(token)) as graphql:
            await graphql.init()
            self.assertEqual(await graphql.close_code(), 4429)
        frame, code = await self.refused("", **bearer(token))
        self.assertEqual((frame["type"], code), ("error", 4429))
        self.assertIn("2 sockets and streams", frame["message"])
        async with self.stream(token) as response:
            self.assertEqual((response.status, response.headers["retry-after"]), (429, "60"))
            self.assertEqual(response.headers["content-type"], "application/json")

    async def assert_all_accepted(self, token: str | None = None) -> None:
        async with ready(**bearer(token)):
            pass
        async with self.plain(token):
            pass
        async with self.stream(token) as response:
            self.assertEqual(response.status, 200)


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


@override_settings(LIVE_LISTENERS_PER_VIEWER=2)
class ConnectionTests(BoundCase):
    async def test_one_limit_covers_all_endpoints_and_tokens_of_an_account_and_no_other_account(self) -> None:
        ada, bob = [await sync_to_async(UserFactory)() for _ in range(2)]
        first, second = [await sync_to_async(token_of)(ada) for _ in range(2)]
        others = await sync_to_async(token_of)(bob)
        for connections in (
            (ready(**bearer(first)), self.plain(second)),
            (self.plain(first), self.stream(second)),
            (self.stream(first), ready(**bearer(second))),
        ):
            async with AsyncExitStack() as stack:
                for connection in connections:
                    await stack.enter_async_context(connection)
                await self.assert_all_refused(first)
                await self.assert_all_refused(second)
                await self.assert_all_accepted(others)
            await self.assert_all_accepted(first)
        self.assertFalse(live._reader().connections)

    @override_settings(ACCESS="open")
    async def test_in_open_mode_anonymous_clients_share_one_limit(self) -> None:
        async with ready(), self.plain():
            await self.assert_all_refused()
        await self.assert_all_accepted()

    async def test_an_anonymous_client_in_closed_mode_is_refused_and_takes_no_slot(self) -> None:
        for _ in range(3):
            async with accepted() as graphql:
                await graphql.init()
                self.assertEqual(await graphql.close_code(), 4403)
            async with self.stream() as response:
                self.assertEqual(response.status, 401)
        self.assertFalse(live._reader().connections)

    @override_settings(ACCESS="open")
    async def test_a_connection_refused_for_another_reason_takes_no_slot(self) -> None:
        for _ in range(3):
            self.assertEqual((await self.refused("?after=7"))[1], 4410)
            stream = Exchange("GET", "/events/", query="after=7", headers={"Accept": "text/event-stream"})
            async with stream as response:
                self.assertEqual(response.status, 410)
        await self.assert_all_accepted()

    @override_settings(ACCESS="open")
    async def test_the_subscriptions_of_a_socket_share_its_slot(self) -> None:
        async with ready() as socket:
            for number in range(5):
                await socket.subscribe(LISTEN, str(number))
            async with self.plain():
                pass


@override_settings(ACCESS="open", LIVE_SUBSCRIPTIONS_PER_SOCKET=2)
class SubscriptionTests(BoundCase):
    async def test_a_subscription_over_the_limit_is_refused_until_another_is_complete(self) -> None:
        async with ready() as socket:
            for number in ("1", "2"):
                await socket.subscribe(LISTEN, number)
            await socket.subscribe(LISTEN, "3")
            self.assertEqual(await socket.error("3"), {"code": "TOO_MANY_SUBSCRIPTIONS"})
            await socket.send("complete", id="1")
            await socket.subscribe("{ cursor }", "3")
            self.assertEqual(await socket.next("3"), {"data": {"cursor": "0"}})

    async def test_an_id_in_use_closes_the_socket_even_at_the_limit(self) -> None:
        async with ready() as socket:
            for number in ("1", "2", "2"):
                await socket.subscribe(LISTEN, number)
            self.assertEqual(await socket.close_code(), 4409)


@pytest.mark.slow
class LeakTests(BoundCase):
    """The objects in the process after connections have closed."""

    async def test_a_thousand_clients_leave_nothing_behind(self) -> None:
        members = [(await sync_to_async(MembershipFactory)(project=self.task.project)).user for _ in range(10)]
        sessions = [await sync_to_async(session_of)(user) for user in members]
        ways = [
            self.leave_while_subscribed,
            self.leave_plain_socket_at_once,
            self.leave_before_the_acknowledgement,
            self.resume_and_leave,
            self.leave_while_subscribing,
        ]
        slots = asyncio.Semaphore(12)

        async def client(number: int) -> None:
            async with slots:
                await asyncio.wait_for(ways[number % len(ways)](sessions[number // len(ways) % len(sessions)]), 60)

        async def write() -> None:
            for number in range(10_000):
                await self.rename(f"Title {number}")
                await asyncio.sleep(0.1)

        writing = asyncio.create_task(write())
        await asyncio.gather(*[client(number) for number in range(1000)])
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await self.assert_nothing_is_left()

    async def test_failed_attempts_to_receive_notifications_leave_no_queue(self) -> None:
        unreachable = {**settings.CHANNEL_LAYERS["default"], "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"]}}
        with override_settings(CHANNEL_LAYERS={"default": unreachable}):
            async with live.listen(SYSTEM):
                await asyncio.sleep(1.5)  # two attempts
                self.assertEqual(get_channel_layer().channels, {})

    async def assert_nothing_is_left(self) -> None:
        reader = live._reader()
        self.assertEqual((reader.listeners, reader._permissions, reader.connections), (set(), {}, {}))
        self.assertEqual((reader._attached, reader._tasks, reader._started), (0, [], None))
        layer = get_channel_layer()
        self.assertEqual((layer.channels, layer.groups), ({}, {}))
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        # The receiver of the channel layer lives as long as the event loop.
        self.assertEqual([task for task in tasks if "_do_receiving" not in repr(task.get_coro())], [])
        gc.collect()
        leaked = [item for item in gc.get_objects() if type(item) in (live.Listener, live.CachedPermissions)]
        self.assertEqual(leaked, [])

    async def leave_while_subscribed(self, session: str) -> None:
        """Subscribe twice on a GraphQL socket, and close it without completing the subscriptions."""
        async with ready(session=session) as socket:
            await socket.subscribe(LISTEN, "1")
            await socket.subscribe(LISTEN, "2")
            await socket.receive()

    async def resume_and_leave(self, session: str) -> None:
        """Resume from the first position on a plain socket, and close it after two frames."""
        socket = plain_socket(session, "?after=0")
        await socket.connect(timeout=20)
        for _ in range(2):
            await socket.receive_from(timeout=20)
        await socket.disconnect(timeout=20)

    async def leave_plain_socket_at_once(self, session: str) -> None:
        """Close a plain socket while the server still authenticates it."""
        socket = plain_socket(session)
        await socket.connect(timeout=20)
        await socket.disconnect(timeout=20)

    async def leave_before_the_acknowledgement(self, session: str) -> None:
        """Close a GraphQL socket while the server still authenticates it."""
        socket = GraphQLSocket(session=session)
        await socket.connect()
        await socket.init()
        await socket.disconnect()

    async def leave_while_subscribing(self, session: str) -> None:
        """Close a GraphQL socket before its subscription has started."""
        async with ready(session=session) as socket:
            await socket.subscribe(LISTEN, "1")


def plain_socket(session: str, query: str = "") -> Communicator:
    headers = [(b"host", b"localhost"), (b"cookie", f"sessionid={session}".encode())]
    return Communicator(sockets, f"/ws/notifications/{query}", headers=headers)


def session_of(user: User) -> Any:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value
