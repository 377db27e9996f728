"""`FrameMeter`, which counts the frames of a client. Their bytes arrive in pieces of several sizes."""

from __future__ import annotations

from django.test import SimpleTestCase, override_settings

from backend.server.frames import FrameMeter

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
MASK = bytes(4)


def frame(first: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return bytes([first, 0x80 | length]) + MASK + payload
    if length < 65536:
        return bytes([first, 0xFE]) + length.to_bytes(2, "big") + MASK + payload
    return bytes([first, 0xFF]) + length.to_bytes(8, "big") + MASK + payload


class FrameMeterTests(SimpleTestCase):
    def admitted(self, data: bytes, size: int) -> int:
        """Feed the data in pieces of `size` bytes. Returns the number of bytes up to the first piece refused."""
        meter = FrameMeter()
        self.assertTrue(meter.admits(HEAD))
        for start in range(0, len(data), size):
            if not meter.admits(data[start : start + size]):
                return start
        return len(data)

    @override_settings(SOCKET_FRAMES_PER_S=1)
    def test_frames_are_counted_however_their_bytes_arrive(self) -> None:
        """Three frames are admitted at once. A payload that looks like frames is not counted as frames."""
        for payload in (b"", b"x", bytes(125), b"\x00\x80\x00\x00\x00\x00" * 21, bytes(70_000)):
            three = frame(0x81, payload) * 3
            for size in (1, 2, 7, 1000, 1_000_000):
                if len(payload) // size > 1000:
                    continue
                with self.subTest(length=len(payload), size=size):
                    self.assertEqual(self.admitted(three, size), len(three))
                    self.assertLess(self.admitted(three * 10, size), len(three) * 10)

    def test_empty_fragments_are_refused_unless_they_end_a_message(self) -> None:
        begun = frame(0x01, b"a")
        for size in (1, 3, 1000):
            with self.subTest(size):
                whole = begun + frame(0x00, b"b") + frame(0x80, b"")
                self.assertEqual(self.admitted(whole, size), len(whole))
                self.assertLess(self.admitted(begun + frame(0x00, b"") + frame(0x80, b""), size), len(whole))

    def test_bytes_that_arrive_with_the_head_are_checked(self) -> None:
        self.assertFalse(FrameMeter().admits(HEAD + frame(0x01, b"a") + frame(0x00, b"")))
