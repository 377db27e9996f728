"""One attack on a server of this machine, in a process of its own: `python -m bench.support.attacker NAME PORT TOKEN`.

It goes on until the process is stopped. Each attack stops a server without bounds, or slows all of its other clients
down. An attacker whose connection is refused or closed opens another one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlencode

Attack = Callable[[], Awaitable[None]]

# Another address than that of the ordinary client: bounds are for one address.
ADDRESS = "127.0.0.2"
# Bytes per second of a connection that floods the server.
FLOOD_BYTES_S = 2_000_000
PIECES_S = 100
PAUSE_S = 0.05

EMPTY_CONTINUATION = b"\x00\x80" + bytes(4)
SMALL_TEXT = b"\x81\x81" + bytes(4) + b"x"
FIRST_FRAGMENT = b"\x01\x81" + bytes(4) + b"x"

# Three levels of 100 rows per parent: 1,000,000 rows at the innermost one.
NESTED = "{tasks(first:100){nodes{project{tasks(first:100){nodes{project{tasks(first:100){nodes{id title}}}}}}}}}"
INTROSPECTION = (
    "{__schema{types{...T}}} fragment T on __Type{fields{type{...U} args{type{...U}}}}"
    " fragment U on __Type{fields{type{...V} args{type{...V}}}} fragment V on __Type{fields{type{name} args{name}}}"
)
SUGGESTED = "{" + " ".join(f"a{n}: taskz{n} {{ nodez }}" for n in range(200)) + "}"
SUBSCRIPTION = (
    "subscription{events{cursor ... on TaskUpdated{task{project{tasks(first:100){nodes{project{tasks(first:100)"
    "{nodes{title}}}}}}}}}}"
)


class Attacker:
    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.token = token
        self.random = random.Random(13)

    # --- Connections -------------------------------------------------------------------------------------
    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(ADDRESS, 0))

    def head(self, method: str, path: str, *lines: str) -> bytes:
        return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *lines, "", ""]).encode()

    def handshake(self, path: str, *lines: str, version: int = 13) -> bytes:
        upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        return self.head("GET", path, *upgrade, f"Sec-WebSocket-Version: {version}", *lines)

    async def send_request(self, method: str, path: str, body: bytes, *lines: str) -> bytes:
        """Send a request on a connection of its own, and return the head of the response."""
        reader, writer = await self.connect()
        try:
            writer.write(self.head(method, path, f"Content-Length: {len(body)}", "Connection: close", *lines) + body)
            response = await reader.readuntil(b"\r\n\r\n")
            while await reader.read(2**16):
                pass
            return response
        finally:
            writer.transport.abort()

    async def repeat(self, count: int, attack: Attack) -> None:
        """Run `count` copies of an attack at once. A copy that fails or ends starts again."""

        async def again() -> None:
            while True:
                with suppress(OSError, EOFError, asyncio.LimitOverrunError):
                    await attack()
                await asyncio.sleep(PAUSE_S * self.random.random())

        await asyncio.gather(*(again() for _ in range(count)))

    # --- Sockets -----------------------------------------------------------------------------------------
    async def flood_socket(self, first: bytes, frame: bytes) -> None:
        """Send the same frame at FLOOD_BYTES_S over a socket that does not sign in."""
        reader, writer = await self.connect()
        try:
            writer.write(self.handshake("/ws/notifications/"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            piece = frame * (FLOOD_BYTES_S // PIECES_S // len(frame))
            while not reader.at_eof():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(1 / PIECES_S)
        finally:
            writer.transport.abort()

    async def empty_continuations(self) -> None:
        await self.repeat(1, lambda: self.flood_socket(FIRST_FRAGMENT, EMPTY_CONTINUATION))

    async def small_texts(self) -> None:
        await self.repeat(1, lambda: self.flood_socket(b"", SMALL_TEXT))

    async def anonymous_sockets(self) -> None:
        async def stay() -> None:
            reader, writer = await self.connect()
            try:
                path = self.random.choice(["/ws/notifications/", "/graphql/"])
                writer.write(self.handshake(path, "Sec-WebSocket-Protocol: graphql-transport-ws"))
                while await reader.read(2**16):
                    pass
            finally:
                writer.transport.abort()

        await self.repeat(500, stay)

    async def refused_handshakes(self) -> None:
        async def handshake() -> None:
            reader, writer = await self.connect()
            try:
                kinds = [
                    self.handshake("/ws/nowhere/"),
                    self.handshake("/ws/notifications/", version=7),
                    self.handshake("/ws/notifications/", "Origin: https://evil.example"),
                    self.handshake("/graphql/", "Sec-WebSocket-Protocol: none, \xff"),
                ]
                writer.write(self.random.choice(kinds))
                await reader.read(2**16)
            finally:
                writer.transport.abort()

        await self.repeat(20, handshake)

    async def subscribe(self, document: str, *, repeats: bool) -> None:
        """Send an operation over a signed-in socket; with `repeats`, send it again whenever it ends."""
        reader, writer = await self.connect()
        try:
            protocol, authorization = "Sec-WebSocket-Protocol: graphql-transport-ws", f"Bearer {self.token}"
            writer.write(self.handshake("/graphql/", protocol, f"Authorization: {authorization}"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_text({"type": "connection_init"}))
            await reader.read(2**16)
            for number in range(10**9):
                payload = {"query": document}
                writer.write(_text({"type": "subscribe", "id": str(number), "payload": payload}))
                while data := await reader.read(2**20):
                    if repeats and (b'"complete"' in data or b'"error"' in data):
                        break
                else:
                    return
        finally:
            writer.transport.abort()

    # --- Operations --------------------------------------------------------------------------------------
    async def expensive_documents(self) -> None:
        async def send() -> None:
            body = json.dumps({"query": self.random.choice([NESTED, INTROSPECTION, SUGGESTED])}).encode()
            headers = ["Content-Type: application/json", f"Authorization: Bearer {self.token}"]
            await self.send_request("POST", "/graphql/", body, *headers)

        await self.repeat(12, send)

    async def expensive_documents_by_socket(self) -> None:
        documents = [NESTED, INTROSPECTION, SUGGESTED]
        await self.repeat(12, lambda: self.subscribe(self.random.choice(documents), repeats=True))

    async def expensive_subscriptions(self) -> None:
        await self.repeat(10, lambda: self.subscribe(SUBSCRIPTION, repeats=False))

    # --- Bodies ------------------------------------------------------------------------------------------
    async def sign_ins(self) -> None:
        reader, writer = await self.connect()
        writer.write(self.head("GET", "/accounts/sign-in/", "Connection: close"))
        page = await reader.read(2**16)
        writer.transport.abort()
        cookie = re.search(rb"csrftoken=(\w+)", page)
        token = cookie[1].decode() if cookie else "x" * 32

        async def sign_in() -> None:
            form = {"username": f"user{self.random.random()}", "password": "wrong", "csrfmiddlewaretoken": token}
            headers = ["Content-Type: application/x-www-form-urlencoded", f"Cookie: csrftoken={token}"]
            with suppress(TimeoutError):
                async with asyncio.timeout(2):  # the client gives up
                    await self.send_request("POST", "/accounts/sign-in/", urlencode(form).encode(), *headers)

        await self.repeat(250, sign_in)

    async def trickled_bodies(self) -> None:
        async def trickle() -> None:
            reader, writer = await self.connect()
            try:
                path = self.random.choice(["/graphql/", "/accounts/sign-in/", "/projects/", "/nowhere/"])
                writer.write(self.head("POST", path, "Content-Type: application/json", "Content-Length: 100000"))
                while not reader.at_eof():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.2)
            finally:
                writer.transport.abort()

        await self.repeat(200, trickle)

    async def large_bodies(self) -> None:
        piece = b"x" * 2**16

        async def send() -> None:
            _, writer = await self.connect()
            try:
                path = self.random.choice(["/graphql/", "/accounts/sign-in/", "/projects/", "/nowhere/"])
                is_chunked = self.random.random() < 0.5
                length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {10**9}"
                writer.write(self.head("POST", path, "Content-Type: application/json", length))
                while True:
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
                    await writer.drain()
                    await asyncio.sleep(0)
            finally:
                writer.transport.abort()

        await self.repeat(8, send)


ATTACKS: dict[str, Callable[[Attacker], Awaitable[None]]] = {
    "empty continuation frames": Attacker.empty_continuations,
    "small texts": Attacker.small_texts,
    "sockets that do not sign in": Attacker.anonymous_sockets,
    "250 clients that sign in": Attacker.sign_ins,
    "bodies that trickle": Attacker.trickled_bodies,
    "large bodies": Attacker.large_bodies,
    "refused handshakes": Attacker.refused_handshakes,
    "expensive documents by HTTP": Attacker.expensive_documents,
    "expensive documents by socket": Attacker.expensive_documents_by_socket,
    "expensive subscriptions during writes": Attacker.expensive_subscriptions,
}


def _text(message: dict[str, object]) -> bytes:
    """A text frame. The masking key is zero, which leaves the payload unchanged."""
    payload = json.dumps(message).encode()
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


if __name__ == "__main__":
    os.nice(5)  # the ordinary client, which is measured, has priority
    _, name, port, token = sys.argv
    asyncio.run(ATTACKS[name](Attacker(int(port), token)))  # type: ignore[arg-type]
