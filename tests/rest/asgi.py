"""An ASGI client for HTTP: request bodies in chunks, and responses read chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

from asgiref.testing import ApplicationCommunicator

from backend.web.handler import Handler

TIMEOUT_S = 10


class Exchange:
    """One request and its response. The client disconnects at the end of the `async with`."""

    status: int
    headers: dict[str, str]

    def __init__(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: Sequence[bytes] = (),
        application: Any = None,
    ) -> None:
        all_headers = {"host": "testserver", **(headers or {})}
        self._body = body
        self._is_over = False
        self._server = ApplicationCommunicator(
            application or Handler(),
            {
                "type": "http",
                "method": method,
                "scheme": "http",
                "path": path,
                "query_string": query.encode(),
                "headers": [(name.lower().encode(), value.encode()) for name, value in all_headers.items()],
            },
        )

    async def __aenter__(self) -> Self:
        for chunk in self._body:
            await self._server.send_input({"type": "http.request", "body": chunk, "more_body": True})
        await self._server.send_input({"type": "http.request", "body": b"", "more_body": False})
        start = await self._server.receive_output(TIMEOUT_S)
        self.status = start["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_over:
            await self._server.send_input({"type": "http.disconnect"})
        await self._server.wait(TIMEOUT_S)

    async def read(self) -> str:
        """The next chunk of the response; empty at its end."""
        while not self._is_over:
            message = await self._server.receive_output(TIMEOUT_S)
            self._is_over = not message.get("more_body", False)
            if message.get("body"):
                return str(message["body"].decode())
        return ""

    @staticmethod
    def json(text: str) -> Any:
        return json.loads(text)
