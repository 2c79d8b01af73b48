"""Puts the bundle of a proved graph together: manifest, certificate, examples and baseline."""

import importlib.metadata
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pandas as pd

from appliance.bundle import examples
from appliance.bundle.manifest import FORMAT, Label, Manifest, Policy, Provenance, Task
from convert import baseline, held_out
from convert.conversion import Conversion
from convert.converters import graphs
from convert.model.arrays import Answers
from convert.model.steps import steps
from convert.proof.candidate import Candidate
from convert.proof.parity import Proof

LIBRARIES = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "pandas")
BOOSTERS = ("lightgbm", "xgboost", "catboost")
MOST_EXAMPLES = 64


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
