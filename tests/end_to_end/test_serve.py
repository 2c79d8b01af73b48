"""`appliance serve` as its users meet it: a real process, real signals, versions that change under load."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from appliance.bundle import archive, examples
from appliance.bundle.manifest import Input, Manifest, Output, Provenance

APPLIANCE = str(Path(sys.executable).parent / "appliance")
CLIENTS = 8


def write_bundle(folder: Path, version: str, *, name: str = "plant") -> Path:
    """Write a bundle whose two outputs are both `sum of the row + the version's major number`."""
    add = float(version.split(".")[0])
    inputs = [Input(name="features", type="float32", shape=[-1, 2], columns=["a", "b"])]
    outputs = [
        Output(name="prediction", type="float32", shape=[-1], role="prediction"),
        Output(name="score", type="float32", shape=[-1], role="score"),
    ]
    nodes = [
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "add"], ["prediction"]),
        helper.make_node("Identity", ["prediction"], ["score"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array(add, np.float32), "add"),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "test",
        [tensor("features", TensorProto.FLOAT, ["N", 2])],
        [tensor(output.name, TensorProto.FLOAT, ["N"]) for output in outputs],
        constants,
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    rows = np.array([[1, 2], [3, 4]], np.float32)
    answers = rows.sum(axis=1) + np.float32(add)
    manifest = Manifest(
        format=1,
        name=name,
        version=version,
        task="regression",
        inputs=inputs,
        outputs=outputs,
        opset={"": 18},
        ir_version=9,
        least_onnxruntime="1.20.0",
        provenance=Provenance(source="test", sha256="0" * 64, model_type="tests.Model"),
        members={},
    )
    path = folder / f"{name}-{version}.bundle"
    content = examples.write([rows], [answers, answers])
    path.write_bytes(archive.write(manifest, model.SerializeToString(), b"{}", content))
    return path


class Service:
    """A running `appliance serve`, its log read as it comes."""

    def __init__(self, state: Path, **settings: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
        self.state = state
        self.process = subprocess.Popen(
            [APPLIANCE, "serve", "--port", "0", "--state-dir", str(state)],
            env=environment | settings,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[dict[str, object]] = []
        self.rest: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.rest.append(line)

    def said(self, message: str) -> dict[str, object]:
        """Wait for a log line."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (self.process.poll() is None or self.log):
            for line in self.log:
                if line["message"] == message:
                    return line
            time.sleep(0.02)
        pytest.fail(f"never said {message!r}: {self.log} {self.rest}")

    @property
    def port(self) -> int:
        return int(str(self.said("listening")["url"]).rpartition(":")[2])

    def get(self, path: str) -> tuple[int, dict[str, object]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def predict(self, row: list[float]) -> dict[str, object]:
        body = json.dumps({"features": row}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/predict", body, timeout=30) as answer:
            return json.load(answer)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(40)


def run(state: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [APPLIANCE, *arguments, "--state-dir", str(state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def done(state: Path, *arguments: str) -> None:
    ended = run(state, *arguments)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture
def state(tmp_path) -> Path:
    """A state folder with version 1.0.0 active and 2.0.0 installed."""
    folder = tmp_path / "state"
    for version in ("1.0.0", "2.0.0"):
        done(folder, "install", str(write_bundle(tmp_path, version)))
    done(folder, "activate", "plant", "1.0.0")
    return folder


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


class Client(threading.Thread):
    """Asks without a pause over one connection and keeps what it got."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__()
        self.connection = HTTPConnection("127.0.0.1", port, timeout=30)
        self.stopped = stop
        self.versions: list[str] = []
        self.failures: list[object] = []

    def run(self) -> None:
        body = json.dumps({"features": [[1, 2], [10, 20]]})
        while not self.stopped.is_set():
            try:
                self.connection.request("POST", "/models/plant/predict", body)
                answer = self.connection.getresponse()
                found = json.loads(answer.read())
            except (OSError, ValueError) as error:
                self.failures.append(error)
                return
            add = float(found.get("version", "0").split(".")[0])
            right = [3 + add, 30 + add]
            if answer.status != 200 or found["prediction"] != right or found["score"] != right:
                self.failures.append((answer.status, found))
            self.versions.append(str(found.get("version")))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_request_fails_and_no_answer_mixes_versions_while_8_clients_ask_and_versions_change(state, serve, processes):
    service = serve(APPLIANCE_HTTP_PROCESSES=processes)
    stop = threading.Event()
    clients = [Client(service.port, stop) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for step in (["activate", "plant", "2.0.0"], ["rollback", "plant"], ["activate", "plant", "2.0.0"]):
        time.sleep(0.7)
        done(state, *step)
    deadline = time.monotonic() + 30
    while any(client.versions[-1:] != ["2.0.0"] for client in clients) and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for client in clients:
        client.join(30)
    assert [client.failures for client in clients] == [[]] * CLIENTS
    for client in clients:
        changes = sum(a != b for a, b in zip(client.versions, client.versions[1:], strict=False))
        assert (client.versions[0], client.versions[-1], changes) == ("1.0.0", "2.0.0", 3)
    assert service.stop() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_service_cleanly(serve, processes, number):
    service = serve(APPLIANCE_HTTP_PROCESSES=processes)
    assert service.predict([1, 2])["prediction"] == [4.0]
    assert service.stop(number) == 0
    assert service.said("stopped")
    assert service.rest == []


def test_killed_process_is_started_again_while_the_other_answers(serve):
    service = serve(APPLIANCE_HTTP_PROCESSES="2")
    assert service.predict([1, 2])["prediction"] == [4.0]
    deadline = time.monotonic() + 30
    while len(workers := _children(service.process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(workers[0], signal.SIGKILL)
    service.said("process ended and is started again")
    while len(after := _children(service.process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert workers[0] not in after
    for _ in range(20):
        assert service.predict([1, 2])["prediction"] == [4.0]
    assert service.stop() == 0


def test_service_starts_and_serves_the_old_version_when_the_new_one_is_damaged_while_it_runs(state, serve):
    service = serve()
    assert service.get("/health/ready")[0] == 200
    done(state, "activate", "plant", "2.0.0")
    assert _until(lambda: service.predict([1, 2])["version"] == "2.0.0")
    done(state, "rollback", "plant")
    assert _until(lambda: service.predict([1, 2])["version"] == "1.0.0")
    (state / "models/plant/2.0.0/model.onnx").write_bytes(b"bad sector")
    refused = run(state, "activate", "plant", "2.0.0")
    assert refused.returncode == 3
    assert "model.onnx" in refused.stderr
    assert service.predict([1, 2])["version"] == "1.0.0"
    assert service.stop() == 0


def test_leftovers_of_a_power_cut_are_swept_at_the_start(state, serve):
    leftover = state / "models/plant/.3.0.0.partial-cut"
    leftover.mkdir()
    (leftover / "model.onnx").write_bytes(b"half")
    service = serve()
    assert service.predict([1, 2])["prediction"] == [4.0]
    assert not leftover.exists()
    assert service.stop() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_open_port_without_tokens_is_refused_unless_said_outright(state, processes):
    environment = os.environ | {"APPLIANCE_HTTP_HOST": "0.0.0.0", "APPLIANCE_HTTP_PROCESSES": processes}
    command = [APPLIANCE, "serve", "--port", "0", "--state-dir", str(state)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.count("no token is needed") == 1
    assert 'auth = "none"' in ended.stderr


def test_taken_port_is_a_clear_error(serve, state):
    service = serve()
    ended = run(state, "serve", "--port", str(service.port))
    assert ended.returncode == 2
    assert "Address already in use" in ended.stderr
    assert "--port" in ended.stderr


def test_container_started_with_serve_alone_serves_the_bundle_that_was_put_beside_it(tmp_path, serve):
    models = tmp_path / "opt-ml-model"
    models.mkdir()
    write_bundle(models, "1.0.0")
    (models / "damaged.bundle").write_bytes(b"not a bundle")
    service = serve(tmp_path / "empty", APPLIANCE_STORE_PRELOAD_DIR=str(models))
    assert service.get("/ping")[0] == 200
    assert service.predict([1, 2])["prediction"] == [4.0]
    assert service.said("bundle cannot be preloaded")["bundle"] == "damaged.bundle"
    assert service.stop() == 0


def test_a_preloaded_version_that_was_rolled_back_stays_so_at_the_next_start(tmp_path, serve):
    models, state = tmp_path / "model", tmp_path / "empty"
    models.mkdir()
    for version in ("1.0.0", "2.0.0"):
        write_bundle(models, version)
        service = serve(state, APPLIANCE_STORE_PRELOAD_DIR=str(models))
        assert service.predict([1, 2])["version"] == version
        assert service.stop() == 0
    done(state, "rollback", "plant")
    service = serve(state, APPLIANCE_STORE_PRELOAD_DIR=str(models))
    assert service.predict([1, 2])["version"] == "1.0.0"
    assert service.stop() == 0


def test_request_lines_carry_the_callers_request_id_when_switched_on(serve):
    service = serve(APPLIANCE_LOG_REQUESTS="true")
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}/predict", b'{"features": [1, 2]}', {"X-Request-Id": "line-4-shift-2"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["X-Request-Id"] == "line-4-shift-2"
    line = service.said("request")
    assert (line["request_id"], line["path"], line["status"]) == ("line-4-shift-2", "/predict", 200)


def test_service_without_a_model_starts_and_says_that_it_is_not_ready(tmp_path, serve):
    service = serve(tmp_path / "empty")
    status, body = service.get("/health/ready")
    assert status == 503
    assert "appliance activate" in json.dumps(body)
    assert service.stop() == 0


def _until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found
