"""MQTT over WebSockets: the same answers, large messages, an outage, and the usual ports."""

import re
import signal
import time

import pytest

from appliance.config import BrokerConfig
from tests.conftest import free_port

ROW = [5.1, 3.5, 1.4, 0.2]
PLANT = {"topic": "plant/+/sensors", "model": "iris", "answer": "plant/{1}/prediction"}


@pytest.fixture
def both(start_broker):
    """Return a broker that listens for TCP and for WebSockets, and the latter's port."""
    port = free_port()
    lines = (f"listener {port} 127.0.0.1", "protocol websockets", "allow_anonymous true")
    return start_broker("both", *lines), port


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_messages_are_answered_over_websockets(listen, plain, both, protocol):
    broker, port = both
    running = listen(subscriptions=[PLANT], port=port, transport="websockets", protocol=protocol).connected()
    client = plain("plant/+/prediction", port=broker.port)
    for number in range(200):
        client.publish(f"plant/{number}/sensors", ROW)
    answered = {message.topic for message in client.wait(200)}
    assert answered == {f"plant/{number}/prediction" for number in range(200)}
    assert running.listener.state().received == 200


def test_large_messages_pass_whole_over_websockets(listen, plain, both):
    broker, port = both
    older = {"protocol": "3.1.1", "max_payload_bytes": 30_000}  # with MQTT 5 the broker knows what is too large
    listen(subscriptions=[PLANT], port=port, transport="websockets", **older).connected()
    client = plain("plant/+/prediction", "appliance/edge/errors", port=broker.port)
    client.publish("plant/many/sensors", [ROW] * 1000)  # the answer has some 20 KB, more than a frame of ours
    assert len(client.answers(1, "plant/many/prediction")[0]["prediction"]) == 1000
    client.publish("plant/wide/sensors", b'{"features": [5.1, 3.5, 1.4, 0.2], "more": "' + b"x" * 20_000 + b'"}')
    client.publish("plant/too/sensors", b"x" * 40_000)
    assert client.answers(1, "appliance/edge/errors")[0]["error"] == "too_large"
    client.wait(1, "plant/wide/prediction")


def test_connection_is_made_again_after_an_outage(listen, plain, both, until):
    broker, port = both
    running = listen(subscriptions=[PLANT], port=port, transport="websockets").connected()
    broker.stop(signal.SIGKILL)
    until(lambda: not any(running.listener.state().connected.values()), "disconnected")
    broker.start()
    until(lambda: all(running.listener.state().connected.values()), "connected again", seconds=60)
    client = plain("plant/+/prediction", port=broker.port)
    deadline = time.monotonic() + 20
    while not client.heard and time.monotonic() < deadline:  # until the subscription is there again
        client.publish("plant/a/sensors", ROW)
        time.sleep(0.1)
    assert client.heard


def test_port_without_a_websocket_is_told(listen, both, until):
    broker, _ = both
    running = listen(subscriptions=[PLANT], port=broker.port, transport="websockets")
    state = until(lambda: [one for one in running.listener.state().problems if "not connected yet" not in one], "told")
    assert re.search("WebSocket|closed|reset|timed out", state[0], re.IGNORECASE)


@pytest.mark.parametrize(
    ("settings", "port"),
    [
        ({}, 1883),
        ({"tls": True}, 8883),
        ({"transport": "websockets"}, 80),
        ({"transport": "websockets", "tls": True}, 443),
        ({"transport": "websockets", "port": 9001}, 9001),
    ],
)
def test_usual_port(settings, port):
    assert BrokerConfig(**settings).tcp_port == port
