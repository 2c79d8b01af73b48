"""Sparkplug B: its bytes, aliases, what is kept of a device, births and deaths; over a real broker."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import SubscriptionConfig
from appliance.errors import ConfigError
from appliance.mqtt import sparkplug
from appliance.mqtt.bad_message import BadMessage
from appliance.mqtt.sparkplug import SparkplugCodec, metrics

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
BIRTH, DATA, DEATH = (f"spBv1.0/plant/{kind}/node/press" for kind in ("DBIRTH", "DDATA", "DDEATH"))


# Written by the specification's field numbers and protobuf's wire format, without the module's own schema.


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def sized(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def number_of(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def metric(
    name: str = "", value: object = None, *, alias: int | None = None, datatype: int = 10, **flags: bool
) -> bytes:
    """Return one metric; a value of None is null."""
    content = sized(1, name.encode()) if name else b""
    content += number_of(2, alias) if alias is not None else b""
    content += number_of(3, 1_700_000_000_000) + number_of(4, datatype)
    content += number_of(5, 1) if flags.get("historical") else b""
    if value is None:
        content += number_of(7, 1)
    elif datatype in (1, 2, 3, 5, 6, 7):
        content += number_of(10, int(value) % 2**32)
    elif datatype in (4, 8, 13):
        content += number_of(11, int(value) % 2**64)
    elif datatype == 9:
        content += varint(12 << 3 | 5) + struct.pack("<f", value)
    elif datatype == 10:
        content += varint(13 << 3 | 1) + struct.pack("<d", value)
    elif datatype == 11:
        content += number_of(14, int(value))
    else:
        content += sized(15, str(value).encode())
    return sized(2, content)


def payload(*parts: bytes) -> bytes:
    return number_of(1, 1_700_000_000_000) + b"".join(parts) + number_of(3, 7)


def codec(**settings: object) -> SparkplugCodec:
    return SparkplugCodec(SubscriptionConfig(topic="a", payload="sparkplug", **settings), max_bytes=10**6, max_rows=1)


def row(made: SparkplugCodec, topic: str, *parts: bytes) -> dict | None:
    """Return the row that a message makes, None for none."""
    rows = made.read(topic, payload(*parts)).rows
    return rows[0] if rows else None


@pytest.mark.parametrize(
    ("value", "datatype"),
    [(-5, 1), (-3000, 2), (-70_000, 3), (-(2**40), 4), (200, 5), (60_000, 6), (4_000_000_000, 7), (2**63 + 1, 8),
     (0.5, 9), (0.1, 10), (math.inf, 10), (True, 11), ("größe", 12), (1_700_000_000_000, 13), ("x" * 300, 14)],
)  # fmt: skip
def test_every_plain_type_keeps_its_value(value, datatype):
    (read,) = metrics(payload(metric("m", value, datatype=datatype)))
    assert (read.name, read.value, type(read.value)) == ("m", value, type(value))


def test_null_and_what_is_no_value_is_missing():
    data_set = sized(2, sized(1, b"set") + number_of(4, 16) + sized(17, b"\x08\x01"))
    assert [one.value for one in metrics(payload(metric("null"), data_set))] == [None, None]


def test_a_row_is_the_last_values_of_a_device():
    made = codec()
    assert row(made, BIRTH, *(metric(name, 1.0) for name in NAMES)) is None
    assert row(made, DATA, metric(NAMES[1], 2.0)) == dict(zip(NAMES, (1.0, 2.0, 1.0, 1.0), strict=True))
    assert row(made, DATA, metric(NAMES[2], 3.0)) == dict(zip(NAMES, (1.0, 2.0, 3.0, 1.0), strict=True))
    assert row(made, DATA.replace("press", "other"), metric(NAMES[0], 9.0)) == {NAMES[0]: 9.0}
    assert row(made, DATA, metric(NAMES[0], 8.0, historical=True))[NAMES[0]] == 8.0
    assert row(made, DATA, metric(NAMES[1], 2.0))[NAMES[0]] == 1.0  # what is history is not kept
    assert row(made, DEATH) is None
    assert row(made, DATA, metric(NAMES[0], 5.0)) == {NAMES[0]: 5.0}


def test_aliases_of_births_are_known_by_name_and_others_by_number():
    made = codec()
    row(made, "spBv1.0/plant/NBIRTH/node", metric("Node Control/Rebirth", False, alias=0, datatype=11))
    row(made, BIRTH, metric("temp", 1.0, alias=7))
    assert row(made, DATA, metric(value=2.0, alias=7)) == {"temp": 2.0, "alias:7": 2.0}
    assert row(made, "spBv1.0/plant/NDATA/node", metric(value=1, alias=0, datatype=11))["Node Control/Rebirth"] is True
    assert row(made, DATA, metric(value=3.0, alias=8)) == {"temp": 2.0, "alias:7": 2.0, "alias:8": 3.0}
    row(made, "spBv1.0/plant/NBIRTH/node")  # the node has new aliases, and all of its devices are born again
    assert row(made, DATA, metric(value=4.0, alias=7)) == {"alias:7": 4.0}


def test_message_without_any_of_the_fields_is_passed_over():
    made = codec(fields={"temp": "Motor/Temperature", "load": "alias:7"})
    row(made, BIRTH, metric("Motor/Temperature", 1.0), metric("Load", 2.0, alias=7), metric("Other", 3.0))
    assert row(made, DATA, metric("Other", 4.0)) is None
    assert row(made, DATA, metric(value=5.0, alias=7))["Motor/Temperature"] == 1.0


@pytest.mark.parametrize("topic", ["spBv1.0/STATE/host", "spBv1.0/plant/NCMD/node", "spBv1.0/plant/DCMD/node/press"])
def test_commands_and_states_of_hosts_ask_nothing(topic):
    assert codec().read(topic, payload(metric("Node Control/Rebirth", True, datatype=11))).rows == []


@pytest.mark.parametrize(
    ("topic", "content", "reason"),
    [
        ("plant/press", payload(), "form"),
        ("spBv1.0/plant/DDATA", payload(), "form"),
        (DATA, b'{"a": 1}', "payload"),
        (DATA, payload() + b"\x12\xff", "payload"),
        (DATA, payload(metric("n" * 257, 1.0)), "too_large"),
        (DATA, payload(*[metric("n", 1.0)] * 10_001), "too_large"),
        (DATA, b"x" * 1_000_001, "too_large"),
    ],
)
def test_what_is_no_sparkplug_is_refused(topic, content, reason):
    with pytest.raises(BadMessage) as told:
        codec().read(topic, content)
    assert told.value.reason == reason


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(sparkplug, "MOST_METRICS", 50)
    monkeypatch.setattr(sparkplug, "MOST_DEVICES", 8)
    made = codec()
    for device in range(30):
        row(made, f"spBv1.0/plant/DBIRTH/node{device}/press", *(metric(f"m{i}", 1.0, alias=i) for i in range(20)))
        assert sum(len(one.values) for one in made._devices.values()) == made._kept <= 50
        assert len(made._devices) <= 8
        assert len(made._aliases) <= 8
    row(made, BIRTH, *(metric(f"m{i}", 1.0) for i in range(100)))
    assert made._kept <= 50


METRICS = st.lists(st.binary(max_size=20)).map(lambda parts: b"".join(sized(2, one) for one in parts))


@given(st.binary(max_size=200) | METRICS)
def test_any_bytes_are_metrics_or_refused(content):
    made = codec()
    for topic in (BIRTH, DATA, DEATH):
        try:
            made.read(topic, content)
        except BadMessage:
            continue


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="no meaning"):
        codec(at="data")


def test_devices_are_answered_over_a_broker(listen, plain):
    asked = {"topic": "spBv1.0/plant/+/node/#", "model": "iris", "payload": "sparkplug", "answer": "out/{2}"}
    listen(subscriptions=[asked]).connected()
    client = plain("out/#", "appliance/edge/errors")
    client.publish("spBv1.0/plant/NBIRTH/node", payload(metric("bdSeq", 1, datatype=8)))
    client.publish(BIRTH, payload(*(metric(name, 1.0, alias=place) for place, name in enumerate(NAMES))))
    client.publish(DATA, payload(metric(value=2.5, alias=3, datatype=9)))
    client.publish(DATA, payload(metric(NAMES[0], 2.0)))
    first, second = client.answers(2, "out/press")
    assert (first["prediction"], second["prediction"]) == ([105.5], [106.5])
    client.publish(DEATH, payload())
    client.publish(DATA, payload(metric(NAMES[0], 2.0)))
    assert "lacks" in client.answers(1, "appliance/edge/errors")[0]["found"]
