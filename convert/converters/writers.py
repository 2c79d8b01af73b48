"""Knows how an estimator is written into a graph: by our own writers as expressions, all others through skl2onnx.

A *writer* is a function `(rows, model) -> OutputTensors`: it takes the input rows as tensors and returns a tensor for
each of the estimator's methods. `register` makes skl2onnx use it, alone, in pipelines and inside other estimators.
`ask` lets one writer use another estimator's answers, whoever writes that one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from onnx import TensorProto
from skl2onnx import update_registered_converter
from skl2onnx._parse import _parse_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from convert.converters.estimator_tensors import (
    FLOATS,
    InputTensors,
    OutputTensors,
    classified,
    label_constants,
    labels,
    outlier,
    refusal,
    refuse_rows,
    several,
)
from convert.converters.expressions import Graph, Tensor, one_hot
from convert.model.steps import stages

__all__ = [
    "EstimatorKind",
    "InputTensors",
    "OutputTensors",
    "Writer",
    "ask",
    "ask_index",
    "ask_score",
    "classified",
    "label_constants",
    "labels",
    "number_type",
    "outlier",
    "predictors_that_transform",
    "refusal",
    "refuse_rows",
    "register",
    "register_type",
    "register_wrapper",
    "several",
    "targets",
    "transformed",
    "unwrapped",
    "width",
]

EstimatorKind = Literal["classifier", "multilabel", "regressor", "transformer", "cluster", "outlier", "density"]
Writer = Callable[[InputTensors, Any], OutputTensors]

_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [True, False],
    "score_samples": [True, False],
}
_writers: dict[type, Writer] = {}
_kinds: dict[type, EstimatorKind] = {}
_inner: dict[type, Callable[[Any], Any]] = {}


def register(
    estimator: type | None, kind: EstimatorKind | Callable[[Any], EstimatorKind], writer: Writer, alone: bool = True
) -> None:
    """Make skl2onnx write `estimator` through `writer`; None, for a class that this scikit-learn lacks, is ignored.

    For an estimator of several kinds, `kind` is a function of the model. Without `alone`, the writer is used only
    inside other writers: skl2onnx's own converter stays where it is as exact, and faster.
    """
    if estimator is None:
        return
    _writers[estimator] = writer
    _kinds[estimator] = "regressor" if callable(kind) else kind
    kind_of = kind if callable(kind) else lambda _: kind
    if not alone:
        return
    alias = f"Appliance{estimator.__name__}"

    def parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
        operator = scope.declare_local_operator(alias, model)
        operator.inputs = inputs
        for name, variable_type in _outputs(kind_of(model), model, inputs, scope):
            operator.outputs.append(scope.declare_local_variable(name, variable_type))
        return operator.outputs

    def shape(operator: Any) -> None:
        model = operator.raw_operator
        types = _outputs(kind_of(model), model, operator.inputs, operator.scope_inst)
        for output, (_, variable_type) in zip(operator.outputs, types, strict=False):
            output.set_type(variable_type)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        rows = InputTensors(Graph(scope, container), list(operator.inputs)).widened()
        model = operator.raw_operator
        answers = writer(rows, model)
        raw = scope.get_options(model, {"raw_scores": False}, fail=False)["raw_scores"]
        for output, tensor in zip(operator.outputs, _in_order(kind_of(model), model, answers, raw), strict=False):
            _give(tensor, output)

    update_registered_converter(estimator, alias, shape, convert, overwrite=True, parser=parse, options=_OPTIONS)


def register_wrapper(estimator: type | None, inner: Callable[[Any], Any]) -> None:
    """Make skl2onnx write `inner(model)` in place of a model of type `estimator`."""
    if estimator is None:
        return
    _inner[estimator] = inner

    def parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
        part = unwrapped(model)
        if is_classifier(part):
            scope.add_options(id(part), {"zipmap": False})
        return _parse_sklearn(scope, part, inputs, custom_parsers=custom_parsers)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        rows = InputTensors(Graph(scope, container), list(operator.inputs))
        for output, inner_output in zip(operator.outputs, _parse(rows, unwrapped(operator.raw_operator)), strict=False):
            _give(rows.graph.tensor(inner_output.onnx_name), output)

    alias = f"Appliance{estimator.__name__}"
    update_registered_converter(estimator, alias, lambda _: None, convert, parser=parse, options=_OPTIONS)


def predictors_that_transform() -> list[type]:
    """Return the estimators with our own writers that predict as the last step and transform before it."""
    return [kind for kind, name in _kinds.items() if name != "transformer" and hasattr(kind, "transform")]


def unwrapped(model: Any) -> Any:
    """Return the estimator that answers for `model`: the best of a search, what is frozen."""
    while type(model) in _inner:
        model = _inner[type(model)](model)
    return model


def ask(rows: InputTensors, model: Any, method: str) -> Tensor:
    """Return what `model` answers to `method`, shaped as in OutputTensors.

    Raises ConversionRefused when the model has no such answer.
    """
    model = unwrapped(model)
    if isinstance(model, Pipeline):
        *before, last = stages(model)
        for step in before:
            rows = transformed(rows, step)
        return ask(rows, last, method)
    if model is None or isinstance(model, str):
        return rows.matrix
    if type(model) not in _writers:
        return _of_skl2onnx(rows, model, method)
    answer = getattr(_written(rows, model), method)
    if not isinstance(answer, Tensor):
        raise refusal(model, f"it has no {method} in ONNX", "use an estimator that has it")
    return answer


def ask_index(rows: InputTensors, model: Any) -> Tensor:
    """Return the class that a classifier predicts, int64 [n], as a position in its `classes_`."""
    model = unwrapped(model)
    if isinstance(model, Pipeline):
        *before, last = stages(model)
        for step in before:
            rows = transformed(rows, step)
        return ask_index(rows, last)
    if type(model) in _writers:
        answers = _written(rows, model)
        if answers.index is not None:
            return answers.index
    labels = ask(rows, model, "predict").reshape(-1, 1)
    return labels.equals(label_constants(model.classes_)[None, :]).cast("int64").argmax()


def ask_score(
    rows: InputTensors, model: Any, methods: tuple[str, ...] = ("decision_function", "predict_proba")
) -> Tensor:
    """Return the first of `methods` that the model has, and of two classes the second's column alone [n, 1].

    As sklearn.utils._response._get_response_values.
    """
    method = next((name for name in methods if hasattr(model, name)), "predict")
    answer = ask(rows, model, method)
    return answer.columns(1) if method == "predict_proba" and len(model.classes_) == 2 else answer


def transformed(rows: InputTensors, step: Any) -> InputTensors:
    """Return rows after a transformer; "passthrough" and None change nothing."""
    step = unwrapped(step)
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return rows
    if isinstance(step, Pipeline):
        for inner in stages(step):
            rows = transformed(rows, inner)
        return rows
    return rows.once(step, "transformed", lambda: _transformed(rows, step))


def _transformed(rows: InputTensors, step: Any) -> InputTensors:
    if type(step) in _writers:
        answers = _written(rows, step)
        if answers.transform is None:
            raise refusal(step, "it does not transform in ONNX", "leave the step out")
        return rows.of(answers.transform, width(step), answers.dtype)
    output = _parse(rows, step)[0]
    if isinstance(output.type, StringTensorType):
        return InputTensors(rows.graph, [output])
    # skl2onnx fixes an output's type only when it writes it: the type declared now may still change.
    return rows.of(rows.graph.tensor(output.onnx_name).cast("float64"), width(step))


def width(model: Any) -> int | None:
    """Return how many columns a transformer gives, where it can say."""
    try:
        return len(model.get_feature_names_out())
    except (AttributeError, ValueError, TypeError):
        return None


def _written(rows: InputTensors, model: Any) -> OutputTensors:
    """Return the answers of an estimator of ours."""
    return rows.once(model, "answers", lambda: _writers[type(model)](rows, model))


def _of_skl2onnx(rows: InputTensors, model: Any, method: str) -> Tensor:
    """Return the answer of an estimator that skl2onnx writes."""
    graph = rows.graph
    if is_classifier(model):
        # skl2onnx keeps options by id: a copy of the model lets one graph have both its scores and probabilities.
        model = copy.copy(model)
        graph.keep(model)
        options = {"zipmap": False} if graph.container.has_options(model, "zipmap") else {}
        if method == "decision_function" and hasattr(model, "predict_proba"):
            if not graph.container.has_options(model, "raw_scores"):
                raise refusal(model, "its decision function has no ONNX form here", "use another estimator")
            options["raw_scores"] = True
        for holder in (graph.scope, graph.container):
            holder.add_options(id(model), options)
    outputs = _parse(rows, model)
    chosen = outputs[1] if method in ("predict_proba", "decision_function") else outputs[0]
    tensor = graph.tensor(chosen.onnx_name)
    if method == "predict" and is_classifier(model):
        return tensor
    tensor = tensor.cast("float64")
    if method == "predict_proba" or method == "transform":
        return tensor
    if method == "predict":
        return tensor.reshape(-1, targets(model))
    many = len(getattr(model, "classes_", ())) > 2
    return tensor if many else tensor.reshape(-1, 1) if not is_classifier(model) else tensor.take([-1])


def _parse(rows: InputTensors, model: Any) -> Any:
    return _parse_sklearn(rows.graph.scope, model, _merged(rows, model).variables)


def _merged(rows: InputTensors, model: Any) -> InputTensors:
    """Return numeric columns as one matrix for an estimator that does not find its columns by name."""
    if len(rows.variables) == 1 or rows.dtype == "string" or hasattr(model, "transformers_"):
        return rows
    return rows.of(rows.matrix, getattr(model, "n_features_in_", None))


def targets(model: Any) -> int:
    """Return how many numbers a regressor gives per row."""
    if isinstance(model, Pipeline):
        return targets(stages(model)[-1])
    for name in ("n_outputs_", "n_targets_"):
        if hasattr(model, name):
            return int(getattr(model, name))
    for name in ("best_estimator_", "estimator_"):
        if hasattr(model, name):
            return targets(getattr(model, name))
    if hasattr(model, "coef_"):
        shape = np.shape(model.coef_)
        return shape[0] if len(shape) == 2 else 1
    return 1


def _outputs(kind: EstimatorKind, model: Any, inputs: Any, scope: Any) -> list[tuple[str, Any]]:
    """Return (name, type) of each of the operator's outputs."""
    number = number_type(inputs, scope)
    if kind in ("regressor", "density"):
        return [("variable", number([None, 1 if kind == "density" else targets(model)]))]
    if kind == "transformer":
        if width(model) == 0:
            raise refusal(model, "it gives no columns at all", "leave the step out")
        return [("variable", _transformed_type(model, inputs, number)([None, width(model)]))]
    if kind == "multilabel":
        outputs = len(model.classes_)
        label = StringTensorType if isinstance(model.classes_, list) and _is_text(model.classes_) else Int64TensorType
        return [("label", label([None, outputs])), ("probabilities", number([None, outputs]))]
    if kind != "classifier":
        return [("label", Int64TensorType([None])), ("scores", number([None, None]))]
    label = StringTensorType if _is_text(model.classes_) else Int64TensorType
    if isinstance(model.classes_, list):  # several outputs: skl2onnx's shapes
        outputs = len(model.classes_)
        return [("label", label([None, outputs])), ("probabilities", number([outputs, None, None]))]
    columns = _n_classes(model) if hasattr(model, "predict_proba") else None  # a decision function may have one
    return [("label", label([None])), ("probabilities", number([None, columns]))]


def _transformed_type(model: Any, inputs: Any, number: Any) -> Any:
    typed = _typed_transformers.get(type(model))
    return typed(model, inputs, number) if typed else number


_typed_transformers: dict[type, Callable[[Any, Any, Any], Any]] = {}


def register_type(estimator: type, output_type: Callable[[Any, Any, Any], Any]) -> None:
    """Let `output_type(model, inputs, number)` say which tensor type a transformer gives, where that is not a float."""
    _typed_transformers[estimator] = output_type


def number_type(inputs: Any, scope: Any) -> Any:
    """Return the type of numbers computed from `inputs`: as floats come in, here or elsewhere in the graph.

    skl2onnx joins columns of one float type only. Where no floats come in at all it is float64.
    """
    floats = [v for v in inputs if isinstance(v.type, FLOATS)] or [
        v for v in scope.input_variables if isinstance(v.type, FLOATS)
    ]
    single = any(isinstance(variable.type, FloatTensorType) for variable in floats)
    return FloatTensorType if single else DoubleTensorType


def _in_order(kind: EstimatorKind, model: Any, answers: OutputTensors, raw_scores: bool) -> list[Tensor]:
    """Return the tensors for the operator's outputs."""
    if kind == "transformer":
        return [given for given in (answers.transform,) if given is not None]
    if kind in ("regressor", "density"):
        return [given for given in (answers.predict,) if given is not None]
    if answers.predict is None:
        raise refusal(model, "it does not predict in ONNX", "use another estimator")
    scores = answers.predict_proba if answers.predict_proba is not None else answers.transform
    if scores is None or raw_scores:
        scores = answers.decision_function if answers.decision_function is not None else scores
    if scores is None and answers.index is not None:
        scores = one_hot(answers.index, _n_classes(model) or 1)
    if scores is None:
        scores = answers.predict.cast("float64").reshape(-1, 1)
    samples = [answers.score_samples] if answers.score_samples is not None else []
    return [answers.predict, scores, *samples]


def _give(tensor: Tensor, output: Any) -> None:
    """Let `tensor` be the operator's output, in the type declared for it."""
    to = output.type.to_onnx_type().tensor_type.elem_type
    op, attributes = ("Identity", {}) if to == TensorProto.STRING else ("Cast", {"to": to})
    name = f"give {output.onnx_name}"
    tensor.graph.container.add_node(op, [tensor.name], [output.onnx_name], name=name, **attributes)


def _is_text(classes: Any) -> bool:
    first = classes[0] if isinstance(classes, list) else classes
    return bool(np.asarray(first).dtype.kind in "OUS")


def _n_classes(model: Any) -> int | None:
    classes = model.classes_
    return None if isinstance(classes, list) else int(math.prod(np.shape(classes)))
