"""Whether a version answers on this processor as the original model did, on the examples that travel in its bundle."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime

from appliance.arrays import Array
from appliance.bundle import archive, examples, onnx_wire
from appliance.bundle.manifest import Input, Manifest, Output
from appliance.errors import ApplianceError, SelfTestFailed
from appliance.inference import processor
from appliance.inference.comparison import compare
from appliance.inference.figures import SelfTest
from appliance.inference.session import Session

__all__ = ["SelfTest", "check", "self_test", "try_bundle"]

_NEXT_STEP = "convert the model again where this processor can be tried, and keep the version that serves"


def self_test(folder: Path) -> SelfTest:
    """Load the installed version in `folder` and try it.

    Raises NotFound or BundleRefused when the folder is absent or not sound, SelfTestFailed when the graph does not
    load, does not run, or answers otherwise than the original model did.
    """
    return try_bundle(archive.read_folder(folder, within=folder.parents[2]))


def try_bundle(bundle: archive.Bundle) -> SelfTest:
    """Load the model of a bundle that was read and try it. Raises BundleRefused, SelfTestFailed."""
    inputs, outputs = examples.read(bundle.members[archive.EXAMPLES])
    start = time.perf_counter()
    try:
        onnx_wire.check(bundle.members[archive.MODEL])
        session = Session(bundle.members[archive.MODEL])
    except ApplianceError as error:
        raise SelfTestFailed(_tried(bundle.manifest), f"it does not load ({error.found})", _NEXT_STEP) from error
    figures = check(bundle.manifest, session, inputs, outputs, load_seconds=time.perf_counter() - start)
    digest = hashlib.sha256(bundle.members[archive.MANIFEST]).hexdigest()
    return msgspec.structs.replace(figures, digest=digest)


def check(
    manifest: Manifest,
    session: Session,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    *,
    load_seconds: float = 0.0,
) -> SelfTest:
    """Run example rows through a loaded session and hold its answers to the manifest's tolerance.

    `inputs` and `outputs` are tensors of shape [rows, ...] in the manifest's order, as examples.read gives them. A
    number a may be |a - b| <= absolute + relative * |b| from the original's b; NaN equals NaN; infinities, labels,
    whole numbers and booleans must be the same. Raises SelfTestFailed.
    """
    _check_examples(manifest, inputs, outputs)
    _check_graph(manifest, session)
    feeds = {tensor.name: array for tensor, array in zip(manifest.inputs, inputs, strict=True)}
    start = time.perf_counter()
    try:
        answers = session.run(feeds, [tensor.name for tensor in manifest.outputs])
    except ApplianceError as error:
        raise SelfTestFailed(_tried(manifest), f"the examples do not run ({error.found})", _NEXT_STEP) from error
    seconds = time.perf_counter() - start
    largest = 0.0
    for tensor, answer, expected in zip(manifest.outputs, answers, outputs, strict=True):
        largest = max(largest, _compare(manifest, tensor, np.asarray(answer), expected))
    return SelfTest(
        rows=len(inputs[0]),
        largest_difference=largest,
        label_flips=0,
        load_seconds=load_seconds,
        seconds=seconds,
        processor=processor.describe(),
        onnxruntime=onnxruntime.__version__,
    )


def _check_examples(manifest: Manifest, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
    """Raise SelfTestFailed for examples that would prove nothing."""
    counts = (len(inputs), len(outputs))
    declared = (len(manifest.inputs), len(manifest.outputs))
    if counts != declared or 0 in declared:
        found = (
            f"examples.npz has {counts[0]} inputs and {counts[1]} outputs, the manifest {declared[0]} and {declared[1]}"
        )
        raise SelfTestFailed(_tried(manifest), found, "build the bundle again")
    rows = {array.shape[0] if array.ndim else 0 for array in (*inputs, *outputs)}
    if len(rows) != 1 or 0 in rows:
        found = f"examples.npz has tensors of {sorted(rows)} rows; all must have the same number, at least 1"
        raise SelfTestFailed(_tried(manifest), found, "build the bundle again")


def _check_graph(manifest: Manifest, session: Session) -> None:
    """Raise SelfTestFailed when the graph has not the tensors that the manifest declares."""
    _check_tensors(manifest, "input", manifest.inputs, session.inputs, exactly=True)
    # A graph may give more than the manifest offers; it may not ask for more.
    _check_tensors(manifest, "output", manifest.outputs, session.outputs, exactly=False)


def _check_tensors(
    manifest: Manifest, kind: str, declared: Sequence[Input | Output], has: dict[str, str], *, exactly: bool
) -> None:
    """Raise SelfTestFailed unless the graph `has` every declared tensor in its type (and no others, if `exactly`)."""
    for tensor in declared:
        if has.get(tensor.name) != tensor.type:
            in_graph = has.get(tensor.name, "absent")
            found = f"{kind} {tensor.name!r} is {in_graph} in the graph, {tensor.type} in the manifest"
            raise SelfTestFailed(_tried(manifest), found, "build the bundle again")
    if exactly and (more := sorted(set(has) - {tensor.name for tensor in declared})):
        raise SelfTestFailed(
            _tried(manifest),
            f"the graph has {kind}s that the manifest lacks: {', '.join(more)}",
            "build the bundle again",
        )


def _compare(manifest: Manifest, tensor: Output, answer: Array, expected: Array) -> float:
    """Return the largest difference of one output, or raise SelfTestFailed naming its worst row."""
    comparison = compare(tensor, manifest.policy.tolerance, answer, expected)
    if comparison.found:
        raise SelfTestFailed(_tried(manifest), comparison.found, _NEXT_STEP)
    return comparison.largest_difference


def _tried(manifest: Manifest) -> str:
    return f"self-test of {manifest.name} {manifest.version}"
