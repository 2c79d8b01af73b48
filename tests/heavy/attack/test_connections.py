"""Connections that do not read, do not send or do not end, many at once: others are answered all the same."""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import pytest

MANY = 1020
UNREAD = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 60
BEGUN = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Le"
BODILESS = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{"
LARGE = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n\r\n" + b" " * 100_000


@pytest.fixture(autouse=True, scope="module")
def many_files() -> None:
    """Allow this process, and the service that it starts, as many sockets as the test opens."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))


@pytest.fixture(scope="module")
def attacked(many_files, serve) -> Iterator:
    with serve(kind="cgroup", mib=160) as service:
        yield service


@pytest.mark.parametrize(
    "sent", [UNREAD, b"", BEGUN, BODILESS, LARGE], ids=["unread", "silent", "head", "body", "large"]
)
def test_a_thousand_connections_that_hold_on_do_not_shut_others_out(attacked, figure, sent):
    before = attacked.running.begin_peak()
    with contextlib.ExitStack() as held:
        for _ in range(MANY):
            with contextlib.suppress(OSError):
                one = held.enter_context(socket.create_connection(("127.0.0.1", attacked.port), 5))
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    one.send(sent or b"")
        seconds = []
        for _ in range(50):
            began = time.perf_counter()
            assert attacked.predicts()
            seconds.append(time.perf_counter() - began)
        figure("200", sorted(seconds)[-2], attacked.running.peak_mib() - before)
    assert sorted(seconds)[25] <= 0.5
    assert attacked.alive()
