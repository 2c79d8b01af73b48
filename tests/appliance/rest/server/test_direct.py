"""Small requests that are answered without a task: to the byte as with one, and only where nothing else waits."""

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from appliance.rest.server.channel import Channel

BODY = json.dumps({"features": [1, 2, 3, 4]}).encode()
INFER = json.dumps(
    {"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]}]}
).encode()


def post(path: str, body: bytes = BODY, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


class Client:
    """One connection, and how many answers the server has sent directly, on it or others."""

    def __init__(self, where: str, sent: list[bytes]) -> None:
        host, port = where.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self._file = self.socket.makefile("rb")
        self._sent = sent

    def ask(self, *requests: bytes) -> list[tuple[int, dict[str, str], bytes]]:
        """Send requests in one piece; return the status, headers and body of each answer."""
        self.socket.sendall(b"".join(requests))
        return [self.answer() for _ in requests]

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self._file.readline().split()[1])
        headers = {name: value for name, value in http.client.parse_headers(self._file).items() if name != "Date"}
        return status, headers, self._file.read(int(headers["Content-Length"]))

    def directly(self) -> int:
        """Return how many answers were sent directly since the last time."""
        count = len(self._sent)
        self._sent.clear()
        return count

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@pytest.fixture
def client(api_of, listen, monkeypatch) -> Iterator[Client]:
    sent: list[bytes] = []
    send = Channel.send_answer

    def told(self, head, body):
        sent.append(body)
        send(self, head, body)

    monkeypatch.setattr(Channel, "send_answer", told)
    with listen(api_of("classifier")) as where:
        found = Client(where, sent)
        yield found
        found.close()


@pytest.mark.parametrize(
    "request_",
    [
        post("/predict"),
        post("/predict", BODY, "X-Request-Id: mine"),
        post("/predict", BODY, "Connection: keep-alive"),
        post("/models/classifier/predict", b'{"features": [1]}'),
        post("/models/nobody/predict"),
        post("/predict", b"1,2,3,4\n", "Content-Type: text/csv"),
        post("/predict", BODY, "Accept: text/csv"),
        post("/v2/models/classifier/infer", INFER, "Accept-Encoding: gzip"),
        post("/invocations", b'{"instances": [[1, 2, 3, 4]]}', "Content-Type: application/json"),
        post("/v1/models/classifier:predict", b'{"instances": [[1, 2, 3, 4]]}'),
    ],
)
def test_second_request_with_a_head_is_answered_directly_and_as_the_first(client, request_):
    first, second, third = (client.ask(request_)[0] for _ in range(3))
    assert client.directly() == 2
    assert second == first
    assert third == first


@pytest.mark.parametrize(
    "request_",
    [
        post("/v2/models/classifier/versions/1.0.0/infer", INFER),
        post("/predict", b" " * 20_000 + BODY),
        post("/no/such/path"),
        b"GET /predict HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_not_small_never_is(client, request_):
    first, second, third = (client.ask(request_)[0] for _ in range(3))
    assert not client.directly()
    assert first[:2] == second[:2] == third[:2]


def test_rows_of_one_request_never_answer_another(client):
    rows = [[number, 2, 3, 4] for number in range(50)]
    alone = [client.ask(post("/predict", json.dumps({"features": row}).encode()))[0][2] for row in rows]
    again = [client.ask(post("/predict", json.dumps({"features": row}).encode()))[0][2] for row in rows]
    assert again == alone
    assert len(set(alone)) == len(rows)


def test_pipelined_requests_and_such_in_pieces_keep_their_order(client):
    client.ask(post("/predict"))
    other = post("/predict", json.dumps({"features": [9, 9, 9, 9]}).encode())
    expected = [client.ask(request)[0][2] for request in (post("/predict"), other)]
    client.directly()
    assert [answer[2] for answer in client.ask(post("/predict"), other, post("/predict"))] == [*expected, expected[0]]
    assert not client.directly()
    client.socket.sendall(other[:-3])
    client.socket.sendall(other[-3:])
    assert client.answer()[2] == expected[1]
    assert client.ask(post("/predict"))[0][2] == expected[0]
    assert client.directly() == 1


def test_answer_that_the_kernel_does_not_take_whole_is_sent_as_it_takes_it(client, monkeypatch):
    request = post("/predict")
    whole = client.ask(request)
    send = socket.socket.send
    monkeypatch.setattr(
        "appliance.rest.server.channel.Channel.send", lambda self, data, do_close=True: send(self.socket, data[:7])
    )
    for _ in range(3):
        assert client.ask(request) == whole


def test_client_that_is_gone_harms_nobody(client, listen):
    client.ask(post("/predict"))
    gone = socket.create_connection(client.socket.getpeername(), timeout=20)
    gone.sendall(post("/predict"))
    gone.close()
    assert client.ask(post("/predict"))[0][0] == 200


def test_body_beyond_the_limit_is_refused_after_smaller_ones(make_api, listen):
    api = make_api("classifier", max_body_bytes=64)
    with listen(api) as where:
        client = Client(where, [])
        assert client.ask(post("/predict"))[0][0] == 200
        assert client.ask(post("/predict"))[0][0] == 200
        assert client.ask(post("/predict", BODY + b" " * 100))[0][0] == 413
        client.close()


def test_page_of_an_allowed_origin_may_read_a_direct_answer(make_api, listen):
    api = make_api("classifier", origins=["https://app.example"])
    with listen(api) as where:
        client = Client(where, [])
        answers = [client.ask(post("/predict", BODY, "Origin: https://app.example"))[0] for _ in range(3)]
        client.close()
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][1]["Access-Control-Allow-Origin"] == "https://app.example"
