"""The socket's buffer: what comes is there, and receiving a little takes little memory."""

import socket
import tracemalloc

from appliance.mqtt.buffered import Buffered


def test_what_comes_is_there_in_order_and_the_end_is_told():
    ours, theirs = socket.socketpair()
    buffer = Buffered(ours)
    buffer.setblocking(False)
    assert buffer.fill()
    assert buffer.data == b""
    sent = bytes(range(256)) * 400
    theirs.sendall(sent[:50_000])
    while len(buffer.data) < 50_000:
        assert buffer.fill()
    buffer.place = 30_000
    theirs.sendall(sent[50_000:])
    while len(buffer.data) < len(sent) - 30_000:
        assert buffer.fill()
    assert buffer.data == sent[30_000:]
    theirs.close()
    assert not buffer.fill()
    buffer.close()


def test_receiving_a_little_allocates_little():
    ours, theirs = socket.socketpair()
    buffer = Buffered(ours)
    buffer.setblocking(False)
    theirs.sendall(b"x" * 100)
    tracemalloc.start()
    try:
        assert buffer.fill()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert buffer.data == b"x" * 100
    assert most < 16_384  # large pieces cut down to what came break up the allocator's arena, minute by minute
    buffer.close()
    theirs.close()
