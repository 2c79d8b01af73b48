"""An MQTT 3.1.1 load of plain sockets: a client library would cost as much as what is measured.

Source of the packets: MQTT 3.1.1, sections 3.1 (CONNECT), 3.3 (PUBLISH), 3.8 (SUBSCRIBE).
"""

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator

_NUMBER = re.compile(rb'"n":(\d+)')


class Listener:
    """Hears a topic at QoS 0 in a thread of its own and keeps when each message came, by its field `n`."""

    def __init__(self, port: int, topic: str) -> None:
        self.arrived: dict[int, float] = {}
        self._socket = _connected(port, "listener")
        self._socket.sendall(_packet(0x82, struct.pack("!H", 1) + _text(topic) + b"\0"))
        assert next(_packets(self._socket))[0] >> 4 == 9
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        for kind, body in _packets(self._socket):
            found = _NUMBER.search(body) if kind >> 4 == 3 else None
            if found:
                self.arrived.setdefault(int(found[1]), time.perf_counter())

    def wait(self, count: int, seconds: float) -> None:
        """Return when `count` messages came, or raise TimeoutError."""
        deadline = time.monotonic() + seconds
        while len(self.arrived) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.arrived)} of {count} messages came")
            time.sleep(0.005)

    def close(self) -> None:
        self._socket.close()


def publish(port: int, topic: str, values: str, count: int, rate: float = 0.0) -> dict[int, float]:
    """Publish `{"n":NUMBER,VALUES}` at QoS 1 and return when each was sent; `rate` a second, 0 for all at once."""
    connection = _connected(port, "publisher")
    answered = threading.Thread(target=_read_all, args=(connection, count), daemon=True)
    answered.start()
    sent: dict[int, float] = {}
    begun = time.perf_counter()
    pending = bytearray()
    for number in range(count):
        payload = f'{{"n":{number},{values}}}'.encode()
        pending += _packet(0x32, _text(topic) + struct.pack("!H", number % 65535 + 1) + payload)
        if rate:
            wait = begun + number / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
        sent[number] = time.perf_counter()
        if rate or len(pending) > 65536:
            connection.sendall(pending)
            pending.clear()
    connection.sendall(pending)
    answered.join(120)
    connection.close()
    return sent


def _connected(port: int, name: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(_packet(0x10, _text("MQTT") + bytes([4, 2]) + struct.pack("!H", 0) + _text(f"bench-{name}")))
    assert next(_packets(connection)) == (0x20, b"\0\0")
    return connection


def _read_all(connection: socket.socket, count: int) -> None:
    for acknowledged, _ in enumerate(_packets(connection), 1):
        if acknowledged == count:
            return


def _packets(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield (first byte, body) of every packet that arrives."""
    data = bytearray()
    place = 0
    while True:
        head = _head(data, place)
        if head is None or len(data) < head[0] + head[1]:
            del data[:place]
            place = 0
            try:
                more = connection.recv(1 << 18)
            except OSError:
                return
            if not more:
                return
            data += more
            continue
        start, length = head
        yield data[place], bytes(data[start : start + length])
        place = start + length


def _head(data: bytearray, place: int) -> tuple[int, int] | None:
    """Return where a packet's body starts and how long it is; None when its head has not arrived."""
    length, shift = 0, 0
    for index in range(place + 1, min(len(data), place + 5)):
        length |= (data[index] & 127) << shift
        shift += 7
        if data[index] < 128:
            return index + 1, length
    return None


def _packet(kind: int, body: bytes) -> bytes:
    length, head = len(body), bytearray([kind])
    while True:
        head.append(length % 128 | (128 if length > 127 else 0))
        length //= 128
        if not length:
            return bytes(head) + body


def _text(text: str) -> bytes:
    return struct.pack("!H", len(text)) + text.encode()
