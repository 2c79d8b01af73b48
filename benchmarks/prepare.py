"""Trains, converts, installs and activates the benchmark's models through the command, as an operator would."""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import COMMAND

_MODELS = ("iris", "forest")


@dataclass(frozen=True)
class Prepared:
    """Where things are: the joblib and CSV files, the ONNX file by model, and the state folder to serve."""

    models: Path
    onnx: dict[str, Path]
    state_dir: Path


def prepare(folder: Path) -> Prepared:
    """Make everything below `folder`. Raises SystemExit with the command's own words when a step fails."""
    prepared = Prepared(folder / "models", {name: folder / f"{name}.onnx" for name in _MODELS}, folder / "state")
    prepared.models.mkdir()
    _run(sys.executable, Path(__file__).with_name("train.py"), prepared.models)
    for name in _MODELS:
        model, table = prepared.models / f"{name}.joblib", prepared.models / f"{name}.csv"
        what = ("--name", name, "--version", "1.0.0", "--sample", table, "--target", "target")
        _run(COMMAND, "convert", model, *what, "-o", folder)
        bundle = folder / f"{name}-1.0.0.bundle"
        _run(COMMAND, "install", bundle, "--state-dir", prepared.state_dir)
        _run(COMMAND, "activate", name, "1.0.0", "--state-dir", prepared.state_dir)
        with zipfile.ZipFile(bundle) as members:
            prepared.onnx[name].write_bytes(members.read("model.onnx"))
    return prepared


def _run(*command: object) -> None:
    """Run a command; stop everything, in its own words, when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
