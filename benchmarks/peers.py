"""MLServer and KServe, reference (d): installed in their own environments, run in several settings each.

The environments live in BENCH_PEERS_DIR (a folder of the temporary directory by default) and are made once.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.loads import Request
from benchmarks.processes import DidNotStart, free_port, started
from benchmarks.workloads import Workload

_HERE = Path(__file__).parent
_PACKAGES = {
    # From 0.22 on uvloop makes no event loop unasked; MLServer's parallel workers then die at their start.
    "mlserver": ["mlserver", "mlserver-sklearn", "uvloop<0.22"],
    "kserve": ["kserve", "scikit-learn", "onnxruntime"],
}
# KServe's dependencies warn of themselves at every request; that is an accident of their versions, not KServe's speed.
_ENV = {"PYTHONWARNINGS": "ignore"}
_QUIET = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "WARNING"},
    "loggers": {name: {"level": "WARNING"} for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.access")},
}

_SETTLE_SECONDS = 5.0  # the first worker answers before the second one has started

Start = Callable[[Path, Path, int], list[str]]
"""(Python, folder of models, port) -> command."""


@dataclass(frozen=True)
class Setting:
    """One way to run a peer: its rows' name, the files it serves (joblib or onnx), its command and protocols."""

    row: str
    peer: str
    models: str
    command: Start
    protocols: tuple[str, ...]


@contextlib.contextmanager
def peers(onnx: dict[str, Path], workloads: list[Workload]) -> Iterator[list[Contender]]:
    """Run every peer that can be installed, in every setting; `onnx` is {model: ONNX file}."""
    with contextlib.ExitStack() as running, tempfile.TemporaryDirectory() as scratch:
        rows = []
        for peer in _PACKAGES:
            python = _environment(peer)
            if python is not None:
                folder = _models(python, Path(scratch) / peer, onnx)
                for setting in (setting for setting in _SETTINGS if setting.peer == peer):
                    with contextlib.suppress(_LeftOut):
                        rows += running.enter_context(_run(setting, python, folder, workloads))
        time.sleep(_SETTLE_SECONDS)
        yield rows


class _LeftOut(Exception):
    """A setting that could not be started, which was told already."""


@contextlib.contextmanager
def _run(setting: Setting, python: Path, folder: Path, workloads: list[Workload]) -> Iterator[list[Contender]]:
    """Run a peer in one setting and yield its rows, one for each protocol."""
    port = free_port()
    models = folder / setting.models
    command = setting.command(python, models, port)
    probe = _requests(setting.protocols[-1], workloads[:1])[workloads[0].name]
    with contextlib.ExitStack() as running:
        try:
            server = running.enter_context(
                started(setting.row, command, port, probe, folder / "log", env=_ENV, cwd=models, seconds=120)
            )
        except DidNotStart as error:
            print(f"{setting.row} is left out: {error}", file=sys.stderr)
            raise _LeftOut from error
        yield [
            Contender(f"{setting.row}, {protocol}", server, _requests(protocol, workloads))
            for protocol in setting.protocols
        ]


def _requests(protocol: str, workloads: list[Workload]) -> dict[str, Request]:
    """Return the requests of a protocol by workload; version 1 carries no binary tensors."""
    if protocol == "v1":
        return {workload.name: workload.instances() for workload in workloads if not workload.binary}
    return {workload.name: workload.infer("FP64") for workload in workloads}


def _kserve(workers: int, *, quiet: bool) -> Start:
    def command(python: Path, models: Path, port: int) -> list[str]:
        (models / "quiet.json").write_text(json.dumps(_QUIET))
        options = ["--enable_latency_logging=false", f"--log_config_file={models / 'quiet.json'}"] if quiet else []
        return [str(python), str(_HERE / "peer_kserve.py"), str(models), str(port), str(workers), *options]

    return command


def _mlserver(workers: int) -> Start:
    def command(python: Path, models: Path, port: int) -> list[str]:
        settings = {"debug": False, "host": "127.0.0.1", "parallel_workers": workers, "http_port": port}
        settings |= {"grpc_port": free_port(), "metrics_port": free_port()}
        (models / "settings.json").write_text(json.dumps(settings))
        return [str(python.with_name("mlserver")), "start", str(models)]

    return command


_SETTINGS = [
    Setting("(d) mlserver, no parallel workers", "mlserver", "joblib", _mlserver(0), ("v2",)),
    Setting("(d) mlserver, 2 parallel workers", "mlserver", "joblib", _mlserver(2), ("v2",)),
    Setting("(d) kserve, 1 worker", "kserve", "joblib", _kserve(1, quiet=True), ("v1", "v2")),
    Setting("(d) kserve, 2 workers", "kserve", "joblib", _kserve(2, quiet=True), ("v1", "v2")),
    Setting("(d) kserve as it comes", "kserve", "joblib", _kserve(1, quiet=False), ("v2",)),
    Setting("(d) kserve + onnxruntime", "kserve", "onnx", _kserve(2, quiet=True), ("v1", "v2")),
]


def _environment(peer: str) -> Path | None:
    """Return the Python of the peer's environment, made if absent; None, with the reason told, if that fails."""
    folder = Path(os.environ.get("BENCH_PEERS_DIR") or Path(tempfile.gettempdir()) / "bench-peers") / peer
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists():
        return python
    print(f"installing {peer} into its own environment", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *_PACKAGES[peer]],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{peer} is left out, it cannot be installed:\n{done.stderr[-2000:]}", file=sys.stderr)
            return None
    complete.touch()
    return python


def _models(python: Path, folder: Path, onnx: dict[str, Path]) -> Path:
    """Train the models with the peer's scikit-learn and lay them out as the peers want them; return the folder."""
    for kind in ("joblib", "onnx"):
        (folder / kind).mkdir(parents=True)
    subprocess.run([python, _HERE / "train.py", folder / "joblib"], check=True)
    for name, file in onnx.items():
        shutil.copy(file, folder / "onnx" / f"{name}.onnx")
        settings = {"name": name, "implementation": "mlserver_sklearn.SKLearnModel"}
        settings["parameters"] = {"uri": str(folder / "joblib" / f"{name}.joblib")}
        (folder / "joblib" / name).mkdir()
        (folder / "joblib" / name / "model-settings.json").write_text(json.dumps(settings))
    return folder
