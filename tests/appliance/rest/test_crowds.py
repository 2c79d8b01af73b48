"""Many connections that ask and never read, stay silent or send slowly: the others are served."""

import contextlib
import json
import resource
import socket
import time
from collections.abc import Iterator

import pytest

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
    """Assert that everything is answered, each within two seconds."""
    for sent in (
        PREDICT % (CLOSE, len(ROW), ROW),
        LOOK % b"/health/live",
        LOOK % b"/health/ready",
        LOOK % b"/openapi.json",
        LOOK % b"/metrics",
    ):
        begun = time.monotonic()
        assert ask(port, sent).startswith(b"HTTP/1.1 200"), sent
        assert time.monotonic() - begun < 2


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
        assert len(service.service.server.active_channels) <= 1024
        assert service.service.server.held() < 128 * 1024**2
