"""`appliance serve` as a process of its own, over a store with a small model."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from appliance.bundle import archive, examples
from appliance.bundle.manifest import Input, Manifest, Output, Provenance

APPLIANCE = str(Path(sys.executable).parent / "appliance")


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

    def __init__(self, state: Path, *, at: str = "0", **settings: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
        self.state = state
        self.process = subprocess.Popen(
            [APPLIANCE, "serve", "--port", at, "--state-dir", str(state)],
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
