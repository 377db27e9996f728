"""The response cache in front of Django, through ASGI."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.test import override_settings
from django.urls import get_resolver

from backend.projects import budget, services
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


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def without_balance(self) -> Response:
        """The response without the balance of the viewer's budget, which a hit does not report."""
        headers = {name: value for name, value in self.headers.items() if name not in ("ratelimit", "content-length")}
        return Response(self.status, headers, re.sub(r',"available":\d+', "", self.body))


class CountingHandler:
    """Django's handler, which counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.handler = Handler()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        await self.handler(scope, receive, send)


class ResponseCacheCase(CommittingCase):
    def setUp(self) -> None:
        self.membership = MembershipFactory(role=Role.OWNER)
        self.project = self.membership.project
        self.task = TaskFactory(project=self.project, title="Old")
        self.token = token_of(self.membership.user)
        self.django = CountingHandler()
        self.cache = ResponseCache(self.django)

    async def request(
        self,
        path: str,
        *,
        token: str | None = None,
        method: str = "GET",
        body: bytes = b"",
        is_raw: bool = False,
        **headers: str,
    ) -> Response:
        """Send a request. Returns the response without the balance of the budget, or unchanged if `is_raw`."""
        path, _, query = path.partition("?")
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if token != "":
            headers.setdefault("Authorization", f"Bearer {token or self.token}")
        if body:
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        exchange = Exchange(
            method, path, query=query, headers=headers, body=[body] if body else [], application=self.cache
        )
        async with exchange as response:
            chunks = []
            while chunk := await response.read():
                chunks.append(chunk)
            received = Response(response.status, response.headers, "".join(chunks))
            return received if is_raw else received.without_balance()

    async def gql(self, query: str, *, token: str | None = None, **variables: Any) -> Response:
        body = json.dumps({"query": query, "variables": variables}).encode()
        return await self.request("/graphql/", method="POST", body=body, token=token)

    async def is_hit(self, send_request: Callable[[], Any]) -> bool:
        """Whether Django is not called for the second of two equal requests."""
        await send_request()
        calls = self.django.calls
        await send_request()
        return self.django.calls == calls

    async def check_token(self) -> None:
        """Let Django check the token. The cache serves only tokens that this process has checked."""
        await self.request("/events/")


class HitTests(ResponseCacheCase):
    async def test_the_second_request_for_a_list_does_not_call_django(self) -> None:
        await sync_to_async(CommentFactory)(task=self.task)
        await self.check_token()
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
                first = await self.request(path)
                self.assertEqual(first.status, 200, first)
                calls = self.django.calls
                self.assertEqual(await self.request(path), first)
                self.assertEqual(self.django.calls, calls)

    async def test_a_hit_is_not_charged_and_reports_no_balance(self) -> None:
        await self.check_token()
        for path, has_cost in (("/tasks/", False), ("/graphql/?" + urlencode({"query": TASKS}), True)):
            with self.subTest(path):
                miss = await self.request(path, is_raw=True)
                with patch.object(budget, "charge", side_effect=AssertionError):
                    hit = await self.request(path, is_raw=True)
                self.assertIn("ratelimit", miss.headers)
                self.assertNotIn("ratelimit", hit.headers)
                self.assertEqual(hit.headers["ratelimit-policy"], '"cost";q=60000;w=60')
                self.assertEqual(int(hit.headers["content-length"]), len(hit.body.encode()))
                self.assertEqual(hit.without_balance(), miss.without_balance())
                if has_cost:
                    missing = miss.json["extensions"]["cost"].keys() - hit.json["extensions"]["cost"]
                    self.assertEqual(missing, {"available"})

    async def test_a_response_that_matches_if_none_match_is_a_304(self) -> None:
        await self.check_token()
        for path in ("/tasks/?count=1", "/graphql/?" + urlencode({"query": TASKS})):
            etag = (await self.request(path)).headers["etag"]
            # A cookie bypasses the cache, so this is Django's response.
            expected = await self.request(path, If_None_Match=etag, Cookie="a=b")
            self.assertEqual((expected.status, expected.body), (304, ""))
            calls = self.django.calls
            for if_none_match in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
                with self.subTest(path, if_none_match=if_none_match):
                    self.assertEqual(await self.request(path, If_None_Match=if_none_match), expected)
            self.assertEqual(self.django.calls, calls)
            self.assertEqual((await self.request(path, If_None_Match='"other"')).status, 200)

    async def test_a_matching_etag_of_an_outdated_response_is_not_a_304(self) -> None:
        """If the process knows the head of a response, a 304 looks up only its tag versions."""
        etag = (await self.request("/tasks/")).headers["etag"]
        await self.request("/tasks/", If_None_Match=etag)
        await sync_to_async(services.task.update_task)(actor=SYSTEM, task_id=self.task.pk, changes={"title": "New"})
        self.assertEqual((await self.request("/tasks/", If_None_Match=etag)).json[0]["title"], "New")

    async def test_a_hit_has_the_headers_of_a_miss(self) -> None:
        await self.check_token()
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
                        hit = [await self.request(path, **headers) for _ in range(2)][1]
                        calls = self.django.calls
                        self.assertEqual(await self.request(path, **headers), hit)
                        self.assertEqual(self.django.calls, calls)
                        # A cookie bypasses the cache.
                        self.assertEqual(await self.request(path, **headers, Cookie="a=b"), hit)
                        self.assertEqual(self.django.calls, calls + 1)

    async def test_a_cached_list_is_refused_like_an_uncached_one(self) -> None:
        query = urlencode({"query": TASKS})
        self.assertEqual((await self.request("/tasks/?x=1")).status, 400)
        for path in ("/tasks/", f"/graphql/?{query}"):
            await self.request(path)
            self.assertEqual((await self.request(path)).status, 200)
            with self.subTest(path):
                self.assertEqual((await self.request(path, Host="evil.example.org")).status, 400)
                self.assertEqual((await self.request(path, Accept="image/png")).status, 406)
                self.assertEqual((await self.request(path, token="")).status, 401)
                self.assertEqual((await self.request(path, token=f"tw_{'x' * 43}")).status, 401)
                self.assertEqual((await self.request(path, method="PUT")).status, 405)
        with override_settings(
            TLS_PROXY=True, SECURE_SSL_REDIRECT=True, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")
        ):
            # Middleware reads these settings when it is created.
            self.django.handler = Handler()
            self.assertEqual((await self.request("/tasks/", X_Forwarded_Proto="http")).status, 301)

    async def test_open_mode_caches_for_requests_without_a_token(self) -> None:
        with override_settings(ACCESS="open"):
            for path in ("/tasks/", "/graphql/?" + urlencode({"query": TASKS})):
                self.assertTrue(await self.is_hit(lambda path=path: self.request(path, token="")))
        self.assertEqual((await self.request("/tasks/", token="")).status, 401)

    def test_the_paths_of_all_lists_are_cacheable(self) -> None:
        paths = {
            f"/{str(pattern.pattern).replace('<str:', '').replace('>', '')}"
            for pattern in get_resolver("rest.urls").url_patterns
            if issubclass(view := getattr(pattern.callback, "view_class", object), ListView) and view.has_etag
        }
        self.assertIn("/tasks/id/comments/", paths)
        self.assertEqual({path for path in paths if not _LISTS.fullmatch(path)}, set())


class GraphQLTests(ResponseCacheCase):
    async def test_queries_of_projects_tasks_and_reports_are_cached(self) -> None:
        await self.check_token()
        for query, variables in (
            (TASKS, {}),
            ("{ cursor tasks { totalCount } projects(first: 9) { nodes { tasks { nodes { project { id } } } } } }", {}),
            ("query ($id: ID!) { project(id: $id) { members { nodes { user { name } } } } }", {"id": self.project.pk}),
            ("query ($f: TaskFilter) { __typename ...L } fragment L on Query { tasks(filter: $f) { nodes { id } } }",
             {"f": {"projectId": str(self.project.pk)}}),
            ("{ reports { nodes { date } } task(id: 1) { id } report(id: 1) { id } }", {}),
        ):  # fmt: skip
            with self.subTest(query):
                self.assertTrue(await self.is_hit(lambda q=query, v=variables: self.gql(q, **v)))

    async def test_other_operations_are_not_cached(self) -> None:
        await self.check_token()
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

    async def test_variables_and_operation_name_distinguish_responses(self) -> None:
        query = "query ($n: Int, $f: TaskFilter) { tasks(first: $n, filter: $f) { nodes { title } totalCount } }"
        await sync_to_async(TaskFactory)(project=self.project, title="Done", status="completed")
        for _ in range(2):
            for variables, titles in (
                ({}, ["Done", "Old"]),
                ({"n": 1}, ["Done"]),
                ({"f": {"status": "PENDING"}}, ["Old"]),
                ({"f": {"search": "old"}}, ["Old"]),
            ):
                response = await self.gql(query, **variables)
                self.assertEqual([node["title"] for node in response.json["data"]["tasks"]["nodes"]], titles)
        named = "query A { tasks(first: 1) { nodes { title } } } query B { tasks { totalCount } }"
        for _ in range(2):
            for name, count in (("A", None), ("B", 2)):
                body = json.dumps({"query": named, "operationName": name}).encode()
                tasks = (await self.request("/graphql/", method="POST", body=body)).json["data"]["tasks"]
                self.assertEqual(tasks.get("totalCount"), count)

    async def test_a_matching_if_none_match_is_a_304_from_django_too(self) -> None:
        path = "/graphql/?" + urlencode({"query": TASKS})
        etag = (await self.request(path)).headers["etag"]
        with override_settings(CACHE_LIST_S=0):
            response = await self.request(path, If_None_Match=etag, Cookie="a=b")
        self.assertEqual((response.status, response.body, response.headers["etag"]), (304, "", etag))


class FreshnessTests(ResponseCacheCase):
    async def assert_outdates(
        self, write: Callable[[], Any], stale: dict[str, str], current: dict[str, str] | None = None
    ) -> None:
        """Check that after the write the `stale` lists are misses and differ, and the `current` lists are hits."""
        queries = stale | (current or {})
        before = {name: [await self.gql(query), await self.gql(query)][1] for name, query in queries.items()}
        await sync_to_async(write)()
        for name, query in queries.items():
            with self.subTest(name):
                calls = self.django.calls
                response = await self.gql(query)
                self.assertEqual(self.django.calls, calls + (name in stale))
                self.assertEqual(response.json != before[name].json, name in stale)

    async def test_a_write_to_one_project_does_not_outdate_the_lists_of_another(self) -> None:
        other = await sync_to_async(MembershipFactory)(user=self.membership.user)
        of_project = "{ tasks(filter: {projectId: %d}) { nodes { title } } }"
        await self.assert_outdates(
            lambda: services.task.update_task(actor=SYSTEM, task_id=self.task.pk, changes={"title": "New"}),
            stale={"all projects": TASKS, "this project": of_project % self.project.pk},
            current={"another project": of_project % other.project_id},
        )

    async def test_a_change_of_a_nested_object_outdates_a_list(self) -> None:
        nested = f"{{ project(id: {self.project.pk}) {{ tasks {{ nodes {{ comments {{ totalCount }} }} }} }} }}"
        await self.assert_outdates(
            lambda: services.comment.add_comment(actor=SYSTEM, task_id=self.task.pk, content="New", author="Ada"),
            stale={
                "comments": nested,
                "all comments": "{ projects(first: 9) { nodes { tasks { nodes { comments { totalCount } } } } } }",
            },
        )

    async def test_a_change_of_members_or_names_outdates_a_list(self) -> None:
        user = await sync_to_async(UserFactory)()
        staff = await sync_to_async(UserFactory)(is_staff=True)
        members = "{ projects { nodes { members { nodes { user { name } } } } } }"
        for token in (self.token, await sync_to_async(token_of)(staff)):
            self.token = token
            await self.assert_outdates(
                lambda: services.membership.add_member(
                    actor=SYSTEM, project_id=self.project.pk, username=user.username
                ),
                stale={"members": members},
            )
            user.first_name += "New"
            await self.assert_outdates(
                lambda: services.user.save_user(actor=SYSTEM, user=user, fields=["first_name"]),
                stale={"members": members},
            )
            await sync_to_async(services.membership.remove_member)(
                actor=SYSTEM, project_id=self.project.pk, user_id=user.pk
            )

    async def test_viewers_of_different_projects_get_different_responses(self) -> None:
        elsewhere = await sync_to_async(TaskFactory)(title="Elsewhere")
        outsider = await sync_to_async(UserFactory)()
        await sync_to_async(MembershipFactory)(user=outsider, project=elsewhere.project)
        token = await sync_to_async(token_of)(outsider)
        for _ in range(3):
            self.assertEqual([task["title"] for task in (await self.request("/tasks/")).json], ["Old"])
            self.assertEqual(
                [task["title"] for task in (await self.request("/tasks/", token=token)).json], ["Elsewhere"]
            )

    async def test_joining_or_leaving_a_project_outdates_a_list(self) -> None:
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
                self.assertEqual([task["title"] for task in (await self.request("/tasks/")).json], titles)

    async def test_a_revoked_token_is_refused_at_once(self) -> None:
        await self.check_token()
        self.assertTrue(await self.is_hit(lambda: self.request("/tasks/")))
        token = await Token.objects.aget()
        await sync_to_async(services.token.revoke_token)(actor=SYSTEM, token_id=token.pk)
        self.assertEqual((await self.request("/tasks/")).status, 401)

    async def test_another_build_of_the_code_does_not_use_the_response(self) -> None:
        await self.check_token()
        self.assertTrue(await self.is_hit(lambda: self.request("/tasks/")))
        calls = self.django.calls
        with override_settings(BUILD="another"):
            await self.request("/tasks/")
        self.assertEqual(self.django.calls, calls + 1)

    async def test_without_redis_django_responds(self) -> None:
        await self.request("/tasks/")
        with self.redis_down():
            for _ in range(2):
                self.assertEqual((await self.request("/tasks/")).status, 200)
            await sync_to_async(services.task.update_task)(actor=SYSTEM, task_id=self.task.pk, changes={"title": "New"})
            self.assertEqual((await self.request("/tasks/")).json[0]["title"], "New")
        self.assertEqual((await self.request("/tasks/")).json[0]["title"], "New")


class PermissionTests(ResponseCacheCase):
    """Responses to a user whose permissions change, with a token or a session."""

    def setUp(self) -> None:
        super().setUp()
        self.user = self.membership.user
        TaskFactory(title="Foreign")
        self.staff_token = token_of(UserFactory(is_staff=True))
        query = urlencode({"query": TASKS})
        body = json.dumps({"query": TASKS}).encode()
        self.interfaces: dict[str, Callable[..., Awaitable[Response]]] = {
            "REST": partial(self.request, "/tasks/?page_size=97"),
            "GraphQL by GET": partial(self.request, f"/graphql/?{query}"),
            "GraphQL by POST": partial(self.request, "/graphql/", method="POST", body=body),
        }

    async def change(self, **flags: bool) -> None:
        for name, value in flags.items():
            setattr(self.user, name, value)
        await sync_to_async(services.user.save_user)(actor=SYSTEM, user=self.user, fields=list(flags))

    async def titles(self, interface: str, **request: Any) -> list[str]:
        response = await self.interfaces[interface](**request)
        self.assertEqual(response.status, 200, response)
        tasks = response.json if interface == "REST" else response.json["data"]["tasks"]["nodes"]
        return [task["title"] for task in tasks]

    async def test_a_user_who_is_no_longer_staff_sees_no_task_of_another_project(self) -> None:
        for interface in self.interfaces:
            for removed in ("is_staff", "both"):
                with self.subTest(interface, removed=removed):
                    await self.check_token()
                    await self.change(is_staff=True, is_superuser=removed == "both")
                    for _ in range(2):
                        self.assertEqual(await self.titles(interface), ["Foreign", "Old"])
                    await self.change(is_staff=False)
                    for _ in range(2):
                        self.assertEqual(await self.titles(interface), ["Old"])

    async def test_a_response_to_a_new_staff_user_is_not_served_after_they_lose_the_flag(self) -> None:
        """At the only request between the changes, the process still remembers the viewer as not staff."""
        for interface in self.interfaces:
            with self.subTest(interface):
                await self.check_token()
                await self.change(is_staff=True)
                self.assertEqual(await self.titles(interface), ["Foreign", "Old"])
                await self.change(is_staff=False)
                self.assertEqual(await self.titles(interface), ["Old"])

    async def test_staff_never_get_the_response_to_a_user_who_was_staff(self) -> None:
        await self.request("/events/", token=self.staff_token)
        for interface in self.interfaces:
            with self.subTest(interface):
                await self.change(is_staff=True)
                await self.check_token()
                await self.change(is_staff=False)
                self.assertEqual(await self.titles(interface), ["Old"])
                for _ in range(2):
                    self.assertEqual(await self.titles(interface, token=self.staff_token), ["Foreign", "Old"])

    async def test_an_etag_from_before_the_change_gets_the_rows(self) -> None:
        for interface in ("REST", "GraphQL by GET"):
            with self.subTest(interface):
                await self.check_token()
                for is_staff, titles in ((True, ["Foreign", "Old"]), (False, ["Old"])):
                    etag = (await self.interfaces[interface]()).headers["etag"]
                    self.assertEqual((await self.interfaces[interface](If_None_Match=etag)).status, 304)
                    await self.change(is_staff=is_staff)
                    self.assertEqual(await self.titles(interface, If_None_Match=etag), titles)

    async def test_a_session_has_the_new_permissions_too(self) -> None:
        csrf = "a" * 32
        await sync_to_async(self.client.force_login)(self.user)
        cookie = f"csrftoken={csrf}; sessionid={self.client.cookies['sessionid'].value}"
        request = {"token": "", "Cookie": cookie, "X_CSRFToken": csrf}
        for interface in self.interfaces:
            with self.subTest(interface):
                for is_staff, titles in ((True, ["Foreign", "Old"]), (False, ["Old"]), (True, ["Foreign", "Old"])):
                    await self.change(is_staff=is_staff)
                    for _ in range(2):
                        self.assertEqual(await self.titles(interface, **request), titles)
                await self.change(is_staff=False)

    async def test_an_account_that_is_not_active_gets_a_401(self) -> None:
        for interface in self.interfaces:
            with self.subTest(interface):
                await self.check_token()
                await self.titles(interface)
                await self.change(is_active=False)
                self.assertEqual((await self.interfaces[interface]()).status, 401)
                await self.change(is_active=True)
                self.assertEqual(await self.titles(interface), ["Old"])


class ConcurrencyTests(ResponseCacheCase):
    async def test_a_hundred_concurrent_misses_call_django_once(self) -> None:
        await self.check_token()
        for send_request in (lambda: self.request("/tasks/"), lambda: self.gql(TASKS)):
            calls = self.django.calls
            responses = await asyncio.gather(*(send_request() for _ in range(100)))
            self.assertEqual(self.django.calls, calls + 1)
            self.assertEqual({response.status for response in responses}, {200})
            self.assertEqual(len({response.body for response in responses}), 1)

    async def test_a_request_after_a_write_does_not_get_a_response_from_before_it(self) -> None:
        """This holds even while an equal request from before the write is in progress."""
        await self.check_token()
        has_responded, may_send = asyncio.Event(), asyncio.Event()
        handler = self.django.handler

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            async def send_later(message: Any) -> None:
                has_responded.set()
                await may_send.wait()
                await send(message)

            await handler(scope, receive, send_later)

        self.django.handler = slow  # type: ignore[assignment]
        first = asyncio.create_task(self.request("/tasks/"))
        await has_responded.wait()
        await sync_to_async(services.task.update_task)(actor=SYSTEM, task_id=self.task.pk, changes={"title": "New"})
        others = [asyncio.create_task(self.request("/tasks/")) for _ in range(10)]
        may_send.set()
        self.assertEqual((await first).json[0]["title"], "Old")
        self.assertEqual({(await other).json[0]["title"] for other in others}, {"New"})

    async def test_uncacheable_requests_do_not_wait(self) -> None:
        """Two equal mutations run concurrently."""
        await self.check_token()
        barrier = asyncio.Barrier(2)
        handler = self.django.handler

        async def together(scope: Any, receive: Any, send: Any) -> None:
            async with asyncio.timeout(20):
                await barrier.wait()
            await handler(scope, receive, send)

        query = f'mutation {{ addComment(input: {{taskId: {self.task.pk}, content: "x"}}) {{ __typename }} }}'
        await self.gql(query)  # remembered as uncacheable
        self.django.handler = together  # type: ignore[assignment]
        responses = await asyncio.gather(self.gql(query), self.gql(query))
        self.assertEqual([response.json["data"]["addComment"]["__typename"] for response in responses], ["Comment"] * 2)

    async def test_requests_that_wait_for_a_failing_one_are_repeated(self) -> None:
        await self.check_token()
        handler, fails = self.django.handler, [True]

        async def failing(scope: Any, receive: Any, send: Any) -> None:
            if fails:
                fails.clear()
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body"})
            else:
                await handler(scope, receive, send)

        self.django.handler = failing  # type: ignore[assignment]
        responses = await asyncio.gather(*(self.request("/tasks/") for _ in range(5)))
        self.assertEqual(sorted(response.status for response in responses), [200] * 4 + [500])
