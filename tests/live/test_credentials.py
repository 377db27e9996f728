"""Tokens on `/ws/notifications/` and in `live`: how they authenticate, and how their revocation closes connections."""

from __future__ import annotations

import json
from typing import Any

from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.test import override_settings

from backend.projects import live, services
from backend.projects.access import SYSTEM
from backend.projects.authentication import viewer_by_token
from backend.projects.errors import InvalidCredential, ProjectNotFound
from backend.projects.journal import JournalEvent
from backend.projects.models import Membership, Role, Scope, Token
from backend.projects.visibility import EventFilter
from tests.cases import token_of
from tests.factories import MembershipFactory
from tests.live.test_notifications import SocketCase

revoke = sync_to_async(services.token.revoke_token)


class SocketTests(SocketCase):
    def setUp(self) -> None:
        super().setUp()
        self.membership: Membership = MembershipFactory(project=self.task.project)
        self.token = token_of(self.membership.user, Scope.READ)

    async def send(self, socket: WebsocketCommunicator, frame: Any) -> None:
        await socket.send_to(frame if isinstance(frame, str) else json.dumps(frame))

    async def closed(self, socket: WebsocketCommunicator) -> tuple[str, int]:
        """The message of the last frame, and the close code after it."""
        message = (await self.frame(socket))["message"]
        closing = await socket.receive_output(timeout=10)
        await socket.disconnect()
        return message, closing["code"]

    async def test_a_token_may_be_sent_in_a_header(self) -> None:
        socket = await self.connect(authorization=f"Bearer {self.token}")
        self.assertEqual((await self.frame(socket))["type"], "ready")
        await self.rename("New")
        self.assertEqual((await self.frame(socket))["task"]["title"], "New")
        await socket.disconnect()

    async def test_a_token_may_be_sent_in_the_first_frame(self) -> None:
        socket = await self.connect()
        await self.send(socket, {"type": "authenticate", "token": self.token})
        self.assertEqual((await self.frame(socket))["type"], "ready")
        await self.rename("New")
        self.assertEqual((await self.frame(socket))["task"]["title"], "New")
        await socket.disconnect()

    async def test_a_token_in_the_query_string_is_refused(self) -> None:
        socket = await self.connect(f"?token={self.token}", authorization=f"Bearer {self.token}")
        self.assertEqual(await self.closed(socket), ("token: There is no such parameter.", 4400))

    async def test_an_invalid_token_closes_the_socket_with_4401(self) -> None:
        socket = await self.connect(authorization="Bearer x")
        self.assertEqual((await self.closed(socket))[1], 4401)
        for token in ("", "x", "tw_" + "A" * 43, "x" * 10_240):
            with self.subTest(token[:10]):
                socket = await self.connect()
                await self.send(socket, {"type": "authenticate", "token": token})
                self.assertEqual((await self.closed(socket))[1], 4401)

    async def test_a_malformed_first_frame_closes_the_socket_with_4400(self) -> None:
        for frame in (" ", "x", "[]", "5", "[" * 10_000, {}, {"type": "authenticate"}, {"token": self.token}):
            with self.subTest(str(frame)[:20]):
                socket = await self.connect()
                await self.send(socket, frame)
                self.assertEqual((await self.closed(socket))[1], 4400)
        socket = await self.connect()
        await socket.send_to(bytes_data=b"\x00")
        self.assertEqual((await self.closed(socket))[1], 4400)

    @override_settings(SOCKET_INIT_S=0.1)
    async def test_a_client_that_sends_no_token_is_anonymous_even_with_invalid_parameters(self) -> None:
        for query in ("", "?after=x", "?project=999999"):
            socket = await self.connect(query)
            self.assertEqual(await self.closed(socket), ("Sign in first.", 4403))

    async def test_a_revoked_token_closes_its_sockets_and_no_other(self) -> None:
        other = await sync_to_async(token_of)(self.membership.user)
        revoked = await self.connect(authorization=f"Bearer {self.token}")
        still_open = await self.connect(authorization=f"Bearer {other}")
        await self.frame(revoked)
        await self.frame(still_open)
        token = await Token.objects.order_by("pk").afirst()
        assert token is not None
        await revoke(actor=SYSTEM, token_id=token.pk)
        self.assertEqual((await self.closed(revoked))[1], 4401)
        await self.rename("New")
        self.assertEqual((await self.frame(still_open))["task"]["title"], "New")
        await still_open.disconnect()

    @override_settings(LIVE_POLL_S=0.2)
    async def test_a_revocation_without_a_notification_takes_effect_at_the_next_poll(self) -> None:
        socket = await self.connect(authorization=f"Bearer {self.token}")
        await self.frame(socket)
        token = await Token.objects.aget()
        write_unannounced = sync_to_async(self.write_unannounced)
        await write_unannounced(lambda: services.token.revoke_token(actor=SYSTEM, token_id=token.pk))
        self.assertEqual((await self.closed(socket))[1], 4401)


class ListenerTests(SocketCase):
    async def test_a_listener_of_one_project_ends_when_its_viewer_loses_access_to_the_project(self) -> None:
        membership = await sync_to_async(MembershipFactory)(project=self.task.project, role=Role.VIEWER)
        secret = await sync_to_async(token_of)(membership.user)
        viewer = await sync_to_async(viewer_by_token)(secret, address="")
        one_project = EventFilter(project_id=self.task.project_id)
        async with live.listen(viewer, filter=one_project) as listener, live.listen(viewer) as unfiltered:
            await sync_to_async(services.membership.remove_member)(
                actor=SYSTEM, project_id=self.task.project_id, user_id=membership.user_id
            )
            with self.assertRaises(ProjectNotFound):
                await listener.next(timeout_s=10)
            other = await sync_to_async(services.project.create_project)(actor=viewer, name="Other")
            self.assertEqual((await self.next_event(unfiltered)).project_id, other.pk)

    async def test_two_tokens_of_one_user_have_separate_permissions(self) -> None:
        membership = await sync_to_async(MembershipFactory)(project=self.task.project)
        viewers = []
        for scope in (Scope.READ, Scope.WRITE):
            secret = await sync_to_async(token_of)(membership.user, scope)
            viewers.append(await sync_to_async(viewer_by_token)(secret, address=""))
        async with live.listen(viewers[0]) as reading, live.listen(viewers[1]) as writing:
            self.assertEqual((reading.viewer, writing.viewer), tuple(viewers))
            await revoke(actor=SYSTEM, token_id=viewers[0].token_id)
            with self.assertRaises(InvalidCredential):
                await reading.next(timeout_s=10)
            await self.rename("heard")
            self.assertEqual((await self.next_event(writing)).data["task"]["title"], "heard")

    async def test_a_listener_does_not_join_permissions_that_have_ended(self) -> None:
        membership = await sync_to_async(MembershipFactory)(project=self.task.project)
        secret = await sync_to_async(token_of)(membership.user)
        viewer = await sync_to_async(viewer_by_token)(secret, address="")
        reader = live._reader()
        async with reader.attached(), reader.permissions_of(viewer) as permissions:
            reader._end(permissions, InvalidCredential("It has expired."))
            self.assertEqual(reader._permissions, {})
            permissions.holders += 1
            reader._permissions[live._credential(viewer)] = permissions  # as an earlier listener leaves it
            with self.assertRaises(InvalidCredential):
                async with live.listen(viewer):
                    pass

    async def next_event(self, listener: live.Listener) -> JournalEvent:
        event = await listener.next(timeout_s=10)
        assert event is not None
        return event
