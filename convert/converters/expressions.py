"""Writes ONNX nodes (operator set 18 and newer) as NumPy writes arrays: `(x - mean) / scale`, `x.sum(axis=1)`.

A converter that reads like scikit-learn's own formula can be checked against it line by line. Numbers are float64, as
in scikit-learn; counts and positions are int64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from convert.model.arrays import Array

ML_DOMAIN = "ai.onnx.ml"
Value = Any  # a Tensor, a number, a list or an array of them
Kind = tuple[str, int]  # a dtype, and a number of axes

_ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}


class Graph:
    """The graph under construction: skl2onnx's scope, which gives free names, and its container, which keeps nodes."""

    def __init__(self, scope: Any, container: Any) -> None:
        self.scope = scope
        self.container = container

    def tensor(self, name: str) -> Tensor:
        """Return the tensor that has this name in the graph."""
        return Tensor(self, name)

    def constant(self, value: Value) -> Tensor:
        """Return `value` as a tensor: floats in float64, integers in int64, bools and strings as they are."""
        if isinstance(value, Tensor):
            return value
        name = self._free_name("constant")
        initializer = numpy_helper.from_array(as_constant(value), name)
        self.container.initializers.append(initializer)
        return Tensor(self, name)

    def nodes(
        self, op: str, *inputs: Value, outputs: int = 1, domain: str = "", called: str = "", **attributes: Any
    ) -> list[Tensor]:
        """Add one node, whose name begins with `called`, and return its outputs; an input of None is left out."""
        names = ["" if value is None else self.constant(value).name for value in inputs]
        results = [self._free_name(op.lower()) for _ in range(outputs)]
        name = " ".join([*([called] if called else []), self.scope.get_unique_operator_name(op)])
        self.container.add_node(op, names, results, op_domain=domain, name=name, **attributes)
        return [Tensor(self, result) for result in results]

    def node(self, op: str, *inputs: Value, domain: str = "", **attributes: Any) -> Tensor:
        """Add one node and return its only output."""
        return self.nodes(op, *inputs, domain=domain, **attributes)[0]

    def each_row(self, step: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Return `step(*slices)` of each row of float64 matrices, one below the other: vectors to a vector."""
        inner = Graph(self.scope, _Body())
        names = [self._free_name("slice") for _ in rows]
        result = step(*(Tensor(inner, name) for name in names))
        body = self._body(inner, [_typed(name) for name in names], [_typed(result.name)])
        return self.node("Scan", *rows, body=body, num_scan_inputs=len(rows))

    def loop(
        self,
        step: Callable[..., tuple[Tensor, Tensor]],
        limit: Value,
        state: Tensor,
        fixed: Tensor,
        kinds: tuple[Kind, Kind] = (("float64", 2), ("float64", 3)),
    ) -> Tensor:
        """Return `state` after up to `limit` times `go_on, state = step(state, fixed, turn)`; `go_on` is one bool.

        `kinds` are the dtypes and numbers of axes of `state` and `fixed`. That is passed in, since a body should not
        read outer tensors.
        """
        inner = Graph(self.scope, _Body())
        names = [self._free_name(seed) for seed in ("iteration", "condition", "state", "fixed")]
        go_on, after = step(Tensor(inner, names[2]), Tensor(inner, names[3]), Tensor(inner, names[0]))
        handed_on = Tensor(inner, names[3]).op("Identity")
        count = helper.make_tensor_value_info(names[0], TensorProto.INT64, [])
        flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in (names[1], go_on.name)]
        inputs = [count, flags[0], _typed(names[2], *kinds[0]), _typed(names[3], *kinds[1])]
        outputs = [flags[1], _typed(after.name, *kinds[0]), _typed(handed_on.name, *kinds[1])]
        body = self._body(inner, inputs, outputs)
        limit = limit if isinstance(limit, Tensor) else np.array(limit)
        return self.nodes("Loop", limit, np.array(True), state, fixed, outputs=2, body=body)[0]

    def _body(self, inner: Graph, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> GraphProto:
        """Return a subgraph of this graph; skl2onnx chooses the operator sets by the nodes that it knows of."""
        for domain, op in inner.container.used:
            if isinstance(self.container, _Body):
                self.container.used.add((domain, op))
            else:
                version = self.container._get_op_version(domain, op)
                self.container.node_domain_version_pair_sets.add((domain, version))
        return helper.make_graph(inner.container.nodes, "body", inputs, outputs, inner.container.initializers)

    def keep(self, model: Any) -> None:
        """Keep `model` alive as long as the graph: skl2onnx identifies models by their id."""
        if not hasattr(self.container, "kept_models"):
            self.container.kept_models = []
        self.container.kept_models.append(model)

    def _free_name(self, seed: str) -> str:
        return str(self.scope.get_unique_variable_name(seed))


class _Body:
    """The nodes of a subgraph: the part of skl2onnx's container that Graph uses."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.used: set[tuple[str, str]] = set()

    def add_node(self, op: str, inputs: list[str], outputs: list[str], op_domain: str, name: str, **rest: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=op_domain, **rest))
        self.used.add((op_domain, op))


class Tensor:
    """A tensor of the graph; its operators and methods work as those of a NumPy array."""

    __array_ufunc__ = None  # so that `array - tensor` calls the tensor's method, not NumPy's

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name
        self.is_single = False
        """Whether its float64 numbers are all float32's."""

    def op(self, op: str, *others: Value, **attributes: Any) -> Tensor:
        """Return the output of one node on this tensor and `others`."""
        return self.graph.node(op, self, *others, **attributes)

    def __add__(self, other: Value) -> Tensor:
        return self.op("Add", other)

    def __radd__(self, other: Value) -> Tensor:
        return self.op("Add", other)

    def __sub__(self, other: Value) -> Tensor:
        return self.op("Sub", other)

    def __rsub__(self, other: Value) -> Tensor:
        return self.graph.node("Sub", other, self)

    def __mul__(self, other: Value) -> Tensor:
        return self.op("Mul", other)

    def __rmul__(self, other: Value) -> Tensor:
        return self.op("Mul", other)

    def __truediv__(self, other: Value) -> Tensor:
        return self.op("Div", other)

    def __rtruediv__(self, other: Value) -> Tensor:
        return self.graph.node("Div", other, self)

    def __pow__(self, other: Value) -> Tensor:
        return self.op("Pow", other)

    def __matmul__(self, other: Value) -> Tensor:
        return self.op("MatMul", other)

    def __neg__(self) -> Tensor:
        return self.op("Neg")

    def affine(self, weights: Value, offsets: Value) -> Tensor:
        """Return `self @ weights + offsets` for matrices, `offsets` one row [1, k] or column [n, 1], as one node."""
        return self.op("Gemm", weights, offsets)

    def __lt__(self, other: Value) -> Tensor:
        return self.op("Less", other)

    def __le__(self, other: Value) -> Tensor:
        return self.op("LessOrEqual", other)

    def __gt__(self, other: Value) -> Tensor:
        return self.op("Greater", other)

    def __ge__(self, other: Value) -> Tensor:
        return self.op("GreaterOrEqual", other)

    def __and__(self, other: Value) -> Tensor:
        return self.op("And", other)

    def __or__(self, other: Value) -> Tensor:
        return self.op("Or", other)

    def __invert__(self) -> Tensor:
        return self.op("Not")

    def equals(self, other: Value) -> Tensor:
        """Return `self == other`, element by element."""
        return self.op("Equal", other)

    def abs(self) -> Tensor:
        """Return the absolute values."""
        return self.op("Abs")

    def exp(self) -> Tensor:
        """Return e to the power of each element."""
        return self.op("Exp")

    def log(self) -> Tensor:
        """Return the natural logarithm of each element."""
        return self.op("Log")

    def sqrt(self) -> Tensor:
        """Return the square root of each element."""
        return self.op("Sqrt")

    def floor(self) -> Tensor:
        """Return each element rounded down."""
        return self.op("Floor")

    def isnan(self) -> Tensor:
        """Return where elements are NaN."""
        return self.op("IsNaN")

    def sum(self, axis: int = 1, keepdims: bool = True) -> Tensor:
        """Return sums along `axis`, which stays with length 1 unless `keepdims` is False."""
        return self.op("ReduceSum", [axis], keepdims=int(keepdims))

    def squares(self) -> Tensor:
        """Return the sum of squares of each row [n, 1]."""
        return self.op("ReduceSumSquare", [1], keepdims=1)

    def mean(self, axis: int = 1, keepdims: bool = True) -> Tensor:
        """Return means along `axis`."""
        return self.op("ReduceMean", [axis], keepdims=int(keepdims))

    def max(self, axis: int = 1, keepdims: bool = True) -> Tensor:
        """Return the largest elements along `axis`."""
        return self.op("ReduceMax", [axis], keepdims=int(keepdims))

    def min(self, axis: int = 1, keepdims: bool = True) -> Tensor:
        """Return the smallest elements along `axis`."""
        return self.op("ReduceMin", [axis], keepdims=int(keepdims))

    def argmax(self, axis: int = 1) -> Tensor:
        """Return the index of the first largest element along `axis`, which is dropped."""
        return self.op("ArgMax", axis=axis, keepdims=0)

    def argmin(self, axis: int = 1) -> Tensor:
        """Return the index of the first smallest element along `axis`, which is dropped."""
        return self.op("ArgMin", axis=axis, keepdims=0)

    def clip(self, low: Value, high: Value) -> Tensor:
        """Return elements moved into [low, high]; either may be None."""
        result = self if low is None else self.op("Max", low)
        return result if high is None else result.op("Min", high)

    def cast(self, dtype: str) -> Tensor:
        """Return elements as `dtype`: float32, float64, int64, int32, uint64, bool or string."""
        return self.op("Cast", to=_ONNX_TYPES[dtype])

    def reshape(self, *shape: int) -> Tensor:
        """Return the elements in another shape; -1 stands for what is left."""
        return self.op("Reshape", np.array(shape, dtype=np.int64))

    def transpose(self, *permutation: int) -> Tensor:
        """Return the axes in another order; without one, the transpose of a matrix."""
        return self.op("Transpose", perm=list(permutation or (1, 0)))

    def expand(self, axis: int) -> Tensor:
        """Return the elements with a new axis of length 1."""
        return self.op("Unsqueeze", [axis])

    def take(self, indices: Value, axis: int = 1) -> Tensor:
        """Return `numpy.take(self, indices, axis)`."""
        return self.op("Gather", indices, axis=axis)

    def columns(self, *indices: int) -> Tensor:
        """Return some columns of a matrix of numbers or texts, as a matrix; for many, six times as fast as Gather."""
        return self.op("ArrayFeatureExtractor", [int(index) for index in indices], domain=ML_DOMAIN)


def _typed(name: str, dtype: str = "float64", rank: int = 1) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, _ONNX_TYPES[dtype], [None] * rank)


def as_constant(value: Value) -> Array:
    """Return numbers as float64 or int64, truth values as bool, texts as objects."""
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    return array.astype(object) if array.dtype.kind in "US" else array


def row(values: Any) -> NDArray[np.float64]:
    """Return numbers as one float64 row [1, k], to be combined with every row of a matrix."""
    return np.asarray(values, dtype=np.float64).reshape(1, -1)


def where(condition: Tensor, then: Value, otherwise: Value) -> Tensor:
    """Return `numpy.where(condition, then, otherwise)`."""
    return condition.op("Where", then, otherwise)


def concat(tensors: Sequence[Tensor], axis: int = 1) -> Tensor:
    """Return tensors joined along `axis`."""
    return tensors[0] if len(tensors) == 1 else tensors[0].op("Concat", *tensors[1:], axis=axis)


def maximum(left: Tensor, right: Value) -> Tensor:
    """Return the larger element of each pair."""
    return left.op("Max", right)


def minimum(left: Tensor, right: Value) -> Tensor:
    """Return the smaller element of each pair."""
    return left.op("Min", right)


def expit(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)), as scipy.special.expit."""
    return 1.0 / (1.0 + (-x).exp())


def softmax(x: Tensor) -> Tensor:
    """Return exp(x) over its sum along axis 1, as sklearn.utils.extmath.softmax."""
    return x.op("Softmax", axis=1)


def one_hot(index: Tensor, depth: int) -> Tensor:
    """Return int64 indices [rows, ...] as float64 rows of zeros and a one, along a new last axis."""
    return index.expand(-1).equals(np.arange(depth)).cast("float64")


def interpolate(x: Tensor, knots: Array, values: Array) -> Tensor:
    """Return `numpy.interp(x, knots, values)` for x [rows, 1]: linear between knots, constant beyond them."""
    first, last = float(values[0]), float(values[-1])
    if len(knots) == 1:
        return x * 0.0 + first
    # The segment is the last knot that is not above x, among those with a successor.
    segment = (x >= knots[None, 1:-1]).cast("int64").sum() if len(knots) > 2 else (x * 0.0).cast("int64")
    widths = np.diff(knots)
    slopes = np.diff(values) / np.where(widths == 0, 1.0, widths)
    constant = x.graph.constant
    inside = (x - constant(knots).take(segment, axis=0)) * constant(slopes).take(segment, axis=0)
    inside = inside + constant(values).take(segment, axis=0)
    return where(x < float(knots[0]), first, where(x >= float(knots[-1]), last, inside))


def log1p(x: Tensor) -> Tensor:
    """Return log(1 + x), exact for small x too (Kahan's correction of the rounding of 1 + x)."""
    shifted = 1.0 + x
    rounded = shifted - 1.0
    plain = rounded.equals(0.0) | (x > 1e15)
    return where(plain, where(x > 1e15, shifted.log(), x), shifted.log() * x / where(plain, 1.0, rounded))


def expm1(x: Tensor) -> Tensor:
    """Return exp(x) - 1, exact for small x too (Kahan's correction); NaN stays NaN."""
    grown = x.exp()
    far = x.abs() > 30.0
    logarithm = where(far, 1.0, grown).log()
    plain = logarithm.equals(0.0)
    return where(far, grown - 1.0, where(plain, x, (grown - 1.0) * x / where(plain, 1.0, logarithm)))
