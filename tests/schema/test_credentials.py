"""Token authentication of GraphQL, over HTTP and on a socket."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.test import Client, override_settings
from django.utils import timezone

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import Project, Role, Scope, Token
from tests.cases import CommittingCase, token_of
from tests.factories import MembershipFactory, UserFactory
from tests.schema.cases import ClosedCase, mutation
from tests.schema.sockets import TIMEOUT_S, GraphQLSocket, accepted, ready

ME = "{ me { name } }"
JSON = "application/json"


class BearerTests(ClosedCase):
    def setUp(self) -> None:
        self.membership = MembershipFactory(role=Role.OWNER)
        self.user = self.membership.user

    def send(self, token: str, query: str = ME, variables: Any = None, **headers: str) -> Any:
        return self.post(query, variables, Authorization=f"Bearer {token}", **headers)

    def test_a_token_authenticates_its_user(self) -> None:
        response = self.send(token_of(self.user, Scope.READ))
        self.assertEqual(response.json()["data"], {"me": {"name": self.user.username}})

    def test_a_token_takes_precedence_over_a_session_and_needs_no_csrf_token(self) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.client.force_login(UserFactory())
        response = self.send(token_of(self.user))
        self.assertEqual(response.json()["data"], {"me": {"name": self.user.username}})

    def test_an_invalid_token_is_refused_even_with_a_session(self) -> None:
        self.client.force_login(self.user)
        for token in ("", "x", "tw_" + "A" * 43, "x" * 10_240):
            with self.subTest(token[:10]):
                response = self.send(token)
                self.assertEqual(response.status_code, 401)
                self.assertEqual(response.json()["errors"][0]["extensions"], {"code": "UNAUTHENTICATED"})
                self.assertIn('error="invalid_token"', response["WWW-Authenticate"])

    def test_a_mutation_beyond_the_scope_of_its_token_is_403_and_names_the_required_scope(self) -> None:
        token = token_of(self.user, Scope.READ)
        self.send(token)
        with self.nothing_changes():
            response = self.send(token, mutation("createProject"), {"input": {"name": "New"}})
        self.assertEqual(response.status_code, 403)
        self.assertIn('error="insufficient_scope"', response["WWW-Authenticate"])
        [error] = response.json()["errors"]
        self.assertEqual(error["extensions"], {"code": "INSUFFICIENT_SCOPE", "scope": "write"})

    def test_in_plain_json_a_missing_scope_is_in_the_body_only(self) -> None:
        token = token_of(self.user, Scope.READ)
        response = self.send(token, mutation("createProject"), {"input": {"name": "New"}}, Accept=JSON)
        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json()["errors"][0]["extensions"]["scope"], "write")
        self.assertEqual(Project.objects.count(), 1)


class SocketTests(CommittingCase):
    def setUp(self) -> None:
        self.user = MembershipFactory(role=Role.OWNER).user

    async def token(self, scope: str = Scope.READ) -> str:
        return await sync_to_async(token_of)(self.user, scope)

    async def assert_authenticated(self, **options: Any) -> None:
        async with ready(**options) as socket:
            self.assertEqual(await socket.answer(ME), {"data": {"me": {"name": self.user.username}}})

    async def assert_refused(self, **options: Any) -> None:
        async with accepted(**options) as socket:
            await socket.init()
            self.assertEqual(await socket.close_code(), 4401)

    async def test_a_token_is_sent_in_a_header_or_in_the_first_message(self) -> None:
        bearer = f"Bearer {await self.token()}"
        await self.assert_authenticated(authorization=bearer)
        await self.assert_authenticated(payload={"Authorization": bearer})
        await self.assert_authenticated(payload={"authorization": bearer, "else": 5})

    async def test_an_invalid_token_closes_the_socket_with_4401(self) -> None:
        for header in ("Bearer x", "", "Bearer tw_" + "A" * 43, "Bearer " + "x" * 10_240):
            with self.subTest(header[:10]):
                await self.assert_refused(payload={"Authorization": header})
        await self.assert_refused(authorization="Bearer x")
        await self.assert_refused(payload={"Authorization": 5})

    async def test_the_header_takes_precedence_over_the_first_message_and_both_over_a_session(self) -> None:
        other = await sync_to_async(UserFactory)()
        await sync_to_async(self.client.force_login)(other)
        session = self.client.cookies["sessionid"].value
        bearer = f"Bearer {await self.token()}"
        await self.assert_authenticated(session=session, payload={"Authorization": bearer})
        await self.assert_authenticated(session=session, authorization=bearer, payload={"Authorization": "Bearer x"})

    async def test_a_mutation_beyond_the_scope_of_its_token_names_the_required_scope(self) -> None:
        async with ready(authorization=f"Bearer {await self.token()}") as socket:
            result = await socket.answer(mutation("createProject"), input={"name": "New"})
        self.assertEqual(result["errors"][0]["extensions"], {"code": "INSUFFICIENT_SCOPE", "scope": "write"})
        self.assertEqual(await Project.objects.acount(), 1)

    async def test_a_revoked_token_closes_its_sockets_and_no_other(self) -> None:
        first, second = [f"Bearer {await self.token()}" for _ in range(2)]
        async with ready(authorization=first) as ended, ready(authorization=second) as still_open:
            token = await Token.objects.order_by("pk").afirst()
            assert token is not None
            await sync_to_async(services.token.revoke_token)(actor=SYSTEM, token_id=token.pk)
            self.assertEqual(await ended.close_code(), 4401)
            self.assertEqual(await still_open.answer(ME), {"data": {"me": {"name": self.user.username}}})

    async def test_a_socket_that_closes_while_it_opens_leaves_no_task(self) -> None:
        bearer = f"Bearer {await self.token()}"
        for _ in range(3):
            socket = GraphQLSocket(authorization=bearer)
            await socket.connect()
            await socket.init()
            await socket.communicator.send_input({"type": "websocket.disconnect", "code": 1000})
            await socket.communicator.wait(timeout=TIMEOUT_S)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        # The receiver of the channel layer lives as long as the event loop.
        self.assertEqual([task for task in tasks if "_do_receiving" not in repr(task.get_coro())], [])

    @override_settings(LIVE_POLL_S=0.2)
    async def test_a_token_that_expires_closes_its_sockets(self) -> None:
        secret = await self.token()
        await Token.objects.aupdate(expires_at=timezone.now() + timedelta(seconds=3))
        async with ready(authorization=f"Bearer {secret}") as socket:
            self.assertEqual(await socket.close_code(), 4401)

    async def test_signing_out_closes_the_sockets_of_that_session(self) -> None:
        await sync_to_async(self.client.force_login)(self.user)
        async with ready(session=self.client.cookies["sessionid"].value) as socket:
            await sync_to_async(self.client.post)("/accounts/sign-out/")
            self.assertEqual(await socket.close_code(), 4401)

    async def test_deleting_an_account_closes_its_sockets(self) -> None:
        async with ready(authorization=f"Bearer {await self.token()}") as socket:
            await sync_to_async(services.user.delete_user)(actor=SYSTEM, user_id=self.user.pk)
            self.assertEqual(await socket.close_code(), 4401)
