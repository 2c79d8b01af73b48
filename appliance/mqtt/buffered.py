"""A buffered socket: receives in large pieces, and gives paho only the bytes that it may read."""

import contextlib
import socket
import ssl
from typing import Any

_FRAME = 16 * 1024  # bytes of a WebSocket's frame that we send
_CHUNK = 256 * 1024  # bytes asked of the system at once


class Buffered:
    """A connected socket. recv() and send() are for paho, the rest is for the client."""

    def __init__(self, plain: Any) -> None:
        self._socket = plain
        # paho's WebSocket, which has no recv_into(): one frame, or a part of it, at a time.
        self._receive = getattr(plain, "recv_into", None) or self._receive_framed
        self.data = bytearray()
        """What was received and not taken yet."""
        self.place = 0
        """Where in `data` the next packet begins."""
        self.passing = 0
        """Bytes that are still to be received and dropped."""
        self._most = None if hasattr(plain, "recv_into") else _FRAME
        self._granted = 0
        self._out = bytearray()
        # One piece for the whole connection: a fresh one for each recv() would be cut down to what came, and the
        # allocator's holes, each a little too small for the next one, grew by 8 MiB within minutes.
        self._piece = memoryview(bytearray(_CHUNK))

    def fill(self) -> bool:
        """Receive what there is; return whether the other end is still there. Raises OSError."""
        if self.place:
            del self.data[: self.place]
            self.place = self._granted = 0
        try:
            received = self._receive(self._piece)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        dropped = min(self.passing, received)
        self.passing -= dropped
        self.data += self._piece[dropped:received]
        return bool(received)

    def _receive_framed(self, piece: memoryview) -> int:
        """Receive the payload of a WebSocket's frame; return how many bytes it is."""
        data = self._socket.recv(len(piece))
        piece[: len(data)] = data
        return len(data)

    def pass_over(self, end: int) -> None:
        """Drop everything up to `end` of `data`, which may lie beyond what has arrived."""
        self.passing = max(0, end - len(self.data))
        del self.data[:end]
        self.place = self._granted = 0

    def grant(self, end: int) -> None:
        """Let the library read up to `end` in `data`."""
        self._granted = end

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes of what was granted. Raises BlockingIOError when there are none."""
        part = bytes(self.data[self.place : min(self._granted, self.place + size)])
        if not part:
            raise BlockingIOError
        self.place += len(part)
        return part

    def send(self, data: bytes) -> int:
        """Take all of `data` for the next flush."""
        self._out += data
        return len(data)

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it. Raises OSError."""
        while self._out:
            try:
                # A WebSocket's frame is masked byte by byte, so it gets no more than what goes at once.
                sent = self._socket.send(self._out if self._most is None else self._out[: self._most])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            del self._out[:sent]

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._out)

    @property
    def hidden(self) -> bool:
        """Whether TLS has bytes that were received already, so that the system says nothing of them."""
        pending = getattr(self._socket, "pending", None)  # of a plain socket there is none
        return pending is not None and pending() > 0

    def fileno(self) -> int:
        """Return the socket's number."""
        return int(self._socket.fileno())

    def setblocking(self, flag: bool) -> None:
        """Set whether the socket waits; what is flushed then goes without delay."""
        self._socket.setblocking(flag)
        tcp = getattr(self._socket, "_socket", self._socket)  # within a WebSocket
        with contextlib.suppress(OSError):  # no TCP
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Send what can be sent at once, then close."""
        with contextlib.suppress(OSError, ValueError):
            self.flush()
        self._socket.close()
