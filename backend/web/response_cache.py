"""Whole responses out of Redis, ahead of Django (docs/decisions/0008-answers.md).

A view declares its response cacheable and says what it was read from (`cache.responses`). The response is stored whole,
with its headers, under the viewer and everything of the request that may shape it. So only the same request gets it
again, refusals are never stored, and a hit has the headers of a miss.

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
from backend.projects.cache.lists import filing, list_name
from backend.projects.cache.redis import server
from backend.projects.cache.responses import TAG_VERSIONS
from backend.projects.cache.validators import is_held
from backend.projects.cache.versions import BatchedGet, TagVersions, ask_async, version_key

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_GRAPHQL = "/graphql/"
_LISTS = re.compile(r"/(projects/([^/]+/members/)?|tasks/([^/]+/comments/)?|reports/|graphql/)")

# The headers of a request that may shape the answer to a list. With one of the next, it is Django that answers.
_SHAPING = (b"accept", b"content-type", b"host", b"origin", b"x-forwarded-proto")
_NOT_FOR_US = frozenset([b"cookie", b"expect", b"if-match", b"range", b"transfer-encoding"])
_READ = frozenset([*_SHAPING, b"authorization", b"content-length", b"if-none-match"])

# Headers of an answer that a client which holds it has already.
_OF_ROWS = frozenset([b"content-length", b"content-type", b"link", b"x-total-count"])

# Bytes of a GraphQL request that is looked up: what is longer is no list that many ask for.
_MOST_BODY = 2**16
# Answers of which this process remembers what they were read from.
_MOST_KNOWN = 10_000
_MOST_PASSED_BY = 1_000
# Times that somebody waits for others who ask the same, before they ask for themselves.
_MOST_WAITS = 3


@dataclass(frozen=True, slots=True)
class _Question:
    """`key` names who asks and everything that may shape the answer."""

    key: str
    viewer: Viewer
    viewer_versions: TagVersions
    if_none_match: str | None


@dataclass(frozen=True, slots=True)
class _Known:
    """The head of an entry, and what it says: an entry is one line of JSON, after the position, and the body."""

    head: bytes
    headers: Headers
    etag: str | None
    tags: list[str]
    versions: list[bytes]
    # What who holds the answer is told.
    not_modified: list[Message]

    @classmethod
    def of(cls, head: bytes) -> _Known:
        told = orjson.loads(head.partition(b" ")[2])
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told["headers"]]
        etag = next((value for name, value in told["headers"] if name.lower() == "etag"), None)
        left = [(name, value) for name, value in headers if name.lower() not in _OF_ROWS]
        not_modified: list[Message] = [
            {"type": "http.response.start", "status": 304, "headers": left},
            {"type": "http.response.body"},
        ]
        tags, versions = list(told["versions"]), [version.encode() for version in told["versions"].values()]
        return cls(head, headers, etag, tags, versions, not_modified)

    def is_held_by(self, question: _Question) -> bool:
        if_none_match = question.if_none_match
        return self.etag is not None and if_none_match is not None and is_held(if_none_match, self.etag)


class AnswerCache:
    """ASGI middleware around Django's handler."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._under_way: dict[str, asyncio.Future[None]] = {}
        # Questions whose answers are not kept, such as mutations: nobody looks for them or waits for one another.
        self._passed_by: OrderedDict[str, float] = OrderedDict()
        self._batched_get = BatchedGet()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        question = None
        if settings.CACHE_LIST_S > 0 and _LISTS.fullmatch(scope["path"]):
            question, receive = await _question(scope, receive)
        if question is None or self._passed_by.get(question.key, 0) > time.monotonic():
            await self._application(scope, receive, send)
            return
        for _ in range(_MOST_WAITS):
            known = self._known.get(question.key)
            answer = await self._find(question)
            if answer is not None:
                for message in answer:
                    await send(message)
                return
            first = self._under_way.get(question.key)
            if server.is_away or (first is None and self._known.get(question.key) is known):
                break
            if first is not None:
                await asyncio.shield(first)
                if question.viewer.expires_at is not None and timezone.now() >= question.viewer.expires_at:
                    break
            # Else it has been filed while we looked.
        await self._ask(question, scope, receive, send)

    # --- Hits --------------------------------------------------------------------------------------------
    async def _find(self, question: _Question) -> list[Message] | None:
        """The messages of an answer that is current."""
        known = self._known.get(question.key)
        if known and known.is_held_by(question):
            held = await self._look_up(question, known.tags)
            if held is not None and _is_current(question, known, held):
                return known.not_modified
        while True:
            held = await self._look_up(question, known.tags if known else [], list_name(question.key))
            entry = held.pop(0) if held else None
            if held is None or entry is None:
                return None
            head, _, body = entry.partition(b"\n")
            if known is None or known.head != head:
                asked, known = known, self._remember(question.key, _Known.of(head))
                if asked is None or asked.tags != known.tags:
                    continue
            break
        if not _is_current(question, known, held):
            return None
        if known.is_held_by(question):
            return known.not_modified
        return [
            {"type": "http.response.start", "status": 200, "headers": known.headers},
            {"type": "http.response.body", "body": body},
        ]

    async def _look_up(self, question: _Question, tags: list[str], *names: str) -> list[bytes | None] | None:
        """What Redis holds under the names, the versions of the tags, and those that the viewer was checked by."""
        versions = map(version_key, chain(tags, question.viewer_versions.by_tag))
        return await self._batched_get.get([*names, *versions])

    def _remember(self, key: str, known: _Known) -> _Known:
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return known

    # --- Misses ------------------------------------------------------------------------------------------
    async def _ask(self, question: _Question, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Have it answered; who asks the same meanwhile waits until the answer is filed, or is not going to be."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[question.key] = over
        scope = {**scope, TAG_VERSIONS: None}
        answer: list[Message] = []

        def let_others_go() -> None:
            if self._under_way.get(question.key) is over:
                del self._under_way[question.key]
            if not over.done():
                over.set_result(None)

        async def send_on(message: Message) -> None:
            if over.done():
                await send(message)
                return
            answer.append(message)
            if not _may_be_kept(answer[0], scope[TAG_VERSIONS]):
                if scope[TAG_VERSIONS] is None and answer[0]["status"] == 200:
                    self._pass_by(question.key)
                let_others_go()
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                await self._file(question, scope[TAG_VERSIONS], answer)
                let_others_go()
            if over.done():
                for held_back in answer:
                    await send(held_back)

        try:
            await self._application(scope, receive, send_on)
        finally:
            let_others_go()

    def _pass_by(self, key: str) -> None:
        self._passed_by[key] = time.monotonic() + settings.CACHE_LIST_S
        if len(self._passed_by) > _MOST_PASSED_BY:
            self._passed_by.popitem(last=False)

    async def _file(self, question: _Question, tag_versions: TagVersions, answer: list[Message]) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer[0]["headers"]]
        head = orjson.dumps({"versions": tag_versions.by_tag, "headers": headers})
        body = b"".join(message.get("body", b"") for message in answer[1:])
        command = filing(question.key, tag_versions, head + b"\n" + body, viewer=question.viewer)
        if command is not None:
            await ask_async(command)
            self._remember(question.key, _Known.of(b"%d %b" % (tag_versions.position, head)))


def _may_be_kept(start: Message, tag_versions: TagVersions | None) -> bool:
    is_personal = any(name.lower() == b"set-cookie" for name, _ in start["headers"])
    return tag_versions is not None and start["status"] == 200 and not is_personal


def _is_current(question: _Question, known: _Known, versions: list[bytes | None]) -> bool:
    checked_by = [str(version).encode() for version in question.viewer_versions.by_tag.values()]
    return versions == [*known.versions, *checked_by]


# --- Questions -------------------------------------------------------------------------------------------
async def _question(scope: dict[str, Any], receive: Receive) -> tuple[_Question | None, Receive]:
    """What is asked, if it may be a list that is kept; and the request's body, to be received by whoever answers."""
    given: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _NOT_FOR_US or (name in _READ and name in given):
            return None, receive
        if name in _READ:
            given[name] = value
    authorization = given.get(b"authorization")
    found = checked_viewer(None if authorization is None else authorization.decode("latin-1"))
    size = given.get(b"content-length", b"0")
    if found is None or b"host" not in given or not size.isdigit():
        return None, receive
    body = b""
    if scope["method"] == "POST" and scope["path"] == _GRAPHQL and int(size) <= _MOST_BODY:
        body, receive = await _body(receive)
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
        *(given.get(name, b"") for name in _SHAPING),
        body,
    ]
    sizes = struct.pack(f">{len(parts)}I", *map(len, parts))
    digest = hashlib.blake2b(sizes + b"".join(parts), digest_size=16)
    held = given[b"if-none-match"].decode("latin-1") if b"if-none-match" in given else None
    return _Question(f"answer:{digest.hexdigest()}", viewer, tag_versions, held), receive


async def _body(receive: Receive) -> tuple[bytes, Receive]:
    """The body as far as it came, and a way to receive it again."""
    messages: list[Message] = []
    while True:
        messages.append(await receive())
        if messages[-1]["type"] != "http.request" or not messages[-1].get("more_body"):
            break
    left = iter(messages)

    async def receive_again() -> Message:
        return next(left, None) or await receive()

    return b"".join(message.get("body", b"") for message in messages), receive_again
