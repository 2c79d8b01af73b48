"""Many connections that ask and never read, stay silent or send slowly: the others are served."""

import contextlib
import json
import os
import resource
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from appliance.rest.server import eviction
from appliance.rest.server.channel import Standing
from appliance.rest.server.dispatcher import Turns

ROW = json.dumps({"features": [1, 2, 3, 4]}).encode()
PREDICT = b"POST /models/regression/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n%sContent-Length: %d\r\n\r\n%s"
CLOSE = b"Connection: close\r\n"


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Let this process hold both ends of a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(port: int, *, window: int = 0) -> socket.socket:
    """Return a connection; `window` bounds how many bytes the client's kernel takes of what it does not read."""
    client = socket.socket()
    client.settimeout(20)
    if window:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.connect(("127.0.0.1", port))
    return client


def read(client: socket.socket) -> bytes:
    got = b""
    while data := client.recv(65536):
        got += data
    return got


def ask(port: int, sent: bytes) -> bytes:
    with connect(port) as client:
        client.sendall(sent)
        return read(client)


LOOK = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE + b"\r\n"


def check_served(port: int) -> None:
    """Assert that everything is answered, each long before a client here gives up."""
    for sent in (
        PREDICT % (CLOSE, len(ROW), ROW),
        LOOK % b"/health/live",
        LOOK % b"/health/ready",
        LOOK % b"/openapi.json",
        LOOK % b"/metrics",
    ):
        begun = time.monotonic()
        assert ask(port, sent).startswith(b"HTTP/1.1 200"), sent
        assert time.monotonic() - begun < 10


def test_clients_that_never_read_their_answers_do_not_shut_others_out(start_service):
    service = start_service(("regression", "1.0.0", "regression"))
    with contextlib.ExitStack() as stack:
        request = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        for number in range(1020):
            client = stack.enter_context(connect(service.port))
            client.sendall(request * 60)
            if number % 100 == 50:
                check_served(service.port)
        for _ in range(8):
            check_served(service.port)
        with contextlib.ExitStack() as several:  # more at a time than were free
            clients = [several.enter_context(connect(service.port)) for _ in range(40)]
            for client in clients:
                client.sendall(PREDICT % (CLOSE, len(ROW), ROW))
            assert all(read(client).startswith(b"HTTP/1.1 200") for client in clients)
        assert len(service.service.http.server.active_channels) <= 1024
        assert service.service.http.server.held() < 128 * 1024**2


@pytest.mark.parametrize("sent", [b"", b"GET /", (PREDICT % (b"", len(ROW), ROW))[:-1]])
def test_silent_and_slow_clients_do_not_shut_others_out(start_service, sent):
    service = start_service(("regression", "1.0.0", "regression"), max_connections=64)
    with contextlib.ExitStack() as stack:
        asking = stack.enter_context(connect(service.port))
        for number in range(200):
            stack.enter_context(connect(service.port)).sendall(sent)
            if number % 20 == 0:
                asking.sendall(PREDICT % (b"", len(ROW), ROW))  # who asks and reads keeps its connection
                assert asking.recv(4096).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        check_served(service.port)
        assert time.monotonic() - begun < 15
        assert len(service.service.http.server.active_channels) <= 64


def test_many_that_come_at_once_all_have_their_turn(start_service):
    service = start_service(("regression", "1.0.0", "regression"), max_connections=16)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(service.port)) for _ in range(100)]
        for client in clients:
            client.sendall(PREDICT % (CLOSE, len(ROW), ROW))
        assert [read(client)[:12] for client in clients] == [b"HTTP/1.1 200"] * 100


def test_memory_of_answers_that_nobody_reads_is_bounded(start_service):
    service = start_service(("regression", "1.0.0", "regression"))
    many = json.dumps({"features": [[1, 2, 3, 4]] * 20_000}).encode()
    service.service.http.server.most_held = 2_000_000
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(connect(service.port, window=4096))
            client.sendall(PREDICT % (b"", len(many), many) * 2)
        service.service.http.server.call_soon(service.service.http.server.give_back)
        check_served(service.port)
        deadline = time.monotonic() + 20
        while service.service.http.server.held() > 2_000_000:
            time.sleep(0.1)
            assert time.monotonic() < deadline
            service.service.http.server.call_soon(service.service.http.server.give_back)
        check_served(service.port)


def test_no_file_for_a_connection_is_no_reason_to_spin(start_service, monkeypatch):
    service = start_service(("regression", "1.0.0", "regression"))
    tried = []

    class NoFile:
        def __init__(self, socket: socket.socket) -> None:
            self.socket = socket

        def accept(self):
            if len(tried) < 3:
                tried.append(time.monotonic())
                raise OSError(24, os.strerror(24))
            return self.socket.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self.socket, name)

    server = service.service.http.server
    monkeypatch.setattr(server, "socket", NoFile(server.socket))
    check_served(service.port)
    assert len(tried) == 3
    assert tried[2] - tried[0] > 0.15


def one(address: str, standing: Standing, seconds: float, **more: object) -> SimpleNamespace:
    """Return a connection in the shape that eviction.py asks."""
    asked = {"held": lambda: 0, "request_started": 0.0, "requests": []} | more
    return SimpleNamespace(addr=(address, 1), standing=lambda now: (standing, seconds), **asked)


def test_room_is_made_by_who_has_most_then_by_who_does_least():
    few = [one("10.0.0.2", Standing.IDLE, 90), one("10.0.0.2", Standing.STUCK, 90)]
    much = [one("10.0.0.9", Standing.BUSY, 0) for _ in range(5)] + [
        one("10.0.0.9", Standing.ARRIVING, 2),
        one("10.0.0.9", Standing.IDLE, 3),
        one("10.0.0.9", Standing.IDLE, 30),
        one("10.0.0.9", Standing.UNSENT, 1),
        one("10.0.0.9", Standing.STUCK, 2),
    ]
    found = eviction.to_make_room(few + much, 0.0)
    assert found == [much[9], much[7], much[6], much[5], much[8], few[1], few[0]]


def test_addresses_of_one_network_are_one_client():
    many = [one(f"2001:db8::{number:x}", Standing.IDLE, 5) for number in range(20)]
    others = [one(f"2001:db8:0:{number:x}::1", Standing.STUCK, 50) for number in range(1, 20)]
    assert {eviction._peer(channel.addr[0]) for channel in many} == {eviction._peer("2001:db8::ffff:0:1%eth0")}
    assert eviction._peer("::ffff:10.0.0.9") == eviction._peer("10.0.0.9")
    assert {id(channel) for channel in eviction.to_make_room(others + many, 0.0)} <= {id(channel) for channel in many}


def test_memory_is_given_back_by_who_does_not_read_then_by_the_largest():
    stuck = one("a", Standing.STUCK, 9, held=lambda: 10)
    large = one("b", Standing.BUSY, 0, held=lambda: 50, request_started=1.0)
    small = one("c", Standing.ARRIVING, 5, held=lambda: 20)
    runs = one("d", Standing.BUSY, 0, held=lambda: 500, requests=[object()])
    everyone = [small, runs, large, stuck]
    assert eviction.to_give_back(everyone, 0.0, 580) == []
    assert eviction.to_give_back(everyone, 0.0, 575) == [stuck]
    assert eviction.to_give_back(everyone, 0.0, 530) == [stuck, large]
    assert eviction.to_give_back(everyone, 0.0, 0) == [stuck, large, small]


def test_who_waits_for_an_answer_comes_before_who_asks_far_ahead():
    turns = Turns()
    ahead = [SimpleNamespace(behind=5, requests=[0] * 9, unread=b"") for _ in range(3)]
    waits = [SimpleNamespace(behind=0, requests=[0], unread=b"") for _ in range(5)]
    for channel in (*ahead, *waits):
        turns.append(channel)
    order = [turns.popleft() for _ in range(len(turns))]
    assert order == [*waits[:3], ahead[0], *waits[3:], *ahead[1:]]
    for channel in (*ahead[:2], waits[0]):
        turns.append(channel)
    assert turns.give_way(waits[1]) is ahead[0]
    assert len(turns) == 2
    assert turns.give_way(ahead[2]) is ahead[2]  # no further ahead than the other one
    assert turns.give_way(waits[1]) is ahead[1]
    assert turns.give_way(waits[1]) is waits[1]
    assert turns.popleft() is waits[0]
