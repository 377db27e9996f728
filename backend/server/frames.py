"""A bound on the frames of a client, counted in its bytes before any WebSocket library parses them.

A frame of 6 bytes costs a library 20 to 50 µs, so 1 MB/s of them would occupy the process. Both servers use this.
"""

from __future__ import annotations

import time

from django.conf import settings

# A client may send the frames of this many seconds at once, such as the subscriptions of a page that opens.
_BURST_S = 3
_END_OF_HEAD = b"\r\n\r\n"
_CONTINUATION = 0


class FrameMeter:
    """Counts the frames of one client, from the head of its handshake on. Reads only the headers of frames."""

    def __init__(self) -> None:
        self._rate: int = settings.SOCKET_FRAMES_PER_S
        self._left: float = self._rate * _BURST_S
        self._counted_at = time.monotonic()
        self._is_in_head = True
        self._header = b""  # of a frame whose header has not arrived as a whole
        self._payload = 0  # bytes of the current frame that have not arrived

    def admits(self, data: bytes) -> bool:
        """Whether the client may send this. False for more frames than `SOCKET_FRAMES_PER_S`, or an empty fragment.

        An empty continuation that ends a message is allowed: some clients end every fragmented message with one.
        """
        if self._is_in_head:
            self._is_in_head = False  # servers pass the head on as a whole
            data = data[data.find(_END_OF_HEAD) + len(_END_OF_HEAD) :]
        if self._payload >= len(data):
            self._payload -= len(data)
            return True
        now = time.monotonic()
        self._left = min(self._left + (now - self._counted_at) * self._rate, self._rate * _BURST_S)
        self._counted_at = now
        return self._count(data)

    def _count(self, data: bytes) -> bool:
        start, self._payload = self._payload, 0
        if self._header:
            data, start, self._header = self._header + data[start:], 0, b""
        end = len(data)
        while start < end:
            header = _header_length(data, start)
            if header is None or start + header > end:
                self._header = data[start:]
                return True
            payload = _payload_length(data, start)
            self._left -= 1
            if self._left < 0 or (payload == 0 and data[start] & 0x8F == _CONTINUATION):
                return False
            start += header + payload
        self._payload = start - end
        return True


def _header_length(data: bytes, start: int) -> int | None:
    """Return the length of the header that begins at `start`; None where its second byte has not arrived."""
    if len(data) < start + 2:
        return None
    second = data[start + 1]
    length = second & 0x7F
    return 2 + (4 if second & 0x80 else 0) + (0 if length < 126 else 2 if length == 126 else 8)


def _payload_length(data: bytes, start: int) -> int:
    length = data[start + 1] & 0x7F
    if length < 126:
        return length
    return int.from_bytes(data[start + 2 : start + (4 if length == 126 else 10)], "big")
