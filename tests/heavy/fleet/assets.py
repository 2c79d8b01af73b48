"""Makes what the fleet is given: keys, kits of two versions, and bundles that are good or wrong in one way each.

    python tests/heavy/fleet/assets.py OUT --binary DIR

DIR is what packaging/pyinstaller/build.sh left. What is in OUT already is kept; delete it to have it made again.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from appliance.bundle import archive, examples

ROOT = Path(__file__).parents[3]
APPLIANCE = Path(sys.executable).parent / "appliance"
KITS: dict[str, tuple[str, ...]] = {"0.1.0": (), "0.2.0": (), "0.3.0": ("1.1.0",)}
"""Versions of the program, each with the versions of the model iris that travel in its kit."""
SIZE, PRODUCTS = 400, 80
"""Needless work: so many products of square matrices of this size, a tenth of a second or more."""
OUTLIERS = (50.0, 60.0)
"""No request of the examples has its largest value between these; the outlier bundle is slow for such alone."""
PADDING_BYTES = 60 * 1024 * 1024


def main() -> None:
    """Make everything that OUT lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--binary", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    make_keys(given.out)
    make_bundles(given.out)
    for version, bundles in KITS.items():
        make_kit(given.out, given.binary, version, [given.out / f"iris-{one}.bundle" for one in bundles])


def make_keys(out: Path) -> None:
    """Make the plant's pair of keys, and a stranger's."""
    for name in ("plant", "other"):
        if not (out / f"{name}.key.pub").exists():
            (out / f"{name}.key").unlink(missing_ok=True)
            run(APPLIANCE, "keygen", out / f"{name}.key", "--no-password")


def make_kit(out: Path, binary: Path, version: str, bundles: list[Path]) -> None:
    """Make a signed kit; one binary serves for all, as its version stands in the distribution's metadata alone."""
    if list(out.glob(f"appliance-{version}-*.tar.gz")):
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "out"
        shutil.copytree(binary, copy, symlinks=True)
        place = copy / "appliance" / "_internal"
        metadata = next(place.glob("edge_inference_appliance-*.dist-info/METADATA"))
        lines = metadata.read_text().splitlines(keepends=True)
        metadata.write_text("".join(f"Version: {version}\n" if one.startswith("Version: ") else one for one in lines))
        tools = {"KEY": str(out / "plant.key"), "APPLIANCE": str(APPLIANCE), "APPLIANCE_PYTHON": sys.executable}
        run("sh", ROOT / "packaging/offline/kit.sh", copy, folder, *bundles, **tools)
        made = next(Path(folder).glob("*.tar.gz"))
        shutil.move(made, out / made.name)


def make_bundles(out: Path) -> None:
    """Make every bundle of the iris model, each signed by the plant's key but the one that is not."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(sys.executable, ROOT / "examples/iris/train.py", work)
        for version, key in (("1.0.0", "plant"), ("1.1.0", "plant"), ("1.3.0", "other")):
            convert(work, out, version, out / f"{key}.key")
    good = archive.open_bundle(out / "iris-1.0.0.bundle")
    derive(out, good, "1.2.0", proof=wrong_examples(good))
    derive(out, good, "1.4.0", model=slower(good, always=True))
    derive(out, good, "1.5.0", model=slower(good, always=False))
    derive(out, good, "1.6.0", model=padded(good))


def convert(work: Path, out: Path, version: str, key: Path) -> None:
    """Convert the trained model to a version."""
    if (out / f"iris-{version}.bundle").exists():
        return
    named = ["--name", "iris", "--version", version, "--sample", work / "sample.csv", "--target", "species"]
    run(APPLIANCE, "convert", work / "model.joblib", *named, "--sign", key, "-o", out)


def derive(
    out: Path, good: archive.Bundle, version: str, *, model: bytes | None = None, proof: bytes | None = None
) -> None:
    """Write a version whose model or examples are others, everything else right, and sign it."""
    path = out / f"iris-{version}.bundle"
    if path.exists():
        return
    members = good.members
    content = archive.write(
        msgspec.structs.replace(good.manifest, version=version),
        model or members[archive.MODEL],
        members[archive.PARITY],
        proof or members[archive.EXAMPLES],
        members.get(archive.BASELINE),
    )
    unsigned = path.with_suffix(".unsigned")
    unsigned.write_bytes(content)
    run(APPLIANCE, "sign", unsigned, "--key", out / "plant.key")
    unsigned.rename(path)


def wrong_examples(good: archive.Bundle) -> bytes:
    """Return examples of which one number is not what the model answers: the self-test fails on every host."""
    inputs, outputs = examples.read(good.members[archive.EXAMPLES])
    changed = []
    for output in outputs:
        copy = output.copy()
        if copy.dtype.kind == "f":
            copy[0, 0] += copy.dtype.type(0.01)
        changed.append(copy)
    return examples.write(inputs, changed)


def slower(good: archive.Bundle, *, always: bool) -> bytes:
    """Return the model with needless work before it, for every request or for those with an outlier alone.

    The work depends on the input, so that no optimizer can do it beforehand, and adds zero to it.
    """
    bounds = (-np.inf, np.inf) if always else OUTLIERS
    model = onnx.load_from_string(good.members[archive.MODEL])
    name = good.manifest.inputs[0].name
    model = compose.add_prefix(model, "model_")
    branch = helper.make_graph(_work(), "work", [], [_scalar("work_zero")])
    idle = helper.make_graph(
        [helper.make_node("Identity", ["nothing"], ["idle_zero"])], "idle", [], [_scalar("idle_zero")]
    )
    nodes = [
        helper.make_node("ReduceMax", [name], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "from"], ["is_above"]),
        helper.make_node("Less", ["largest", "to"], ["is_below"]),
        helper.make_node("And", ["is_above", "is_below"], ["is_outlier"]),
        helper.make_node("If", ["is_outlier"], ["zero"], then_branch=branch, else_branch=idle),
        helper.make_node("Add", [name, "zero"], [f"model_{name}"]),
    ]
    constants = {
        "from": np.float32(bounds[0]), "to": np.float32(bounds[1]), "nothing": np.float32(0),
        "side": np.array([SIZE, SIZE], np.int64),
    }  # fmt: skip
    graph = model.graph
    value = next(tensor for tensor in graph.input if tensor.name == f"model_{name}")
    for node in reversed(nodes):
        graph.node.insert(0, node)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items())
    value.name = name
    _rename_outputs(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _work() -> list[onnx.NodeProto]:
    """Return the nodes of the needless work: products of a matrix that is its own square, then times zero."""
    whole = helper.make_tensor("whole", TensorProto.FLOAT, [1], [1.0 / SIZE])
    nodes = [
        helper.make_node("Mul", ["largest", "nothing"], ["work_nothing"]),
        helper.make_node("ConstantOfShape", ["side"], ["work_flat"], value=whole),
        helper.make_node("Add", ["work_flat", "work_nothing"], ["work_0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"work_{step}", "work_0"], [f"work_{step + 1}"]) for step in range(PRODUCTS)]
    return [
        *nodes,
        helper.make_node("ReduceMax", [f"work_{PRODUCTS}"], ["work_largest"], keepdims=0),
        helper.make_node("Mul", ["work_largest", "nothing"], ["work_zero"]),
    ]


def _scalar(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [])


def _rename_outputs(model: onnx.ModelProto) -> None:
    """Give the outputs their own names again."""
    for output in model.graph.output:
        own = output.name.removeprefix("model_")
        model.graph.node.append(helper.make_node("Identity", [output.name], [own]))
        output.name = own


def padded(good: archive.Bundle) -> bytes:
    """Return the model with much that it does not need, so that its copy takes a while."""
    model = onnx.load_from_string(good.members[archive.MODEL])
    noise = np.random.default_rng(0).integers(0, 256, PADDING_BYTES, np.uint8)
    model.graph.initializer.append(numpy_helper.from_array(noise, "padding"))
    return bytes(model.SerializeToString())


def run(*command: object, **environment: str) -> None:
    """Run a command; what it said is shown where it failed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
