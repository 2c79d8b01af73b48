"""Puts the bundle of a proved graph together: manifest, certificate, examples and baseline."""

import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pandas as pd

from appliance.bundle import archive, examples, signature
from appliance.bundle.baseline import Baseline
from appliance.bundle.baseline import write as write_baseline
from appliance.bundle.manifest import FORMAT, Label, Manifest, Policy, Provenance, Task
from convert import baseline, held_out
from convert.converters import graphs
from convert.model.arrays import Answers
from convert.model.steps import steps
from convert.proof.candidate import Candidate
from convert.proof.certificate import Parity
from convert.proof.parity import Proof

LIBRARIES = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "pandas")
BOOSTERS = ("lightgbm", "xgboost", "catboost")
MOST_EXAMPLES = 64


@dataclass(frozen=True, slots=True)
class Conversion:
    """A model that was converted and proved: the parts of its bundle."""

    onnx: bytes
    manifest: Manifest
    parity: Parity
    examples: bytes
    baseline: Baseline

    @property
    def file_name(self) -> str:
        """NAME-VERSION.bundle."""
        return f"{self.manifest.name}-{self.manifest.version}.bundle"

    def bundle(self, private_key: bytes | None = None, password: bytes | None = None) -> bytes:
        """Return the bundle, signed with a private key in PEM if one is given.

        The same conversion gives the same bytes. Raises Misuse for a key that cannot sign.
        """
        certificate = msgspec.json.format(msgspec.json.encode(self.parity), indent=1)
        drift = write_baseline(self.baseline)
        content = archive.write(self.manifest, self.onnx, certificate, self.examples, drift)
        if private_key is None:
            return content
        unsigned = archive.read(content)
        return archive.with_signature(unsigned, signature.sign(unsigned.members, private_key, password))

    def write(self, folder: Path, private_key: bytes | None = None, password: bytes | None = None) -> Path:
        """Write the bundle into `folder`, whole or not at all, and return its path; see `bundle` for the key."""
        content = self.bundle(private_key, password)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name
        descriptor, partial = tempfile.mkstemp(dir=folder, prefix=f".{self.file_name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(partial).chmod(0o644)  # mkstemp makes 0600, which only the owner can read
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
        return path


def assemble(
    made: Candidate,
    proof: Proof,
    model: onnx.ModelProto,
    provenance: Provenance,
    name: str,
    version: str,
    task: Task,
    class_labels: list[Label],
    known: held_out.Sample = held_out.TRAINING,
    answers_of: Callable[[], Answers] = dict,
) -> Conversion:
    """Return the parts of the bundle of a graph that passed its proof; `model` is the graph as onnx reads it.

    `known` is what is known of the sample; `answers_of` returns the answers to the rows that `known.truth` is of.
    Raises InvalidInput where that truth does not fit them.
    """
    manifest = Manifest(
        format=FORMAT,
        name=name,
        version=version,
        task=task,
        inputs=made.schema.inputs(made.float_type, proof.limits),
        outputs=list(made.outputs),
        opset=graphs.opsets(model),
        ir_version=model.ir_version,
        least_onnxruntime=graphs.least_onnxruntime(model, provenance.libraries["onnxruntime"]),
        provenance=provenance,
        members={},
        class_labels=class_labels,
        policy=Policy(tolerance=proof.report.tolerance),
    )
    sample, answers = proof.evidence[0]
    roles = {output.name: output.role for output in made.outputs}
    needed = known.unseen and known.truth is not None
    calibration, conformal = held_out.judged(known, answers_of() if needed else answers, roles, class_labels)
    types = {column: tensor.type for tensor in manifest.inputs for column in tensor.columns}
    drift = baseline.of(
        sample.frame,
        answers,
        class_labels,
        {**types, **{output.name: output.type for output in made.outputs}},
        unseen=known.unseen,
        calibration=calibration,
        conformal=conformal,
    )
    return Conversion(made.onnx, manifest, proof.report, _examples(made, proof), drift)


def libraries(model: Any = None) -> dict[str, str]:
    """Return {library: version} of the converting libraries, and of the boosting libraries that `model` uses."""
    here = {name: importlib.metadata.version(name) for name in LIBRARIES}
    if model is None:
        return here
    packages = {type(step).__module__.partition(".")[0] for _, step in steps(model)}
    return here | {name: str(sys.modules[name].__version__) for name in BOOSTERS if name in packages}


def _examples(made: Candidate, proof: Proof) -> bytes:
    """Return examples.npz: rows of every kind in the proof, half from the sample, with the original's answers."""
    share = MOST_EXAMPLES // 2 // max(1, len(proof.evidence) - 1)
    frames, answers = [], []
    for batch, known in proof.evidence:
        count = min(len(batch.frame), MOST_EXAMPLES // 2 if batch.kind == "sample" else share)
        picked = np.unique(np.linspace(0, len(batch.frame) - 1, count).astype(int))
        frames.append(batch.frame.iloc[picked])
        answers.append({name: answer[picked] for name, answer in known.items()})
    feeds = made.feeds(pd.concat(frames, ignore_index=True), proof.limits)
    methods = list(answers[0])
    columns = []
    for output, name in zip(made.outputs, methods, strict=True):
        joined = np.concatenate([answer[name] for answer in answers])
        columns.append(joined.astype(object if output.type == "string" else output.type))
    return examples.write(list(feeds.values()), columns)
