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
from waitress.adjustments import Adjustments

from appliance.rest.server import request_head, server
from appliance.rest.server.chunked_body import MAX_CHUNK_LINE, MAX_TRAILER, ChunkedBody
from appliance.rest.server.framing import Parser
from appliance.rest.server.header_cache import HeaderCache
from appliance.rest.server.request_head import LONGEST_HEAD, MOST_FIELDS, BadHead

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
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GET = b"GET /ping HTTP/1.1\r\n"
REFUSED = {
    "both lengths": post(b"Content-Length: 4\r\n" + CHUNKED, SMUGGLED),
    "both lengths, the other way round": post(CHUNKED + b"Content-Length: 4\r\n", SMUGGLED),
    "chunks in HTTP/1.0": post(b"Connection: keep-alive\r\n" + CHUNKED, SMUGGLED, b"1.0"),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n", SMUGGLED),
    "chunked in two lines": post(CHUNKED * 2, SMUGGLED),
    "a coding that is nearly chunked": post(b"Transfer-Encoding: xchunked\r\n", SMUGGLED),
    "a coding behind chunked": post(b"Transfer-Encoding: chunked, gzip\r\n", SMUGGLED),
    "an empty coding": post(b"Transfer-Encoding:\r\nContent-Length: 26\r\n"),
    "a coding in quotes": post(b'Transfer-Encoding: "chunked"\r\n', SMUGGLED),
    "a coding behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", SMUGGLED),
    "two lengths": post(b"Content-Length: 26\r\nContent-Length: 26\r\n"),
    "two lengths that differ": post(b"Content-Length: 26\r\nContent-Length: 2\r\n"),
    "two lengths in one line": post(b"Content-Length: 26, 26\r\n"),
    "a signed length": post(b"Content-Length: +26\r\n"),
    "a negative length": post(b"Content-Length: -26\r\n"),
    "a hexadecimal length": post(b"Content-Length: 0x1a\r\n"),
    "a length with an underscore": post(b"Content-Length: 2_6\r\n"),
    "a length in other digits": post("Content-Length: ²6\r\n".encode("latin-1")),
    "an empty length": post(b"Content-Length:\r\n"),
    "a length of 5000 digits": post(b"Content-Length: " + b"1" * 5000 + b"\r\n"),
    "a folded length": post(b"Content-Length:\r\n 26\r\n"),
    "a length that goes on": post(b"Content-Length: 2\r\n 6\r\n"),
    "any folded field": post(b"X-Trace: a\r\n\tb\r\nContent-Length: 26\r\n"),
    "a fold before the first field": GET + b" Host: x\r\nHost: x\r\n\r\n",
    "no host": GET + b"\r\n",
    "two hosts": GET + b"Host: x\r\nHost: x\r\n\r\n",
    "two hosts, one of them empty": GET + b"Host: x\r\nhost:\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET /ping HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
    "a host with a path and a blank": GET + b"Host: a/b c\r\n\r\n",
    "a host with a path": GET + b"Host: a/b\r\n\r\n",
    "a host with a user": GET + b"Host: u@a\r\n\r\n",
    "a host with a port that is none": GET + b"Host: a:b\r\n\r\n",
    "a host of half an address": GET + b"Host: [::1\r\n\r\n",
    "a host of no address": GET + b"Host: [:::]\r\n\r\n",
    "half an IPv6 address": b"GET http://[::1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a user": b"GET http://u@x/ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a host": b"GET http:///ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target of another scheme": b"GET ftp://x/ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is no path": b"GET ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is a host": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a blank": b"GET /pi ng HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a fragment": b"GET /ping#a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a control": b"GET /ping\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a tab": b"GET /ping\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "all of the server, but not OPTIONS": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in small letters": b"get /ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method that is no token": b"GE(T /ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "a blank before the method": b" GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "a blank behind the version": b"GET /ping HTTP/1.1 \r\nHost: x\r\n\r\n",
    "no version": b"GET /ping\r\nHost: x\r\n\r\n",
    "a version with a zero": b"GET /ping HTTP/1.01\r\nHost: x\r\n\r\n",
    "a version in small letters": b"GET /ping http/1.1\r\nHost: x\r\n\r\n",
    "a blank before the colon": post(b"Content-Length : 26\r\n"),
    "a field without a name": post(b": 26\r\nContent-Length: 26\r\n"),
    "a field without a colon": post(b"Content-Length\r\n"),
    "a name that is no token": post(b"X(y): 1\r\nContent-Length: 26\r\n"),
    "a NUL": post(b"X-Trace: a\x00b\r\nContent-Length: 26\r\n"),
    "a control": post(b"X-Trace: a\x01b\r\nContent-Length: 26\r\n"),
    "a bare LF": post(b"X-Trace: a\nContent-Length: 26\r\n"),
    "a bare CR": post(b"X-Trace: a\rContent-Length: 26\r\n"),
    "lines that end with LF alone": b"GET /ping HTTP/1.1\nHost: x\n\n",
    "a chunk's endless extension": post(CHUNKED, b"1;" + b"a" * (MAX_CHUNK_LINE + 9)),
    "an endless size": post(CHUNKED, b"0" * (MAX_CHUNK_LINE + 9)),
    "an endless trailer": post(CHUNKED, b"0\r\n" + b"A: b\r\n" * MAX_TRAILER),
    "a trailer that is none": post(CHUNKED, b"0\r\nGET / HTTP/1.1\r\n\r\n"),
    "a folded trailer": post(CHUNKED, b"0\r\nA: b\r\n c\r\n\r\n"),
    "a trailer that ends with LF": post(CHUNKED, b"0\r\nA: b\n\r\n"),
    "a chunk without its end": post(CHUNKED, b"3\r\nabcXX"),
    "a chunk that ends with LF": post(CHUNKED, b"3\r\nabc\n0\r\n\r\n"),
    "an empty line before a chunk": post(CHUNKED, b"\r\n3\r\nabc\r\n0\r\n\r\n"),
    "a size with 0x": post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a size with a sign": post(CHUNKED, b"+3\r\nabc\r\n0\r\n\r\n"),
    "a size with an underscore": post(CHUNKED, b"0_3\r\nabc\r\n0\r\n\r\n"),
    "a size behind a blank": post(CHUNKED, b" 3\r\nabc\r\n0\r\n\r\n"),
    "a size before a blank": post(CHUNKED, b"3 \r\nabc\r\n0\r\n\r\n"),
    "a size that ends with LF": post(CHUNKED, b"3\nabc\r\n0\r\n\r\n"),
    "a size that ends with LF CR LF": post(CHUNKED, b"3\n\r\nabc\r\n0\r\n\r\n"),
    "no size": post(CHUNKED, b";a=b\r\nabc\r\n0\r\n\r\n"),
    "an extension without a name": post(CHUNKED, b"3;\r\nabc\r\n0\r\n\r\n"),
    "an extension without a value": post(CHUNKED, b"3;a=\r\nabc\r\n0\r\n\r\n"),
    "an extension with half a text": post(CHUNKED, b'3;a="b\r\nabc\r\n0\r\n\r\n'),
    "an extension with a LF": post(CHUNKED, b"3;a\n\r\nabc\r\n0\r\n\r\n"),
}
OTHERS_REFUSED = {
    "a coding that we do not know": (post(b"Transfer-Encoding: gzip, chunked\r\n", SMUGGLED), b"501"),
    "too long a head": (GET + b"Host: x\r\nX-Trace: " + b"a" * LONGEST_HEAD + b"\r\n\r\n", b"431"),
    "too long a head, without its end": (GET + b"Host: x\r\nX-Trace: " + b"a" * LONGEST_HEAD, b"431"),
    "too long a target": (b"GET /" + b"a" * LONGEST_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
    "too many fields": (GET + b"Host: x\r\n" + b"A: b\r\n" * MOST_FIELDS + b"\r\n", b"431"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
    "HTTP/9.9": (b"GET /ping HTTP/9.9\r\nHost: x\r\n\r\n", b"505"),
    "HTTP/0.9": (b"GET /ping HTTP/0.9\r\nHost: x\r\n\r\n", b"505"),
    "a chunk beyond 64 bits": (post(CHUNKED, b"f" * 17 + b"\r\nabc"), b"413"),
    "a length beyond the limit": (post(b"Content-Length: %d\r\n" % 10**17), b"413"),
}


@pytest.mark.parametrize("case", [*REFUSED, *OTHERS_REFUSED])
def test_framing_that_can_be_read_in_two_ways_is_refused_and_ends_the_connection(address, caplog, case):
    sent, status = OTHERS_REFUSED.get(case) or (REFUSED[case], b"400")
    for behind in (b"", post(b"Content-Length: 26\r\n")):  # what follows is not read, whatever it is
        got = exchange(address, sent + behind)
        assert got.split(b"\r\n")[0].split()[1] == status
        assert len(re.findall(rb"HTTP/1\.1 \d", got)) == got.count(b"\r\nConnection: close\r\n") == 1
    assert not caplog.records


@pytest.mark.parametrize("case", [*REFUSED, *OTHERS_REFUSED])
def test_what_is_refused_is_refused_in_any_packets(case):
    sent, status = OTHERS_REFUSED.get(case) or (REFUSED[case], b"400")
    adjustments = Adjustments(max_request_body_size=10_000)
    adjustments.header_cache = HeaderCache()
    for size in (1, 7, len(sent)) if len(sent) < 5000 else (997, len(sent)):
        parser, place = Parser(adjustments), 0
        while place < len(sent) and not parser.completed:
            place += parser.received(sent[place : place + size])
        assert str(parser.error.code).encode() == status
    assert Parser(adjustments).received(b"") == 0


TAKEN = {
    "empty lines before it": b"\r\n\r\n" + post(b"Content-Length: 26\r\n"),
    "a minor version that is to come": post(b"Content-Length: 26\r\n", version=b"1.7"),
    "zeros before the length": post(b"Content-Length: 00026\r\n"),
    "chunked in capitals": post(b"Transfer-Encoding:  Chunked \t\r\n", b"1A\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "extensions": post(CHUNKED, b'1a;a;b=c ; d = "e\\"\xff" \r\n'.replace(b'" \r', b'"\r') + ROW + b"\r\n0;x\r\n\r\n"),
    "a trailer": post(CHUNKED, b"1a\r\n" + ROW + b"\r\n000\r\nContent-Length: 3\r\nHost: y\r\n\r\n"),
    "an absolute target": b"POST http://y:80" + post(b"Content-Length: 26\r\n")[5:],
    "no host in HTTP/1.0": post(b"Connection: keep-alive\r\nContent-Length: 26\r\n", version=b"1.0").replace(
        b"Host: x", b"A: b"
    ),
    "an empty host": post(b"Content-Length: 26\r\n").replace(b"Host: x", b"Host:"),
    "an IPv6 host": post(b"Content-Length: 26\r\n").replace(b"Host: x", b"Host: [::1]:80"),
    "blanks around a value": post(b"X-Trace: \t a \t \r\nContent-Length: \t26 \r\n"),
    "other bytes in a value": post(b"X-Trace: \xe9\x80\r\nContent-Length: 26\r\n"),
    "several options of Connection": post(b"Connection: TE, keep-alive\r\nContent-Length: 26\r\n"),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_the_rfc_allows_is_answered_and_the_next_request_too(address, case):
    got = exchange(address, TAKEN[case] + post(b"Connection: foo, Close\r\nContent-Length: 26\r\n"))
    assert re.findall(rb"HTTP/1\.[01] (\d+) ", got) == [b"200", b"200"]
    assert got.count(b"110.0") == 2


def test_head_of_an_absolute_target_names_the_host_that_counts():
    head = request_head.read(b"GET http://Other.example:81?q HTTP/1.1\r\nHost: x\r\nX_Y: 1\r\n\r\n")
    assert (head.path, head.query, head.headers) == ("/", "q", {"HOST": "Other.example:81"})


@pytest.mark.parametrize("filler", [b" ", b"\t", b"a ", b'\\"', b"a:", b";", b","])
def test_time_to_read_a_head_grows_no_faster_than_the_head(filler):
    fillers = filler * (60_000 // len(filler))
    begun = time.thread_time()
    for head in (
        GET + b"Host: x\r\nA:" + fillers + b"\x01\r\n\r\n",  # took minutes, with nobody else answered
        GET + b"Host: " + fillers + b"\x01\r\n\r\n",
        GET + b"Host: x\r\nTransfer-Encoding: " + fillers + b"\r\n\r\n",
        b"GET http://" + fillers + b" HTTP/1.1\r\n\r\n",
    ):
        with pytest.raises(BadHead):
            request_head.read(head)
    body = ChunkedBody(100)
    body.received(b"1" + filler * (1000 // len(filler)) + b'"\x01\r\n')
    assert body.error
    assert time.thread_time() - begun < 0.5


def test_answer_is_not_waited_for_where_a_client_asks_to_go_on_without_a_body(address):
    got = exchange(address, post(b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 0\r\n", b""))
    assert got.startswith(b"HTTP/1.1 400")  # an empty body is no JSON; it never came to this


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


def test_clients_that_do_not_read_their_answers_hold_no_thread(make_api, listen):
    api = make_api("regression", threads=1)
    many = json.dumps({"features": [[1, 2, 3, 4]] * 5000}).encode()
    with listen(api) as address, contextlib.ExitStack() as stack:
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


def test_probe_is_answered_while_all_threads_work(make_api, listen, monkeypatch):
    api = make_api("regression", threads=2)
    loaded = api.models.get("regression")
    release, run = threading.Event(), loaded.session.run

    def slow(feeds, outputs=None):
        assert release.wait(20)
        return run(feeds, outputs)

    many = json.dumps({"features": [[1, 2, 3, 4]] * 2000}).encode()
    with listen(api) as address:
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


def test_silent_connections_make_room_for_new_ones(make_api, listen):
    api = make_api("regression", max_connections=8)
    with listen(api) as address, contextlib.ExitStack() as stack:
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
