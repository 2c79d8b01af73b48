"""Trains, converts, installs and activates the benchmark's models through the command, as an operator would."""

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import COMMAND
from benchmarks.processes import run

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
    run(sys.executable, Path(__file__).with_name("train.py"), prepared.models)
    for name in _MODELS:
        model, table = prepared.models / f"{name}.joblib", prepared.models / f"{name}.csv"
        what = ("--name", name, "--version", "1.0.0", "--sample", table, "--target", "target")
        run(COMMAND, "convert", model, *what, "-o", folder)
        bundle = folder / f"{name}-1.0.0.bundle"
        run(COMMAND, "install", bundle, "--state-dir", prepared.state_dir)
        run(COMMAND, "activate", name, "1.0.0", "--state-dir", prepared.state_dir)
        with zipfile.ZipFile(bundle) as members:
            prepared.onnx[name].write_bytes(members.read("model.onnx"))
    return prepared
