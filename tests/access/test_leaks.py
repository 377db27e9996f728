"""What another team has is answered for like what never was, wherever it is named.

Each attempt is made twice: with an id of the other team, and with the id after it, which no row ever had. Status,
headers and body are compared byte for byte, and so is the number of statements that the database was sent: how long an
answer takes is an answer too.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import SimpleTestCase, override_settings
from django.test.utils import CaptureQueriesContext

from backend.projects import services
from backend.projects.access import viewer_for
from backend.projects.models import Task
from tests.access.attempts import DOCUMENTS, REQUESTS, Request, places_in_graphql, places_in_rest
from tests.access.hearing import notification_socket
from tests.access.teams import SECRET, Teams
from tests.access.world import client_with, session_of
from tests.cases import Case, CommittingCase
from tests.factories import MembershipFactory, UserFactory
from tests.rest.asgi import Exchange
from tests.schema.sockets import TIMEOUT_S, ready

# Of a list that is narrowed, what narrows it is part of the tag: two lists have two tags.
OWN_TO_THE_REQUEST = {"ETag"}


GRAPHQL_REQUESTS = {
    place: [Request("POST", "/graphql/", json.dumps({"query": document})) for document in documents]
    for place, documents in DOCUMENTS.items()
}
# What is named there is compared with a list of one's own: of an id in another list there is nothing to see.
NOTHING_TO_SEE = {
    "CreateTaskInput.assigneeId",
    "ChangeRoleInput.userId",
    "RemoveMemberInput.userId",
    "POST /tasks/ assignee",
    "Query.tokens(after)",
    "Project.tasks(after)",
    "Project.members(after)",
    "Task.comments(after)",
    "GET /projects/<id>/members/?cursor=",
    "GET /tasks/<id>/comments/?cursor=",
    "Query.events(after)",
    "GET /events/?after=",
}


class PlacesTests(SimpleTestCase):
    def test_every_place_for_a_name_is_tried(self) -> None:
        self.assertEqual(set(places_in_graphql()) - set(DOCUMENTS), set())
        self.assertEqual(set(places_in_rest()) - set(REQUESTS), set())


@pytest.mark.slow
class LeakTests(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.teams = Teams()

    def answer(self, client: Any, request: Request, names: dict[str, Any]) -> tuple[Any, ...]:
        """All that is told: how much SQL it took, status, headers, body."""
        with CaptureQueriesContext(connection) as sql:
            response = client.generic(
                request.method,
                request.path % names,
                request.body % names,
                content_type="application/json",
                headers=request.headers,
            )
        headers = {name: "..." if name in OWN_TO_THE_REQUEST else value for name, value in response.headers.items()}
        return len(sql), response.status_code, headers, response.content

    def assert_alike(self, kind: str, place: str, request: Request) -> None:
        client = client_with(self.teams.credentials[kind])
        with self.subTest(place, kind=kind, path=request.path, body=request.body, headers=request.headers):
            told = self.answer(client, request, self.teams.names)
            self.assertEqual(told, self.answer(client, request, self.teams.absent_names))
            self.assertNotIn(SECRET, str(told))

    def try_all(self, attempts: dict[str, list[Request]]) -> None:
        for kind, headers in self.teams.credentials.items():
            client_with(headers).get("/projects/")  # the first use of a token is noted
            with self.nothing_changes():
                for place, requests in attempts.items():
                    for request in requests:
                        self.assert_alike(kind, place, request)

    def test_in_rest(self) -> None:
        self.try_all(REQUESTS)

    def test_in_graphql_over_http(self) -> None:
        self.try_all(GRAPHQL_REQUESTS)

    def test_staff_tell_them_apart_wherever_there_is_something_to_see(self) -> None:
        """So the attempts name what they mean to."""
        client = client_with({"cookie": f"sessionid={session_of(UserFactory(is_staff=True))}"})
        same = {
            place
            for place, requests in (REQUESTS | GRAPHQL_REQUESTS).items()
            if all(self.told_back(client, request) for request in requests)
        }
        self.assertEqual(same, NOTHING_TO_SEE)

    def told_back(self, client: Any, request: Request) -> bool:
        """Whether both attempts are answered alike; what they did is undone."""
        told = []
        for names in (self.teams.names, self.teams.absent_names):
            with transaction.atomic():
                told.append(self.answer(client, request, names)[1:])
                transaction.set_rollback(True)
        return told[0] == told[1]

    def test_what_changes_there_moves_no_list_here(self) -> None:
        client = client_with(self.teams.credentials["owner"])
        lists = [
            request.path
            for requests in REQUESTS.values()
            for request in requests
            if request.method == "GET" and "?" in request.path and "cursor" not in request.path
        ]
        with self.committed():
            first = {path: self.page(client, path) for path in lists}
        with self.committed():
            self.teams.theirs.change("meanwhile")
        for path in lists:
            with self.subTest(path):
                tags = [{"If-None-Match": tag} if tag else {} for _, tag, _ in first[path]]
                again = self.page(client, path, tags)
                told = [
                    (before[0], status, cursor) for before, (status, _, cursor) in zip(first[path], again, strict=True)
                ]
                self.assertEqual(told[0], told[1])

    def page(self, client: Any, path: str, headers: Any = ({}, {})) -> list[tuple[int, str | None, str | None]]:
        """Status, tag and cursor of a list that names the other team, and of one that names what never was."""
        found = []
        for names, sent in zip((self.teams.names, self.teams.absent_names), headers, strict=True):
            response = client.get(path % names, headers=sent)
            found.append((response.status_code, response.get("ETag"), response.get("X-Cursor")))
        return found

    def test_somebody_who_shares_no_project_with_you_has_no_name(self) -> None:
        stranger = self.teams.theirs.members["editor"]
        Task.objects.filter(pk=self.teams.mine.task.pk).update(assignee=stranger)  # no service would
        document = "{ task(id: %(my_task)s) { assignee { id name } project { members { nodes { user { name } } } } } }"
        for kind, headers in self.teams.credentials.items():
            with self.subTest(kind):
                asked = {"query": document % self.teams.names}
                response = client_with(headers).post("/graphql/", asked, "application/json")
                self.assertEqual(response.json()["data"]["task"]["assignee"], None)
                self.assertNotIn(SECRET.encode(), response.content)

    def test_who_has_left_has_no_name_in_what_happened_while_they_were_here(self) -> None:
        leaver = MembershipFactory(project=self.teams.mine.project, user__first_name=SECRET).user
        owner = viewer_for(self.teams.me)
        task: Any = {"title": "Theirs", "due_date": self.teams.mine.task.due_date, "assignee_id": leaver.pk}
        services.task.create_task(actor=owner, project_id=self.teams.mine.project.pk, changes=task)
        document = (
            '{ events(after: "%(position)s") { nodes { ... on TaskCreated { task { title assignee { name } } } } } }'
        )
        client = client_with(self.teams.credentials["owner"])

        def assignee() -> Any:
            asked = {"query": document % self.teams.names}
            nodes = client.post("/graphql/", asked, "application/json").json()["data"]["events"]["nodes"]
            return next(node["task"]["assignee"] for node in nodes if node)

        self.assertEqual(assignee(), {"name": SECRET})
        services.membership.remove_member(actor=owner, project_id=self.teams.mine.project.pk, user_id=leaver.pk)
        self.assertIsNone(assignee())


@pytest.mark.slow
@override_settings(SOCKET_INIT_S=2.0)
class SocketLeakTests(CommittingCase):
    kinds = ("owner", "read token", "write token", "admin token")

    def setUp(self) -> None:
        self.teams = Teams()

    async def test_in_graphql_over_a_socket(self) -> None:
        documents = [(place, document) for place, documents in DOCUMENTS.items() for document in documents]
        answers = await asyncio.gather(*(self.answers(kind, documents) for kind in self.kinds))
        for kind, told in zip(self.kinds, answers, strict=True):
            for (place, document), (there, absent) in zip(documents, told, strict=True):
                with self.subTest(place, kind=kind, document=document):
                    self.assertEqual(there, absent)
                    self.assertNotIn(SECRET, str(there))

    async def answers(self, kind: str, documents: list[tuple[str, str]]) -> list[list[Any]]:
        """The answers to every document, asked with both kinds of names."""
        both = (self.teams.names, self.teams.absent_names)
        async with ready(**self.teams.credentials[kind]) as socket:
            return [[await socket.answer(document % names) for names in both] for _, document in documents]

    async def test_where_events_are_heard(self) -> None:
        ways = (
            (self.subscription, "projectId: %(project)s"),
            (self.subscription, "taskId: %(task)s"),
            (self.subscription, 'after: "0", taskId: %(task)s, kinds: [TASK_UPDATED]'),
            (self.subscription, 'after: "0", projectId: %(my_project)s, taskId: %(task)s'),
            (self.subscription, 'after: "0", projectId: %(project)s, taskId: %(my_task)s'),
            (self.subscription, 'after: "%(position)s", projectId: %(my_project)s'),
            (self.notifications, "project=%(project)s"),
            (self.notifications, "project=%(project)s&after=0&kinds=project.updated"),
            (self.notifications, "after=%(position)s"),
            (self.stream, "project=%(project)s"),
            (self.stream, "project=%(project)s&after=0"),
            (self.stream, "after=%(position)s"),
        )
        for kind in self.kinds:
            headers = self.teams.credentials[kind]
            there, absent = [
                await asyncio.gather(*(hear(narrowed % names, headers, names) for hear, narrowed in ways))
                for names in (self.teams.names, self.teams.absent_names)
            ]
            for (hear, narrowed), told, told_of_none in zip(ways, there, absent, strict=True):
                with self.subTest(hear.__name__, kind=kind, narrowed=narrowed):
                    self.assertEqual(told, told_of_none)
                    self.assertNotIn(SECRET, str(told))

    async def subscription(self, narrowed: str, headers: dict[str, str], names: dict[str, Any]) -> Any:
        """The first message: why it ended, or what was heard."""
        async with ready(**headers) as socket:
            await socket.subscribe(f"subscription {{ events({narrowed}) {{ cursor kind projectId }} }}")
            return await socket.receive()

    async def notifications(self, narrowed: str, headers: dict[str, str], names: dict[str, Any]) -> Any:
        """The first two frames, or the one before the socket is closed, and with which code."""
        socket = notification_socket(narrowed, headers)
        await socket.connect(TIMEOUT_S)
        told = [await socket.receive_output(TIMEOUT_S) for _ in range(2)]
        await socket.disconnect(timeout=TIMEOUT_S)
        return [_without_start(message.get("text", message), names) for message in told]

    async def stream(self, narrowed: str, headers: dict[str, str], names: dict[str, Any]) -> Any:
        """Status, headers, and the first two frames or all of the refusal."""
        accepting = {"Accept": "text/event-stream", **headers}
        async with Exchange("GET", "/events/", query=narrowed, headers=accepting) as answer:
            told = [await answer.read() for _ in range(2)]
            return answer.status, answer.headers, [_without_start(text, names) for text in told]


def _without_start(told: Any, names: dict[str, Any]) -> Any:
    """The position that a listener starts from is the one that it named."""
    return told.replace(str(names["position"]), "START") if "ready" in told else told
