"""Messages that try to cost the host its memory: the service's own peak, by the kernel, with a real broker."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cbor2
import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

APPLIANCE = str(Path(sys.executable).parent / "appliance")
SUBSCRIPTIONS = """
[[mqtt.subscriptions]]
topic = "json"
answer = "out/json"
[[mqtt.subscriptions]]
topic = "cbor"
answer = "out/cbor"
payload = "cbor"
echo = ["e"]
"""
MIB = 1024**2
GROWTH_MIB = 60
"""What the peak may grow by: the bound of a run's answers, and the allocator's holes."""


class Service:
    def __init__(self, folder, state, broker, until, protocol):
        self._until = until
        config = folder / "appliance.toml"
        text = f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\nprotocol = "{protocol}"\n{SUBSCRIPTIONS}'
        config.write_text(text)
        self.log = folder / "log"
        command = [APPLIANCE, "serve", "--no-http", "--config", str(config), "--state-dir", str(state)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(command, env=environment, stderr=sink)
        until(lambda: b'"subscribed"' in self.log.read_bytes(), "subscribed")

    def peak(self) -> float:
        """Return the most memory that the process ever had, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


class Client:
    def __init__(self, port, until):
        self._until = until
        self.heard = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.on_message = lambda client, data, message: self.heard.append((message.topic, message.payload))
        ready = threading.Event()
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe([("out/#", 1), ("appliance/+/errors", 1)])
        assert ready.wait(20)

    def publish(self, topic, payload):
        self.client.publish(topic, payload, 1).wait_for_publish(60)

    def wait(self, count, topic):
        enough = lambda: (found := [p for t, p in self.heard if t.endswith(topic)]) if self._has(count, topic) else []  # noqa: E731
        return self._until(enough, f"heard {count} of {topic}: {[t for t, _ in self.heard]}", seconds=60)

    def _has(self, count, topic):
        return sum(t.endswith(topic) for t, _ in self.heard) >= count


@pytest.fixture
def run(tmp_path, plant_state, broker, until):
    with contextlib.ExitStack() as stack:

        def start(protocol="5"):
            service = Service(tmp_path, plant_state, broker, until, protocol)
            stack.callback(service.process.wait, 30)
            stack.callback(service.process.send_signal, signal.SIGTERM)
            client = Client(broker.port, until)
            stack.callback(client.client.loop_stop)
            stack.callback(client.client.disconnect)
            client.publish("json", b"[1, 2]")
            client.wait(1, "out/json")
            return service, client

        yield start


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_payload_of_200_mib_leaves_memory_flat_and_others_are_answered(run, protocol):
    service, client = run(protocol)
    before = service.peak()
    for size in (64, 200):
        client.publish("json", bytes(size * MIB))
        client.publish("json", b"[3, 4]")
    client.wait(3, "out/json")
    assert service.peak() - before < GROWTH_MIB
    if protocol == "3.1.1":
        assert [json.loads(told)["payload_bytes"] // MIB for told in client.wait(2, "/errors")] == [64, 200]
    assert service.process.poll() is None


def test_hostile_payloads_cost_little_and_are_told(run):
    """References that multiply, a decimal that takes seconds, much from few bytes; JSON's own."""
    service, client = run()
    before = service.peak()
    text = b"\x7a\x00\x00\x40\x00" + b"x" * 0x4000
    shared = b"\xd9\x01\x00\xa2\x61e\x82" + text + b"\x99\x7f\xff" + b"\xd8\x19\x00" * 0x7FFF + b"\x61a\x01"
    decimal = b"\xa1\x61e\xc4\x82\x1a\x3b\x9a\xca\x00\xc2\x5a\x00\x03\xf0\x00" + b"\xff" * 258_048
    empty = b"\x9a\x00\x03\xff\x00" + b"\xa0" * 0x3FF00
    for payload in (shared, decimal, empty, b"\x9a\xff\xff\xff\xff\x00"):
        client.publish("cbor", payload)
    for payload in (
        b"[" + b"{}," * 87_000 + b"{}]",
        b"[" * 200_000,
        b"[NaN," * 50_000,
        b'{"a": 1' + b"0" * 260_000 + b"}",
    ):
        client.publish("json", payload)
    client.publish("cbor", cbor2.dumps({"a": 1, "b": 2, "e": "x"}))
    client.publish("json", b"[3, 4]")
    client.wait(2, "out/json")
    assert cbor2.loads(client.wait(1, "out/cbor")[0])["prediction"] == [4.0]
    assert len(client.wait(8, "/errors")) == 8
    assert service.peak() - before < GROWTH_MIB


def test_answers_that_are_larger_than_their_messages_are_given_a_few_at_a_time(run, broker):
    """400 messages of 1,000 rows wait: their answers together have a hundred times what may be in memory."""
    service, client = run()
    before = service.peak()
    service.process.send_signal(signal.SIGSTOP)
    row = b"[1, 1], " * 999
    for _ in range(400):
        client.client.publish("json", b"[%s[1, 1]]" % row, 1)
    client.publish("json", b"[3, 4]")
    service.process.send_signal(signal.SIGCONT)
    assert len(client.wait(402, "out/json")) == 402
    assert service.peak() - before < GROWTH_MIB
