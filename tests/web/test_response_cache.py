"""Answers out of Redis, ahead of Django: met as a server meets them, over ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.test import override_settings
from django.urls import get_resolver

from backend.projects import services
from backend.projects.access import SYSTEM
from backend.projects.models import Role, Token
from backend.web.handler import Handler
from backend.web.response_cache import _LISTS, ResponseCache
from rest.base import ListView
from tests.cases import CommittingCase, token_of
from tests.factories import (
    CommentFactory,
    MembershipFactory,
    TaskFactory,
    UserFactory,
)
from tests.rest.asgi import Exchange

TASKS = "{ tasks { nodes { title } } }"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Counted:
    """Django's handler, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.handler = Handler()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await self.handler(scope, receive, send)


class ResponseCacheCase(CommittingCase):
    def setUp(self) -> None:
        self.membership = MembershipFactory(role=Role.OWNER)
        self.project = self.membership.project
        self.task = TaskFactory(project=self.project, title="Old")
        self.token = token_of(self.membership.user)
        self.django = Counted()
        self.door = ResponseCache(self.django)

    async def ask(
        self, path: str, *, token: str | None = None, method: str = "GET", body: bytes = b"", **headers: str
    ) -> Answer:
        path, _, query = path.partition("?")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token != "":
            named.setdefault("Authorization", f"Bearer {token or self.token}")
        if body:
            named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **named}
        exchange = Exchange(
            method, path, query=query, headers=named, body=[body] if body else [], application=self.door
        )
        async with exchange as answer:
            chunks = []
            while chunk := await answer.read():
                chunks.append(chunk)
            return Answer(answer.status, answer.headers, "".join(chunks))

    async def gql(self, query: str, *, token: str | None = None, **variables: Any) -> Answer:
        body = json.dumps({"query": query, "variables": variables}).encode()
        return await self.ask("/graphql/", method="POST", body=body, token=token)

    async def is_hit(self, ask: Callable[[], Any]) -> bool:
        """Whether Django is not asked, when the same was answered just before."""
        await ask()
        before = self.django.asked
        await ask()
        return self.django.asked == before

    async def warm(self) -> None:
        """Have the token checked: it is Django that does so."""
        await self.ask("/events/")


class HitTests(ResponseCacheCase):
    async def test_every_list_is_answered_without_django_the_second_time(self) -> None:
        await sync_to_async(CommentFactory)(task=self.task)
        await self.warm()
        for path in (
            "/projects/",
            "/tasks/",
            f"/tasks/?project={self.project.pk}&status=pending&ordering=-due_date&page_size=3&count=1",
            f"/tasks/{self.task.pk}/comments/",
            f"/projects/{self.project.pk}/members/",
            "/reports/",
            "/graphql/?" + urlencode({"query": TASKS}),
        ):
            with self.subTest(path):
                first = await self.ask(path)
                self.assertEqual(first.status, 200, first)
                asked = self.django.asked
                self.assertEqual(await self.ask(path), first)
                self.assertEqual(self.django.asked, asked)

    async def test_what_the_client_holds_is_not_sent_again(self) -> None:
        await self.warm()
        for path in ("/tasks/?count=1", "/graphql/?" + urlencode({"query": TASKS})):
            etag = (await self.ask(path)).headers["etag"]
            # By Django itself, which a cookie leads to.
            expected = await self.ask(path, If_None_Match=etag, Cookie="a=b")
            self.assertEqual((expected.status, expected.body), (304, ""))
            asked = self.django.asked
            for held in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
                with self.subTest(path, held=held):
                    self.assertEqual(await self.ask(path, If_None_Match=held), expected)
            self.assertEqual(self.django.asked, asked)
            self.assertEqual((await self.ask(path, If_None_Match='"other"')).status, 200)

    async def test_an_answer_whose_head_is_known_already_is_checked_all_the_same(self) -> None:
        """The short way of a 304 asks for the versions alone."""
        etag = (await self.ask("/tasks/")).headers["etag"]
        await self.ask("/tasks/", If_None_Match=etag)
        await sync_to_async(services.task.update_task)(actor=SYSTEM, task_id=self.task.pk, changes={"title": "New"})
        self.assertEqual((await self.ask("/tasks/", If_None_Match=etag)).json[0]["title"], "New")

    async def test_a_hit_has_the_headers_of_a_miss(self) -> None:
        await self.warm()
        with override_settings(CORS_ALLOWED_ORIGINS=["https://app.example.org"]):
            for headers in (
                {},
                {"Origin": "https://app.example.org"},
                {"Origin": "https://evil.example.org"},
                {"Accept": "application/json"},
                {"Accept": "*/*", "User-Agent": "x", "Accept-Language": "de", "Referer": "https://evil.example.org/"},
                {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "evil.example.org"},
                {"X-HTTP-Method-Override": "DELETE", "X-Requested-With": "XMLHttpRequest", "Accept-Encoding": "gzip"},
            ):
                for path in ("/tasks/?page_size=1", "/graphql/?" + urlencode({"query": TASKS})):
                    with self.subTest(path, headers=headers):
                        hit = [await self.ask(path, **headers) for _ in range(2)][1]
                        asked = self.django.asked
                        self.assertEqual(await self.ask(path, **headers), hit)
                        self.assertEqual(self.django.asked, asked)
                        # A cookie leads past the cache.
                        self.assertEqual(await self.ask(path, **headers, Cookie="a=b"), hit)
                        self.assertEqual(self.django.asked, asked + 1)

    async def test_a_warm_list_is_refused_as_a_cold_one_is(self) -> None:
        query = urlencode({"query": TASKS})
        self.assertEqual((await self.ask("/tasks/?x=1")).status, 400)
        for path in ("/tasks/", f"/graphql/?{query}"):
            await self.ask(path)
            self.assertEqual((await self.ask(path)).status, 200)
            with self.subTest(path):
                self.assertEqual((await self.ask(path, Host="evil.example.org")).status, 400)
                self.assertEqual((await self.ask(path, Accept="image/png")).status, 406)
                self.assertEqual((await self.ask(path, token="")).status, 401)
                self.assertEqual((await self.ask(path, token=f"tw_{'x' * 43}")).status, 401)
                self.assertEqual((await self.ask(path, method="PUT")).status, 405)
        with override_settings(
            TLS_PROXY=True, SECURE_SSL_REDIRECT=True, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")
        ):
            # Read at the start, as the settings are.
            self.django.handler = Handler()
            self.assertEqual((await self.ask("/tasks/", X_Forwarded_Proto="http")).status, 301)

    async def test_the_same_in_open_mode_for_who_has_no_token(self) -> None:
        with override_settings(ACCESS="open"):
            for path in ("/tasks/", "/graphql/?" + urlencode({"query": TASKS})):
                self.assertTrue(await self.is_hit(lambda path=path: self.ask(path, token="")))
        self.assertEqual((await self.ask("/tasks/", token="")).status, 401)

    def test_the_paths_of_all_lists_are_known(self) -> None:
        paths = {
            f"/{str(pattern.pattern).replace('<str:', '').replace('>', '')}"
            for pattern in get_resolver("rest.urls").url_patterns
            if issubclass(getattr(pattern.callback, "view_class", object), ListView)
        }
        self.assertIn("/tasks/id/comments/", paths)
        self.assertEqual({path for path in paths if not _LISTS.fullmatch(path)}, set())


class GraphQLTests(ResponseCacheCase):
    async def test_pure_list_queries_are_kept(self) -> None:
        await self.warm()
        for query, variables in (
            (TASKS, {}),
            ("{ cursor tasks { totalCount } projects { nodes { tasks { nodes { comments { totalCount } } } } } }", {}),
            ("query ($id: ID!) { project(id: $id) { members { nodes { user { name } } } } }", {"id": self.project.pk}),
            ("query ($f: TaskFilter) { __typename ...L } fragment L on Query { tasks(filter: $f) { nodes { id } } }",
             {"f": {"projectId": str(self.project.pk)}}),
            ("{ reports { nodes { date } } task(id: 1) { id } report(id: 1) { id } }", {}),
        ):  # fmt: skip
            with self.subTest(query):
                self.assertTrue(await self.is_hit(lambda q=query, v=variables: self.gql(q, **v)))

    async def test_nothing_else_is(self) -> None:
        await self.warm()
        for query in (
            "{ me { name } }",
            "{ cursor }",
            "{ events { cursor } }",
            "{ tasks { nodes { id } } me { name } }",
            "{ tokens { nodes { id } } }",
            "{ tasks { nodes { id } } __schema { queryType { name } } }",
            '{ __type(name: "Task") { name } }',
            "{ tasks(first: 0) { nodes { id } } }",
            '{ tasks { nodes { id } } projects(first: 1, after: "x") { nodes { id } } }',
            "{ nothing }",
            "{ tasks { nodes",
            'mutation { updateTask(input: {id: 1, title: "x"}) { __typename } }',
        ):
            with self.subTest(query):
                self.assertFalse(await self.is_hit(lambda q=query: self.gql(q)))

    async def test_what_shapes_an_answer_tells_it_from_others(self) -> None:
        query = "query ($n: Int, $f: TaskFilter) { tasks(first: $n, filter: $f) { nodes { title } totalCount } }"
        await sync_to_async(TaskFactory)(project=self.project, title="Done", status="completed")
        for _ in range(2):
            for variables, titles in (
                ({}, ["Done", "Old"]),
                ({"n": 1}, ["Done"]),
                ({"f": {"status": "PENDING"}}, ["Old"]),
                ({"f": {"search": "old"}}, ["Old"]),
            ):
                answer = await self.gql(query, **variables)
                self.assertEqual([node["title"] for node in answer.json["data"]["tasks"]["nodes"]], titles)
        named = "query A { tasks(first: 1) { nodes { title } } } query B { tasks { totalCount } }"
        for _ in range(2):
            for name, count in (("A", None), ("B", 2)):
                body = json.dumps({"query": named, "operationName": name}).encode()
                tasks = (await self.ask("/graphql/", method="POST", body=body)).json["data"]["tasks"]
                self.assertEqual(tasks.get("totalCount"), count)

    async def test_a_client_that_holds_the_answer_has_nothing_executed(self) -> None:
        path = "/graphql/?" + urlencode({"query": TASKS})
        etag = (await self.ask(path)).headers["etag"]
        with override_settings(CACHE_LIST_S=0):
            answer = await self.ask(path, If_None_Match=etag, Cookie="a=b")
        self.assertEqual((answer.status, answer.body, answer.headers["etag"]), (304, "", etag))


class FreshTests(ResponseCacheCase):
    async def assert_moves(self, write: Callable[[], Any], *, stale: dict[str, str], warm: dict[str, str]) -> None:
        """After the write, the lists of `stale` are answered anew and differ, and those of `warm` are as they were."""
        before = {name: [await self.gql(query), await self.gql(query)][1] for name, query in (stale | warm).items()}
        await sync_to_async(write)()
        for name, query in (stale | warm).items():
            with self.subTest(name):
                asked = self.django.asked
                answer = await self.gql(query)
                self.assertEqual(self.django.asked, asked + (name in stale))
                self.assertEqual(answer.json != before[name].json, name in stale)

    async def test_a_write_to_one_project_leaves_the_lists_of_another_warm(self) -> None:
        other = await sync_to_async(MembershipFactory)(user=self.membership.user)
        of_project = "{ tasks(filter: {projectId: %d}) { nodes { title } } }"
        await self.assert_moves(
            lambda: services.task.update_task(actor=SYSTEM, task_id=self.task.pk, changes={"title": "New"}),
            stale={"all": TASKS, "its own": of_project % self.project.pk},
            warm={"another's": of_project % other.project_id},
        )

    async def test_nested_objects_are_scopes_too(self) -> None:
        nested = f"{{ project(id: {self.project.pk}) {{ tasks {{ nodes {{ comments {{ totalCount }} }} }} }} }}"
        await self.assert_moves(
            lambda: services.comment.add_comment(actor=SYSTEM, task_id=self.task.pk, content="New", author="Ada"),
            stale={
                "comments": nested,
                "of all": "{ projects { nodes { tasks { nodes { comments { totalCount } } } } } }",
            },
            warm={},
        )

    async def test_members_and_names_are(self) -> None:
        user = await sync_to_async(UserFactory)()
        staff = await sync_to_async(UserFactory)(is_staff=True)
        members = "{ projects { nodes { members { nodes { user { name } } } } } }"
        for token in (self.token, await sync_to_async(token_of)(staff)):
            self.token = token
            await self.assert_moves(
                lambda: services.membership.add_member(
                    actor=SYSTEM, project_id=self.project.pk, username=user.username
                ),
                stale={"members": members},
                warm={},
            )
            user.first_name += "New"
            await self.assert_moves(
                lambda: services.user.save_user(actor=SYSTEM, user=user, fields=["first_name"]),
                stale={"members": members},
                warm={},
            )
            await sync_to_async(services.membership.remove_member)(
                actor=SYSTEM, project_id=self.project.pk, user_id=user.pk
            )

    async def test_who_sees_something_else_is_answered_something_else(self) -> None:
        elsewhere = await sync_to_async(TaskFactory)(title="Elsewhere")
        stranger = await sync_to_async(UserFactory)()
        await sync_to_async(MembershipFactory)(user=stranger, project=elsewhere.project)
        strangers = await sync_to_async(token_of)(stranger)
        for _ in range(3):
            self.assertEqual([task["title"] for task in (await self.ask("/tasks/")).json], ["Old"])
            self.assertEqual(
                [task["title"] for task in (await self.ask("/tasks/", token=strangers)).json], ["Elsewhere"]
            )

    async def test_who_joins_or_leaves_is_answered_anew(self) -> None:
        other = await sync_to_async(TaskFactory)(title="Elsewhere")
        user = self.membership.user
        for change, titles in (
            (lambda: None, ["Old"]),
            (lambda: services.membership.add_member(actor=SYSTEM, project_id=other.project_id, username=user.username),
             ["Elsewhere", "Old"]),
            (lambda: services.membership.remove_member(actor=SYSTEM, project_id=other.project_id, user_id=user.pk),
             ["Old"]),
        ):  # fmt: skip
            await sync_to_async(change)()
            for _ in range(2):
                self.assertEqual([task["title"] for task in (await self.ask("/tasks/")).json], titles)

    async def test_a_token_that_was_revoked_is_refused_at_once(self) -> None:
        await self.warm()
        self.assertTrue(await self.is_hit(lambda: self.ask("/tasks/")))
        token = await Token.objects.aget()
        await sync_to_async(services.token.revoke_token)(actor=SYSTEM, token_id=token.pk)
        self.assertEqual((await self.ask("/tasks/")).status, 401)

    async def test_another_build_answers_for_itself(self) -> None:
        await self.warm()
        self.assertTrue(await self.is_hit(lambda: self.ask("/tasks/")))
        asked = self.django.asked
        with override_settings(BUILD="another"):
            await self.ask("/tasks/")
        self.assertEqual(self.django.asked, asked + 1)

    async def test_without_redis_everything_is_answered(self) -> None:
        await self.ask("/tasks/")
        with self.redis_down():
            for _ in range(2):
                self.assertEqual((await self.ask("/tasks/")).status, 200)
            await sync_to_async(services.task.update_task)(actor=SYSTEM, task_id=self.task.pk, changes={"title": "New"})
            self.assertEqual((await self.ask("/tasks/")).json[0]["title"], "New")
        self.assertEqual((await self.ask("/tasks/")).json[0]["title"], "New")


class StampedeTests(ResponseCacheCase):
    async def test_a_hundred_who_ask_at_once_for_what_is_not_there_are_one_question(self) -> None:
        await self.warm()
        for ask in (lambda: self.ask("/tasks/"), lambda: self.gql(TASKS)):
            asked = self.django.asked
            answers = await asyncio.gather(*(ask() for _ in range(100)))
            self.assertEqual(self.django.asked, asked + 1)
            self.assertEqual({answer.status for answer in answers}, {200})
            self.assertEqual(len({answer.body for answer in answers}), 1)

    async def test_who_asks_after_a_write_is_not_told_what_was_read_before_it(self) -> None:
        """Though the first who asked is being answered, and others wait for that."""
        await self.warm()
        is_answered, goes_on = asyncio.Event(), asyncio.Event()
        handler = self.django.handler

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            async def send_later(message: Any) -> None:
                is_answered.set()
                await goes_on.wait()
                await send(message)

            await handler(scope, receive, send_later)

        self.django.handler = slow  # type: ignore[assignment]
        first = asyncio.create_task(self.ask("/tasks/"))
        await is_answered.wait()
        await sync_to_async(services.task.update_task)(actor=SYSTEM, task_id=self.task.pk, changes={"title": "New"})
        others = [asyncio.create_task(self.ask("/tasks/")) for _ in range(10)]
        goes_on.set()
        self.assertEqual((await first).json[0]["title"], "Old")
        self.assertEqual({(await other).json[0]["title"] for other in others}, {"New"})

    async def test_what_is_never_kept_waits_for_nobody(self) -> None:
        """Two who change the same are two changes, at the same time."""
        await self.warm()
        both_ask = asyncio.Barrier(2)
        handler = self.django.handler

        async def together(scope: Any, receive: Any, send: Any) -> None:
            async with asyncio.timeout(20):
                await both_ask.wait()
            await handler(scope, receive, send)

        query = f'mutation {{ addComment(input: {{taskId: {self.task.pk}, content: "x"}}) {{ __typename }} }}'
        await self.gql(query)  # from which it is known
        self.django.handler = together  # type: ignore[assignment]
        answers = await asyncio.gather(self.gql(query), self.gql(query))
        self.assertEqual([answer.json["data"]["addComment"]["__typename"] for answer in answers], ["Comment"] * 2)

    async def test_who_waits_for_somebody_that_fails_asks_for_themselves(self) -> None:
        await self.warm()
        handler, fails = self.django.handler, [True]

        async def failing(scope: Any, receive: Any, send: Any) -> None:
            if fails.pop() if fails else False:
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body"})
            else:
                await handler(scope, receive, send)

        self.django.handler = failing  # type: ignore[assignment]
        answers = await asyncio.gather(*(self.ask("/tasks/") for _ in range(5)))
        self.assertEqual(sorted(answer.status for answer in answers), [200] * 4 + [500])
