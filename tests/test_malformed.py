"""Both servers with clients that break HTTP or the WebSocket protocol, or leave: they write no line to the log."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
from contextlib import suppress

import pytest
from django.test import SimpleTestCase

from tests.cases import start_server
from tests.test_server import HANDSHAKE, Client, EchoCase

GOOD = HANDSHAKE.format(path="/length")
KEY, VERSION = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"
REQUIRED = {405: b"allow: get", 426: b"sec-websocket-version: 13"}


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def added(*lines: str) -> str:
    return GOOD.removesuffix("\r\n") + "".join(f"{line}\r\n" for line in lines) + "\r\n"


# The heads of handshakes, and the status of the response: of both servers, or of daphne and of uvicorn.
HANDSHAKES: list[tuple[str, int | tuple[int, int]]] = [
    (changed(KEY, f"{KEY}="), 400),
    (changed(KEY, KEY.replace("dG", "*G")), 400),
    (changed(KEY, KEY.replace("dG", "é")), 400),
    (changed(f"{KEY}\r\n", ""), 400),
    (added(KEY), 400),
    (changed(VERSION, "Sec-WebSocket-Version: 8"), 426),
    (changed(VERSION, "Sec-WebSocket-Version: x"), 426),
    (changed(VERSION, f"Sec-WebSocket-Version: {'9' * 5000}"), 426),
    (changed(f"{VERSION}\r\n", ""), 426),
    (added(VERSION), 426),
    (changed("GET", "POST"), 405),
    (changed("GET", "HEAD"), 405),
    (changed("GET", "get"), 501),
    (changed("/length", "/length#part"), 400),
    (changed("/length", "/length#"), 400),
    (changed("/length", "/length?x#"), 400),
    (changed("/length", "*"), 400),
    (changed("/length", "/a b"), 400),
    (changed("/length", "/é"), 400),
    (added("Content-Length: 2") + "ab", 400),
    (added("Transfer-Encoding: chunked") + "2\r\nab\r\n0\r\n\r\n", 400),
    (added("Sec-WebSocket-Protocol: é"), 400),
    (added("Sec-WebSocket-Protocol: a, a"), 400),
    (added("Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: a"), 400),
    (added("Sec-WebSocket-Protocol: "), 400),
    (added("no colon"), 400),
    (added("Host: localhost"), 400),
    (changed("Host: localhost\r\n", ""), 400),
    (added(f"X-Long: {'x' * 9000}"), (101, 431)),
    # uvicorn leaves these to the application.
    (changed("Host: localhost", "Host: localhost:port"), (400, 101)),
    (changed("Host: localhost", f"Host: localhost:{'9' * 5000}"), (400, 101)),
    (added("Origin: http://[::1"), (400, 101)),
    (added("Origin: http://localhost:99999"), (400, 101)),
    (added("Origin: nothing"), (400, 101)),
    (added("Daphne-Root-Path: é", "X-Forwarded-For: é"), 101),
    (added("Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: %ff"), 101),
]


def frame(first: int, payload: bytes) -> bytes:
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


TEXT, PART, END, CLOSE, PING = 0x81, 0x01, 0x80, 0x88, 0x89
# Frames, and the code of the close frame that follows.
FRAMES: list[tuple[bytes, int]] = [
    (frame(TEXT, b"\xff"), 1007),
    (frame(TEXT, b"\xc3"), 1007),
    (frame(TEXT, b"\xff") * 3, 1007),
    (frame(TEXT, b"a") + frame(TEXT, b"\xff"), 1007),
    (frame(PART, b"\xc3") + frame(END, b"("), 1007),
    (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    (frame(CLOSE, b"\x03"), 1002),
    (frame(CLOSE, b"\x03\xed"), 1002),
    (frame(TEXT, b"a") + frame(TEXT | 0x40, b"a"), 1002),
    (frame(0x83, b"a"), 1002),
    (frame(END, b"a"), 1002),
    (frame(PART, b"a") + frame(TEXT, b"a"), 1002),
    (frame(PING & 0x0F, b"a"), 1002),
    (b"\x89\xfe\x00\x80" + bytes(4 + 128), 1002),
    (b"\x81\x01a", 1002),  # not masked
    (b"GET / HTTP/1.1\r\n\r\n", 1002),
    (b"\x81\xff" + (2**40).to_bytes(8, "big") + bytes(4), 1009),
]


class Malformed:
    """Tests of both servers, with a server per test."""

    server: subprocess.Popen[str]

    def setUp(self) -> None:
        super().setUp()
        environment = {"SERVER": self.SERVER, "CONNECTIONS_PER_S": "1000"}
        self.server, self.address = start_server("tests.echo", environment, self.addCleanup)

    def test_a_malformed_handshake_is_refused(self) -> None:
        for head, status in HANDSHAKES:
            with self.subTest(head[:400]), self.raw() as client:
                client.sendall(head.encode())
                response = client.receive_until(b"\r\n\r\n")
                expected = status if isinstance(status, int) else status[self.SERVER == "uvicorn"]
                self.assertRegex(response, rb"^HTTP/1.1 %d " % expected)
                self.assertIn(REQUIRED.get(expected, b""), response.lower())
        self.assert_serves_and_has_logged_nothing()

    def test_a_malformed_frame_ends_its_socket(self) -> None:
        for frames, code in FRAMES:
            with self.subTest(frames), self.opened() as client:
                client.sendall(frames)
                closed = re.search(rb"\x88.(..)", client.receive_all(), re.DOTALL)
                if closed or self.SERVER == "uvicorn":  # daphne disconnects without a close frame
                    self.assertEqual(closed and int.from_bytes(closed[1], "big"), code)
        self.assert_serves_and_has_logged_nothing()

    def test_a_client_may_leave_at_any_time(self) -> None:
        heads = [GOOD, *(HANDSHAKE.format(path=path) for path in ("/late", "/never", "/refuse", "/large"))]
        for head in [*heads, *(head for head, _ in HANDSHAKES)]:
            for length in (len(head) // 2, len(head) - 2, len(head)):
                for is_reset in (False, True):
                    with self.raw() as client, suppress(OSError):
                        client.sendall(head[:length].encode())
                        self._leave(client, is_reset)
        for frames, _ in [*FRAMES, (frame(TEXT, b"abc"), 0), (frame(CLOSE, b""), 0)]:
            for length in (1, len(frames) - 1, len(frames)):
                for is_reset in (False, True):
                    with self.opened() as client, suppress(OSError):
                        client.sendall(frames[:length])
                        self._leave(client, is_reset)
        self.assert_serves_and_has_logged_nothing()

    def test_a_reason_that_no_close_frame_can_have_closes_the_socket(self) -> None:
        """Strawberry's reasons contain what the client has sent."""
        with self.opened("/reason") as client:
            self.assertRegex(client.receive_until(b"\x03\xe8"), rb"\x88.\x03\xe8$")
        self.assert_serves_and_has_logged_nothing()

    def test_no_header_sets_the_root_path(self) -> None:
        for value in ("/root", "é"):
            connection = self.http()
            connection.request("GET", "/root", headers={"Daphne-Root-Path": value.encode()})
            self.assertEqual(connection.getresponse().read(), b"")
        self.assert_serves_and_has_logged_nothing()

    def opened(self, path: str = "/length") -> Client:
        client = self.raw()
        client.sendall(HANDSHAKE.format(path=path).encode())
        self.assertRegex(client.receive_until(b"\r\n\r\n"), rb"^HTTP/1.1 101 ")
        return client

    def assert_serves_and_has_logged_nothing(self) -> None:
        client = self.opened()
        client.sendall(frame(TEXT, b"abc"))
        self.assertIn(b"\x81\x013", client.receive_until(b"3"))
        client.receive_until(b"\x89")  # a ping, later than daphne's check for applications that have failed
        self.server.terminate()
        assert self.server.stderr is not None
        self.assertEqual(self.server.stderr.read(), "")

    @staticmethod
    def _leave(client: Client, is_reset: bool) -> None:
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


@pytest.mark.slow
class DaphneMalformedTests(Malformed, EchoCase):
    SERVER = "daphne"


class UvicornMalformedTests(Malformed, EchoCase):
    SERVER = "uvicorn"


class ForgottenSocketTests(SimpleTestCase):
    def test_a_socket_may_end_after_daphne_has_forgotten_it(self) -> None:
        """On a busy server, a refused connection ends after daphne has removed it from its list."""
        # Imported here: it installs Twisted's reactor.
        from backend.server.daphne import Server, Socket

        refused = Socket()
        refused.server = Server.__new__(Server)
        refused.server.connections = {}
        refused.onClose(False, 1006, None)
        self.assertEqual(refused.server.connections, {})
