"""The size limit of request bodies, on every path of the running product."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from tests.cases import ServerCase

TIMEOUT_S = 20
PATHS = (
    "/graphql/",
    "/graphql",
    "/projects/",
    "/tasks/7/",
    "/events/",
    "/accounts/sign-in/",
    "/accounts/sign-out/",
    "/admin/login/",
    "/admin/projects/user/",
    "/static/site/sign-in.css",
    "/healthz",
    "/nowhere/",
)


class Bodies:
    """Tests of both servers."""

    base_url: str
    subTest: Any  # noqa: N815
    assertEqual: Any  # noqa: N815

    def test_no_path_reads_a_body_over_the_limit(self) -> None:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        for path in PATHS:
            for method in ("GET", "POST"):
                with self.subTest(method=method, path=path):
                    head, body = self._response(f"{method} {path} HTTP/1.1\r\nContent-Length: {limit + 1}")
                    self.assertEqual(head[:13], "HTTP/1.1 413 ")
                    self.assertEqual(json.loads(body), {"detail": f"The body may have at most {limit} bytes."})

    def _response(self, head: str) -> tuple[str, str]:
        """Send a head without the body that it announces. Returns the head and the body of the response."""
        url = urlsplit(self.base_url)
        assert url.port is not None
        with socket.create_connection((url.hostname, url.port), TIMEOUT_S) as client:
            client.sendall(f"{head}\r\nHost: {url.netloc}\r\n\r\n".encode())
            received = b""
            while not received.endswith(b"}"):
                more = client.recv(65536)
                if not more:
                    break
                received += more
        response_head, _, body = received.decode().partition("\r\n\r\n")
        return response_head, body


class DaphneBodyTests(Bodies, ServerCase):
    environment = {"SERVER": "daphne"}


class UvicornBodyTests(Bodies, ServerCase):
    environment = {"SERVER": "uvicorn"}
