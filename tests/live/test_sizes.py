"""The web process with events that are too large to be sent whole. They date from before texts had a maximum length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from backend.projects import notifier, services
from backend.projects.access import SYSTEM
from backend.projects.models import Event
from tests.cases import ServerCase, memory_kb
from tests.factories import TaskFactory
from tests.schema.sockets import PROTOCOL, TIMEOUT_S

TEXT = "Weed the beds. " * 70_000  # more than 1 MiB
EXCERPT = TEXT[:1000]
EVENT = """cursor truncated ... on TaskUpdated { task { title description } }"""
# Selects more than the event itself contains.
NESTED = f"{EVENT} ... on TaskUpdated {{ task {{ project {{ name }} }} }}"
# Listeners that resume, events of 1 MB that each receives, and the KB that memory may grow by: half of one such copy.
LISTENERS, EVENTS, GROWTH_KB = 20, 60, 30_000


class LargeEvents(ServerCase):
    """Tests that run on daphne and on uvicorn."""

    __test__ = False

    def setUp(self) -> None:
        super().setUp()
        self.task = TaskFactory(description=TEXT)
        self.project = self.task.project_id

    def rename(self, title: str) -> None:
        services.task.update_task(actor=SYSTEM, task_id=self.task.pk, changes={"title": title})

    def test_every_listener_receives_a_truncated_event_and_the_events_after_it(self) -> None:
        live = [self.plain(0), self.subscription(EVENT, 0), self.subscription(NESTED, 0), self.stream(0)]
        self.rename("Large")
        services.task.update_task(actor=SYSTEM, task_id=self.task.pk, changes={"description": "Small"})
        resumed = [self.plain(0), self.subscription(EVENT, 0), self.subscription(NESTED, 0), self.stream(0)]
        resumed += [self.page(0), self.query(0)]
        for number, listener in enumerate(live + resumed):
            with self.subTest(number):
                self.assertEqual(next(listener), ("1", True, "Large", EXCERPT))
                self.assertEqual(next(listener), ("2", False, "Large", "Small"))

    def test_a_truncated_event_has_the_address_of_the_whole_object(self) -> None:
        self.rename("Large")
        [event] = self.get("/events/?after=0")["events"]
        self.assertEqual(event["url"], f"/tasks/{self.task.pk}/")
        whole = self.get(event["url"])
        self.assertEqual((whole["description"] == TEXT, whole["version"]), (True, event["task"]["version"]))

    def test_resuming_over_many_large_events_costs_little_memory(self) -> None:
        self.rename("Large")
        self.repeat_event(EVENTS - 1)
        first = self.plain(0)
        self.assertEqual([next(first)[0] for _ in range(EVENTS)], [str(n) for n in range(1, EVENTS + 1)])
        before = memory_kb(self.server)
        listeners = [self.plain(0) for _ in range(LISTENERS)]
        for listener in listeners:
            self.assertEqual([next(listener)[0] for _ in range(EVENTS)], [str(n) for n in range(1, EVENTS + 1)])
        self.assertLess(memory_kb(self.server) - before, GROWTH_KB)

    def test_pages_of_events_have_a_bounded_number_of_bytes(self) -> None:
        services.task.update_task(actor=SYSTEM, task_id=self.task.pk, changes={"description": "x" * 60_000})
        self.repeat_event(19)
        positions, cursor, more = [], "0", True
        while more:
            page = self.get(f"/events/?after={cursor}")
            self.assertLess(len(json.dumps(page)), 700_000)
            positions += [event["cursor"] for event in page["events"]]
            cursor, more = page["cursor"], page["more"]
        self.assertEqual(positions, [str(n) for n in range(1, 21)])

    # -- listeners: generators of (cursor, truncated, title, description) --
    def plain(self, after: int) -> Iterator[tuple[Any, ...]]:
        socket = self.socket(f"/ws/notifications/?after={after}")
        self.assertEqual(json.loads(socket.recv(TIMEOUT_S))["type"], "ready")
        return (_fields(json.loads(socket.recv(TIMEOUT_S))) for _ in range(1000))

    def subscription(self, fields: str, after: int) -> Iterator[tuple[Any, ...]]:
        socket = self.socket("/graphql/", subprotocols=[Subprotocol(PROTOCOL)])
        socket.send(json.dumps({"type": "connection_init"}))
        self.assertEqual(json.loads(socket.recv(TIMEOUT_S))["type"], "connection_ack")
        query = f'subscription {{ events(after: "{after}") {{ {fields} }} }}'
        socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}))
        return (_fields(json.loads(socket.recv(TIMEOUT_S))["payload"]["data"]["events"]) for _ in range(1000))

    def stream(self, after: int) -> Iterator[tuple[Any, ...]]:
        response = self.request("GET", f"/events/?after={after}", Accept="text/event-stream")
        frames = (json.loads(line[6:]) for line in response if line.startswith(b"data: "))
        self.assertEqual(next(frames)["type"], "ready")
        return (_fields(frame) for frame in frames)

    def page(self, after: int | str) -> Iterator[tuple[Any, ...]]:
        page = self.get(f"/events/?after={after}")
        yield from map(_fields, page["events"])
        if page["more"]:
            yield from self.page(page["cursor"])

    def query(self, after: int | str) -> Iterator[tuple[Any, ...]]:
        body = json.dumps({"query": f'{{ events(after: "{after}") {{ cursor hasMore nodes {{ {EVENT} }} }} }}'})
        response = self.request("POST", "/graphql/", body, **{"Content-Type": "application/json"})
        page = json.load(response)["data"]["events"]
        yield from map(_fields, page["nodes"])
        if page["hasMore"]:
            yield from self.query(page["cursor"])

    # -- helpers --
    def socket(self, path: str, **options: Any) -> ClientConnection:
        # The client accepts any size, so that only the limit of the server applies.
        socket: ClientConnection = self.enterContext(connect(f"{self.ws_url}{path}", max_size=None, **options))
        return socket

    def request(self, method: str, path: str, body: str | None = None, **headers: str) -> HTTPResponse:
        http = HTTPConnection(urlsplit(self.base_url).netloc, timeout=TIMEOUT_S)
        self.addCleanup(http.close)
        http.request(method, path, body, {"Host": "localhost", **headers})
        response = http.getresponse()
        self.assertEqual(response.status, 200)
        return response

    def get(self, path: str) -> Any:
        return json.load(self.request("GET", path))

    def repeat_event(self, times: int) -> None:
        """Append copies of the first event, which is faster than a service."""
        table = Event._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute(
                f"""INSERT INTO {table}
                    (position, kind, project_id, task_id, actor_id, actor_name, at, payload, audience)
                SELECT 1 + n, kind, project_id, task_id, actor_id, actor_name, at, payload, audience
                  FROM {table}, generate_series(1, %s) n WHERE position = 1""",
                [times],
            )
        notifier.notify()


def _fields(event: dict[str, Any]) -> tuple[Any, ...]:
    """The compared fields of a frame or a GraphQL event. A frame that is not truncated has no `truncated`."""
    return event["cursor"], event.get("truncated", False), event["task"]["title"], event["task"]["description"]


@pytest.mark.slow
class DaphneLargeEventTests(LargeEvents):
    __test__ = True
    environment = {"SERVER": "daphne"}


@pytest.mark.slow
class UvicornLargeEventTests(LargeEvents):
    __test__ = True
    environment = {"SERVER": "uvicorn"}
