"""Messages that are too large: passed over while they are read, told, acknowledged, and never in memory as a whole."""

import socket
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import BrokerConfig
from appliance.mqtt import packets
from appliance.mqtt.buffered import Buffered
from appliance.mqtt.client import Client
from appliance.mqtt.messages import PublishProperties
from appliance.mqtt.oversized import OVERHEAD

ROW = [5.1, 3.5, 1.4, 0.2]
BODIES = st.sampled_from([0, 5, 300, OVERHEAD, OVERHEAD + 90, OVERHEAD + 200, 3 * OVERHEAD, 5 * OVERHEAD + 1])


class Heard:
    def __init__(self):
        self.messages, self.packet_ids = [], []

    def message(self, message):
        self.messages.append(message)

    def published(self, packet_id, refusal):
        self.packet_ids.append(packet_id)


def received(stream: bytes, cuts: list[int], *, five: bool, max_payload: int):
    """Return what a client hears of a stream that arrives in pieces, and the most that it ever held."""
    ours, theirs = socket.socketpair()
    heard = Heard()
    config = BrokerConfig(host="x", protocol="5" if five else "3.1.1")
    client = Client(config, "c", heard, lambda: None, max_payload=max_payload)
    most = 0
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        connection = SimpleNamespace(buffer=Buffered(ours))
        start = 0
        for end in [*cuts, len(stream)]:
            while start < end:
                start += theirs.send(stream[start : min(end, start + 65_536)])
                client._receive(connection)
                most = max(most, len(connection.buffer.data))
        client._receive(connection)
        assert client._lost == ""
    return heard, most


@given(
    st.lists(st.tuples(BODIES, st.binary(max_size=4), st.integers(0, 300)), min_size=1, max_size=4),
    st.lists(st.integers(1, 2_000_000), max_size=4),
    st.booleans(),
)
def test_a_stream_is_read_in_whatever_pieces_and_large_messages_are_passed_over(sent, cuts, five):
    stream = bytearray()
    for packet_id, (size, tail, correlation) in enumerate(sent, 1):
        properties = PublishProperties(correlation=b"c" * correlation)
        stream += packets.publish(
            "a/b", b"x" * size + tail, packet_id, properties=properties, five=five
        ) + packets.puback(packet_id)
    inside = sorted(cut for cut in cuts if cut < len(stream))
    heard, most = received(bytes(stream), inside, five=five, max_payload=100)
    assert heard.packet_ids == list(range(1, len(sent) + 1))
    assert [message.packet_id for message in heard.messages] == heard.packet_ids
    for message, (size, tail, correlation) in zip(heard.messages, sent, strict=True):
        payload = b"x" * size + tail
        assert message.topic == "a/b"
        assert message.correlation == b"c" * (correlation if five else 0)
        assert (message.unread or len(message.payload)) == len(payload)
        assert payload.startswith(message.payload)
        assert not message.unread or len(message.payload) <= packets.SHOWN
    assert most <= 100 + 2 * OVERHEAD + 262_144


def test_a_large_message_whose_properties_never_end_is_still_acknowledged():
    user = tuple(("k" * 60_000, "v" * 60_000) for _ in range(3))
    stream = packets.publish("a/b", b"x", 7, properties=PublishProperties(user=user), five=True)
    heard, _ = received(stream, [], five=True, max_payload=100)
    (message,) = heard.messages
    assert (message.topic, message.packet_id, message.payload) == ("a/b", 7, b"")
    assert message.unread


def test_another_large_packet_ends_the_connection():
    ours, theirs = socket.socketpair()
    client = Client(BrokerConfig(host="x"), "c", Heard(), lambda: None, max_payload=100)
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(b"\x90\xff\xff\xff\x7f" + b"x" * 10)
        client._receive(SimpleNamespace(buffer=Buffered(ours)))
    assert "268435455 bytes" in client._lost


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_large_message_is_told_where_it_arrives_and_others_are_answered(listen, plain, protocol, until):
    """A broker of MQTT 5 keeps it back, as it was asked to."""
    subscription = {"topic": "in", "model": "iris", "answer": "out"}
    one = listen(protocol=protocol, subscriptions=[subscription], max_payload_bytes=1000).connected()
    client = plain("out", "appliance/edge/errors")
    client.publish("in", ROW)
    client.publish("in", b"[" + b"1, " * 1_000_000)
    client.publish("in", ROW)
    assert len(client.wait(2, "out")) == 2
    if protocol == "3.1.1":
        (told,) = client.answers(1, "appliance/edge/errors")
        assert (told["error"], told["payload_bytes"]) == ("too_large", 3_000_001)
        assert one.listener.state().refused == {"too_large": 1}
    one.stop()
    again = listen(protocol=protocol, subscriptions=[subscription], max_payload_bytes=1000).connected()
    client.publish("in", ROW)
    client.wait(3, "out")
    assert again.listener.state().received == 1


def test_no_more_is_published_than_a_broker_that_does_not_read_leaves_room_for():
    ours, theirs = socket.socketpair()
    client = Client(BrokerConfig(host="x"), "c", Heard(), lambda: None)
    with ours, theirs:
        ours.setblocking(False)
        client._paho, client.problem = SimpleNamespace(buffer=Buffered(ours)), ""
        taken = 0
        while client.publish("out", bytes(100_000), qos=0) and taken < 1000:
            taken += 1
            client._paho.buffer.flush()
        assert taken < 100
        theirs.settimeout(5)
        while client._paho.buffer.unsent > 1_000_000:
            theirs.recv(1_000_000)
            client._paho.buffer.flush()
        assert client.publish("out", bytes(100_000), qos=0) > 0
