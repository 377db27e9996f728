"""Both servers with any application: HTTP, WebSockets and stopping."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
from contextlib import suppress
from http.client import HTTPConnection

import pytest
from django.conf import settings
from django.test import SimpleTestCase
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from backend.server import CLOSE_S, MESSAGE_BYTES, STOP_S
from tests.cases import start_server

TIMEOUT_S = 20
BODY_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Client(socket.socket):
    """Raw bytes over TCP."""

    def __init__(self, address: str, source: str = "127.0.0.1") -> None:
        super().__init__()
        host, port = address.split(":")
        self.settimeout(TIMEOUT_S)
        self.bind((source, 0))
        self.connect((host, int(port)))

    def send_text(self, text: str) -> None:
        self.sendall(text.replace("\n", "\r\n").encode("latin-1"))

    def receive_until(self, end: bytes) -> bytes:
        """Everything up to and including `end`, or up to the end of the connection."""
        received = b""
        while not received.endswith(end):
            byte = self.recv(1)
            if not byte:
                break
            received += byte
        return received

    def receive_all(self) -> bytes:
        received = b""
        with suppress(ConnectionResetError):
            while more := self.recv(65536):
                received += more
        return received


@pytest.mark.server
class EchoCase(SimpleTestCase):
    """`tests.echo` on the server `SERVER`, in one process for all tests of the class."""

    SERVER: str
    ENVIRONMENT: dict[str, str] = {}
    address: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        _, cls.address = start_server("tests.echo", {"SERVER": cls.SERVER, **cls.ENVIRONMENT}, cls.addClassCleanup)

    def http(self) -> HTTPConnection:
        connection = HTTPConnection(self.address, timeout=TIMEOUT_S)
        self.addCleanup(connection.close)
        return connection

    def raw(self) -> Client:
        return self.enterContext(Client(self.address))

    def disconnected(self, path: str) -> int:
        connection = self.http()
        connection.request("GET", f"/disconnected?{path}")
        return int(connection.getresponse().read())


class Http:
    """Tests of both servers."""

    def test_the_selected_server_runs(self) -> None:
        connection = self.http()
        connection.request("GET", "/echo")
        self.assertEqual(connection.getresponse().headers["Server"], self.SERVER)

    def test_a_port_in_use_ends_the_server(self) -> None:
        environment = {"SERVER": self.SERVER, "PORT": self.address.rpartition(":")[2]}
        with self.assertRaisesRegex(AssertionError, "ended before"):
            start_server("tests.echo", environment, self.addCleanup)

    def test_a_chunked_body_arrives_as_a_whole(self) -> None:
        connection = self.http()
        connection.request("POST", "/echo", iter([b"a" * 100_000, b"b"]), encode_chunked=True)
        self.assertEqual(connection.getresponse().read(), b"a" * 100_000 + b"b")

    def test_a_form_is_passed_on_unparsed(self) -> None:
        connection = self.http()
        for kind in ("multipart/form-data; boundary=x", "multipart/form-data", "application/x-www-form-urlencoded"):
            with self.subTest(kind):
                connection.request("POST", "/echo", b"no form", {"Content-Type": kind})
                self.assertEqual(connection.getresponse().read(), b"no form")

    def test_trailers_are_bounded_and_are_not_headers(self) -> None:
        head = "GET /headers HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n1\na\n0\n"
        client = self.raw()
        client.send_text(f"{head}X-Late: yes\n\n")
        self.assertEqual(client.receive_until(b"\r\n\r\n" + b"host,transfer-encoding")[-22:], b"host,transfer-encoding")
        endless = self.raw()
        with suppress(ConnectionError):  # the server may stop reading
            endless.send_text(f"{head}X-Late: {'x' * 2_000_000}")
        self.assertNotIn(b" 200 ", endless.receive_all())

    def test_head_gets_headers_only_and_the_connection_stays_open(self) -> None:
        connection = self.http()
        connection.request("HEAD", "/disconnected?")
        response = connection.getresponse()
        self.assertEqual((response.headers["Content-Length"], response.read()), ("1", b""))
        before = connection.sock
        connection.request("POST", "/echo", b"again")
        self.assertEqual(connection.getresponse().read(), b"again")
        self.assertIs(connection.sock, before)

    def test_an_http_1_0_connection_ends_after_its_response(self) -> None:
        client = self.raw()
        client.send_text("POST /echo HTTP/1.0\nContent-Length: 2\n\nab")
        self.assertTrue(client.receive_all().endswith(b"\r\n\r\nab"))

    def test_a_client_that_expects_100_continue_gets_it(self) -> None:
        client = self.raw()
        client.send_text("POST /echo HTTP/1.1\nHost: localhost\nContent-Length: 2\nExpect: 100-continue\n\n")
        self.assertTrue(client.receive_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 "))
        client.send_text("ab")
        self.assertTrue(client.receive_until(b"\r\n\r\nab").startswith(b"HTTP/1.1 200 "))

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        client = self.raw()
        bodies = [f"<{number}>" for number in range(20)]
        client.send_text(
            "".join(f"POST /echo HTTP/1.1\nHost: localhost\nContent-Length: {len(b)}\n\n{b}" for b in bodies)
        )
        responses = client.receive_until(b"\r\n\r\n<19>")
        self.assertEqual(re.findall(rb"<\d+>", responses), [body.encode() for body in bodies])

    def test_an_endless_head_is_refused(self) -> None:
        self.assert_head_is_refused("x" * 400_000)

    def assert_head_is_refused(self, rest: str) -> None:
        client = self.raw()
        with suppress(ConnectionError):  # the server may stop reading
            client.send_text(f"GET /echo HTTP/1.1\nHost: localhost\n{rest}")
        self.assertNotIn(b" 200 ", client.receive_all())

    def test_a_target_that_is_not_ascii_is_refused(self) -> None:
        for path in ("/\xe9", "/echo?\xe9"):
            with self.subTest(path):
                client = self.raw()
                client.send_text(f"GET {path} HTTP/1.1\nHost: localhost\n\n")
                self.assertTrue(client.receive_all().startswith(b"HTTP/1.1 400 "))

    def test_an_upgrade_to_another_protocol_is_ignored(self) -> None:
        connection = self.http()
        for _ in range(2):
            connection.request("POST", "/echo", b"ab", {"Upgrade": "h2c", "Connection": "Upgrade"})
            response = connection.getresponse()
            self.assertEqual((response.status, response.read()), (200, b"ab"))

    def test_a_stream_ends_when_its_client_disconnects(self) -> None:
        self.assert_stream_ends("")

    def assert_stream_ends(self, rest: str) -> None:
        before = self.disconnected("/stream")
        with Client(self.address) as client:
            client.send_text("GET /stream HTTP/1.1\nHost: localhost\n\n")
            client.receive_until(b"begun\n")
            client.send_text(rest)
        self._wait_until_disconnected("/stream", before + 1)

    def _wait_until_disconnected(self, path: str, count: int) -> None:
        for _ in range(1000):
            if self.disconnected(path) == count:
                return
        self.fail(f"The request of {path} has not ended.")


class Targets:
    """Tests of both servers: the first line of a request, and its Host (RFC 9112, section 3)."""

    def test_a_request_has_exactly_one_host(self) -> None:
        for head, status in (
            ("GET /address HTTP/1.1\n\n", 400),
            ("GET http://localhost/address HTTP/1.1\n\n", 400),
            ("GET /address HTTP/1.1\nHost: localhost\nHost: localhost\n\n", 400),
            ("GET /address HTTP/1.0\n\n", 200),
        ):
            with self.subTest(head):
                self.assertEqual(self._status_of(head), status)

    def test_an_absolute_target_names_the_host(self) -> None:
        for target, expected in (
            ("http://example.org:8000/address?x=1", b"example.org:8000 /address x=1"),
            ("HTTPS://example.org/address", b"example.org /address "),
            ("http://[::1]:80/addres%73", b"[::1]:80 /address "),
        ):
            with self.subTest(target):
                client = self.raw()
                client.send_text(f"GET {target} HTTP/1.1\nHost: localhost\nConnection: close\n\n")
                self.assertEqual(client.receive_all().partition(b"\r\n\r\n")[2], expected)

    def test_any_other_target_is_refused(self) -> None:
        for target in ("address", "http:///address", "http://user@localhost/address", "ftp://localhost/address", "*"):
            with self.subTest(target):
                self.assertEqual(self._status_of(f"GET {target} HTTP/1.1\nHost: localhost\n\n"), 400)

    def test_a_socket_may_have_an_absolute_target(self) -> None:
        client = self.raw()
        client.sendall(HANDSHAKE.format(path="http://localhost/length").encode())
        self.assertTrue(client.receive_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 "))

    def test_methods_are_case_sensitive(self) -> None:
        for method in ("get", "Post", "delete"):
            with self.subTest(method):
                self.assertEqual(self._status_of(f"{method} /address HTTP/1.1\nHost: localhost\n\n"), 501)

    def _status_of(self, head: str) -> int:
        client = self.raw()
        client.send_text(head)
        return int(client.receive_until(b"\r\n").split()[1])


class Bodies:
    """Tests of both servers, with short deadlines."""

    ENVIRONMENT = {"REQUEST_HEAD_S": "1", "REQUEST_BODY_S": "1"}

    def test_a_body_over_the_limit_is_refused_before_it_is_sent(self) -> None:
        for expect in ("", "Expect: 100-continue\n"):
            for path in ("/echo", "/nowhere/"):
                with self.subTest(expect=expect, path=path):
                    client = self.raw()
                    client.send_text(
                        f"POST {path} HTTP/1.1\nHost: localhost\nContent-Length: {BODY_BYTES + 1}\n{expect}\n"
                    )
                    self.assert_refused(client, 413, f"The body may have at most {BODY_BYTES} bytes.")

    def test_an_invalid_content_length_is_refused(self) -> None:
        for length in ("9" * 5000, "-1", "+1", "1_0", "x", ""):
            with self.subTest(length[:9]):
                client = self.raw()
                client.send_text(f"POST /echo HTTP/1.1\nHost: localhost\nContent-Length: {length}\n\n")
                self.assertTrue(client.receive_until(b"\r\n").startswith(b"HTTP/1.1 400 "))

    def test_a_chunked_body_over_the_limit_is_refused_before_its_end(self) -> None:
        client = self.raw()
        client.send_text("POST /echo HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n")
        for _ in range(BODY_BYTES // 65536 + 1):
            client.send_text(f"10000\n{'x' * 65536}\n")
        self.assert_refused(client, 413, f"The body may have at most {BODY_BYTES} bytes.")

    def test_a_client_that_sends_the_whole_body_reads_the_refusal(self) -> None:
        connection = self.http()
        for body in (b"x" * (8 * BODY_BYTES), iter([b"x" * BODY_BYTES] * 8)):
            connection.request("POST", "/echo", body, encode_chunked=True)
            response = connection.getresponse()
            self.assertEqual((response.status, response.headers["Connection"]), (413, "close"))
            connection.close()

    def test_a_body_of_exactly_the_limit_is_read(self) -> None:
        connection = self.http()
        for body in (b"x" * BODY_BYTES, iter([b"x" * (BODY_BYTES - 1), b"x"])):
            connection.request("POST", "/echo", body, encode_chunked=True)
            self.assertEqual(len(connection.getresponse().read()), BODY_BYTES)

    def test_no_body_is_written_to_a_file(self) -> None:
        connection = self.http()
        counts = set()
        for body in (b"x", b"x" * BODY_BYTES, iter([b"x" * BODY_BYTES])):
            connection.request("POST", "/files", body, encode_chunked=True)
            counts.add(connection.getresponse().read())
        self.assertEqual(len(counts), 1)

    def test_a_body_that_trickles_is_refused(self) -> None:
        idle = self.http()
        idle.request("POST", "/echo", b"ab")
        self.assertEqual(idle.getresponse().read(), b"ab")
        for head, part in (("Content-Length: 10000", b"x"), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")):
            with self.subTest(head):
                client = self.raw()
                client.send_text(f"POST /echo HTTP/1.1\nHost: localhost\n{head}\n\n")
                self.trickle(client, part)
                self.assert_refused(client, 408, "The request took too long to arrive.")
        # The deadline starts with each request. This connection has been open for longer than one.
        idle.request("POST", "/echo", b"ab")
        self.assertEqual(idle.getresponse().read(), b"ab")

    def test_a_head_that_trickles_is_refused(self) -> None:
        for start in ("", "GET /echo HTTP/1.1\nHost: localhost\nX-Slow: "):
            with self.subTest(start):
                client = self.raw()
                client.send_text(start)
                self.trickle(client, b"x")
                self.assert_refused(client, 408, "The request took too long to arrive.")

    def test_a_second_head_that_trickles_is_refused(self) -> None:
        client = self.raw()
        client.send_text("POST /echo HTTP/1.1\nHost: localhost\nContent-Length: 2\n\nabGET")
        client.receive_until(b"\r\n\r\nab")
        self.trickle(client, b"x")
        self.assert_refused(client, 408, "The request took too long to arrive.")

    def trickle(self, client: Client, part: bytes) -> None:
        """Send `part` again and again until the server responds or closes the connection."""
        poll = select.poll()
        poll.register(client, select.POLLIN)
        for _ in range(400):
            if poll.poll(20):
                return
            with suppress(ConnectionError):
                client.sendall(part)
        self.fail("The server still reads.")

    def assert_refused(self, client: Client, status: int, detail: str) -> None:
        """Check that the response is this error, and that nothing follows it."""
        head, _, body = client.receive_until(b"}").partition(b"\r\n\r\n")
        self.assertRegex(head, rf"^HTTP/1.1 {status} ".encode())
        self.assertRegex(head.lower(), rb"\r\nconnection: close(\r\n|$)")
        self.assertEqual(json.loads(body), {"detail": detail})
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(client.receive_all(), b"")


class Sockets:
    """Tests of both servers."""

    def test_a_close_code_of_the_application_is_sent_unchanged(self) -> None:
        for code in (1000, 1001, 1011, 1012, 1013, 4401):
            with self.subTest(code):
                self.assertEqual(self._code_of(f"/close?{code}"), code)

    def test_a_refusal_before_the_handshake_is_a_403(self) -> None:
        with self.assertRaises(InvalidStatus) as refusal, connect(f"ws://{self.address}/refuse"):
            pass
        self.assertEqual(refusal.exception.response.status_code, 403)

    def test_an_error_of_the_application_closes_with_1011(self) -> None:
        self.assertEqual(self._code_of("/raise"), 1011)

    def test_an_invalid_handshake_is_refused(self) -> None:
        handshake = HANDSHAKE.format(path="/length")
        for wrong in (
            handshake.replace("Sec-WebSocket-Key", "X-Key"),
            handshake.replace("Version: 13", "Version: 3"),
            handshake.replace("GET", "POST"),
        ):
            with self.subTest(wrong):
                client = self.raw()
                client.sendall(wrong.encode())
                self.assertRegex(client.receive_all(), rb"^HTTP/1.1 4")

    def test_a_message_may_have_the_maximum_size_and_no_more(self) -> None:
        with connect(f"ws://{self.address}/length") as client:
            client.send("x" * MESSAGE_BYTES)
            self.assertEqual(client.recv(TIMEOUT_S), str(MESSAGE_BYTES))
            # `send` itself raises it if the server closes before all of the message is sent.
            with self.assertRaises(ConnectionClosed):
                client.send("x" * (MESSAGE_BYTES + 1))
                client.recv(TIMEOUT_S)
            self.assertIn(client.close_code, (1009, 1006))  # daphne sends no close frame

    def test_the_server_sends_larger_messages_than_it_receives(self) -> None:
        with connect(f"ws://{self.address}/large", max_size=None) as client:
            for size in (MESSAGE_BYTES + 1, 5 * MESSAGE_BYTES, 1):
                client.send(str(size))
                self.assertEqual(len(client.recv(TIMEOUT_S)), size)

    def test_only_a_client_that_answers_no_ping_is_dropped(self) -> None:
        with connect(f"ws://{self.address}/length") as client:
            silent = self.raw()
            silent.sendall(HANDSHAKE.format(path="/length").encode())
            self.assertIn(b"\x89", silent.receive_all().partition(b"\r\n\r\n")[2])  # a ping, then the end
            client.send("ab")
            self.assertEqual(client.recv(TIMEOUT_S), "2")

    def test_more_frames_than_allowed_close_with_1008(self) -> None:
        small, ping, pong = b"\x81\x81\x00\x00\x00\x00x", b"\x89\x80\x00\x00\x00\x00", b"\x8a\x80\x00\x00\x00\x00"
        fragment = b"\x00\x81\x00\x00\x00\x00x"
        for frames in (small * 20_000, ping * 20_000, pong * 20_000, b"\x01" + small[1:] + fragment * 20_000):
            with self.subTest(frames[:1]):
                self.assertEqual(self._code_after(frames), 1008)

    def test_an_empty_fragment_closes_with_1008(self) -> None:
        self.assertEqual(self._code_after(b"\x01\x81\x00\x00\x00\x00x" + b"\x00\x80\x00\x00\x00\x00"), 1008)

    def test_the_messages_of_a_page_that_opens_are_accepted_at_once(self) -> None:
        with connect(f"ws://{self.address}/length") as client:
            for length in range(1, 203):  # `connection_init`, 100 subscriptions and their ends
                client.send("x" * length)
            self.assertEqual([client.recv(TIMEOUT_S) for _ in range(202)], [str(n) for n in range(1, 203)])

    def test_a_message_in_fragments_is_accepted(self) -> None:
        with connect(f"ws://{self.address}/length") as client:
            client.send(iter(["ab", "c" * 70_000, "d"]))  # ends with an empty fragment
            self.assertEqual(client.recv(TIMEOUT_S), "70003")

    def test_nothing_is_read_while_messages_wait_for_the_application(self) -> None:
        client = self.raw()
        client.sendall(HANDSHAKE.format(path="/gate").encode())
        client.receive_until(b"\r\n\r\n")
        client.setblocking(False)
        message = b"\x81\xff" + MESSAGE_BYTES.to_bytes(8, "big") + bytes(4) + b"x" * MESSAGE_BYTES
        unsent = memoryview(message * 64)
        while select.select([], [client], [], 1)[1]:  # until the server has read nothing for a second
            unsent = unsent[client.send(unsent) :]
            self.assertTrue(unsent, "the server has read everything")

        connection = self.http()
        connection.request("GET", "/open")
        connection.getresponse().read()

        client.settimeout(TIMEOUT_S)
        client.sendall(unsent)
        reply, received = b"\x81\x07" + str(MESSAGE_BYTES).encode(), b""
        while received.count(reply) < 64:  # the server sends pings too
            received += client.recv(65536)

    def _code_after(self, frames: bytes) -> int:
        """Send raw frames, and return the code of the close frame that follows."""
        client = self.raw()
        client.sendall(HANDSHAKE.format(path="/length").encode())
        client.receive_until(b"\r\n\r\n")
        client.sendall(frames)
        received = client.receive_all()
        found = re.search(rb"\x88\x02(..)", received, re.DOTALL)
        assert found is not None, received[-100:]
        return int.from_bytes(found[1], "big")

    def _code_of(self, path: str) -> int | None:
        with connect(f"ws://{self.address}{path}") as client:
            with self.assertRaises(ConnectionClosed):
                client.recv(CLOSE_S)
            self.assertEqual(client.close_reason, "")
            return client.close_code


class Connections:
    """Tests of both servers."""

    ENVIRONMENT = {"CONNECTIONS_PER_S": "1"}

    def test_connections_over_the_bound_of_their_address_are_closed_unread(self) -> None:
        clients = [self.raw() for _ in range(4)]
        self.assertEqual(clients[3].receive_all(), b"")
        for client in (*clients[:3], self.enterContext(Client(self.address, source="127.0.0.2"))):
            client.send_text("GET /echo HTTP/1.1\nHost: localhost\nConnection: close\n\n")
            self.assertIn(b" 200 ", client.receive_all())


class Stops:
    """Tests of both servers, with a server per test."""

    server: subprocess.Popen[str]

    def setUp(self) -> None:
        super().setUp()
        self.server, self.address = start_server("tests.echo", {"SERVER": self.SERVER}, self.addCleanup)

    def test_a_stop_completes_running_requests_and_accepts_no_connection(self) -> None:
        client, idle = self.raw(), self.http()
        idle.request("GET", "/disconnected?")
        idle.getresponse().read()
        client.send_text("GET /shut HTTP/1.1\nHost: localhost\n\n")
        client.receive_until(b"begun\n")

        self.server.send_signal(signal.SIGTERM)

        self.assertIn(b"shut\n", client.receive_all())
        self.assertEqual(self.server.wait(STOP_S), 0)

    def test_successful_responses_are_not_logged(self) -> None:
        connection = self.http()
        for method, path in (("GET", "/disconnected?"), ("HEAD", "/disconnected?"), ("POST", "/echo")):
            connection.request(method, path)
            connection.getresponse().read()
        with self.raw() as stream:
            stream.send_text("GET /stream HTTP/1.1\nHost: localhost\n\n")
            stream.receive_until(b"begun\n")
        with connect(f"ws://{self.address}/length") as client:
            client.send("ab")
            client.recv(TIMEOUT_S)

        self.server.terminate()

        assert self.server.stderr is not None
        self.assertEqual(self.server.stderr.read(), "")

    def test_a_stop_cancels_requests_and_sockets_that_do_not_end(self) -> None:
        hanging, hanging_socket = self.raw(), self.raw()
        hanging.send_text("GET /hang HTTP/1.1\nHost: localhost\n\n")
        hanging_socket.sendall(HANDSHAKE.format(path="/hang").encode())
        hanging_socket.receive_until(b"\r\n\r\n")

        self.server.send_signal(signal.SIGTERM)

        self.assertEqual(self.server.wait(STOP_S + 2), 0)
        assert self.server.stderr is not None
        self.assertNotIn("Traceback", self.server.stderr.read())


class DaphneHttpTests(Http, EchoCase):
    SERVER = "daphne"

    def test_a_head_over_the_limit_is_refused(self) -> None:
        """uvicorn reads what has arrived, up to 256 KiB, before it checks the size."""
        for rest in (f"X-Long: {'x' * 20_000}\n\n", f"X-Short: {'x' * 400}\n" * 100 + "\n"):
            with self.subTest(rest[:8]):
                self.assert_head_is_refused(rest)

    def test_a_stream_ends_when_its_client_disconnects_after_pipelining_a_request(self) -> None:
        """uvicorn reads no further, so it does not notice the disconnect."""
        self.assert_stream_ends("GET /echo HTTP/1.1\nHost: localhost\n\n")


class DaphneTargetTests(Targets, EchoCase):
    SERVER = "daphne"


class UvicornTargetTests(Targets, EchoCase):
    SERVER = "uvicorn"


class DaphneBodyTests(Bodies, EchoCase):
    SERVER = "daphne"


class UvicornBodyTests(Bodies, EchoCase):
    SERVER = "uvicorn"


class DaphneWaitingTests(EchoCase):
    SERVER = "daphne"

    def setUp(self) -> None:
        super().setUp()
        environment = {"SERVER": self.SERVER, "WAITING_CONNECTIONS_PER_ADDRESS": "3"}
        _, self.address = start_server("tests.echo", environment, self.addCleanup)

    def test_too_many_connections_without_a_request_close_the_longest_waiting_one(self) -> None:
        clients = [self.raw() for _ in range(3)]
        clients[0].send_text("GET /echo HTTP/1.1\nHost: localhost\n")  # without its end
        self.assertIn(b" 200 ", self._response(clients[1]))  # its wait restarts after the response
        running = self.raw()
        running.send_text("GET /stream HTTP/1.1\nHost: localhost\n\n")
        running.receive_until(b"begun\n")
        # A second later, each new connection closes the one that has waited longest.
        while not select.select([clients[0]], [], [], 0.2)[0]:
            clients.append(self.raw())
        self.assertEqual(clients[0].receive_all(), b"")
        self.assertIn(b" 200 ", self._response(clients[-1]))
        self.assertEqual(self.disconnected("/stream"), 0)

    @staticmethod
    def _response(client: Client) -> bytes:
        client.send_text("POST /echo HTTP/1.1\nHost: localhost\nContent-Length: 2\n\nab")
        return client.receive_until(b"\r\n\r\nab")


class UvicornHttpTests(Http, EchoCase):
    SERVER = "uvicorn"

    def test_a_request_ends_when_its_client_disconnects_within_the_body(self) -> None:
        """daphne passes a request on only when it is complete."""
        before = self.disconnected("/echo")
        with Client(self.address) as client:
            client.send_text("POST /echo HTTP/1.1\nHost: localhost\nContent-Length: 9\nExpect: 100-continue\n\n")
            client.receive_until(b"\r\n\r\n")  # the request is running
            client.send_text("half")
        self._wait_until_disconnected("/echo", before + 1)


class DaphneSocketTests(Sockets, EchoCase):
    SERVER = "daphne"

    def test_a_socket_that_is_never_accepted_is_refused(self) -> None:
        with self.assertRaises(InvalidHandshake), connect(f"ws://{self.address}/never"):
            pass

    def test_try_send_sends_until_the_buffer_is_full_and_then_returns_false(self) -> None:
        with connect(f"ws://{self.address}/now", max_queue=None, max_size=None) as client:
            count = 0
            while (text := client.recv(TIMEOUT_S)) == "x" * 1000:
                count += 1
            self.assertEqual(text, str(count))
            self.assertGreater(count, 0)


class UvicornSocketTests(Sockets, EchoCase):
    SERVER = "uvicorn"


class DaphneConnectionTests(Connections, EchoCase):
    SERVER = "daphne"


class UvicornConnectionTests(Connections, EchoCase):
    SERVER = "uvicorn"


class DaphneStopTests(Stops, EchoCase):
    SERVER = "daphne"


class UvicornStopTests(Stops, EchoCase):
    SERVER = "uvicorn"
