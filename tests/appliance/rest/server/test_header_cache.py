"""Heads that came before: read once, they mean what they meant, and nothing of one request comes into another."""

import email.utils
import itertools
import json
import socket
from types import SimpleNamespace

from hypothesis import example, given
from hypothesis import strategies as st
from waitress.adjustments import Adjustments

from appliance.rest.server.framing import Parser
from appliance.rest.server.header_cache import LONGEST, MOST, CachedHead, HeaderCache

HEAD = b"POST /models/regression/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 26\r\n\r\n"
READ = ("command", "path", "query", "version", "headers", "content_length", "connection_close", "completed", "empty")


def settings(cache: HeaderCache) -> Adjustments:
    adjustments = Adjustments(max_request_body_size=10_000)
    adjustments.header_cache = cache
    return adjustments


def requests_in(stream: bytes, cuts: list[int], cache: HeaderCache) -> list[tuple]:
    """Return what is read in a stream that comes in pieces, up to the first request that is wrong."""
    found, parser, adjustments = [], None, settings(cache)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for first, last in itertools.pairwise(places):
        data = stream[first:last]
        while data:
            parser = parser or Parser(adjustments)
            data = data[parser.received(data) :]
            if parser.completed:
                body = parser.get_body_stream().read()
                found.append((*(getattr(parser, name, None) for name in READ), type(parser.error), body))
                if parser.error:
                    return found
                parser = None
    return found


tokens = st.sampled_from(
    ["a", "X-Trace", "Content-Type", "Connection", "Expect", "Transfer-Encoding", "Content-Length"]
)
values = st.sampled_from(["1", "5", "close", "100-continue", "chunked", "é", "application/json", ""])
lines = st.lists(st.tuples(tokens, values).map(": ".join), max_size=4)
sent = st.builds(
    lambda method, path, version, fields, body: (
        "\r\n".join([f"{method} {path} HTTP/{version}", *fields, f"Content-Length: {len(body)}", "", ""]).encode(
            "latin-1"
        )
        + body
    ),
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["/predict", "/v2?x=1", "//a", "/%41", "http://h/p"]),
    st.sampled_from(["1.0", "1.1"]),
    lines,
    st.binary(max_size=12),
)


@given(st.lists(sent, min_size=1, max_size=4), st.lists(st.integers(0, 2000), max_size=5))
@example([HEAD + b"x" * 26, HEAD + b"y" * 26], [10, 100])
def test_what_is_remembered_reads_as_what_is_new(requests, cuts):
    stream = b"".join(requests)
    remembering = HeaderCache()
    first = requests_in(stream, cuts, remembering)
    assert requests_in(stream, cuts, remembering) == first
    assert requests_in(stream, [], remembering) == requests_in(stream, [], HeaderCache())


def test_same_head_with_another_body_is_another_request():
    cache = HeaderCache()
    got = requests_in(HEAD + b"a" * 26 + HEAD + b"b" * 26, [], cache)
    assert [request[-1] for request in got] == [b"a" * 26, b"b" * 26]
    assert cache.known(HEAD) is not None


def test_head_of_a_request_that_is_wrong_is_not_remembered():
    for wrong in (
        b"Content-Length: +1\r\n",
        b"Content-Length: 99999999\r\n",
        b"Expect: 100-continue\r\n",
        b"no field\r\n",
    ):
        cache = HeaderCache()
        head = b"POST /predict HTTP/1.1\r\n" + wrong + b"\r\n"
        requests_in(head, [], cache)
        assert cache.known(head) is None, wrong


def test_clients_cannot_make_the_memory_grow():
    cache = HeaderCache()
    for number in range(3 * MOST):
        cache.remember(b"%d" % number, CachedHead({}, 0))
    assert sum(cache.known(b"%d" % number) is not None for number in range(3 * MOST)) <= MOST
    cache.remember(b"x" * (LONGEST + 1), CachedHead({}, 0))
    assert cache.known(b"x" * (LONGEST + 1)) is None


def test_date_of_an_answer_moves_on():
    cache = HeaderCache()
    assert cache.written(("200 OK",), 1, lambda: b"one") == cache.written(("200 OK",), 1, lambda: b"two") == b"one"
    assert cache.written(("200 OK",), 2, lambda: b"two") == b"two"


def ask(client: socket.socket, row: list[float], head: bytes = b"") -> SimpleNamespace:
    """Send one row on a connection that stays open, and return the answer's head and what was predicted."""
    body = json.dumps({"features": row}).encode()
    head = b"POST /models/regression/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n" % (len(body), head)
    client.sendall(head + body)
    got = client.recv(65536)
    while b"\r\n\r\n" not in got:
        got += client.recv(65536)
    fields, _, answer = got.partition(b"\r\n\r\n")
    lines = dict(line.split(": ", 1) for line in fields.decode().split("\r\n")[1:])
    while len(answer) < int(lines["Content-Length"]):
        answer += client.recv(65536)
    return SimpleNamespace(headers=lines, json=json.loads(answer))


def test_each_request_on_a_connection_has_its_own_answer_and_headers(address):
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as one,
        socket.create_connection((host, int(port))) as two,
    ):
        answers = [ask(client, [value, 2, 3, 4]).json["prediction"] for value in (1, 5, 9) for client in (one, two)]
        assert answers[0] == answers[1] != answers[2] == answers[3] != answers[4] == answers[5]
        named = ask(one, [1, 2, 3, 4], b"X-Request-Id: mine\r\n")
        assert named.headers["X-Request-Id"] == "mine"
        assert "X-Request-Id" not in ask(one, [1, 2, 3, 4]).headers
        assert email.utils.parsedate_to_datetime(named.headers["Date"])
        assert ask(two, [1, 2, 3, 4], b"Connection: close\r\n").headers["Connection"] == "close"
        assert two.recv(1) == b""
