"""A request that names an object of another team gets the same response as one for an object that never existed.

Each attempt is made twice: with an id of the other team, and with an unused one. Status, headers and body are compared
byte for byte, and so is the number of SQL statements: the time that a response takes would give an object away, too.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import SimpleTestCase, override_settings
from django.test.utils import CaptureQueriesContext

from backend.projects import services
from backend.projects.access import viewer_for
from backend.projects.models import Task
from tests.access.attempts import DOCUMENTS, REQUESTS, Request, places_in_graphql, places_in_rest
from tests.access.listeners import notification_socket
from tests.access.teams import SECRET, Teams
from tests.access.world import client_with, session_of
from tests.cases import Case, CommittingCase
from tests.factories import MembershipFactory, UserFactory
from tests.rest.asgi import Exchange
from tests.schema.sockets import TIMEOUT_S, ready

# The filter of a list is part of its ETag, so lists with different filters have different ones.
# The rest of a budget differs from request to request.
REQUEST_SPECIFIC_HEADERS = {"ETag", "RateLimit"}
_AVAILABLE = re.compile(rb'"available":\d+')


GRAPHQL_REQUESTS = {
    place: [Request("POST", "/graphql/", json.dumps({"query": document})) for document in documents]
    for place, documents in DOCUMENTS.items()
}
# The id is only compared with the caller's own rows, so even staff get the same response to both attempts.
SAME_FOR_STAFF = {
    "AcceptInvitationInput.id",
    "DeclineInvitationInput.id",
    "POST /invitations/<id>/accept/",
    "POST /invitations/<id>/decline/",
    "Query.invitations(after)",
    "GET /invitations/?cursor=",
    "GET /projects/<id>/invitations/?cursor=",
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
    def test_every_place_for_an_id_has_an_attempt(self) -> None:
        self.assertEqual(set(places_in_graphql()) - set(DOCUMENTS), set())
        self.assertEqual(set(places_in_rest()) - set(REQUESTS), set())


@pytest.mark.slow
class LeakTests(Case):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.teams = Teams()

    def respond(self, client: Any, request: Request, names: dict[str, Any]) -> tuple[Any, ...]:
        """Return everything that is compared: number of SQL statements, status, headers, body."""
        with CaptureQueriesContext(connection) as sql:
            response = client.generic(
                request.method,
                request.path % names,
                request.body % names,
                content_type="application/json",
                headers=request.headers,
            )
        headers = {
            name: "..." if name in REQUEST_SPECIFIC_HEADERS else value for name, value in response.headers.items()
        }
        return len(sql), response.status_code, headers, _AVAILABLE.sub(b"...", response.content)

    def assert_alike(self, kind: str, place: str, request: Request) -> None:
        client = client_with(self.teams.credentials[kind])
        with self.subTest(place, kind=kind, path=request.path, body=request.body, headers=request.headers):
            response = self.respond(client, request, self.teams.names)
            self.assertEqual(response, self.respond(client, request, self.teams.absent_names))
            self.assertNotIn(SECRET, str(response))

    def try_all(self, attempts: dict[str, list[Request]]) -> None:
        for kind, headers in self.teams.credentials.items():
            client_with(headers).get("/projects/")  # the first use of a token is recorded
            with self.nothing_changes():
                for place, requests in attempts.items():
                    for request in requests:
                        self.assert_alike(kind, place, request)

    def test_rest_does_not_reveal_objects_of_another_team(self) -> None:
        self.try_all(REQUESTS)

    def test_graphql_over_http_does_not_reveal_objects_of_another_team(self) -> None:
        self.try_all(GRAPHQL_REQUESTS)

    def test_staff_get_different_responses_wherever_the_object_is_shown(self) -> None:
        """This proves that the attempts name existing objects."""
        client = client_with({"cookie": f"sessionid={session_of(UserFactory(is_staff=True))}"})
        same = {
            place
            for place, requests in (REQUESTS | GRAPHQL_REQUESTS).items()
            if all(self.get_equal_responses(client, request) for request in requests)
        }
        self.assertEqual(same, SAME_FOR_STAFF)

    def get_equal_responses(self, client: Any, request: Request) -> bool:
        """Return whether both attempts get the same response. Their changes are rolled back."""
        responses = []
        for names in (self.teams.names, self.teams.absent_names):
            with transaction.atomic():
                responses.append(self.respond(client, request, names)[1:])
                transaction.set_rollback(True)
        return responses[0] == responses[1]

    def test_a_change_of_another_team_does_not_show_in_conditional_requests(self) -> None:
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
                compared = [
                    (before[0], status, cursor) for before, (status, _, cursor) in zip(first[path], again, strict=True)
                ]
                self.assertEqual(compared[0], compared[1])

    def page(self, client: Any, path: str, headers: Any = ({}, {})) -> list[tuple[int, str | None, str | None]]:
        """Return status, ETag and cursor of a list filtered by the other team, and of one filtered by unused ids."""
        responses = []
        for names, request_headers in zip((self.teams.names, self.teams.absent_names), headers, strict=True):
            response = client.get(path % names, headers=request_headers)
            responses.append((response.status_code, response.get("ETag"), response.get("X-Cursor")))
        return responses

    def test_an_assignee_who_shares_no_project_with_the_viewer_is_null(self) -> None:
        stranger = self.teams.theirs.members["editor"]
        Task.objects.filter(pk=self.teams.mine.task.pk).update(assignee=stranger)  # no service does this
        document = "{ task(id: %(my_task)s) { assignee { id name } project { members { nodes { user { name } } } } } }"
        for kind, headers in self.teams.credentials.items():
            with self.subTest(kind):
                body = {"query": document % self.teams.names}
                response = client_with(headers).post("/graphql/", body, "application/json")
                self.assertEqual(response.json()["data"]["task"]["assignee"], None)
                self.assertNotIn(SECRET.encode(), response.content)

    def test_an_assignee_who_has_left_is_null_in_earlier_events(self) -> None:
        leaver = MembershipFactory(project=self.teams.mine.project, user__first_name=SECRET).user
        owner = viewer_for(self.teams.me)
        task: Any = {"title": "Theirs", "due_date": self.teams.mine.task.due_date, "assignee_id": leaver.pk}
        services.task.create_task(actor=owner, project_id=self.teams.mine.project.pk, changes=task)
        document = (
            '{ events(after: "%(position)s") { nodes { ... on TaskCreated { task { title assignee { name } } } } } }'
        )
        client = client_with(self.teams.credentials["owner"])

        def assignee() -> Any:
            body = {"query": document % self.teams.names}
            nodes = client.post("/graphql/", body, "application/json").json()["data"]["events"]["nodes"]
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

    async def test_graphql_over_a_socket_does_not_reveal_objects_of_another_team(self) -> None:
        documents = [(place, document) for place, documents in DOCUMENTS.items() for document in documents]
        results = await asyncio.gather(*(self.results(kind, documents) for kind in self.kinds))
        for kind, pairs in zip(self.kinds, results, strict=True):
            for (place, document), (existing, absent) in zip(documents, pairs, strict=True):
                with self.subTest(place, kind=kind, document=document):
                    self.assertEqual(existing, absent)
                    self.assertNotIn(SECRET, str(existing))

    async def results(self, kind: str, documents: list[tuple[str, str]]) -> list[list[Any]]:
        """Return the results of every document: with ids of the other team, and with unused ones."""
        both = (self.teams.names, self.teams.absent_names)
        async with ready(**self.teams.credentials[kind]) as socket:
            return [[await socket.answer(document % names) for names in both] for _, document in documents]

    async def test_live_events_do_not_reveal_objects_of_another_team(self) -> None:
        listeners = (
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
            existing, absent = [
                await asyncio.gather(*(listen(filters % names, headers, names) for listen, filters in listeners))
                for names in (self.teams.names, self.teams.absent_names)
            ]
            for (listen, filters), received, received_for_absent in zip(listeners, existing, absent, strict=True):
                with self.subTest(listen.__name__, kind=kind, filters=filters):
                    self.assertEqual(received, received_for_absent)
                    self.assertNotIn(SECRET, str(received))

    async def subscription(self, filters: str, headers: dict[str, str], names: dict[str, Any]) -> Any:
        """Return the first message: an error or an event."""
        async with ready(**headers) as socket:
            await socket.subscribe(f"subscription {{ events({filters}) {{ cursor kind projectId }} }}")
            return await socket.receive()

    async def notifications(self, filters: str, headers: dict[str, str], names: dict[str, Any]) -> Any:
        """Return the first two messages: frames, or a frame and the close code."""
        socket = notification_socket(filters, headers)
        await socket.connect(TIMEOUT_S)
        messages = [await socket.receive_output(TIMEOUT_S) for _ in range(2)]
        await socket.disconnect(timeout=TIMEOUT_S)
        return [_without_start(message.get("text", message), names) for message in messages]

    async def stream(self, filters: str, headers: dict[str, str], names: dict[str, Any]) -> Any:
        """Return status, headers without the rest of a budget, and the first two chunks."""
        accepting = {"Accept": "text/event-stream", **headers}
        async with Exchange("GET", "/events/", query=filters, headers=accepting) as response:
            chunks = [await response.read() for _ in range(2)]
            compared = {name: value for name, value in response.headers.items() if name != "ratelimit"}
            return response.status, compared, [_without_start(chunk, names) for chunk in chunks]


def _without_start(message: Any, names: dict[str, Any]) -> Any:
    """Mask the position in the `ready` message, which the request named."""
    return message.replace(str(names["position"]), "START") if "ready" in message else message
