"""Converts scikit-learn estimators and pipelines with skl2onnx, and gives the graph the manifest's names and shapes."""

import itertools
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import skl2onnx
from onnx import TensorProto, helper
from skl2onnx.common import tree_ensemble
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import SelectFromModel

from appliance.bundle.manifest import Input, TensorType
from appliance.errors import ConversionRefused, InvalidInput, NotReady
from appliance.inference.session import Session
from convert.converters import (
    adaboost,
    bagging,
    boosting,
    encoders,
    families,
    graphs,
    hist_gradient_boosting,
    isolation,
    isolation_forest,
    pipelines,
    reads,
    trees,
)
from convert.converters.estimator_tensors import refusal
from convert.converters.narrowing import narrow
from convert.model import sparse_input, training_values
from convert.model.arrays import Answers
from convert.model.original import Original, Role
from convert.model.steps import first_step, first_steps, hashed_columns, last_step, parts, steps

TARGET_OPSET = {"": 21, "ai.onnx.ml": 5}
OWN_CONVERTERS: tuple[Any, ...] = (
    families,
    trees,
    hist_gradient_boosting,
    isolation_forest,
    adaboost,
    bagging,
    boosting,
)
"""Modules whose `register()` corrects skl2onnx, in the child process in which the conversion runs."""

_INNER_TYPES = {
    "float32": FloatTensorType,
    "float64": DoubleTensorType,
    "int64": Int64TensorType,
    "string": StringTensorType,
}


@dataclass(frozen=True, slots=True)
class _Part:
    """One input of skl2onnx's graph: its name there, its type, and the device's inputs that fill it."""

    name: str
    type: TensorType
    inputs: tuple[Input, ...]

    @property
    def width(self) -> int:
        return sum(tensor.shape[1] for tensor in self.inputs)


def convert(
    original: Original,
    inputs: list[Input],
    float_type: TensorType,
    feeds: dict[str, Any],
    answers: Answers,
    time_limit: float = isolation.TIME_LIMIT,
) -> bytes:
    """Return an ONNX graph whose inputs are `inputs` and whose outputs are named and shaped as `answers`.

    Numbers are computed in `float_type` where skl2onnx can. `feeds` are a few rows for the graph and `answers` what
    the original says of them: their shapes and dtypes are the outputs'. Raises ConversionRefused when skl2onnx
    cannot convert the model or onnxruntime does not load what came out.
    """
    parts = _parts(original.model, inputs, float_type)
    try:
        sample = partial(original.schema.for_original, original.schema.frame)
        with training_values.rows(original.model, sample), sparse_input.known(original.watch):
            content = isolation.run(lambda: _skl2onnx(original.model, parts), time_limit)
    except isolation.ConverterError as error:
        raise _refused(original.model, str(error), error.next_step, error.step) from error
    model = onnx.load_from_string(content)
    _name_inputs(model.graph, parts, [*answers])
    graphs.tidy(model)
    _name_outputs(model, feeds, answers, original)
    graphs.drop_identities(model.graph)
    return bytes(model.SerializeToString(deterministic=True))


def _skl2onnx(model: Any, parts: list[_Part]) -> bytes:
    """Return skl2onnx's graph, ZipMap off."""
    for module in OWN_CONVERTERS:
        module.register()
    _check_selections(model)
    initial_types = [(part.name, _INNER_TYPES[part.type]([None, part.width])) for part in parts]
    options = {id(step): {"zipmap": False} for step in {id(s): s for s in (model, last_step(model))}.values()}
    arguments = {"name": "model", "initial_types": initial_types, "target_opset": TARGET_OPSET}
    with warnings.catch_warnings(), _plain_tree_nodes(), _culprit_named(model):
        warnings.simplefilter("ignore")
        try:
            converted = skl2onnx.convert_sklearn(model, **arguments, options=options if is_classifier(model) else None)
        except NameError:  # some classifiers have no ZipMap, and so no such option
            converted = skl2onnx.convert_sklearn(model, **arguments)
    narrow(converted)
    return bytes(converted.SerializeToString())


def _check_selections(model: Any) -> None:
    """Raise ConversionRefused for a selection of columns that depends on more than the estimator it asks."""
    for _, step in steps(model):
        getter = getattr(step, "importance_getter", None)
        if isinstance(step, SelectFromModel) and callable(getter) and (found := reads.outside(getter, {})):
            raise refusal(step, f"its importance_getter {found}", "name an attribute of the estimator instead")


@contextmanager
def _culprit_named(model: Any) -> Iterator[None]:
    """Name the estimator that was being converted when something is raised: by the object, since classes repeat."""
    try:
        yield
    except Exception as error:
        paths = {id(step): path for path, step in steps(model)}
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        inside = (_deepest(frame.f_locals.values(), paths) for frame in reversed(frames))
        raise isolation.StepError(next(filter(None, inside), "")) from error


def _deepest(values: Iterable[Any], paths: dict[int, str]) -> str:
    """Return the path of the innermost estimator among some variables, or of what they stand for; "" for none."""
    found = [getattr(value, "raw_operator", value) for value in values]
    found += [vars(value)["model"] for value in found if isinstance(value, pipelines.Transforming)]
    known = [paths[id(value)] for value in found if id(value) in paths]
    return max(known, key=lambda path: path.count("__"), default="")


def _parts(model: Any, inputs: list[Input], float_type: TensorType) -> list[_Part]:
    """Return how the device's inputs fill skl2onnx's.

    A ColumnTransformer finds its columns by name, so each stays by itself. Any other first step sees one matrix, as
    scikit-learn would make of the table. Numbers become floats except those that an encoder compares as integers.
    """
    hashed = hashed_columns(first_step(model))
    if len(inputs) == 1:
        kept = first_encodes(model) or bool(hashed)
        return [_Part(inputs[0].name, _inner_type(inputs[0], float_type, kept), tuple(inputs))]
    if hashed:
        return _joined(inputs, [_inner_type(t, float_type, index in hashed) for index, t in enumerate(inputs)])
    if _finds_by_name(model):
        encoded = _encoded_columns(model)
        return [_Part(t.name, _inner_type(t, float_type, t.name in encoded), (t,)) for t in inputs]
    types = [_inner_type(tensor, float_type, first_encodes(model)) for tensor in inputs]
    if len(set(types)) == 1:
        return [_Part("features", types[0], tuple(inputs))]
    return [_Part(tensor.name, kind, (tensor,)) for tensor, kind in zip(inputs, types, strict=True)]


def _joined(inputs: list[Input], types: list[TensorType]) -> list[_Part]:
    """Return neighbouring inputs of one type as one."""
    pairs = itertools.groupby(zip(inputs, types, strict=True), key=lambda pair: pair[1])
    return [_Part(f"features{i}", kind, tuple(t for t, _ in group)) for i, (kind, group) in enumerate(pairs)]


def _inner_type(tensor: Input, float_type: TensorType, encoded: bool) -> TensorType:
    if tensor.type == "string":
        return "string"
    return "int64" if encoded and tensor.type in ("int64", "bool") else float_type


def _finds_by_name(model: Any) -> bool:
    """Return whether a ColumnTransformer finds columns by name; one that was fitted on an array uses positions."""
    named = (step for step in first_steps(model) if hasattr(step, "feature_names_in_"))
    return any(isinstance(step, ColumnTransformer) for step in named)


def first_encodes(model: Any) -> bool:
    """Return whether all steps that see the table itself are encoders: then whole numbers stay whole."""
    return all(isinstance(step, encoders.ENCODERS) for step in first_steps(model))


def _encoded_columns(model: Any) -> set[str]:
    """Return the columns that a ColumnTransformer gives to an encoder first, or unchanged to one that hashes them."""
    encoded: set[str] = set()
    hashed = bool(hashed_columns(last_step(model)))
    for step in first_steps(model):
        for part in parts(step) if isinstance(step, ColumnTransformer) else ():
            kept = hashed and pipelines.passes(part.estimator)
            if kept or (not isinstance(part.estimator, str) and first_encodes(part.estimator)):
                encoded.update(str(step.feature_names_in_[position]) for position in part.picked)
    return encoded


def _name_inputs(graph: onnx.GraphProto, parts: list[_Part], outputs: list[str]) -> None:
    """Give `graph` the device's inputs, with casts and one Concat where skl2onnx's differ from them.

    skl2onnx turns column names into C identifiers; this restores the original names.
    """
    tensors = [tensor for part in parts for tensor in part.inputs]
    inner = [entry.name for entry in graph.input]
    private = {name: f"inner input {index}" for index, name in enumerate(inner)}
    graphs.rename(graph, private)
    graphs.free_names(graph, [*(tensor.name for tensor in tensors), *outputs])
    nodes = []
    for part, name in zip(parts, private.values(), strict=True):
        nodes += _fill(part, name)
    values = [helper.make_tensor_value_info(t.name, graphs.TENSOR_TYPES[t.type], [None, t.shape[1]]) for t in tensors]
    straight = {node.output[0]: node.input[0] for node in nodes if node.op_type == "Identity"}
    graphs.put_before(graph, values, [node for node in nodes if node.op_type != "Identity"])
    graphs.rename(graph, straight)


def _fill(part: _Part, target: str) -> list[onnx.NodeProto]:
    """Return nodes that compute skl2onnx's input `target` from the device's inputs."""
    single = len(part.inputs) == 1
    nodes, columns = [], []
    for index, tensor in enumerate(part.inputs):
        column = target if single else f"{target} column {index}"
        if tensor.type != part.type:
            to = graphs.TENSOR_TYPES[part.type]
            nodes.append(helper.make_node("Cast", [tensor.name], [column], name=f"cast {column}", to=to))
        elif single:
            nodes.append(helper.make_node("Identity", [tensor.name], [column], name=f"take {column}"))
        columns.append(column if tensor.type != part.type else tensor.name)
    if not single:
        nodes.append(helper.make_node("Concat", columns, [target], name=f"join {target}", axis=1))
    return nodes


def _name_outputs(model: onnx.ModelProto, feeds: dict[str, Any], answers: Answers, original: Original) -> None:
    """Give `model` the outputs of `answers`: their names, and as far as one node can, their shapes and dtypes."""
    graph = model.graph
    offered = dict(zip(("prediction", "second"), [output.name for output in graph.output], strict=False))
    found = {name: offered.get("prediction" if original.roles[name] == "prediction" else "second") for name in answers}
    if lacking := [name for name, inner in found.items() if inner is None]:
        raise _refused(original.model, f"the graph has no output for {', '.join(lacking)}")
    graphs.prune(graph, [str(inner) for inner in found.values()])
    if any(node.op_type == "ZipMap" for node in graph.node):
        raise _refused(original.model, "the graph answers in maps (ZipMap), not in tensors")
    given = _run(original.model, model, feeds)
    for (name, inner), array in zip(found.items(), given, strict=True):
        is_label = original.task == "classification" and original.roles[name] == "prediction"
        _finish(graph, str(inner), name, original.roles[name], np.asarray(array), answers[name], is_label)


def _run(original: Any, model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    try:
        return list(Session(model.SerializeToString()).run(feeds))
    except (InvalidInput, NotReady) as error:  # the graph is at fault here, not the rows
        raise _refused(original, f"onnxruntime refuses the graph ({error.found})") from error


def _finish(graph: onnx.GraphProto, inner: str, name: str, role: Role, given: Any, wanted: Any, is_label: bool) -> None:
    """Make the output `inner` the output `name`: shaped [rows] where the original's is, labels in its dtype."""
    nodes, last = [], inner
    if wanted.ndim == 1 and given.ndim == 2 and given.shape[1] == 2 and role == "score":
        # skl2onnx gives both signs of a two-class decision function, in either order; scikit-learn one of them.
        column = int(np.abs(given - wanted[:, None]).sum(axis=0).argmin())
        graph.initializer.append(helper.make_tensor("which score", TensorProto.INT64, [1], [column]))
        nodes.append(helper.make_node("Gather", [last, "which score"], ["one score"], name="take one score", axis=1))
        last, given = "one score", given[:, [column]]
    if wanted.ndim == 1 and given.ndim == 2 and given.shape[1] == 1:
        graph.initializer.append(helper.make_tensor(f"shape of {name}", TensorProto.INT64, [1], [-1]))
        flat = f"flat {name}"
        nodes.append(helper.make_node("Reshape", [last, f"shape of {name}"], [flat], name=f"flatten {name}"))
        last, given = flat, given.reshape(-1)
    tensor_type = graphs.TENSOR_TYPES.get("string" if given.dtype.kind in "OU" else str(given.dtype), TensorProto.FLOAT)
    label_type = {"b": TensorProto.BOOL, "f": TensorProto.DOUBLE}.get(wanted.dtype.kind)
    if is_label and label_type and given.dtype.kind == "i":
        nodes.append(helper.make_node("Cast", [last], [name], name=f"cast {name}", to=label_type))
        tensor_type = label_type
    else:
        nodes.append(helper.make_node("Identity", [last], [name], name=f"name {name}"))
    shape = [None, *wanted.shape[1:]]
    graphs.put_after(graph, inner, nodes, helper.make_tensor_value_info(name, tensor_type, shape))


@contextmanager
def _plain_tree_nodes() -> Iterator[None]:
    """Let skl2onnx 1.20 write HistGradientBoosting trees: onnx 1.23 refuses the NumPy booleans among its integers."""
    add_node = tree_ensemble.add_node

    def add_plain_node(*args: Any, nodes_missing_value_tracks_true: Any = 0, **kwargs: Any) -> None:
        add_node(*args, nodes_missing_value_tracks_true=int(nodes_missing_value_tracks_true), **kwargs)

    tree_ensemble.add_node = add_plain_node
    try:
        yield
    finally:
        tree_ensemble.add_node = add_node


def _refused(model: Any, message: str, next_step: str = "", path: str = "") -> ConversionRefused:
    """Return a refusal that names the step at fault by its `path`, where known, and `next_step` where known."""
    culprit = dict(steps(model))[path]
    name = type(culprit).__name__
    where = f"step {path!r} ({name})" if path else name
    if "Unable to find a" in message:  # skl2onnx's message for a class without a converter
        message = f"no converter knows {name}"
        next_step = "use an estimator of docs/coverage.md; `appliance lint` says of each step whether it converts"
    next_step = next_step or "use another estimator in its place: docs/coverage.md lists what converts exactly"
    return ConversionRefused(f"convert {where} to ONNX", message, next_step)
