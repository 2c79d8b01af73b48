"""Where requests begin and end: what two readers could take for different requests is refused, and nothing stalls."""

import contextlib
import json
import re
import resource
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.rest import server
from appliance.rest.framing import MAX_CHUNK_LINE, MAX_TRAILER

ROW = b'{"features": [1, 2, 3, 4]}'
PATH = b"/models/regression/predict"


def exchange(address: str, sent: bytes, *, until: bytes = b"") -> bytes:
    """Send bytes and return what comes until `until` stands in it, or to the end of the connection."""
    host, port = address.split(":")
    got = b""
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(sent)
        while chunk := client.recv(65536):
            got += chunk
            if until and until in got:
                break
    return got


def post(headers: bytes = b"", body: bytes = ROW, version: bytes = b"1.1") -> bytes:
    return b"POST " + PATH + b" HTTP/" + version + b"\r\nHost: x\r\n" + headers + b"\r\n" + body


SMUGGLED = b"0\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = {
    "both lengths": post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", SMUGGLED),
    "both lengths, the other way round": post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", SMUGGLED),
    "chunks in HTTP/1.0": post(b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", SMUGGLED, b"1.0"),
    "two lengths": post(b"Content-Length: 26\r\nContent-Length: 26\r\n"),
    "a signed length": post(b"Content-Length: +26\r\n"),
    "a length of 5000 digits": post(b"Content-Length: " + b"1" * 5000 + b"\r\n"),
    "half an IPv6 address": b"GET http://[::1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "a chunk's endless extension": post(b"Transfer-Encoding: chunked\r\n", b"1;" + b"a" * (MAX_CHUNK_LINE + 9)),
    "an endless trailer": post(b"Transfer-Encoding: chunked\r\n", b"0\r\n" + b"A: b\r\n" * MAX_TRAILER),
    "a chunk without its end": post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabcXX"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_framing_that_can_be_read_in_two_ways_is_refused_and_ends_the_connection(address, caplog, case):
    got = exchange(address, REFUSED[case])
    assert got.split(b"\r\n")[0].split()[1] == b"400"
    assert got.count(b"\r\nContent-Length: ") == 1
    assert not caplog.records


def test_chunk_beyond_the_limit_is_refused_before_it_is_sent(address):
    got = exchange(address, post(b"Transfer-Encoding: chunked\r\n", b"f" * 100 + b"\r\nabc"))
    assert got.startswith(b"HTTP/1.1 413")


def test_body_beyond_the_limit_is_never_asked_for(address):
    got = exchange(address, post(b"Expect: 100-continue\r\nContent-Length: 22000000000\r\n", b""))
    assert got.startswith(b"HTTP/1.1 413")
    got = exchange(address, post(b"Expect: 100-continue\r\nContent-Length: 26\r\n", b""), until=b"\r\n\r\n")
    assert got == b"HTTP/1.1 100 Continue\r\n\r\n"


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9000), max_size=6), st.integers(1, 70_000))
def test_body_in_any_chunks_and_any_packets_is_the_same_body(address, sizes, cut):
    body = b'{"features": [[1, 2, 3, 4]' + b" " * (sum(sizes)) + b"]}"
    chunks, place = b"", 0
    for size in (*sizes, len(body)):
        part = body[place : place + size]
        chunks += f"{len(part):x}\r\n".encode() + part + b"\r\n" if part else b""
        place += size
    sent = post(b"Connection: close\r\nTransfer-Encoding: chunked\r\n", chunks + b"0\r\n\r\n")
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(sent[:cut])
        client.sendall(sent[cut:])
        got = b""
        while chunk := client.recv(65536):
            got += chunk
    assert json.loads(got.partition(b"\r\n\r\n")[2])["prediction"] == [110.0]


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_any_bytes_get_an_answer_or_nothing_and_the_service_goes_on(address, junk):
    got = exchange(address, junk + b"\r\n\r\nX\r\n\r\n")
    assert got == b"" or got.startswith(b"HTTP/1.")
    assert b" 500 " not in got.split(b"\r\n")[0]


def test_requests_behind_a_broken_one_are_not_read(address):
    right = post(b"Content-Length: 26\r\n")
    got = exchange(address, right + post(b"Content-Length: 1\r\n", b"{") + right + b"BROKEN\r\n\r\n" + right)
    assert re.findall(rb"HTTP/1\.[01] (\d+) ", got) == [b"200", b"400", b"200", b"400"]


def test_pipelined_requests_are_all_answered_in_their_order(address):
    count = 300
    got = exchange(
        address,
        b"".join(post(f"X-Request-Id: n{number}\r\nContent-Length: 26\r\n".encode()) for number in range(count - 1))
        + post(b"X-Request-Id: last\r\nConnection: close\r\nContent-Length: 26\r\n"),
    )
    told = [line.split()[1] for line in got.split(b"\r\n") if line.lower().startswith(b"x-request-id")]
    assert told == [*(f"n{number}".encode() for number in range(count - 1)), b"last"]


def test_clients_that_do_not_read_their_answers_hold_no_thread(open_door, listen):
    door = open_door("regression", threads=1)
    many = json.dumps({"features": [[1, 2, 3, 4]] * 5000}).encode()
    with listen(door) as address, contextlib.ExitStack() as stack:
        host, port = address.split(":")
        for sent in (
            b"GET /v2/models HTTP/1.1\r\nHost: x\r\n\r\n" * 6000,
            post(b"Content-Length: %d\r\n" % len(many), many) * 30,
        ):
            for _ in range(3):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect((host, int(port)))
                client.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    client.sendall(sent)
        look = b"GET /v2/models/regression HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert exchange(address, look).startswith(b"HTTP/1.1 200")
        assert exchange(address, post(b"Connection: close\r\nContent-Length: %d\r\n" % len(many), many)).startswith(
            b"HTTP/1.1 200"
        )


def test_client_that_reads_late_gets_every_pipelined_answer(address):
    host, port = address.split(":")
    many = json.dumps({"features": [[1, 2, 3, 4]] * 20_000}).encode()
    request = post(b"Content-Length: %d\r\n" % len(many), many)
    with socket.create_connection((host, int(port)), timeout=20) as client:
        threading.Thread(target=client.sendall, args=(request * 4 + post(b"Connection: close\r\n", b""),)).start()
        time.sleep(0.3)
        got = bytearray()
        while chunk := client.recv(1 << 20):
            got += chunk
    assert got.count(b"HTTP/1.1 200") == 4
    assert got.count(b"110.0") == 80_000


def test_probe_is_answered_while_all_threads_work(open_door, listen, monkeypatch):
    door = open_door("regression", threads=2)
    loaded = door.models.get("regression")
    release, run = threading.Event(), loaded.session.run

    def slow(feeds, outputs=None):
        assert release.wait(20)
        return run(feeds, outputs)

    many = json.dumps({"features": [[1, 2, 3, 4]] * 2000}).encode()
    with listen(door) as address:
        monkeypatch.setattr(loaded.session, "run", slow)  # a large model, which no test has the time for
        asked = post(b"Connection: close\r\nContent-Length: %d\r\n" % len(many), many)
        clients = [threading.Thread(target=exchange, args=(address, asked)) for _ in range(4)]
        for client in clients:
            client.start()
        probe = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        try:
            assert exchange(address, probe).endswith(b'{"live":true}')
        finally:
            release.set()
        for client in clients:
            client.join(20)


def test_silent_connections_make_room_for_new_ones(open_door, listen):
    door = open_door("regression", max_connections=8)
    with listen(door) as address, contextlib.ExitStack() as stack:
        host, port = address.split(":")
        for number in range(40):
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            client.sendall([b"", b"POST /pre", post(b"Content-Length: 100\r\n", b"{")][number % 3])
        for _ in range(3):
            got = exchange(address, post(b"Connection: close\r\nContent-Length: 26\r\n"))
            assert got.startswith(b"HTTP/1.1 200")


def test_connections_are_fewer_where_the_system_allows_fewer_files(monkeypatch, caplog):
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: raised.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    assert server._connection_limit(1024) == 1024
    assert raised == [(1024 + server.SPARE_FILES, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 256))
    assert server._connection_limit(1024) == 256 - server.SPARE_FILES
    assert [record.message for record in caplog.records] == ["fewer connections than configured"]
