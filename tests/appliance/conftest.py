"""Small real bundles, built by hand with onnx, whose answers tell which version gave them."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from appliance.bundle import archive, examples
from appliance.bundle.manifest import Input, Manifest, Output, Policy, Provenance, Tolerance

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}

MakeBundle = Callable[..., Path]
BundleBytes = Callable[..., bytes]


@pytest.fixture(scope="session")
def bundle_bytes() -> BundleBytes:
    """Return build_bundle, see there."""
    return build_bundle


@pytest.fixture(scope="session")
def make_bundle() -> MakeBundle:
    """Return a function that writes FOLDER/NAME-VERSION.bundle: make(folder, name="iris", version="1.0.0", ...)."""

    def make(folder: Path, name: str = "iris", version: str = "1.0.0", **rest: object) -> Path:
        path = folder / f"{name}-{version}.bundle"
        path.write_bytes(build_bundle(name, version, **rest))
        return path

    return make


def build_bundle(
    name: str = "iris",
    version: str = "1.0.0",
    *,
    kind: str = "regression",
    error: float = 0.0,
    baseline: bytes | None = None,
    signature: bytes | None = None,
) -> bytes:
    """Return a bundle of one of these kinds; every answer holds `bias(version)`.

    regression  features float32 [-1, 4] -> prediction float32 [-1]: sum(features) + bias
    classifier  features float32 [-1, 4] -> prediction int64 [-1] (0, 1 or 2), probability float32 [-1, 3]: the softmax
                of (x0, x1 + bias, x2); high x0 gives 0
    labels      as classifier, prediction string [-1]: setosa, versicolor, virginica
    gaps        as regression, each missing value counting 1000
    slow        as regression, some 10 ms later
    blind       as gaps, but a missing value makes the answer NaN
    table       temp-C float32, count int64, site string, on bool, each [-1, 1] -> prediction float32 [-1]:
                temp-C + count + (10 where site is north) + (100 where on) + bias

    `error` is added to the numbers that examples.npz expects, so that the self-test fails.
    """
    inputs, outputs, labels, graph = KINDS[kind](float(bias(version)))
    rows = example_rows(inputs)
    answers = [answer + error if answer.dtype.kind == "f" else answer for answer in run(graph, inputs, outputs, rows)]
    manifest = Manifest(
        format=1,
        name=name,
        version=version,
        task="classification" if labels else "regression",
        inputs=inputs,
        outputs=outputs,
        opset={"": 18, "ai.onnx.ml": 3},
        ir_version=9,
        least_onnxruntime="1.20.0",
        provenance=Provenance(source="test", sha256="0" * 64, model_type="tests.Model"),
        members={},
        class_labels=labels,
        policy=Policy(tolerance=Tolerance(absolute=1e-5, relative=1e-5)),
    )
    return archive.write(manifest, graph, b'{"rows": 5}', examples.write(rows, answers), baseline, signature)


def bias(version: str) -> int:
    """Return the number that tells versions apart in their answers: 1.2.3 has 123."""
    major, minor, patch = version.partition("-")[0].partition("+")[0].split(".")
    return 100 * int(major) + 10 * int(minor) + int(patch)


def example_rows(inputs: list[Input]) -> list[np.ndarray]:
    """Return five rows for the given inputs."""
    made = {
        "features": np.arange(20, dtype=np.float32).reshape(5, 4) / 4,
        "temp-C": np.array([[-3.5], [0], [21.25], [40], [1e6]], np.float32),
        "count": np.array([[0], [1], [2], [-5], [1000]], np.int64),
        "site": np.array([["north"], ["south"], [""], ["nörd"], ["north"]], object),
        "on": np.array([[True], [False], [True], [False], [True]]),
    }
    return [made[tensor.name] for tensor in inputs]


def run(graph: bytes, inputs: list[Input], outputs: list[Output], rows: list[np.ndarray]) -> list[np.ndarray]:
    """Return the graph's own answers."""
    from appliance.inference.session import Session

    feeds = {tensor.name: array for tensor, array in zip(inputs, rows, strict=True)}
    return [np.asarray(answer) for answer in Session(graph).run(feeds, [output.name for output in outputs])]


def regression(add: float) -> tuple[list[Input], list[Output], list[str], bytes]:
    """Build the kind `regression`."""
    inputs, outputs = [features()], [number("prediction", "float32", [-1])]
    nodes = [
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "bias"], ["prediction"]),
    ]
    constants = {"axis": np.array([1], np.int64), "bias": np.array(add, np.float32)}
    return inputs, outputs, [], build(nodes, constants, inputs, outputs)


def gaps(add: float) -> tuple[list[Input], list[Output], list[str], bytes]:
    """Build the kind `gaps`."""
    inputs = [msgspec.structs.replace(features(), missing=True)]
    outputs = [number("prediction", "float32", [-1])]
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "thousand", "features"], ["filled"]),
        helper.make_node("ReduceSum", ["filled", "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "bias"], ["prediction"]),
    ]
    constants = {
        "axis": np.array([1], np.int64),
        "bias": np.array(add, np.float32),
        "thousand": np.array(1000, np.float32),
    }
    return inputs, outputs, [], build(nodes, constants, inputs, outputs)


def blind(add: float) -> tuple[list[Input], list[Output], list[str], bytes]:
    """Build the kind `blind`."""
    _, outputs, labels, graph = regression(add)
    return [msgspec.structs.replace(features(), missing=True)], outputs, labels, graph


def slow(add: float) -> tuple[list[Input], list[Output], list[str], bytes]:
    """Build the kind `slow`: adds nought times a long product of matrices, which depends on the row."""
    inputs, outputs = [features()], [number("prediction", "float32", [-1])]
    nodes = [
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["features"], ["all"], keepdims=0),
        helper.make_node("Mul", ["all", "nought"], ["seed"]),
        helper.make_node("Expand", ["seed", "square"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{n}", f"m{n}"], [f"m{n + 1}"]) for n in range(8)),
        helper.make_node("ReduceMax", ["m8"], ["largest"], keepdims=0),
        helper.make_node("Add", ["sum", "largest"], ["later"]),
        helper.make_node("Add", ["later", "bias"], ["prediction"]),
    ]
    constants = {
        "axis": np.array([1], np.int64),
        "nought": np.array(0, np.float32),
        "square": np.array([300, 300], np.int64),
        "bias": np.array(add, np.float32),
    }
    return inputs, outputs, [], build(nodes, constants, inputs, outputs)


def classifier(add: float, *, names: tuple[str, ...] = ()) -> tuple[list[Input], list[Output], list, bytes]:
    """Build the kinds `classifier` and, with `names`, `labels`."""
    kind = "string" if names else "int64"
    inputs = [features()]
    outputs = [number("prediction", kind, [-1]), number("probability", "float32", [-1, 3], role="probability")]
    labels = {"classlabels_strings": list(names)} if names else {"classlabels_ints": [0, 1, 2]}
    node = helper.make_node(
        "LinearClassifier",
        ["features"],
        ["prediction", "probability"],
        domain="ai.onnx.ml",
        coefficients=[1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
        intercepts=[0.0, add / 100, 0.0],
        multi_class=0,
        post_transform="SOFTMAX",
        **labels,
    )
    return inputs, outputs, list(names) or [0, 1, 2], build([node], {}, inputs, outputs)


def labels(add: float) -> tuple[list[Input], list[Output], list[str], bytes]:
    """Build the kind `labels`."""
    return classifier(add, names=("setosa", "versicolor", "virginica"))


def table(add: float) -> tuple[list[Input], list[Output], list[str], bytes]:
    """Build the kind `table`."""
    kinds = {"temp-C": "float32", "count": "int64", "site": "string", "on": "bool"}
    inputs = [Input(name=name, type=kind, shape=[-1, 1], columns=[name]) for name, kind in kinds.items()]
    outputs = [number("prediction", "float32", [-1])]
    nodes = [
        helper.make_node("Cast", ["count"], ["count_f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["on"], ["on_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["on_f", "hundred"], ["on_100"]),
        helper.make_node(
            "LabelEncoder",
            ["site"],
            ["site_f"],
            domain="ai.onnx.ml",
            keys_strings=["north"],
            values_floats=[10.0],
            default_float=0.0,
        ),
        helper.make_node("Sum", ["temp-C", "count_f", "on_100", "site_f", "bias"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["prediction"]),
    ]
    constants = {
        "axis": np.array([1], np.int64),
        "bias": np.array(add, np.float32),
        "hundred": np.array(100, np.float32),
    }
    return inputs, outputs, [], build(nodes, constants, inputs, outputs)


def features() -> Input:
    """Return the one tensor of a model fitted on a plain array."""
    return Input(name="features", type="float32", shape=[-1, 4], columns=FEATURES)


def number(name: str, kind: str, shape: list[int], *, role: str = "prediction") -> Output:
    """Return an output."""
    return Output(name=name, type=kind, shape=shape, role=role)


def build(nodes: list, constants: dict[str, np.ndarray], inputs: list[Input], outputs: list[Output]) -> bytes:
    """Return the serialised graph."""

    def value(tensor: Input | Output) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor.name, TYPES[tensor.type], ["N", *tensor.shape[1:]])

    graph = helper.make_graph(
        nodes,
        "test",
        [value(tensor) for tensor in inputs],
        [value(tensor) for tensor in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


KINDS = {
    "regression": regression,
    "slow": slow,
    "blind": blind,
    "classifier": classifier,
    "labels": labels,
    "table": table,
    "gaps": gaps,
}
