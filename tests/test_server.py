"""What either server does for any application: HTTP, sockets, the end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from contextlib import suppress
from http.client import HTTPConnection

import pytest
from django.test import SimpleTestCase
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from backend.server import CLOSE_S, MESSAGE_BYTES, STOP_S
from tests.cases import start_server

TIMEOUT_S = 20
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Client(socket.socket):
    """Raw bytes over TCP."""

    def __init__(self, address: str) -> None:
        super().__init__()
        host, port = address.split(":")
        self.settimeout(TIMEOUT_S)
        self.connect((host, int(port)))

    def say(self, text: str) -> None:
        self.sendall(text.replace("\n", "\r\n").encode("latin-1"))

    def hear(self, end: bytes) -> bytes:
        """All up to and with `end`, or up to the end of the connection where that comes first."""
        heard = b""
        while not heard.endswith(end):
            byte = self.recv(1)
            if not byte:
                break
            heard += byte
        return heard

    def hear_all(self) -> bytes:
        heard = b""
        with suppress(ConnectionResetError):
            while more := self.recv(65536):
                heard += more
        return heard


@pytest.mark.server
class EchoCase(SimpleTestCase):
    """`tests.echo` behind the server that `SERVER` names, one for all tests of the class."""

    SERVER: str
    address: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        _, cls.address = start_server("tests.echo", {"SERVER": cls.SERVER}, cls.addClassCleanup)

    def http(self) -> HTTPConnection:
        connection = HTTPConnection(self.address, timeout=TIMEOUT_S)
        self.addCleanup(connection.close)
        return connection

    def raw(self) -> Client:
        return self.enterContext(Client(self.address))

    def left(self, path: str) -> int:
        connection = self.http()
        connection.request("GET", f"/left?{path}")
        return int(connection.getresponse().read())


class Http:
    """Under either server; as the next."""

    def test_it_is_the_server_that_was_asked_for(self) -> None:
        connection = self.http()
        connection.request("GET", "/echo")
        self.assertEqual(connection.getresponse().headers["Server"], self.SERVER)

    def test_a_port_that_is_taken_is_told(self) -> None:
        taken = {"SERVER": self.SERVER, "PORT": self.address.rpartition(":")[2]}
        with self.assertRaisesRegex(AssertionError, "ended before"):
            start_server("tests.echo", taken, self.addCleanup)

    def test_a_chunked_body_arrives_as_a_whole(self) -> None:
        connection = self.http()
        connection.request("POST", "/echo", iter([b"a" * 100_000, b"b"]), encode_chunked=True)
        self.assertEqual(connection.getresponse().read(), b"a" * 100_000 + b"b")

    def test_a_form_is_the_applications_to_parse(self) -> None:
        connection = self.http()
        for kind in ("multipart/form-data; boundary=x", "multipart/form-data", "application/x-www-form-urlencoded"):
            with self.subTest(kind):
                connection.request("POST", "/echo", b"no form", {"Content-Type": kind})
                self.assertEqual(connection.getresponse().read(), b"no form")

    def test_what_comes_after_a_body_is_no_header_and_bounded(self) -> None:
        head = "GET /headers HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n1\na\n0\n"
        client = self.raw()
        client.say(f"{head}X-Late: yes\n\n")
        self.assertEqual(client.hear(b"\r\n\r\n" + b"host,transfer-encoding")[-22:], b"host,transfer-encoding")
        endless = self.raw()
        with suppress(ConnectionError):  # it need not hear all of it
            endless.say(f"{head}X-Late: {'x' * 2_000_000}")
        self.assertNotIn(b" 200 ", endless.hear_all())

    def test_head_has_the_headers_alone_and_the_connection_is_kept(self) -> None:
        connection = self.http()
        connection.request("HEAD", "/left?")
        answer = connection.getresponse()
        self.assertEqual((answer.headers["Content-Length"], answer.read()), ("1", b""))
        used = connection.sock
        connection.request("POST", "/echo", b"again")
        self.assertEqual(connection.getresponse().read(), b"again")
        self.assertIs(connection.sock, used)

    def test_http_1_0_gets_its_answer_and_the_end(self) -> None:
        client = self.raw()
        client.say("POST /echo HTTP/1.0\nContent-Length: 2\n\nab")
        self.assertTrue(client.hear_all().endswith(b"\r\n\r\nab"))

    def test_who_asks_whether_to_go_on_is_told_so(self) -> None:
        client = self.raw()
        client.say("POST /echo HTTP/1.1\nHost: localhost\nContent-Length: 2\nExpect: 100-continue\n\n")
        self.assertTrue(client.hear(b"\r\n\r\n").startswith(b"HTTP/1.1 100 "))
        client.say("ab")
        self.assertTrue(client.hear(b"\r\n\r\nab").startswith(b"HTTP/1.1 200 "))

    def test_requests_that_come_at_once_are_answered_in_turn(self) -> None:
        client = self.raw()
        bodies = [f"<{number}>" for number in range(20)]
        client.say("".join(f"POST /echo HTTP/1.1\nHost: localhost\nContent-Length: {len(b)}\n\n{b}" for b in bodies))
        answered = client.hear(b"\r\n\r\n<19>")
        self.assertEqual(re.findall(rb"<\d+>", answered), [body.encode() for body in bodies])

    def test_a_head_without_end_is_refused(self) -> None:
        self.assert_head_is_refused("x" * 400_000)

    def assert_head_is_refused(self, rest: str) -> None:
        client = self.raw()
        with suppress(ConnectionError):  # it need not hear all of it
            client.say(f"GET /echo HTTP/1.1\nHost: localhost\n{rest}")
        self.assertNotIn(b" 200 ", client.hear_all())

    def test_an_address_that_is_not_ascii_is_refused(self) -> None:
        for path in ("/\xe9", "/echo?\xe9"):
            with self.subTest(path):
                client = self.raw()
                client.say(f"GET {path} HTTP/1.1\nHost: localhost\n\n")
                self.assertTrue(client.hear_all().startswith(b"HTTP/1.1 400 "))

    def test_an_offer_of_another_protocol_is_passed_over(self) -> None:
        connection = self.http()
        for _ in range(2):
            connection.request("POST", "/echo", b"ab", {"Upgrade": "h2c", "Connection": "Upgrade"})
            answer = connection.getresponse()
            self.assertEqual((answer.status, answer.read()), (200, b"ab"))

    def test_a_stream_whose_client_leaves_ends(self) -> None:
        self.assert_stream_ends("")

    def assert_stream_ends(self, rest: str) -> None:
        before = self.left("/stream")
        with Client(self.address) as client:
            client.say("GET /stream HTTP/1.1\nHost: localhost\n\n")
            client.hear(b"begun\n")
            client.say(rest)
        self._wait_until_left("/stream", before + 1)

    def _wait_until_left(self, path: str, count: int) -> None:
        for _ in range(1000):
            if self.left(path) == count:
                return
        self.fail(f"{path} goes on")


class Sockets:
    def test_a_code_of_the_application_is_sent_as_it_is(self) -> None:
        for code in (1000, 1001, 1011, 1012, 1013, 4401):
            with self.subTest(code):
                self.assertEqual(self._code_of(f"/close?{code}"), code)

    def test_a_refusal_before_the_handshake_is_a_403(self) -> None:
        with self.assertRaises(InvalidStatus) as refusal, connect(f"ws://{self.address}/refuse"):
            pass
        self.assertEqual(refusal.exception.response.status_code, 403)

    def test_a_fault_of_the_application_is_told(self) -> None:
        self.assertEqual(self._code_of("/raise"), 1011)

    def test_what_is_no_handshake_is_refused(self) -> None:
        handshake = HANDSHAKE.format(path="/length")
        for wrong in (
            handshake.replace("Sec-WebSocket-Key", "X-Key"),
            handshake.replace("Version: 13", "Version: 3"),
            handshake.replace("GET", "POST"),
        ):
            with self.subTest(wrong):
                client = self.raw()
                client.sendall(wrong.encode())
                self.assertRegex(client.hear_all(), rb"^HTTP/1.1 4")

    def test_a_message_may_have_so_many_bytes_and_no_more(self) -> None:
        with connect(f"ws://{self.address}/length") as client:
            client.send("x" * MESSAGE_BYTES)
            self.assertEqual(client.recv(TIMEOUT_S), str(MESSAGE_BYTES))
            with self.assertRaises(ConnectionClosed):  # in the sending, if its length is read before its end is sent
                client.send("x" * (MESSAGE_BYTES + 1))
                client.recv(TIMEOUT_S)
            self.assertIn(client.close_code, (1009, 1006))  # daphne just hangs up

    def test_who_answers_no_ping_is_dropped_and_nobody_else(self) -> None:
        with connect(f"ws://{self.address}/length") as client:
            silent = self.raw()
            silent.sendall(HANDSHAKE.format(path="/length").encode())
            self.assertIn(b"\x89", silent.hear_all().partition(b"\r\n\r\n")[2])  # a ping, and then the end
            client.send("ab")
            self.assertEqual(client.recv(TIMEOUT_S), "2")

    def _code_of(self, path: str) -> int | None:
        with connect(f"ws://{self.address}{path}") as client:
            with self.assertRaises(ConnectionClosed):
                client.recv(CLOSE_S)
            self.assertEqual(client.close_reason, "")
            return client.close_code


class Ends:
    """With a server for each test."""

    server: subprocess.Popen[str]

    def setUp(self) -> None:
        super().setUp()
        self.server, self.address = start_server("tests.echo", {"SERVER": self.SERVER}, self.addCleanup)

    def test_a_request_under_way_is_answered_and_nobody_else_is_let_in(self) -> None:
        client, idle = self.raw(), self.http()
        idle.request("GET", "/left?")
        idle.getresponse().read()
        client.say("GET /shut HTTP/1.1\nHost: localhost\n\n")
        client.hear(b"begun\n")

        self.server.send_signal(signal.SIGTERM)

        self.assertIn(b"shut\n", client.hear_all())
        self.assertEqual(self.server.wait(STOP_S), 0)

    def test_nothing_is_told_of_answers_that_went_well(self) -> None:
        connection = self.http()
        for method, path in (("GET", "/left?"), ("HEAD", "/left?"), ("POST", "/echo")):
            connection.request(method, path)
            connection.getresponse().read()
        with self.raw() as stream:
            stream.say("GET /stream HTTP/1.1\nHost: localhost\n\n")
            stream.hear(b"begun\n")
        with connect(f"ws://{self.address}/length") as client:
            client.send("ab")
            client.recv(TIMEOUT_S)

        self.server.terminate()

        assert self.server.stderr is not None
        self.assertEqual(self.server.stderr.read(), "")

    def test_what_does_not_end_is_cancelled(self) -> None:
        hanging, hanging_socket = self.raw(), self.raw()
        hanging.say("GET /hang HTTP/1.1\nHost: localhost\n\n")
        hanging_socket.sendall(HANDSHAKE.format(path="/hang").encode())
        hanging_socket.hear(b"\r\n\r\n")

        self.server.send_signal(signal.SIGTERM)

        self.assertEqual(self.server.wait(STOP_S + 2), 0)
        assert self.server.stderr is not None
        self.assertNotIn("Traceback", self.server.stderr.read())


class DaphneHttpTests(Http, EchoCase):
    SERVER = "daphne"

    def test_a_head_that_is_too_large_is_refused_as_a_whole(self) -> None:
        """uvicorn reads what has come at once, up to 256 KiB, before it looks at the size."""
        for rest in (f"X-Long: {'x' * 20_000}\n\n", f"X-Short: {'x' * 400}\n" * 100 + "\n"):
            with self.subTest(rest[:8]):
                self.assert_head_is_refused(rest)

    def test_a_stream_whose_client_leaves_ends_whatever_was_to_come_after_it(self) -> None:
        """uvicorn does not read on, hence does not see that the client has left."""
        self.assert_stream_ends("GET /echo HTTP/1.1\nHost: localhost\n\n")


class UvicornHttpTests(Http, EchoCase):
    SERVER = "uvicorn"

    def test_a_request_whose_client_leaves_half_way_ends(self) -> None:
        """daphne hands on a request when it is there as a whole."""
        before = self.left("/echo")
        with Client(self.address) as client:
            client.say("POST /echo HTTP/1.1\nHost: localhost\nContent-Length: 9\nExpect: 100-continue\n\n")
            client.hear(b"\r\n\r\n")  # it is under way
            client.say("half")
        self._wait_until_left("/echo", before + 1)


class DaphneSocketTests(Sockets, EchoCase):
    SERVER = "daphne"

    def test_who_is_never_accepted_is_refused(self) -> None:
        with self.assertRaises(InvalidHandshake), connect(f"ws://{self.address}/never"):
            pass

    def test_what_can_be_sent_without_waiting_is_and_the_rest_is_told(self) -> None:
        with connect(f"ws://{self.address}/now", max_queue=None, max_size=None) as client:
            count = 0
            while (text := client.recv(TIMEOUT_S)) == "x" * 1000:
                count += 1
            self.assertEqual(text, str(count))
            self.assertGreater(count, 0)


class UvicornSocketTests(Sockets, EchoCase):
    SERVER = "uvicorn"


class DaphneEndTests(Ends, EchoCase):
    SERVER = "daphne"


class UvicornEndTests(Ends, EchoCase):
    SERVER = "uvicorn"
