"""`/ws/notifications/`, through all layers of a socket: host, origin, session, route."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client, override_settings
from django.utils import timezone
from websockets.sync.client import connect

from backend.asgi import sockets
from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import Role, Task, User
from backend.projects.rows import CommentRow, ProjectRow, ReportRow, TaskRow
from tests.cases import CommittingCase, ServerCase
from tests.factories import MembershipFactory, TaskFactory, UserFactory


class SocketCase(CommittingCase):
    def setUp(self) -> None:
        self.task: Task = TaskFactory(title="Old")
        self.open: list[WebsocketCommunicator] = []

    async def connect(self, query: str = "", user: User | None = None, **headers: str) -> WebsocketCommunicator:
        sent = {"host": "localhost", **headers}
        if user is not None:
            sent["cookie"] = await sync_to_async(_session_cookie)(user)
        encoded = [(name.encode(), value.encode()) for name, value in sent.items()]
        socket = WebsocketCommunicator(sockets, f"/ws/notifications/{query}", headers=encoded)
        self.accepted, _ = await socket.connect(timeout=10)
        return socket

    async def frame(self, socket: WebsocketCommunicator) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await socket.receive_from(timeout=10))
        return frame

    async def refused(self, query: str, **options: Any) -> tuple[dict[str, Any], int]:
        """The only frame, and the close code after it."""
        socket = await self.connect(query, **options)
        frame = await self.frame(socket)
        closed = await socket.receive_output(timeout=10)
        self.assertEqual(closed["type"], "websocket.close")
        await socket.disconnect()
        return frame, closed["code"]

    async def rename(self, title: str) -> None:
        update = sync_to_async(services.task.update_task)
        await update(actor=SYSTEM, task_id=self.task.pk, changes={"title": title})


def _session_cookie(user: User) -> str:
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


@override_settings(ACCESS="open")
class FrameTests(SocketCase):
    async def test_each_kind_of_event_has_its_frame(self) -> None:
        socket = await self.connect()
        self.assertEqual(await self.frame(socket), {"type": "ready", "cursor": "0"})
        created, commented, deleted = await sync_to_async(self.write)()
        frames = [await self.frame(socket) for _ in range(5)]
        for cursor, frame in enumerate(frames, start=1):
            self.assertEqual((frame.pop("cursor"), frame.pop("actor")), (str(cursor), None))
            self.assertRegex(frame.pop("at"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        project = self.task.project_id
        self.assertEqual(
            frames,
            [
                {"type": "task.created", "project": project, "task": created.as_json()},
                {
                    "type": "task.updated",
                    "project": project,
                    "task": deleted.as_json(),
                    "changes": ["title", "due_date"],
                },
                {
                    "type": "task.commented",
                    "project": project,
                    "comment": commented.as_json(),
                    "task": deleted.as_json(),
                },
                {"type": "task.deleted", "project": project, "task": deleted.as_json()},
                {
                    "type": "project.updated",
                    "project": project,
                    "object": self.project.as_json(),
                    "changes": ["name"],
                },
            ],
        )
        await socket.disconnect()

    def write(self) -> tuple[TaskRow, CommentRow, TaskRow]:
        project_id = self.task.project_id
        task = services.task.create_task(
            actor=SYSTEM, project_id=project_id, changes={"title": "Draw", "due_date": self.task.due_date}
        )
        created = TaskRow.of(task)
        services.task.update_task(
            actor=SYSTEM, task_id=task.pk, changes={"title": "Drawn", "due_date": datetime(2027, 3, 1, tzinfo=UTC)}
        )
        comment = services.comment.add_comment(actor=SYSTEM, task_id=task.pk, content="Fine.", author="Bob")
        deleted = services.task.delete_task(actor=SYSTEM, task_id=task.pk)
        project = services.project.update_project(actor=SYSTEM, project_id=project_id, changes={"name": "New"})
        self.project = ProjectRow.of(project)
        return created, CommentRow.of(comment), deleted

    async def test_a_new_report_is_received(self) -> None:
        socket = await self.connect("?kinds=report.generated")
        await self.frame(socket)
        day = timezone.now().date() - timedelta(days=1)
        report = await sync_to_async(services.report.generate)(self.task.project_id, day)
        frame = await self.frame(socket)
        self.assertEqual(
            (frame["type"], frame["project"], frame["report"]),
            ("report.generated", self.task.project_id, ReportRow.of(report).as_json()),
        )
        await socket.disconnect()

    async def test_a_socket_resumes_after_a_position(self) -> None:
        await self.rename("One")
        await self.rename("Two")
        socket = await self.connect("?after=1")
        self.assertEqual((await self.frame(socket))["cursor"], "1")
        await self.rename("Three")
        titles = [(await self.frame(socket))["task"]["title"] for _ in range(2)]
        self.assertEqual(titles, ["Two", "Three"])
        await socket.disconnect()

    async def test_a_socket_is_filtered_by_project_and_kinds(self) -> None:
        other = await sync_to_async(TaskFactory)()
        socket = await self.connect(f"?kinds=task.deleted,project.deleted&project={self.task.project_id}")
        await self.frame(socket)
        await self.rename("unheard")
        await sync_to_async(services.task.delete_task)(actor=SYSTEM, task_id=other.pk)
        await sync_to_async(services.task.delete_task)(actor=SYSTEM, task_id=self.task.pk)
        frame = await self.frame(socket)
        self.assertEqual((frame["type"], frame["task"]["id"]), ("task.deleted", self.task.pk))
        await socket.disconnect()

    @override_settings(LIVE_IDLE_S=0.05)
    async def test_an_idle_socket_receives_its_position(self) -> None:
        socket = await self.connect("?kinds=project.deleted")
        await self.frame(socket)
        await self.rename("unheard")
        async with asyncio.timeout(10):
            while (frame := await self.frame(socket)) == {"type": "cursor", "cursor": "0"}:
                pass
        self.assertEqual(frame, {"type": "cursor", "cursor": "1"})
        await socket.disconnect()

    async def test_the_first_frame_of_a_client_that_is_signed_in_is_ignored(self) -> None:
        for frame in ({"text_data": "[]"}, {"text_data": "nonsense"}, {"text_data": "\x00"}, {"bytes_data": b"\xff"}):
            with self.subTest(frame):
                socket = await self.connect()
                await self.frame(socket)
                await socket.send_to(**frame)
                await self.rename(f"heard {frame}")
                self.assertEqual((await self.frame(socket))["type"], "task.updated")
                await socket.disconnect()

    async def test_a_second_frame_of_the_client_closes_the_socket(self) -> None:
        for frames in (["x", "x"], ['{"type": "authenticate", "token": "x"}', "again"], ["a", "b", "c", "d"]):
            with self.subTest(frames):
                socket = await self.connect()
                self.assertEqual((await self.frame(socket))["type"], "ready")
                for frame in frames:
                    await socket.send_to(text_data=frame)
                self.assertEqual(await socket.receive_output(timeout=10), {"type": "websocket.close", "code": 1008})
                await socket.disconnect()

    async def test_a_socket_that_the_server_has_closed_receives_no_more_frames(self) -> None:
        socket = await self.connect()
        await self.frame(socket)
        for _ in range(2):
            await socket.send_to(text_data="x")
        await socket.receive_output(timeout=10)
        await self.rename("New")
        self.assertTrue(await socket.receive_nothing())
        await socket.disconnect()


@override_settings(ACCESS="open", LIVE_POLL_S=0.2)
class WithoutRedisTests(SocketCase):
    async def test_a_socket_opens_and_receives_events_by_polling(self) -> None:
        unreachable = {**settings.CHANNEL_LAYERS["default"], "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"]}}
        with self.settings(CHANNEL_LAYERS={"default": unreachable}), self.assertLogs("backend.projects", "WARNING"):
            socket = await self.connect()
            self.assertEqual((await self.frame(socket))["type"], "ready")
            await self.rename("heard")
            self.assertEqual((await self.frame(socket))["task"]["title"], "heard")
            await socket.disconnect()


@override_settings(ACCESS="open")
class RefusalTests(SocketCase):
    async def test_an_invalid_parameter_closes_the_socket_with_4400_and_is_named(self) -> None:
        for query, name in (
            ("?after=x", "after"),
            ("?after=", "after"),
            ("?after=-1", "after"),
            ("?after=9223372036854775808", "after"),
            ("?kinds=task.exploded", "kinds"),
            ("?kinds=", "kinds"),
            ("?nonsense=1", "nonsense"),
            ("?after=0&after=1", "after"),
        ):
            with self.subTest(query):
                frame, code = await self.refused(query)
                self.assertEqual((frame["type"], frame["message"].split(":")[0], code), ("error", name, 4400))

    async def test_an_absent_project_closes_with_4403(self) -> None:
        for project in ("0", "-1", "2147483648", "9223372036854775808", "abc", str(self.task.project_id + 1)):
            with self.subTest(project):
                frame, code = await self.refused(f"?project={project}")
                self.assertEqual((frame, code), ({"type": "error", "message": "There is no such project."}, 4403))

    async def test_a_position_not_yet_reached_closes_with_4410(self) -> None:
        self.assertEqual(await self.refused("?after=7"), ({"type": "resync", "oldest": "0"}, 4410))

    @override_settings(LIVE_IDLE_S="nonsense")
    async def test_an_internal_error_closes_with_4500(self) -> None:
        with self.assertLogs("rest.consumers", "ERROR"):
            frame, code = await self.refused("")
        self.assertEqual((frame["type"], code), ("ready", 4500))

    async def test_an_unknown_address_is_refused(self) -> None:
        socket = WebsocketCommunicator(sockets, "/ws/nowhere/", headers=[(b"host", b"localhost")])
        self.assertEqual((await socket.connect())[0], False)

    async def test_an_invalid_session_cookie_is_ignored(self) -> None:
        socket = await self.connect(cookie='sessionid="a\\000b1234567890"')
        self.assertEqual((await self.frame(socket))["type"], "ready")
        await socket.disconnect()

    async def test_a_foreign_origin_or_host_is_refused(self) -> None:
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"host": "evil.example"},
            {"host": ""},
            {"host": "localhost:80", "origin": "http://localhost:81"},
        ):
            with self.subTest(headers=headers):
                await self.connect(**headers)
                self.assertFalse(self.accepted)

    async def test_the_same_origin_and_a_client_without_one_are_accepted(self) -> None:
        for headers in (
            {},
            {"origin": "http://localhost"},
            {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"},
        ):
            with self.subTest(headers=headers):
                socket = await self.connect(**headers)
                self.assertTrue(self.accepted)
                await socket.disconnect()


class ClosedModeTests(SocketCase):
    @override_settings(SOCKET_INIT_S=0.1)
    async def test_an_anonymous_client_is_refused_with_4403(self) -> None:
        self.assertEqual(await self.refused(""), ({"type": "error", "message": "Sign in first."}, 4403))

    async def test_a_member_receives_events_of_their_own_projects_only(self) -> None:
        member = await sync_to_async(MembershipFactory)(role=Role.VIEWER)
        mine = await sync_to_async(TaskFactory)(project=member.project)
        socket = await self.connect(user=member.user)
        await self.frame(socket)
        await self.rename("unheard")
        await sync_to_async(services.task.delete_task)(actor=SYSTEM, task_id=mine.pk)
        self.assertEqual((await self.frame(socket))["type"], "task.deleted")
        await socket.disconnect()

    async def test_another_teams_project_is_refused_like_an_absent_one(self) -> None:
        stranger = await sync_to_async(UserFactory)()
        frame, code = await self.refused(f"?project={self.task.project_id}", user=stranger)
        self.assertEqual((frame["message"], code), ("There is no such project.", 4403))


class Served:
    """Tests that run on daphne and on uvicorn."""

    def test_a_change_by_another_process_is_received_and_a_resume_repeats_nothing(self) -> None:
        task = TaskFactory()
        with connect(f"{self.ws_url}/ws/notifications/") as socket:
            self.assertEqual(json.loads(socket.recv(10)), {"type": "ready", "cursor": "0"})
            services.task.update_task(actor=SYSTEM, task_id=task.pk, changes={"title": "One"})
            first = json.loads(socket.recv(10))
        services.task.update_task(actor=SYSTEM, task_id=task.pk, changes={"title": "Two"})
        with connect(f"{self.ws_url}/ws/notifications/?after={first['cursor']}") as socket:
            self.assertEqual(json.loads(socket.recv(10)), {"type": "ready", "cursor": "1"})
            self.assertEqual(json.loads(socket.recv(10))["task"]["title"], "Two")


class DaphneTests(Served, ServerCase):
    environment = {"SERVER": "daphne"}


class UvicornTests(Served, ServerCase):
    environment = {"SERVER": "uvicorn"}
