"""An ASGI application on our server, with a path for each behavior to test: `python -m tests.echo`.

The server's timeouts for pings, handshakes and stopping are short.
"""

import asyncio
import os
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import django

from backend import server

server.PING_INTERVAL_S, server.PING_TIMEOUT_S = 1, 2
server.HANDSHAKE_S = server.STOP_S = 1

# Requests whose client disconnected before the end of the response, by path.
disconnected: Counter[str] = Counter()
gate = asyncio.Event()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await (_http if scope["type"] == "http" else _websocket)(scope, receive, send)


async def _http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    async def respond(body: bytes) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    match scope["path"]:
        case "/echo":
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message["more_body"]:
                    await respond(body)
                    return
            disconnected["/echo"] += 1
        case "/headers":
            while (await receive())["more_body"]:
                pass
            await respond(b",".join(name for name, _ in scope["headers"]))
        case "/address":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            await respond(b" ".join([*hosts, scope["path"].encode(), scope["query_string"]]))
        case "/root":
            await respond(scope["root_path"].encode())
        case "/files":
            # The number of open files without a name, such as those of `tempfile`.
            while (await receive())["more_body"]:
                pass
            names = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
            await respond(str(sum(name.startswith("/") and name.endswith("(deleted)") for name in names)).encode())
        case "/disconnected":
            await respond(str(disconnected[scope["query_string"].decode()]).encode())
        case "/stream":
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"begun\n", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            disconnected["/stream"] += 1
        case "/shut":
            # Ends once the server accepts no more connections.
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"begun\n", "more_body": True})
            while await _is_open(*scope["server"]):
                pass
            await send({"type": "http.response.body", "body": b"shut\n"})
        case "/open":
            gate.set()
            await respond(b"open")
        case "/hang":
            await asyncio.Event().wait()


async def _is_open(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def _websocket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    match scope["path"]:
        case "/close":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": int(scope["query_string"])})
            await receive()
        case "/reason":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "reason": "\ud800" + "é" * 200})
            await receive()
        case "/late":
            # Accepts once the client has left.
            await receive()
            with suppress(OSError):  # the ASGI spec lets `send` raise it
                await send({"type": "websocket.accept"})
                await send({"type": "websocket.send", "text": "late"})
        case "/refuse":
            await send({"type": "websocket.close"})
        case "/raise":
            await send({"type": "websocket.accept"})
            raise RuntimeError("on purpose")
        case "/never":
            await receive()
        case "/length":
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": str(len(message["text"]))})
        case "/large":
            # Sends messages of the sizes that the client requests, and one more after its disconnect.
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": "x" * int(message["text"])})
            with suppress(OSError):  # the ASGI spec lets `send` raise it
                await send({"type": "websocket.send", "text": "late"})
        case "/now":
            # Sends as many messages as possible without waiting, then their number.
            await send({"type": "websocket.accept"})
            count = 0
            while scope["extensions"][server.TRY_SEND]["send"]("x" * 1000):
                count += 1
            await send({"type": "websocket.send", "text": str(count)})
            await receive()
        case "/gate":
            # Receives nothing until a request to /open opens the gate.
            await send({"type": "websocket.accept"})
            await gate.wait()
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": str(len(message["text"]))})
        case "/hang":
            await send({"type": "websocket.accept"})
            await asyncio.Event().wait()


if __name__ == "__main__":
    django.setup()
    sys.exit(server.serve(application))
