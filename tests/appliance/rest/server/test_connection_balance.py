"""Connections spread over the processes that share a listener, and none is lost when one of them does not take its."""

import socket
import threading
import time

import pytest

from appliance.config import HttpConfig
from appliance.rest.server import connection_balance
from appliance.rest.server.connection_balance import Share
from appliance.rest.server.listener import bind
from appliance.rest.server.server import make_server


def _constant(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def _connected(port: int) -> socket.socket:
    """Return a connection that has been answered once, so that some process holds it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(b"GET /predict HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    return connection


@pytest.fixture
def servers():
    """Two servers on one listener, as two processes have it."""
    listener = bind("127.0.0.1", 0)
    held = connection_balance.counts(2)
    made = [
        make_server(_constant, listener.dup(), HttpConfig(), lambda path: True, Share(held, slot)) for slot in (0, 1)
    ]
    threads = [threading.Thread(target=server.run) for server in made]
    for thread in threads:
        thread.start()
    yield listener.getsockname()[1], made
    listener.close()
    for server in made:
        server.stop()
    for thread in threads:
        thread.join(25)
        assert not thread.is_alive()


def test_connections_are_shared_evenly(servers):
    port, made = servers
    connections = []
    for _ in range(8):
        connections.append(_connected(port))
        time.sleep(0.01)
    counts = [len(server.active_channels) for server in made]
    for connection in connections:
        connection.close()
    assert sum(counts) == 8
    assert max(counts) <= 5


def test_connection_is_taken_after_all_when_the_other_process_does_not():
    listener = bind("127.0.0.1", 0)
    held = connection_balance.counts(2)  # of the second one, which holds none, nothing is ever heard
    server = make_server(_constant, listener, HttpConfig(), lambda path: True, Share(held, 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    connections = [_connected(listener.getsockname()[1]) for _ in range(5)]
    assert len(server.active_channels) == 5
    for connection in connections:
        connection.close()
    server.stop()
    thread.join(25)
    assert not thread.is_alive()


def test_a_restarted_process_begins_with_no_connection():
    held = connection_balance.counts(2)
    Share(held, 0).hold(3)
    share = Share(held, 1)
    share.hold(7)
    assert share.is_over()
    assert not Share(held, 1).is_over()
