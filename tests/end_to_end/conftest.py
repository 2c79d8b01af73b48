"""What the faults of an MQTT plant need: numbered sensors, a cable that can be cut, an appliance as its own process.

The cable is a small proxy between the appliance and its broker. It reads what passes, so that it can be said afterwards
which messages the broker handed over and which answers it took, whatever the broker itself forgot when it was killed.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from appliance.bundle import archive, examples
from appliance.bundle.manifest import Input, Manifest, Output, Provenance
from appliance.inference import selftest
from appliance.mqtt import packets
from appliance.store import activation
from appliance.store.versions import Store
from tests.end_to_end.services import Service, done, write_bundle

APPLIANCE = str(Path(sys.executable).parent / "appliance")
_NUMBER = re.compile(rb'"n":(\d+)')
_ID = re.compile(rb'"id":"([^"]*)"')


def sum_bundle(version: str) -> bytes:
    """Return a bundle whose answer to [a, b] is a + b + the version's major number."""
    add = np.array(float(version.split(".")[0]), np.float32)
    inputs = [Input(name="features", type="float32", shape=[-1, 2], columns=["a", "b"])]
    outputs = [Output(name="prediction", type="float32", shape=[-1], role="prediction")]
    nodes = [
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "add"], ["prediction"]),
    ]
    constants = [numpy_helper.from_array(np.array([1], np.int64), "axis"), numpy_helper.from_array(add, "add")]
    value = helper.make_tensor_value_info
    ends = [value("features", TensorProto.FLOAT, ["N", 2])], [value("prediction", TensorProto.FLOAT, ["N"])]
    graph = helper.make_graph(nodes, "test", *ends, constants)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    rows = np.array([[1, 2], [3, 4]], np.float32)
    manifest = Manifest(
        format=1, name="plant", version=version, task="regression", inputs=inputs, outputs=outputs, opset={"": 18},
        ir_version=9, least_onnxruntime="1.20.0", members={},
        provenance=Provenance(source="test", sha256="0" * 64, model_type="tests.Sum"),
    )  # fmt: skip
    content = examples.write([rows], [rows.sum(axis=1) + add])
    return archive.write(manifest, model.SerializeToString(), b"{}", content)


@pytest.fixture(scope="session")
def plant_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with plant 1.0.0 active and 2.0.0 installed; tests copy it."""
    folder = tmp_path_factory.mktemp("plant")
    store = Store(folder / "state")
    for version in ("1.0.0", "2.0.0"):
        path = folder / f"plant-{version}.bundle"
        path.write_bytes(sum_bundle(version))
        store.install(path)
    activation.activate(store, "plant", "1.0.0", selftest.self_test)
    return folder / "state"


class Record:
    """What passed on a cable, over all its connections."""

    def __init__(self) -> None:
        self.delivered: list[int] = []
        """Numbers that the broker handed over, at their first time, in order."""
        self.answered: list[int] = []
        """Numbers whose answer was sent, at its first time, in order."""
        self.taken: set[int] = set()
        """Numbers whose answer the broker has acknowledged."""
        self.acknowledged: dict[int, float] = {}
        """Number -> when the appliance acknowledged the message first."""
        self.ids: dict[int, set[str]] = {}
        """Number -> ids of its answers."""
        self.repeats = 0
        self._seen: tuple[set[int], set[int]] = (set(), set())

    def message(self, way: int, payload: bytes) -> int | None:
        """Take note of a PUBLISH, way 0 towards the appliance, 1 from it; return its number."""
        found = _NUMBER.search(payload)
        if found is None:
            return None
        number = int(found[1])
        if number in self._seen[way]:
            self.repeats += way
        else:
            self._seen[way].add(number)
            (self.delivered, self.answered)[way].append(number)
        if way and (identifier := _ID.search(payload)):
            self.ids.setdefault(number, set()).add(identifier[1].decode())
        return number


class Cable:
    """A proxy to a broker that can be cut, slowed down, or swallow everything; see the module's docstring."""

    def __init__(self, host: str, port: int) -> None:
        self.record = Record()
        self.delay = 0.0
        self._target = host, port
        self._silent = False
        self._cut = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection and take no more."""
        self._cut = True
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def swallow(self) -> None:
        """Pass nothing on and say nothing, as a cable that was pulled."""
        self._silent = True

    def heal(self) -> None:
        """Take connections again; those that swallowed something are broken, as TCP would in the end."""
        if self._silent:
            self.cut()
        self._cut = self._silent = False

    def close(self) -> None:
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._server.accept()
                if self._cut:
                    ours.close()
                    continue
                theirs = socket.create_connection(self._target, 5)
            except OSError:
                if self._server.fileno() < 0:
                    return
                with contextlib.suppress(OSError, UnboundLocalError):
                    ours.close()
                continue
            self._pairs = [*self._pairs[-3:], (ours, theirs)]
            sent: dict[int, int] = {}
            handed: dict[int, int] = {}
            for source, sink, way in ((theirs, ours, 0), (ours, theirs, 1)):
                threading.Thread(target=self._pump, args=(source, sink, way, sent, handed), daemon=True).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, way: int, sent: dict[int, int], handed: dict[int, int]
    ) -> None:
        data, place = bytearray(), 0
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                if self.delay:
                    time.sleep(self.delay)
                if self._silent:
                    continue
                del data[:place]
                place = 0
                data += chunk
                while found := packets.find(data, place):
                    self._note(way, data[place], bytes(data[slice(*found)]), sent, handed)
                    place = found[1]
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _note(self, way: int, first: int, body: bytes, sent: dict[int, int], handed: dict[int, int]) -> None:
        """Take note of one packet."""
        record = self.record
        with self._lock:
            if first & 0xF0 == packets.PUBLISH:
                message = packets.read_publish(first, body, five=True)
                number = record.message(way, message.payload)
                if number is not None:
                    (handed, sent)[way][message.packet_id] = number
            elif first & 0xF0 == packets.PUBACK:
                packet_id, refusal = packets.read_puback(body)
                if way == 0 and packet_id in sent and not refusal:
                    record.taken.add(sent[packet_id])
                elif way == 1 and packet_id in handed:
                    record.acknowledged.setdefault(handed[packet_id], time.monotonic())


class Sensor:
    """Publishes numbered messages at QoS 1 for as long as it takes."""

    def __init__(self, port: int, topic: str, host: str = "127.0.0.1") -> None:
        self.client_id = f"sensor-{topic.replace('/', '-')}"
        self.sent: dict[int, int] = {}
        """Packet identifier -> number of every message."""
        self._numbers: dict[int, int] = {}
        self._topic = topic
        self._client = paho.Client(CallbackAPIVersion.VERSION2, self.client_id, clean_session=False)
        self._client.max_inflight_messages_set(100)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_publish = self._published
        self._client.connect(host, port)
        self._client.loop_start()

    def _published(self, client: paho.Client, data: object, packet_id: int, *_: object) -> None:
        # The broker may be quicker than publish() returns.
        while packet_id not in self._numbers:
            time.sleep(0.0001)
        del self._numbers[packet_id]

    def publish(self, numbers: Any, rate: float = 0.0) -> None:
        """Publish, at most 500 ahead of the broker; `rate` a second, 0 for as fast as it takes them."""
        begun, place = time.monotonic(), 0
        for place, number in enumerate(numbers):
            while len(self._numbers) > 500:
                time.sleep(0.002)
            if rate and (wait := begun + place / rate - time.monotonic()) > 0:
                time.sleep(wait)
            info = self._client.publish(self._topic, f'{{"n":{number},"a":{number % 1000},"b":0.5}}', 1)
            self._numbers[info.mid] = self.sent[info.mid] = number

    def wait(self, seconds: float = 60.0) -> None:
        """Return when the broker has acknowledged everything."""
        deadline = time.monotonic() + seconds
        while self._numbers and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not self._numbers

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Plant:
    """An appliance process, over a cable to its broker."""

    def __init__(self, folder: Path, state: Path, log: Path, port: int, **settings: Any) -> None:
        self.state = folder / "state"
        shutil.copytree(state, self.state)
        self._config = folder / "appliance.toml"
        self._more = settings.pop("more", "")
        self._settings = {"port": port, "host": "127.0.0.1", "client_id": "plant", "keepalive": 3, **settings}
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        upstream = self._settings.get("upstream")
        lines = [f"{key} = {json.dumps(value)}" for key, value in self._settings.items() if key != "upstream"]
        text = "[models]\npoll_seconds = 0.1\n[mqtt]\n" + "\n".join(lines) + "\n"
        if upstream:
            text += "[mqtt.upstream]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in upstream.items())
        text += (
            '\n[[mqtt.subscriptions]]\ntopic = "plant/+/in"\nmodel = "plant"\nanswer = "plant/{1}/out"\necho = ["n"]\n'
        )
        self._config.write_text(text + self._more)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
        command = [APPLIANCE, "serve", "--no-http", "--config", str(self._config), "--state-dir", str(self.state)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def run(self, *arguments: str) -> None:
        subprocess.run([APPLIANCE, *arguments, "--state-dir", str(self.state)], check=True, capture_output=True)

    def said(self, message: str, **fields: Any) -> int:
        """Return how often the log has a line of this message, with these fields."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        whole = (line for line in lines if line.endswith("}"))  # the last one may be just being written
        found = [json.loads(line) for line in whole if f'"message": "{message}"' in line]
        return sum(fields.items() <= line.items() for line in found)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30) if self.process else 0


@pytest.fixture
def make_cable() -> Iterator[Callable[..., Cable]]:
    """Return a function that lays a cable to a port: make_cable(port, host="127.0.0.1")."""
    cables: list[Cable] = []

    def make(port: int, host: str = "127.0.0.1") -> Cable:
        cables.append(Cable(host, port))
        return cables[-1]

    yield make
    for cable in cables:
        cable.close()


@pytest.fixture
def make_sensor() -> Iterator[Callable[..., Sensor]]:
    """Return a function that connects a sensor: make_sensor(port, topic)."""
    sensors: list[Sensor] = []

    def make(port: int, topic: str = "plant/a/in", **rest: str) -> Sensor:
        sensors.append(Sensor(port, topic, **rest))
        return sensors[-1]

    yield make
    for sensor in sensors:
        sensor.close()


@pytest.fixture
def make_plant(tmp_path: Path, plant_state: Path) -> Iterator[Callable[..., Plant]]:
    """Return a function that makes an appliance, not started yet: make_plant(port, **settings of [mqtt], more=TOML)."""
    plants: list[Plant] = []

    def make(port: int, **settings: Any) -> Plant:
        folder = settings.pop("folder", tmp_path / f"plant-{len(plants)}")
        folder.mkdir(exist_ok=True)
        plants.append(Plant(folder, plant_state, tmp_path / f"log-{len(plants)}", port, **settings))
        return plants[-1]

    yield make
    for plant in plants:
        plant.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def two_versions(once_a_run: Callable[..., Path]) -> Path:
    """A state folder with version 1.0.0 active and 2.0.0 installed; tests copy it."""

    def make(folder: Path) -> None:
        for version in ("1.0.0", "2.0.0"):
            done(folder / "state", "install", str(write_bundle(folder, version)))
        done(folder / "state", "activate", "plant", "1.0.0")

    return once_a_run("two-versions", make) / "state"


@pytest.fixture
def state(tmp_path: Path, two_versions: Path) -> Path:
    """A state folder of the test's own with version 1.0.0 active and 2.0.0 installed."""
    shutil.copytree(two_versions, tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def serve(state) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def serve(folder: Path = state, **settings: str) -> Service:
        services.append(Service(folder, **settings))
        return services[-1]

    yield serve
    for service in services:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait(20)
