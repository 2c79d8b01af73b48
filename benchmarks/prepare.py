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
        bundle = _install(prepared, name, "1.0.0")
        run(COMMAND, "activate", name, "1.0.0", "--state-dir", prepared.state_dir)
        with zipfile.ZipFile(bundle) as members:
            prepared.onnx[name].write_bytes(members.read("model.onnx"))
    return prepared


def install_again(prepared: Prepared, version: str) -> None:
    """Convert and install each model once more under another version, which answers the same."""
    for name in prepared.onnx:
        _install(prepared, name, version)


def _install(prepared: Prepared, name: str, version: str) -> Path:
    """Convert and install a model under a version; return its bundle."""
    folder, model, table = prepared.models.parent, prepared.models / f"{name}.joblib", prepared.models / f"{name}.csv"
    what = ("--name", name, "--version", version, "--sample", table, "--target", "target")
    run(COMMAND, "convert", model, *what, "-o", folder)
    bundle = folder / f"{name}-{version}.bundle"
    run(COMMAND, "install", bundle, "--state-dir", prepared.state_dir)
    return bundle
