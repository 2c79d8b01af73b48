"""Knows what a writer takes and gives: rows as tensors, and a tensor for each of the estimator's methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)

from appliance.errors import ConversionRefused
from convert.converters.expressions import Graph, Tensor, concat, where

FLOATS = (FloatTensorType, DoubleTensorType)
REFUSED_TIE = "training rows with other values are as near as the last neighbour:"
"""The message of a graph that refuses a row whose answer depends on the order of the original's neighbours."""
Written = TypeVar("Written")


@dataclass(frozen=True)
class OutputTensors:
    """What an estimator answers, a tensor for each method it has; `n` rows, float64 unless said.

    predict: class labels [n] or, of several outputs, [n, outputs]; a regressor's numbers [n, targets], one target too.
    predict_proba: [n, classes]. decision_function: [n, 1] for two classes or an outlier detector, else [n, classes].
    transform: [n, features], in `dtype`. `index` holds the predicted class as a position in `classes_`.
    """

    predict: Tensor | None = None
    predict_proba: Tensor | None = None
    decision_function: Tensor | None = None
    transform: Tensor | None = None
    score_samples: Tensor | None = None
    index: Tensor | None = None
    dtype: str = "float64"


class InputTensors:
    """The rows that an estimator gets: skl2onnx's variables, and the same as one float64 matrix."""

    def __init__(self, graph: Graph, variables: list[Any]) -> None:
        self.graph = graph
        self.variables = variables
        self.is_single = False
        """Whether every number was a float32 before it was widened."""
        self._matrix: Tensor | None = None
        self._written: dict[tuple[int, str], tuple[Any, Any]] = {}

    @property
    def matrix(self) -> Tensor:
        """All columns as one float64 tensor [n, features]."""
        if self._matrix is None:
            parts = []
            for variable in self.variables:
                tensor = self.graph.tensor(variable.onnx_name)
                parts.append(tensor if isinstance(variable.type, DoubleTensorType) else tensor.cast("float64"))
            self._matrix = concat(parts)
            self._matrix.is_single = self.is_single
        return self._matrix

    def once(self, model: Any, what: str, write: Callable[[], Written]) -> Written:
        """Return `write()`, the same for the same `model` and `what`: its nodes are written once only."""
        key = (id(model), what)
        if key not in self._written:
            self._written[key] = (model, write())  # the model is kept, since Python reuses ids
        found: Written = self._written[key][1]
        return found

    @property
    def tensors(self) -> list[Tensor]:
        """The inputs as they come."""
        return [self.graph.tensor(variable.onnx_name) for variable in self.variables]

    @property
    def typed(self) -> list[tuple[Tensor, str]]:
        """The inputs as they come, each with its dtype; float64 stands for any float."""
        return list(zip(self.tensors, (_dtype(variable.type) for variable in self.variables), strict=True))

    @property
    def dtype(self) -> str:
        """The dtype that all inputs have, or the common one of different numbers."""
        found = {_dtype(variable.type) for variable in self.variables}
        return found.pop() if len(found) == 1 else "string" if "string" in found else "float64"

    def joined(self) -> Tensor:
        """All columns as one tensor [n, features] in `dtype`."""
        if self.dtype == "float64":
            return self.matrix
        return concat([tensor.cast(self.dtype) if self.dtype == "string" else tensor for tensor in self.tensors])

    def of(self, tensor: Tensor, width: int | None, dtype: str = "float64", name: str = "rows") -> InputTensors:
        """Return computed columns as rows for another estimator; a ColumnTransformer finds them by `name`."""
        kind = {"float64": DoubleTensorType, "int64": Int64TensorType, "string": StringTensorType}[dtype]
        variable = self.graph.scope.declare_local_variable(name, kind([None, width]))
        self.graph.container.add_node(
            "Identity", [tensor.name], [variable.onnx_name], name=f"rows {variable.onnx_name}"
        )
        return InputTensors(self.graph, [variable])

    def widened(self) -> InputTensors:
        """Return the rows with float32 columns as float64: what is computed from them then rounds as the original."""
        variables = []
        for variable in self.variables:
            if isinstance(variable.type, FloatTensorType):
                tensor = self.graph.tensor(variable.onnx_name).cast("float64")
                columns = variable.type.shape[1] if variable.type.shape else None
                variables += self.of(tensor, columns, name=variable.raw_name).variables
            else:
                variables.append(variable)
        rows = InputTensors(self.graph, variables)
        rows.is_single = all(isinstance(variable.type, FloatTensorType) for variable in self.variables)
        return rows


def labels(graph: Graph, model: Any, index: Tensor) -> Tensor:
    """Return class labels, in the dtype the graph's label output has, for positions in `classes_`."""
    return _labels(graph, label_constants(model.classes_), index)


def _labels(graph: Graph, constants: Any, index: Tensor) -> Tensor:
    if np.array_equal(constants, np.arange(len(constants))):  # texts never equal numbers
        return index
    return graph.constant(constants).take(index, axis=0)


def classified(
    rows: InputTensors,
    model: Any,
    proba: Tensor | None = None,
    decision: Tensor | None = None,
    index: Tensor | None = None,
) -> OutputTensors:
    """Return a classifier's answers; unless `index` is given, the class of the largest score is predicted."""
    if isinstance(model.classes_, list):
        raise refusal(model, "it answers several outputs at once", "train one classifier for each output")
    if index is None:
        index = _largest(model, proba, decision)
    return OutputTensors(labels(rows.graph, model, index), proba, decision, index=index)


def several(rows: InputTensors, model: Any, indices: list[Tensor]) -> OutputTensors:
    """Return labels of several outputs side by side; `indices` are int64 [n] positions in each of `model.classes_`."""
    constants = [label_constants(classes) for classes in model.classes_]
    if len({values.dtype.kind for values in constants}) > 1:
        raise refusal(model, "some of its outputs are texts and some numbers", "number the classes of all")
    positions = concat([index.reshape(-1, 1) for index in indices])
    decision = positions.cast("float64")
    if all(np.array_equal(values, constants[0]) for values in constants):
        return OutputTensors(_labels(rows.graph, constants[0], positions), decision_function=decision)
    starts = np.cumsum([0, *map(len, constants[:-1])])  # all labels in one row, so that one node picks those of a row
    return OutputTensors(_labels(rows.graph, np.concatenate(constants), positions + starts), decision_function=decision)


def outlier(scores: Tensor, offset: float) -> OutputTensors:
    """Return an outlier detector's answers for `score_samples` [n, 1]: -1 (outlier) where they are under `offset`."""
    decision = scores - offset
    label = where(decision >= 0.0, 1, -1).reshape(-1)
    return OutputTensors(label, decision_function=decision, score_samples=scores)


def refuse_rows(tensor: Tensor, refused: Tensor, why: str = "") -> Tensor:
    """Return `tensor`, and let the graph fail where any of `refused` (bool) is true, as the original does.

    ONNX has no operator that raises. So a Gather reads beyond its data, and onnxruntime reports the node by its name;
    the name begins with `why`.
    """
    any_refused = refused.cast("int64").reshape(-1).max(axis=0)
    zero = tensor.graph.constant([0.0])
    return tensor + tensor.graph.nodes("Gather", zero, any_refused, called=why, axis=0)[0]


def label_constants(classes: Any) -> Any:
    """Return class labels as a graph holds them: integers, or texts. Raises ConversionRefused for other floats."""
    classes = np.asarray(classes)
    if classes.dtype.kind in "OUS":
        return classes.astype(str)
    if classes.dtype.kind == "f" and (classes != classes.astype(np.int64)).any():
        raise ConversionRefused("write class labels", "fractions among them", "use integers or texts as class labels")
    return classes.astype(np.int64)


def refusal(model: Any, found: str, next_step: str) -> ConversionRefused:
    """Return the error for a model that we cannot write; it names the model's type."""
    return ConversionRefused(f"convert {type(model).__name__} to ONNX", f"{type(model).__name__}: {found}", next_step)


def _largest(model: Any, proba: Tensor | None, decision: Tensor | None) -> Tensor:
    if proba is not None:
        return proba.argmax()
    if decision is None:
        raise refusal(model, "it has no scores to predict by", "use another estimator")
    return decision.argmax() if len(model.classes_) > 2 else (decision > 0.0).cast("int64").reshape(-1)


def _dtype(variable_type: Any) -> str:
    for kind, name in (
        (StringTensorType, "string"),
        (Int64TensorType, "int64"),
        (BooleanTensorType, "bool"),
        (FLOATS, "float64"),
    ):
        if isinstance(variable_type, kind):
            return name
    return "float64"
