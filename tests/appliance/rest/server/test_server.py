"""The tuned waitress over real sockets: limits, slow clients, pipelining, and a clean end."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from appliance.config import HttpConfig
from appliance.rest.server.channel import MOST_PIPELINED
from appliance.rest.server.listener import bind
from appliance.rest.server.server import Server, make_server

POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"


class Application:
    """Answers with the thread it ran on and the body's length; `/wait` waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.waiting = threading.Semaphore(0)

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/wait":
            self.waiting.release()
            assert self.go.wait(30)
        if environ["PATH_INFO"] == "/slow":
            until = time.thread_time() + 0.02
            while time.thread_time() < until:
                pass
        if environ["PATH_INFO"] == "/large":
            answer = b"x" * (32 * 1024 * 1024)
        else:
            answer = json.dumps({"thread": threading.current_thread().name, "length": len(body)}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
        return [answer]


class Running:
    """A server of `Application` in a thread of its own."""

    def __init__(self, **settings: object) -> None:
        self.app = Application()
        listener = bind("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        small = {"/predict", "/slow"}
        self.server: Server = make_server(self.app, listener, HttpConfig(**settings), small.__contains__)
        self.thread = threading.Thread(target=self.server.run, name="loop")
        self.thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, path: str = "/predict", body: bytes = b"{}", headers: dict[str, str] | None = None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type"), json.loads(answer.read())

    def close(self) -> None:
        self.app.go.set()
        self.server.stop()
        self.thread.join(25)
        assert not self.thread.is_alive()


@pytest.fixture
def start() -> Iterator[object]:
    running: list[Running] = []

    def start(**settings: object) -> Running:
        running.append(Running(**settings))
        return running[-1]

    yield start
    for one in running:
        one.close()


def _answers(connection: socket.socket, count: int) -> list[dict[str, object]]:
    """Read `count` keep-alive answers."""
    content, answers = b"", []
    while len(answers) < count:
        head, separator, rest = content.partition(b"\r\n\r\n")
        if separator:
            length = int(next(line for line in head.lower().split(b"\r\n") if b"content-length" in line).split(b":")[1])
            if len(rest) >= length:
                answers.append(json.loads(rest[:length]))
                content = rest[length:]
                continue
        data = connection.recv(65536)
        assert data, f"closed after {len(answers)} answers"
        content += data
    return answers


def test_small_prediction_runs_on_the_loop_and_others_in_a_thread(start):
    server = start()
    assert server.ask("/predict")[2]["thread"] == "loop"
    assert server.ask("/other")[2]["thread"].startswith("waitress")
    large = server.ask("/predict", b" " * 20_000)[2]
    assert large["thread"].startswith("waitress")
    assert large["length"] == 20_000


def test_path_that_held_the_loop_goes_to_the_threads(start):
    server = start()
    assert server.ask("/slow")[2]["thread"] == "loop"
    assert server.ask("/slow")[2]["thread"] == "loop"  # once may be an accident
    assert server.ask("/slow")[2]["thread"].startswith("waitress")
    assert server.ask("/predict")[2]["thread"] == "loop"


def test_pipelined_requests_are_answered_in_order(start):
    server = start()
    with server.connect() as connection:
        connection.sendall(b"".join(POST % (length, b" " * length) for length in range(50)))
        assert [answer["length"] for answer in _answers(connection, 50)] == list(range(50))


def test_request_in_single_bytes_is_answered(start):
    server = start()
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in POST % (3, b"abc"):
            connection.sendall(bytes([byte]))
        assert _answers(connection, 1)[0]["length"] == 3


def test_body_beyond_the_limit_is_answered_413_even_while_it_is_still_being_sent(start):
    server = start(max_body_bytes=1000)
    assert server.ask(body=b"x" * 1000)[0] == 200
    for path, kind in [("/predict", "application/problem+json"), ("/v2/models/m/infer", "application/json")]:
        status, content_type, answer = server.ask(path, b"x" * 5_000_000)
        assert (status, content_type) == (413, kind)
        assert "larger than allowed" in json.dumps(answer)


def test_chunked_body_beyond_the_limit_is_answered_413(start):
    server = start(max_body_bytes=1000)
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"800\r\n" + b"x" * 0x800 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_malformed_request_is_answered_400(start):
    server = start()
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: many\r\n\r\n")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.")
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert b"Content-Length is invalid" in answer


@pytest.mark.parametrize(
    "sent",
    [b"POST /predict HTTP/1.1\r\nHost: x\r\n", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"],
)
def test_request_that_never_arrives_whole_is_answered_408(start, sent):
    server = start(request_timeout=0.4)
    with server.connect() as connection:
        connection.sendall(sent)
        answer = connection.recv(4096)
        assert answer.split(b"\r\n")[0].split()[1] == b"408"
        assert b"did not arrive within 0.4 seconds" in answer


def test_slow_trickle_does_not_keep_a_connection_for_ever(start):
    server = start(request_timeout=0.5)
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            for index in range(100):
                connection.sendall(b"X-Header-%d: x\r\n" % index)
                time.sleep(0.05)
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    assert b" 408 " in connection.recv(4096).split(b"\r\n")[0]
                    return
                connection.setblocking(True)
    pytest.fail("the request was never refused")


def test_client_that_does_not_read_its_answer_does_not_stop_the_others(start):
    server = start(request_timeout=1.0, threads=1)
    with server.connect() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        time.sleep(0.2)
        assert server.ask("/predict")[0] == 200
        assert server.ask("/other")[0] == 200  # the one thread is free again once the stuck client was dropped


def test_more_requests_than_may_wait_are_answered_503(start):
    server = start(threads=1, max_waiting=2)
    waiting = [server.connect() for _ in range(2)]
    waiting[0].sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert server.app.waiting.acquire(timeout=10)  # a thread that is only starting counts as busy
    waiting[1].sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    deadline = time.monotonic() + 20
    while not server.server.task_dispatcher.queue:  # the second one waits
        assert time.monotonic() < deadline
        time.sleep(0.01)
    status, _, answer = server.ask("/wait")
    assert status == 503
    assert "try again" in answer["next"]
    assert server.ask("/predict")[0] == 200  # what runs on the loop needs no room in the queue
    server.app.go.set()
    for connection in waiting:
        assert _answers(connection, 1)[0]["length"] == 0
        connection.close()


def test_stop_finishes_what_runs_and_closes_idle_connections(start):
    server = start()
    with server.connect() as busy, server.connect() as idle:
        busy.sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert server.app.waiting.acquire(timeout=10)
        server.server.stop()
        assert idle.recv(1) == b""
        server.app.go.set()
        head = busy.recv(4096)
        assert head.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in head
    server.thread.join(10)
    assert not server.thread.is_alive()


def test_stop_waits_no_longer_than_the_drain_timeout(start):
    server = start(drain_timeout=0.3)
    with server.connect() as busy:
        busy.sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert server.app.waiting.acquire(timeout=10)
        server.server.stop()
        server.thread.join(10)
        assert not server.thread.is_alive()


def test_new_client_is_refused_at_once_while_running_requests_end(make_api):
    api = make_api("regression")
    loaded = api.models.get("regression")
    running, release, run = threading.Event(), threading.Event(), loaded.session.run

    def slow(feeds, outputs=None):
        running.set()
        assert release.wait(20)
        return run(feeds, outputs)

    loaded.session.run = slow
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    service = make_server(api.app, listener, api.context.config, lambda path: False)
    serving = threading.Thread(target=service.run)
    serving.start()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("POST", "/predict", json.dumps({"features": [1, 2, 3, 4]}))
    assert running.wait(20)
    service.stop()
    with pytest.raises(ConnectionRefusedError):
        _connect_for_ever(port)
    release.set()
    assert client.getresponse().status == 200
    client.close()
    serving.join(20)
    assert not serving.is_alive()


def _connect_for_ever(port: int) -> None:
    while True:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
        time.sleep(0.01)  # quicker than they are accepted they would fill the queue, and wait there


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_wall_clock_that_is_set_ends_and_keeps_nothing(start, monkeypatch, jump):
    server = start(request_timeout=1.5, idle_timeout=2.5)
    real, off = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + off[0])  # waitress asks it, too
    with server.connect() as slow, server.connect() as right, server.connect() as idle:
        idle.sendall(POST % (2, b"{}"))
        assert _answers(idle, 1)[0]["length"] == 2
        begun = time.monotonic()
        slow.sendall(POST[:20])
        right.sendall((POST % (2, b"{}"))[:-1])
        off[0] = jump
        time.sleep(0.5)  # the loop looks at its clocks meanwhile
        right.sendall(b"}")
        assert _answers(right, 1)[0]["length"] == 2
        assert slow.recv(4096).split()[1] == b"408"
        assert 1.4 < time.monotonic() - begun < 15
        assert idle.recv(1) == b""
        assert 2.4 < time.monotonic() - begun < 20
    begun = time.monotonic()
    off[0] = -2 * jump
    server.close()
    assert time.monotonic() - begun < 20


def test_client_that_reads_too_slowly_is_cut_off_and_a_slow_one_is_not(start):
    server = start(request_timeout=1.0)
    with server.connect() as slow, server.connect() as too_slow:
        for client in (slow, too_slow):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(40):
            assert slow.recv(64 * 1024)
            assert too_slow.recv(1)
            time.sleep(0.1)
        assert [channel.addr for channel in server.server.active_channels.values()] == [slow.getsockname()]
        with pytest.raises(ConnectionResetError):  # nothing of it waits in the kernel any more
            _read_to_the_end(too_slow)


def _read_to_the_end(client: socket.socket) -> None:
    while client.recv(65536):
        pass


def test_silent_connection_ends_without_a_reset(start):
    server = start(idle_timeout=0.4)
    with server.connect() as idle:
        assert idle.recv(1) == b""
        idle.sendall(POST % (2, b"{}"))  # on its way when the connection ended
        assert idle.recv(1) == b""


def test_broken_pipe_of_signals_does_not_stop_the_loop(start):
    server = start()
    for _ in range(100_000):  # more than the pipe holds, from a thread that is not the loop's
        server.server.pull_trigger()
    assert server.ask("/predict")[0] == 200


def test_requests_ahead_wait_as_bytes(start):
    server = start(threads=1)
    with server.connect() as client:
        client.sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + POST % (1, b"1") * 2000)
        assert server.app.waiting.acquire(timeout=10)
        channel = next(iter(server.server.active_channels.values()))
        assert len(channel.requests) == MOST_PIPELINED
        assert channel.held() > len(POST) * 1000  # the kernel has the others
        server.app.go.set()
        assert [answer["length"] for answer in _answers(client, 2001)] == [0] + [1] * 2000
        assert not channel.unread


def test_bodies_that_arrive_are_bounded_together_and_the_largest_is_refused(start):
    server = start()
    server.server.most_held = 3_000_000
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(4)]
        for client, size in zip(clients, (900_000, 1_500_000, 100_000, 700_000), strict=True):
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + b" " * size)
            time.sleep(0.1)
        assert clients[1].recv(4096).split()[1] == b"503"
        assert server.server.held() < 3_000_000
        for client, rest in ((clients[0], 1_100_000), (clients[2], 1_900_000), (clients[3], 1_300_000)):
            client.sendall(b" " * rest)
            assert _answers(client, 1)[0]["length"] == 2_000_000
