"""A client that has not read all trimmed events is refused at every endpoint: it never misses an event silently."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.test import override_settings
from django.utils import timezone

from backend.projects import live, services
from backend.projects.access import SYSTEM
from backend.projects.authentication import viewer_by_token
from backend.projects.errors import InvalidCredential, ResumeRefused
from backend.projects.models import Event, Token
from tests.cases import token_of
from tests.factories import UserFactory
from tests.live.test_listener import ListenerCase, names
from tests.live.test_notifications import SocketCase
from tests.rest.asgi import Exchange
from tests.schema.sockets import ready

trim = sync_to_async(services.retention.trim_journal)


async def age(up_to: int) -> None:
    """Make the events up to a position old enough to be trimmed."""
    await Event.objects.filter(position__lte=up_to).aupdate(at=timezone.now() - timedelta(days=400))


@override_settings(ACCESS="open")
class EndpointTests(SocketCase):
    """The newest cursor that is refused, and the oldest one that is accepted."""

    async def write_and_trim(self) -> None:
        for number in range(5):
            await self.rename(f"Title {number}")
        await age(up_to=3)
        self.assertEqual(await trim(now=timezone.now()), 3)

    async def test_the_query_refuses_an_expired_cursor(self) -> None:
        await self.write_and_trim()
        self.assertEqual((await self.query("2"))["errors"][0]["extensions"], {"code": "CURSOR_EXPIRED", "oldest": "3"})
        self.assertEqual((await self.query("3"))["data"]["events"]["nodes"], [{"cursor": "4"}, {"cursor": "5"}])

    async def query(self, after: str) -> dict[str, Any]:
        operation = {"query": f'{{ events(after: "{after}") {{ nodes {{ cursor }} }} }}'}
        response = await self.async_client.post("/graphql/", operation, "application/json")
        result: dict[str, Any] = response.json()
        return result

    async def test_the_subscription_refuses_an_expired_cursor(self) -> None:
        await self.write_and_trim()
        async with ready() as socket:
            await socket.subscribe('subscription { events(after: "2") { cursor } }')
            self.assertEqual(await socket.error(), {"code": "CURSOR_EXPIRED", "oldest": "3"})
            await socket.subscribe('subscription { events(after: "3") { cursor } }')
            self.assertEqual(await socket.next(), {"cursor": "4"})

    async def test_rest_refuses_an_expired_cursor(self) -> None:
        await self.write_and_trim()
        response = await self.async_client.get("/events/", {"after": "2"})
        self.assertEqual(response.status_code, 410)
        self.assertEqual((response.json()["code"], response.json()["oldest"]), ("CURSOR_EXPIRED", "3"))
        page = (await self.async_client.get("/events/", {"after": "3"})).json()
        self.assertEqual([event["cursor"] for event in page["events"]], ["4", "5"])

    async def test_the_plain_socket_refuses_an_expired_cursor(self) -> None:
        await self.write_and_trim()
        self.assertEqual(await self.refused("?after=2"), ({"type": "resync", "oldest": "3"}, 4410))
        socket = await self.connect("?after=3")
        self.assertEqual([(await self.frame(socket))["cursor"] for _ in range(3)], ["3", "4", "5"])
        await socket.disconnect()

    async def test_the_stream_refuses_an_expired_cursor(self) -> None:
        await self.write_and_trim()
        stream = {"Accept": "text/event-stream"}
        async with Exchange("GET", "/events/", query="after=2", headers=stream) as response:
            self.assertEqual(response.status, 410)
            refusal = response.json(await response.read())
            self.assertEqual((refusal["code"], refusal["oldest"]), ("CURSOR_EXPIRED", "3"))
        async with Exchange("GET", "/events/", query="after=3", headers=stream) as response:
            self.assertEqual([(await response.read()).split("\n")[0] for _ in range(3)], ["id: 3", "id: 4", "id: 5"])


class CatchingUpTests(ListenerCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(setattr, live, "_PAGE", live._PAGE)
        live._PAGE = 3

    async def refusal(self, listener: live.Listener) -> tuple[str, int]:
        with self.assertRaises(ResumeRefused) as refused:
            await asyncio.wait_for(listener.next(), 10)
        return refused.exception.code, refused.exception.oldest

    async def test_a_listener_whose_next_page_is_trimmed_ends(self) -> None:
        expected = [f"name {number}" for number in range(10)]
        await self.write(*expected)
        await age(up_to=8)
        async with live.listen(SYSTEM, after=0) as listener, live.listen(SYSTEM, after=0) as unread:
            self.assertEqual(await names(listener, 2), expected[:2])
            await trim(now=timezone.now())
            self.assertEqual(await names(listener, 1), expected[2:3])  # read before the trimming
            self.assertEqual(await self.refusal(listener), ("CURSOR_EXPIRED", 8))
            self.assertEqual(await self.refusal(unread), ("CURSOR_EXPIRED", 8))

    async def test_a_listener_that_has_read_the_trimmed_events_goes_on(self) -> None:
        expected = [f"name {number}" for number in range(6)]
        await self.write(*expected)
        await age(up_to=3)
        async with live.listen(SYSTEM, after=0) as listener:
            self.assertEqual(await names(listener, 1), expected[:1])
            await trim(now=timezone.now())
            self.assertEqual(await names(listener, 5), expected[1:])
            await self.write("live")
            self.assertEqual(await names(listener, 1), ["live"])


@override_settings(LIVE_POLL_S=60)
class StalledReaderTests(ListenerCase):
    """A reader stalls until events that it has not read are trimmed. It stalls because no notification reaches it."""

    async def test_the_listeners_of_the_reader_end_and_a_new_one_receives_all_retained_events(self) -> None:
        async with live.listen(SYSTEM) as listener:
            self.assertIsNone(await listener.next(timeout_s=0))
            await self.write_quietly("a", "b", "c")
            await age(up_to=2)
            await trim(now=timezone.now())
            await self.write("d")
            with self.assertRaises(ResumeRefused) as refused:
                await asyncio.wait_for(listener.next(), 10)
            self.assertEqual((refused.exception.code, refused.exception.oldest), ("CURSOR_EXPIRED", 2))
            async with live.listen(SYSTEM, after=2) as resumed:
                self.assertEqual(await names(resumed, 2), ["c", "d"])
                await self.write("e")
                self.assertEqual(await names(resumed, 1), ["e"])

    async def test_a_credential_ends_even_if_its_revocation_is_trimmed_before_it_is_read(self) -> None:
        user = await sync_to_async(UserFactory)()
        viewer = await sync_to_async(viewer_by_token)(await sync_to_async(token_of)(user), address="")
        token_id = (await Token.objects.aget()).pk

        def revoke() -> None:
            services.token.revoke_token(actor=SYSTEM, token_id=token_id)

        async with live.listen(SYSTEM):
            ending = asyncio.create_task(live.until_invalid(viewer))
            with self.assertRaises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ending), 0.3)
            await sync_to_async(self.write_unannounced)(revoke)
            await self.write_quietly("a")
            head = await sync_to_async(Event.head)()
            await age(up_to=head)
            await trim(now=timezone.now())
            await self.write("b")
            self.assertIsInstance(await asyncio.wait_for(ending, 10), InvalidCredential)
