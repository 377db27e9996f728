"""`/events/` as server-sent events, with real commits."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection, transaction
from django.test import Client
from django.test.utils import override_settings

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import Event, Scope, Token
from tests.cases import CommittingCase, token_of
from tests.factories import MembershipFactory, TaskFactory, UserFactory
from tests.rest.asgi import Exchange


def stream(query: str = "", **headers: str) -> Exchange:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange("GET", "/events/", query=query, headers={"Accept": "text/event-stream", **named})


class Frames:
    """The frames of a stream with their ids, parsed as EventSource does."""

    def __init__(self, response: Exchange) -> None:
        self.response = response

    async def next(self) -> tuple[str | None, dict[str, Any]] | None:
        text = await self.response.read()
        if not text:
            return None
        assert text.endswith("\n\n"), text
        fields = dict(line.split(": ", 1) for line in text.strip().split("\n"))
        assert set(fields) <= {"id", "data"}, text
        return fields.get("id"), json.loads(fields["data"])


async def rename(task: Any, *titles: str) -> None:
    for title in titles:
        await sync_to_async(services.task.update_task)(actor=SYSTEM, task_id=task.pk, changes={"title": title})


@override_settings(ACCESS="open")
class StreamTest(CommittingCase):
    def setUp(self) -> None:
        self.task = TaskFactory()

    async def titles(self, frames: Frames, number: int) -> list[tuple[str | None, str]]:
        found = [await frames.next() for _ in range(number)]
        return [(position, frame["task"]["title"]) for position, frame in filter(None, found)]

    async def test_a_stream_starts_with_its_position_and_sends_events(self) -> None:
        await rename(self.task, "before")
        async with stream() as response:
            frames = Frames(response)
            self.assertEqual(response.status, 200)
            self.assertEqual(response.headers["content-type"], "text/event-stream")
            self.assertEqual(response.headers["cache-control"], "no-cache")
            self.assertEqual(response.headers["x-accel-buffering"], "no")
            self.assertEqual(await frames.next(), ("1", {"type": "ready", "cursor": "1"}))
            await rename(self.task, "after")
            position, frame = await frames.next() or (None, {})
        page = await self.async_client.get("/events/?after=1")
        self.assertEqual((position, [frame]), ("2", page.json()["events"]))

    async def test_a_stream_resumes_after_a_position_without_a_gap(self) -> None:
        await rename(self.task, "one", "two", "three")
        async with stream("after=1") as response:
            frames = Frames(response)
            self.assertEqual(await frames.next(), ("1", {"type": "ready", "cursor": "1"}))
            self.assertEqual(await self.titles(frames, 2), [("2", "two"), ("3", "three")])
            await rename(self.task, "four")
            self.assertEqual(await self.titles(frames, 1), [("4", "four")])

    async def test_a_client_that_reconnects_resumes_from_its_last_event(self) -> None:
        await rename(self.task, "one", "two", "three")
        async with stream("after=0", Last_Event_ID="2") as response:
            frames = Frames(response)
            self.assertEqual(await frames.next(), ("2", {"type": "ready", "cursor": "2"}))
            self.assertEqual(await self.titles(frames, 1), [("3", "three")])

    async def test_a_stream_is_filtered_by_project_and_kinds(self) -> None:
        other = await sync_to_async(TaskFactory)()
        async with stream(f"after=0&project={self.task.project_id}&kinds=task.updated,task.deleted") as response:
            frames = Frames(response)
            await frames.next()
            await rename(other, "elsewhere")
            await sync_to_async(services.comment.add_comment)(
                actor=SYSTEM, task_id=self.task.pk, content="Hm.", author="Ada"
            )
            await rename(self.task, "here")
            self.assertEqual(await self.titles(frames, 1), [("3", "here")])

    @override_settings(LIVE_IDLE_S=0.1)
    async def test_an_idle_stream_sends_its_position(self) -> None:
        async with stream("kinds=task.deleted") as response:
            frames = Frames(response)
            await frames.next()
            await rename(self.task, "unheard")
            while (frame := await frames.next()) == ("0", {"type": "cursor", "cursor": "0"}):
                pass
            self.assertEqual(frame, ("1", {"type": "cursor", "cursor": "1"}))

    @override_settings(LIVE_LISTENERS_PER_VIEWER=1)
    async def test_a_client_that_disconnects_while_its_stream_opens_frees_its_slot(self) -> None:
        for _ in range(5):
            server = stream()._server
            await server.send_input({"type": "http.request", "body": b"", "more_body": False})
            await server.send_input({"type": "http.disconnect"})
            await server.wait(10)
        for _ in range(200):
            async with stream() as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.02)
        self.fail("The slot of a disconnected client is still occupied.")

    async def test_idle_streams_use_neither_threads_nor_connections(self) -> None:
        async with AsyncExitStack() as streams:
            for _ in range(3 * settings.DATABASE_CONNECTIONS):
                frames = Frames(await streams.enter_async_context(stream()))
                self.assertEqual(await frames.next(), ("0", {"type": "ready", "cursor": "0"}))
            # The connections of the request threads, of the journal's reader, two of listeners, and that of this test.
            self.assertLessEqual(await sync_to_async(number_of_connections)(), settings.DATABASE_CONNECTIONS + 4)
            async with Exchange("GET", f"/tasks/{self.task.pk}/") as response:
                self.assertEqual(response.status, 200)

    @override_settings(LIVE_QUEUE_EVENTS=1, LIVE_IDLE_S=0.1)
    async def test_a_stream_that_falls_behind_ends_with_resync(self) -> None:
        async with stream() as response:
            frames = Frames(response)
            await frames.next()
            self.assertEqual(await frames.next(), ("0", {"type": "cursor", "cursor": "0"}))
            await sync_to_async(transaction.atomic(self._rename_thrice))()
            last = frame = await frames.next()
            while frame is not None:
                last, frame = frame, await frames.next()
            self.assertEqual(last, (None, {"type": "resync", "oldest": "0"}))

    def _rename_thrice(self) -> None:
        for title in "abc":
            services.task.update_task(actor=SYSTEM, task_id=self.task.pk, changes={"title": title})

    async def test_no_asyncio_task_is_left_after_a_client_disconnects(self) -> None:
        async with stream():
            pass  # opens the process's own connections, such as the one to Redis
        before = asyncio.all_tasks()
        async with stream() as response:
            await Frames(response).next()
            self.assertGreater(asyncio.all_tasks(), before)
        self.assertEqual(asyncio.all_tasks(), before)

    async def test_a_position_that_cannot_be_resumed_is_refused_before_the_stream(self) -> None:
        await rename(self.task, "one", "two", "three")
        await Event.objects.filter(position=1).adelete()
        for query, headers, code in [
            ("after=0", {}, "CURSOR_EXPIRED"),
            ("after=4", {}, "RESYNC"),
            ("after=2", {"Last_Event_ID": "0"}, "CURSOR_EXPIRED"),
        ]:
            with self.subTest(query=query, headers=headers):
                async with stream(query, **headers) as response:
                    refusal = response.json(await response.read())
                self.assertEqual((response.status, response.headers["content-type"]), (410, "application/json"))
                self.assertEqual((refusal["code"], refusal["oldest"]), (code, "1"))

    async def test_the_refusal_of_a_bad_parameter_is_json_and_names_it(self) -> None:
        for query, headers, name in [
            ("after=x", {}, "after"),
            ("kinds=task.eaten", {}, "kinds"),
            ("colour=red", {}, "colour"),
            ("", {"Last_Event_ID": "x"}, "Last-Event-ID"),
        ]:
            with self.subTest(query=query, headers=headers):
                async with stream(query, **headers) as response:
                    refusal = response.json(await response.read())
                self.assertEqual((response.status, response.headers["content-type"]), (400, "application/json"))
                self.assertEqual(list(refusal), [name])

    async def test_head_opens_no_stream(self) -> None:
        async with Exchange("HEAD", "/events/", headers={"Accept": "text/event-stream"}) as response:
            self.assertEqual((response.status, response.headers["content-type"]), (200, "application/json"))
            await response.read()
            self.assertEqual(await response.read(), "")


@override_settings(ACCESS="closed")
class StreamAccessTest(CommittingCase):
    def setUp(self) -> None:
        self.membership = MembershipFactory(role="viewer")
        self.task = TaskFactory(project=self.membership.project)

    async def cookie(self, user: Any) -> str:
        client = Client()
        await sync_to_async(client.force_login)(user)
        return f"sessionid={client.cookies['sessionid'].value}"

    async def refused(self, query: str = "", **headers: str) -> tuple[int, str]:
        async with stream(query, **headers) as response:
            await response.read()
        return response.status, response.headers["content-type"]

    async def test_an_anonymous_request_is_a_401(self) -> None:
        self.assertEqual(await self.refused(), (401, "application/json"))

    async def test_a_project_that_is_not_visible_is_not_found(self) -> None:
        stranger = await self.cookie(await sync_to_async(UserFactory)())
        for project in (self.task.project_id, 999999, 0):
            with self.subTest(project):
                response = await self.refused(f"project={project}", Cookie=stranger)
                self.assertEqual(response, (404, "application/json"))

    async def test_a_member_receives_events_of_the_project_until_they_leave_it(self) -> None:
        other = await sync_to_async(MembershipFactory)(user=self.membership.user)
        elsewhere = await sync_to_async(TaskFactory)(project=other.project)
        async with stream(Cookie=await self.cookie(self.membership.user)) as response:
            frames = Frames(response)
            await frames.next()
            await rename(self.task, "visible")
            position, frame = await frames.next() or (None, {})
            self.assertEqual((position, frame["task"]["title"]), ("1", "visible"))
            await sync_to_async(services.membership.remove_member)(
                actor=SYSTEM, project_id=self.task.project_id, user_id=self.membership.user_id
            )
            await rename(self.task, "unheard")
            await rename(elsewhere, "still visible")
            position, frame = await frames.next() or (None, {})
            self.assertEqual((position, frame["task"]["title"]), ("4", "still visible"))

    async def test_a_stream_of_one_project_ends_when_the_viewer_loses_access(self) -> None:
        cookie = await self.cookie(self.membership.user)
        async with stream(f"project={self.task.project_id}", Cookie=cookie) as response:
            frames = Frames(response)
            await frames.next()
            await sync_to_async(services.membership.remove_member)(
                actor=SYSTEM, project_id=self.task.project_id, user_id=self.membership.user_id
            )
            self.assertIsNone(await frames.next())

    async def test_a_stream_ends_when_its_token_is_revoked(self) -> None:
        secret = await sync_to_async(token_of)(self.membership.user, Scope.READ)
        async with stream(Authorization=f"Bearer {secret}") as response:
            frames = Frames(response)
            await frames.next()
            token = await Token.objects.aget()
            await sync_to_async(services.token.revoke_token)(actor=SYSTEM, token_id=token.pk)
            self.assertIsNone(await frames.next())

    async def test_a_stream_ends_when_the_account_is_deactivated(self) -> None:
        user = self.membership.user
        async with stream(Cookie=await self.cookie(user)) as response:
            frames = Frames(response)
            await frames.next()
            user.is_active = False
            await sync_to_async(services.user.save_user)(actor=SYSTEM, user=user)
            self.assertIsNone(await frames.next())


def number_of_connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        number: int = cursor.fetchone()[0]
        return number
