"""MQTT messages that want too much memory or time, under 128 MiB: each is told, the next one is answered."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import cbor2
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

MIB = 2**20
ROW = [0.1, 0.2, 0.3, 0.4]
TOML = """
[mqtt]
host = "127.0.0.1"
port = {port}
protocol = "{protocol}"
topic = "own"
[[mqtt.subscriptions]]
topic = "json/+"
answer = "answers/{{1}}"
echo = ["sensor"]
[[mqtt.subscriptions]]
topic = "cbor/+"
payload = "cbor"
answer = "answers/{{1}}"
echo = ["sensor"]
"""


class Peer:
    """A client that publishes and keeps what arrives."""

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.arrived = threading.Condition()
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = self._take
        self.client.connect("127.0.0.1", port)
        self.client.subscribe([("answers/+", 1), ("own/errors", 1)])
        self.client.loop_start()

    def _take(self, client, data, message) -> None:
        with self.arrived:
            self.got.append((message.topic, message.payload))
            self.arrived.notify_all()

    def publish(self, topic: str, payload: bytes) -> None:
        self.client.publish(topic, payload, 1).wait_for_publish(120)

    def wait(self, topic: str, seconds: float = 60.0) -> bytes:
        """Return the next payload of a topic."""
        found = lambda: [payload for name, payload in self.got if name == topic]  # noqa: E731
        with self.arrived:
            assert self.arrived.wait_for(found, seconds), f"nothing on {topic} within {seconds} s: {self.got[-3:]}"
            payload = found()[0]
            self.got.remove((topic, payload))
            return payload


@pytest.fixture(scope="module")
def broker(tmp_path_factory, free_port) -> Iterator[int]:
    """A mosquitto that takes messages of any size."""
    folder, port = tmp_path_factory.mktemp("broker"), free_port()
    (folder / "conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", folder / "conf"], stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    yield port
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module", params=["5", "3.1.1"])
def toml(request, broker) -> str:
    """The service's configuration. In MQTT 5 the broker itself keeps back what is larger than the service says."""
    return TOML.format(port=broker, protocol=request.param)


@pytest.fixture(scope="module")
def attacked(serve, toml) -> Iterator:
    with serve(kind="cgroup", mib=128, toml=toml) as service:
        yield service


@pytest.fixture(scope="module")
def peer(attacked, broker) -> Peer:
    peer = Peer(broker)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        peer.publish("json/first", json.dumps(ROW).encode())
        try:
            peer.wait("answers/first", 1)
        except AssertionError:
            continue
        return peer
    raise AssertionError(attacked.running.log.read_text())


def nested_references() -> bytes:
    """Return CBOR of 114 kB whose shared texts (tags 256 and 25) a decoder would write out as hundreds of MiB."""
    text = b"\x78\xff" + b"a" * 255
    many = b"\x99\xff\xff" + (b"\xd8\x19\x00" * 0xFFFF)
    return (
        b"\xa2"
        + b"\x68features"
        + b"\x84\xf9\x3c\x00\xf9\x3c\x00\xf9\x3c\x00\xf9\x3c\x00"
        + b"\x66sensor"
        + (b"\xd9\x01\x00\x82" + text + many)
    )


HOSTILE = {
    "json of 64 MiB": ("json/x", lambda: b" " * (64 * MIB)),
    "json of 200 MiB": ("json/x", lambda: b" " * (200 * MIB)),
    "cbor of 64 MiB": ("cbor/x", lambda: b"\x40" * (64 * MIB)),
    "lists in json": ("json/x", lambda: b"[" * 131_000 + b"]" * 131_000),
    "NaN in json": ("json/x", lambda: b"[" + b"NaN," * 60_000 + b"1]"),
    "a long echo": ("json/x", lambda: json.dumps({"features": ROW, "sensor": "x" * 250_000}).encode()),
    "cbor references": ("cbor/x", nested_references),
    "cbor decimal": ("cbor/x", lambda: b"\xc4\x82\x1a\x00\x01\x00\x00\xc2\x5a\x00\x03\xe8\x00" + b"\xff" * 256_000),
    "cbor bignum": ("cbor/x", lambda: b"\xc2\x5a\x00\x03\xe8\x00" + b"\xff" * 256_000),
    "cbor that announces more": ("cbor/x", lambda: b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff\x01"),
    "cbor text that announces more": ("cbor/x", lambda: b"\x7b\x00\x00\x00\xff\xff\xff\xff\xff" + b"a" * 10),
    "cbor deep lists": ("cbor/x", lambda: b"\x81" * 200_000 + b"\x00"),
    "cbor rationals": ("cbor/x", lambda: b"\x84" + b"\xd8\x1e\x82\x01\x00" * 4),
    "cbor shared references": ("cbor/x", lambda: b"\xd8\x1c\x81\xd8\x1d\x00"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_told_and_the_next_one_answered(attacked, peer, toml, figure, name):
    topic, make = HOSTILE[name]
    payload = make()
    kept_back = len(payload) > MIB and 'protocol = "5"' in toml
    before, began = attacked.running.begin_peak(), time.perf_counter()
    peer.publish(topic, payload)
    peer.publish("json/next", json.dumps(ROW).encode())
    answer = peer.wait("answers/next", 30)
    seconds = time.perf_counter() - began
    reason = "kept back" if kept_back else json.loads(peer.wait("own/errors", 30))["error"]
    more = attacked.running.peak_mib() - before
    figure(reason, seconds, more)
    assert json.loads(answer)["prediction"]
    assert more <= 48
    assert attacked.alive()


def test_cbor_that_is_well_formed_is_answered(attacked, peer):
    peer.publish("cbor/ok", cbor2.dumps({"features": ROW, "sensor": "s1"}))
    assert cbor2.loads(peer.wait("answers/ok"))["sensor"] == "s1"


def test_what_was_refused_does_not_come_back_after_a_kill(attacked, peer, toml, serve, figure):
    """The service is started again on the same state folder and the same session at the broker."""
    for topic, make in HOSTILE.values():
        peer.publish(topic, make())
    peer.publish("json/next", json.dumps(ROW).encode())
    peer.wait("answers/next", 60)
    os.kill(attacked.running.process.pid, signal.SIGKILL)
    attacked.running.process.wait(20)
    with peer.arrived:
        peer.got.clear()
    with serve(kind="cgroup", mib=128, toml=toml) as again:
        began = time.perf_counter()
        peer.publish("json/after", json.dumps(ROW).encode())
        peer.wait("answers/after", 30)
        figure("answered", time.perf_counter() - began, 0.0)
        assert again.alive()
