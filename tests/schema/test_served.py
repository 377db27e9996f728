"""GraphQL over HTTP and WebSocket on a running server, over TCP."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.cases import ServerCase
from tests.factories import ProjectFactory, TaskFactory
from tests.schema.sockets import PROTOCOL, TIMEOUT_S


class Served:
    """Tests that run on daphne and on uvicorn."""

    def post(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(f"{self.base_url}/graphql/", body, {"Content-Type": "application/json"})  # noqa: S310
        with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            self.assertEqual(response.headers["Content-Type"], "application/graphql-response+json; charset=utf-8")
            return json.load(response)["data"]

    def receive(self, socket: ClientConnection) -> Any:
        return json.loads(socket.recv(timeout=TIMEOUT_S))

    def test_a_write_over_http_is_received_on_a_socket(self) -> None:
        project = ProjectFactory(name="Garden")
        self.assertEqual(
            self.post("query ($id: ID!) { project(id: $id) { name } cursor }", id=project.pk),
            {"project": {"name": "Garden"}, "cursor": "0"},
        )
        with connect(f"{self.ws_url}/graphql/", subprotocols=[Subprotocol(PROTOCOL)]) as socket:
            self.assertEqual(socket.subprotocol, PROTOCOL)
            socket.send(json.dumps({"type": "connection_init"}))
            self.assertEqual(self.receive(socket), {"type": "connection_ack"})
            listen = 'subscription { events(after: "0") { kind cursor ... on TaskCreated { task { title } } } }'
            socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": listen}}))
            # The subscription may receive the first event while it catches up. It receives the second one live.
            for position, title in enumerate(("Weed", "Mow"), start=1):
                document = """mutation ($project: ID!, $title: String!) {
                  createTask(input: {projectId: $project, title: $title, dueDate: "2027-03-01"}) { __typename }
                }"""
                created = self.post(document, project=project.pk, title=title)
                self.assertEqual(created, {"createTask": {"__typename": "Task"}})
                event = {"kind": "TASK_CREATED", "cursor": str(position), "task": {"title": title}}
                self.assertEqual(
                    self.receive(socket), {"type": "next", "id": "1", "payload": {"data": {"events": event}}}
                )

    def test_a_result_may_be_larger_than_a_message_of_a_client(self) -> None:
        description = "x" * 60_000
        TaskFactory.create_batch(20, description=description)
        with connect(f"{self.ws_url}/graphql/", subprotocols=[Subprotocol(PROTOCOL)], max_size=None) as socket:
            socket.send(json.dumps({"type": "connection_init"}))
            self.assertEqual(self.receive(socket), {"type": "connection_ack"})
            payload = {"query": "{ tasks(first: 20) { nodes { description } } }"}
            socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            tasks = self.receive(socket)["payload"]["data"]["tasks"]
            self.assertEqual(tasks["nodes"], [{"description": description}] * 20)
            self.assertEqual(self.receive(socket), {"type": "complete", "id": "1"})


class DaphneTests(Served, ServerCase):
    environment = {"SERVER": "daphne"}


class UvicornTests(Served, ServerCase):
    environment = {"SERVER": "uvicorn"}
