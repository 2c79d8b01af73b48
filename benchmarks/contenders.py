"""The services that are measured side by side, each with its request for every workload."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.loads import Request
from benchmarks.processes import Server, ask, free_port, started
from benchmarks.workloads import Workload

COMMAND = Path(sys.executable).with_name("appliance")
"""The command under measurement, of the environment that runs the benchmark."""
_CONSTANTS = {
    "tuned": "(a) constant, tuned waitress",
    "stock": "(a) constant, stock waitress",
    "own": "(a) constant, the service's server",
}


@dataclass(frozen=True)
class Contender:
    """A row of the table: its name, the service that answers, and its requests by workload name."""

    name: str
    server: Server
    requests: dict[str, Request]


@contextlib.contextmanager
def appliance(state_dir: Path, processes: int, probe: Request) -> Iterator[Server]:
    """Run `appliance serve` on a free port with so many processes."""
    port = free_port()
    command = [str(COMMAND), "serve", "--state-dir", str(state_dir), "--port", str(port)]
    env = {"APPLIANCE_HTTP_PROCESSES": str(processes)}
    name = f"appliance, {processes} process{'es' if processes > 1 else ''}"
    with started(name, command, port, probe, state_dir.parent / "appliance.log", env=env) as server:
        yield server


def appliance_rows(server: Server, workloads: list[Workload]) -> list[Contender]:
    """Return one row for the service's own route and one for Open Inference, which alone carries binary tensors."""
    datatypes = {model: _datatype(server.port, model) for model in {workload.model for workload in workloads}}
    own = {workload.name: workload.predict() for workload in workloads if not workload.binary}
    infer = {workload.name: workload.infer(datatypes[workload.model]) for workload in workloads}
    return [
        Contender(f"{server.name}, /predict", server, own),
        Contender(f"{server.name}, /infer", server, infer),
    ]


@contextlib.contextmanager
def constant(workload: Workload, answer: bytes, server: str) -> Iterator[Contender]:
    """Run reference (a): `answer` to every request, on waitress as it comes, as the service tunes it, or on its own."""
    name = _CONSTANTS[server]
    request = workload.infer("FP32") if workload.binary else workload.predict()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "answer").write_bytes(answer)
        command = [
            *_reference("constant"),
            f"{folder}/answer",
            str(port := free_port()),
            server,
        ]
        with started(name, command, port, request, Path(folder) / "log") as running:
            yield Contender(name, running, {workload.name: request})


@contextlib.contextmanager
def tutorial(models: Path, workloads: list[Workload]) -> Iterator[Contender]:
    """Run reference (c): Flask's own server, joblib and scikit-learn."""
    port = free_port()
    requests = {workload.name: workload.predict() for workload in workloads if not workload.binary}
    command = [*_reference("tutorial"), str(models), str(port)]
    with started("(c) tutorial", command, port, workloads[0].predict(), models / "tutorial.log") as server:
        yield Contender("(c) tutorial", server, requests)


def _reference(kind: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.references", kind]


def _datatype(port: int, model: str) -> str:
    """Return the datatype that the model declares for its `features` tensor."""
    status, body = ask(port, Request(f"/v2/models/{model}", b"", {}), method="GET")
    if status != 200:
        raise SystemExit(f"GET /v2/models/{model} was answered {status}: {body.decode(errors='replace')}")
    return next(t["datatype"] for t in msgspec.json.decode(body)["inputs"] if t["name"] == "features")
