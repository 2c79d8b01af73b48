"""PUBLISH and PUBACK as bytes: what paho writes is read, what is written paho reads, and no bytes break the reader."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from appliance.mqtt import packets
from appliance.mqtt.messages import Message, PublishProperties

TOPICS = st.text(st.characters(exclude_characters="+#\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NOTES = st.builds(
    PublishProperties,
    expiry=st.integers(0, 2**32 - 1),
    content_type=st.sampled_from(["", "application/json", "application/cbor"]),
    correlation=st.binary(max_size=200),
    user=st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple),
)


def split(packet: bytes) -> tuple[int, bytes]:
    start, end = packets.find(bytearray(packet), 0)
    assert end == len(packet)
    return packet[0], packet[start:end]


@given(TOPICS, st.binary(max_size=300), st.integers(1, 65535), st.integers(0, 1), st.booleans(), NOTES, st.booleans())
def test_what_is_written_paho_reads(topic, payload, packet_id, qos, retain, properties, five):
    first, body = split(
        packets.publish(topic, payload, packet_id, qos=qos, retain=retain, properties=properties, five=five)
    )
    version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
    read = _packet.decode_publish(first, bytearray(body), version)
    assert (read.topic.decode(), bytes(read.payload), read.qos, bool(read.retain)) == (topic, payload, qos, retain)
    assert not qos or read.mid == packet_id
    if five:
        assert getattr(read.properties, "CorrelationData", b"") == properties.correlation
        assert getattr(read.properties, "MessageExpiryInterval", 0) == properties.expiry
        assert getattr(read.properties, "ContentType", "") == properties.content_type
        assert tuple(getattr(read.properties, "UserProperty", ())) == properties.user


@given(
    TOPICS, st.binary(max_size=300), st.integers(1, 65535), TOPICS, st.binary(max_size=50), st.booleans(), st.booleans()
)
def test_what_a_broker_may_send_is_read(topic, payload, packet_id, response, correlation, retain, dup):
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = response
    properties.CorrelationData = correlation
    properties.UserProperty = [("a", "b"), ("c", "d")]
    properties.SubscriptionIdentifier = 300
    properties.MessageExpiryInterval = 5
    properties.PayloadFormatIndicator = 1
    properties.TopicAlias = 3
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + packet_id.to_bytes(2, "big") + properties.pack() + payload
    first = packets.PUBLISH | 2 | retain | dup << 3
    read = packets.read_publish(first, body, five=True)
    assert read == Message(
        topic, payload, 1, packet_id, retain, dup, response, correlation, (300,), (("a", "b"), ("c", "d"))
    )


@given(TOPICS, st.binary(max_size=50), st.integers(0, 1), st.booleans())
def test_what_is_written_is_read_back(topic, payload, qos, five):
    first, body = split(packets.publish(topic, payload, 7, qos=qos, properties=None, five=five))
    assert packets.read_publish(first, body, five=five) == Message(topic, payload, qos, 7 if qos else 0)


@given(st.binary(max_size=60), st.integers(0, 15), st.booleans())
def test_any_bytes_are_a_message_or_malformed(body, flags, five):
    try:
        read = packets.read_publish(packets.PUBLISH | flags, body, five=five)
    except packets.MalformedPacket:
        return
    assert read.payload == body[len(body) - len(read.payload) :]


@given(st.binary(max_size=60), st.integers(0, 200), st.binary(max_size=5), st.integers(0, 500))
def test_any_properties_are_read_or_malformed(properties, length, payload, missing):
    """The length before them may be another one, and the packet may have been cut off."""
    body = b"\0\x01a\0\x07" + packets._variable(length) + properties + payload
    for read in (packets.read_publish, partial(packets.read_beginning, length=len(body) + missing)):
        try:
            message = read(packets.PUBLISH | 2, body, five=True)
        except packets.MalformedPacket:
            continue
        assert (message.topic, message.packet_id) == ("a", 7)
        assert all(0 <= number < 2**28 for number in message.identifiers)


@given(st.binary(max_size=20), st.integers(0, 5))
def test_a_packet_is_found_whole_or_not_at_all(data, place):
    try:
        found = packets.find(bytearray(data), place)
    except packets.MalformedPacket:
        return
    assert found is None or place < found[0] <= found[1] <= len(data)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16383, 16384, 2_097_151, 2_097_152])
def test_lengths_are_written_as_mqtt_says(length):
    payload = bytes(max(0, length - 3))
    packet = packets.publish("a", payload, 1, qos=0, properties=None, five=False)
    start, end = packets.find(bytearray(packet), 0)
    assert end - start == len(payload) + 3
    assert packets.find(bytearray(packet[:-1]), 0) is None


def test_acknowledgements_tell_what_was_refused():
    assert packets.read_puback(b"\x01\x02") == (258, "")
    assert packets.read_puback(b"\x01\x02\x10") == (258, "")
    assert packets.read_puback(b"\x01\x02\x87\x00") == (258, "not authorized")
    assert packets.read_puback(b"\x01\x02\xee") == (258, "reason 0xee")
    assert packets.puback(258) == b"\x40\x02\x01\x02"
    with pytest.raises(packets.MalformedPacket):
        packets.read_puback(b"\x01")


def test_a_message_that_mqtt_cannot_carry_is_refused():
    with pytest.raises(packets.MalformedPacket, match="bytes"):
        packets.publish("x" * 65536, b"", 1, properties=None, five=True)
