"""Serves whole responses from Redis, ahead of Django (docs/decisions/0008-responses.md).

A view declares its response cacheable, with its tag versions (`cache.responses`). The response is stored whole, with
its headers, under the viewer and everything of the request that may shape it. So only the same request gets it again,
refusals are never stored, and a hit has the headers of a miss.

A hit costs one round trip to Redis: the entry, the versions of its tags, and the version that the viewer's token was
checked at. Concurrent requests for a response that is not stored wait for the first of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import struct
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson
from django.conf import settings
from django.utils import timezone

from backend.projects.access import Viewer
from backend.projects.authentication import checked_viewer
from backend.projects.cache.lists import list_name, store_command
from backend.projects.cache.redis import server
from backend.projects.cache.responses import CACHEABLE, Cacheable
from backend.projects.cache.validators import etag_matches
from backend.projects.cache.versions import BatchedGet, TagVersions, ask_async, version_key

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_GRAPHQL = "/graphql/"
_LISTS = re.compile(r"/(projects/([^/]+/members/)?|tasks/([^/]+/comments/)?|reports/|graphql/)")

# Request headers that may shape the response to a list. A request with one of _BYPASSING goes to Django.
_SHAPING = (b"accept", b"content-type", b"host", b"origin", b"x-forwarded-proto")
_BYPASSING = frozenset([b"cookie", b"expect", b"if-match", b"range", b"transfer-encoding"])
_READ = frozenset([*_SHAPING, b"authorization", b"content-length", b"if-none-match"])

# Response headers that describe the body; a 304 has none of them.
_ONLY_WITH_BODY = frozenset([b"content-length", b"content-type", b"link", b"x-total-count"])

# Every mutation contains this. Mutations are not looked up: a write would wait for a Redis that hangs.
_MUTATION = b"mutation"

# The balance of the viewer's budget: a hit is not charged, and does not report it (docs/decisions/0009-cost.md).
_NOT_STORED = frozenset([b"ratelimit"])
_BALANCE = re.compile(rb',"available":\d+(?=\}\}\}\Z)')
# The balance is within this many bytes at the end of a GraphQL response.
_BALANCE_BYTES = 60

# Bytes of a GraphQL request. A longer one is not looked up: few clients send it.
_MAX_BODY = 2**16
# Entries whose heads this process remembers, and requests that it remembers as uncacheable.
_MAX_KNOWN = 10_000
_MAX_UNCACHEABLE = 1_000
# Times that a request waits for equal requests before it goes to Django itself.
_MAX_WAITS = 3


@dataclass(frozen=True, slots=True)
class _Request:
    """A request whose response may be cacheable. `key` covers the viewer and everything that may shape the response."""

    key: str
    viewer: Viewer
    viewer_versions: TagVersions
    if_none_match: str | None


@dataclass(frozen=True, slots=True)
class _Head:
    """The head of an entry, parsed. An entry is the position, one line of JSON, and the body."""

    raw: bytes
    headers: Headers
    etag: str | None
    tags: list[str]
    versions: list[bytes]
    # The precomputed 304.
    not_modified: list[Message]

    @classmethod
    def parse(cls, raw: bytes) -> _Head:
        head = orjson.loads(raw.partition(b" ")[2])
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"]]
        etag = next((value for name, value in head["headers"] if name.lower() == "etag"), None)
        bodiless = [(name, value) for name, value in headers if name.lower() not in _ONLY_WITH_BODY]
        not_modified: list[Message] = [
            {"type": "http.response.start", "status": 304, "headers": bodiless},
            {"type": "http.response.body"},
        ]
        versions = [version.encode() for version in head["versions"].values()]
        return cls(raw, headers, etag, list(head["versions"]), versions, not_modified)

    def matches(self, request: _Request) -> bool:
        """Whether the client has this response already."""
        if_none_match = request.if_none_match
        return self.etag is not None and if_none_match is not None and etag_matches(if_none_match, self.etag)


class ResponseCache:
    """ASGI middleware around Django's handler."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._heads: OrderedDict[str, _Head] = OrderedDict()
        self._in_progress: dict[str, asyncio.Future[None]] = {}
        # Requests whose responses are not cacheable, such as queries of `me`: they are not looked up, and do not wait.
        self._uncacheable: OrderedDict[str, float] = OrderedDict()
        self._batched_get = BatchedGet()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        request = None
        if settings.CACHE_LIST_S > 0 and _LISTS.fullmatch(scope["path"]):
            request, receive = await _parse_request(scope, receive)
        if request is None or self._uncacheable.get(request.key, 0) > time.monotonic():
            await self._application(scope, receive, send)
            return
        for _ in range(_MAX_WAITS):
            head = self._heads.get(request.key)
            response = await self._find(request)
            if response is not None:
                for message in response:
                    await send(message)
                return
            first = self._in_progress.get(request.key)
            if server.is_away or (first is None and self._heads.get(request.key) is head):
                break
            if first is not None:
                await asyncio.shield(first)
                if request.viewer.expires_at is not None and timezone.now() >= request.viewer.expires_at:
                    break
            # Otherwise the response was stored during the lookup.
        await self._call_application(request, scope, receive, send)

    # --- Hits --------------------------------------------------------------------------------------------
    async def _find(self, request: _Request) -> list[Message] | None:
        """The messages of the stored response if it is current, else None."""
        head = self._heads.get(request.key)
        if head and head.matches(request):
            found = await self._look_up(request, head.tags)
            if found is not None and _is_current(request, head, found):
                return head.not_modified
        while True:
            found = await self._look_up(request, head.tags if head else [], list_name(request.key))
            entry = found.pop(0) if found else None
            if found is None or entry is None:
                return None
            raw, _, body = entry.partition(b"\n")
            if head is None or head.raw != raw:
                expected, head = head, self._remember(request.key, _Head.parse(raw))
                if expected is None or expected.tags != head.tags:
                    continue
            break
        if not _is_current(request, head, found):
            return None
        if head.matches(request):
            return head.not_modified
        return [
            {"type": "http.response.start", "status": 200, "headers": head.headers},
            {"type": "http.response.body", "body": body},
        ]

    async def _look_up(self, request: _Request, tags: list[str], *names: str) -> list[bytes | None] | None:
        """Return the values of the names, then the versions of the tags, then those of the viewer's tags."""
        versions = map(version_key, chain(tags, request.viewer_versions.by_tag))
        return await self._batched_get.get([*names, *versions])

    def _remember(self, key: str, head: _Head) -> _Head:
        self._heads[key] = head
        self._heads.move_to_end(key)
        if len(self._heads) > _MAX_KNOWN:
            self._heads.popitem(last=False)
        return head

    # --- Misses ------------------------------------------------------------------------------------------
    async def _call_application(self, request: _Request, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Let Django respond. Equal requests wait until the response is stored or proves uncacheable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_progress[request.key] = done
        scope = {**scope, CACHEABLE: None}
        response: list[Message] = []

        def release_waiting() -> None:
            if self._in_progress.get(request.key) is done:
                del self._in_progress[request.key]
            if not done.done():
                done.set_result(None)

        async def send_and_store(message: Message) -> None:
            if done.done():
                await send(message)
                return
            response.append(message)
            cacheable: Cacheable | None = scope[CACHEABLE]
            if cacheable is None or not _may_store(request, cacheable, response[0]):
                if cacheable is None and response[0]["status"] == 200:
                    self._remember_uncacheable(request.key)
                release_waiting()
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                await self._store(request, cacheable.tag_versions, response)
                release_waiting()
            if done.done():
                for buffered in response:
                    await send(buffered)

        try:
            await self._application(scope, receive, send_and_store)
        finally:
            release_waiting()

    def _remember_uncacheable(self, key: str) -> None:
        self._uncacheable[key] = time.monotonic() + settings.CACHE_LIST_S
        if len(self._uncacheable) > _MAX_UNCACHEABLE:
            self._uncacheable.popitem(last=False)

    async def _store(self, request: _Request, tag_versions: TagVersions, response: list[Message]) -> None:
        body = _without_balance(b"".join(message.get("body", b"") for message in response[1:]))
        headers = [
            (name.decode("latin-1"), str(len(body)) if name.lower() == b"content-length" else value.decode("latin-1"))
            for name, value in response[0]["headers"]
            if name.lower() not in _NOT_STORED
        ]
        head = orjson.dumps({"versions": tag_versions.by_tag, "headers": headers})
        command = store_command(request.key, tag_versions, head + b"\n" + body, viewer=request.viewer)
        if command is not None:
            await ask_async(command)
            self._remember(request.key, _Head.parse(b"%d %b" % (tag_versions.position, head)))


def _without_balance(body: bytes) -> bytes:
    """The body without `extensions.cost.available`, its last member."""
    end = body[-_BALANCE_BYTES:]
    return body if b"available" not in end else body[:-_BALANCE_BYTES] + _BALANCE.sub(b"", end)


def _may_store(request: _Request, cacheable: Cacheable, start: Message) -> bool:
    """Whether the response may be stored under the request's key.

    The key contains the viewer that this process remembered. Django has checked the credential again: if the staff flag
    of the viewer has changed meanwhile, the response belongs under another key.
    """
    is_personal = any(name.lower() == b"set-cookie" for name, _ in start["headers"])
    return cacheable.viewer == request.viewer and start["status"] == 200 and not is_personal


def _is_current(request: _Request, head: _Head, versions: list[bytes | None]) -> bool:
    checked_at = [str(version).encode() for version in request.viewer_versions.by_tag.values()]
    return versions == [*head.versions, *checked_at]


# --- Requests --------------------------------------------------------------------------------------------
async def _parse_request(scope: dict[str, Any], receive: Receive) -> tuple[_Request | None, Receive]:
    """Return the request if its response may be cacheable, and a `receive` for the application to read its body."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _BYPASSING or (name in _READ and name in headers):
            return None, receive
        if name in _READ:
            headers[name] = value
    authorization = headers.get(b"authorization")
    found = checked_viewer(None if authorization is None else authorization.decode("latin-1"))
    size = headers.get(b"content-length", b"0")
    if found is None or b"host" not in headers or not size.isdigit():
        return None, receive
    body = b""
    if scope["method"] == "POST" and scope["path"] == _GRAPHQL and int(size) <= _MAX_BODY:
        body, receive = await _read_body(receive)
        if _MUTATION in body:
            return None, receive
    elif scope["method"] != "GET" or size != b"0":
        return None, receive
    viewer, tag_versions = found
    parts = [
        settings.BUILD.encode(),
        viewer.key.encode(),
        scope["scheme"].encode(),
        scope["method"].encode(),
        scope["path"].encode(),
        scope["query_string"],
        *(headers.get(name, b"") for name in _SHAPING),
        body,
    ]
    sizes = struct.pack(f">{len(parts)}I", *map(len, parts))
    digest = hashlib.blake2b(sizes + b"".join(parts), digest_size=16)
    if_none_match = headers[b"if-none-match"].decode("latin-1") if b"if-none-match" in headers else None
    return _Request(f"response:{digest.hexdigest()}", viewer, tag_versions, if_none_match), receive


async def _read_body(receive: Receive) -> tuple[bytes, Receive]:
    """Return the body as far as it was received, and a `receive` that returns it again."""
    messages: list[Message] = []
    while True:
        messages.append(await receive())
        if messages[-1]["type"] != "http.request" or not messages[-1].get("more_body"):
            break
    remaining = iter(messages)

    async def receive_again() -> Message:
        return next(remaining, None) or await receive()

    return b"".join(message.get("body", b"") for message in messages), receive_again
