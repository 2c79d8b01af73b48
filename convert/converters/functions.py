"""Writes FunctionTransformer (sklearn.preprocessing) by running its function on tensors that record the operations.

NumPy functions, arithmetic, comparisons and column slices are understood. A function that looks at the numbers
themselves (`if x.mean() > 0`, `x.sort()`) is refused, since they are not known at the conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.preprocessing import FunctionTransformer

from appliance.errors import ConversionRefused
from convert.converters import elementwise, reads, rehearsal
from convert.converters.expressions import Tensor, concat, expit, expm1, log1p, where
from convert.converters.smooth_functions import erf, ndtr
from convert.converters.writers import InputTensors, OutputTensors, refusal
from convert.converters.writers import register as register_writer

_REWRITE = (
    "write the function with NumPy arithmetic on whole columns, or do that step before the model and after the sample"
)

_GIVE = (
    "give what it uses as a column of the model's input, or as a constant through kw_args (random numbers: from "
    "numpy.random.default_rng(SEED) inside the function), and train again"
)


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(FunctionTransformer, "transformer", _function)


def traced(
    tensor: Tensor, model: Any, function: Callable[..., Any] | None, arguments: Any, names: Any = None
) -> Tensor:
    """Return `function(tensor, **arguments)` as expressions; None is the identity.

    Raises ConversionRefused where the function does something that has no expression, or uses something besides
    its tensor and arguments: the graph would keep that value for ever.
    """
    if function is None:
        return tensor
    name, arguments = getattr(function, "__name__", repr(function)), arguments or {}

    def trace(given: Tensor) -> Tensor:
        result = function(Traced(given, names), **arguments)
        if not isinstance(result, Traced):
            raise refusal(model, "its function does not return what it was given, changed", _REWRITE)
        return result.matrix()

    if found := reads.outside(function, arguments) or rehearsal.outside(trace, function, arguments):
        raise refusal(model, f"its function {name} {found}, which a graph cannot", _GIVE)
    try:
        return trace(tensor)
    except ConversionRefused:
        raise
    except Exception as error:  # the user's function may raise anything when given a tensor
        raise refusal(model, f"its function {name} cannot be traced ({error})", _REWRITE) from error


class Traced:
    """A float64 tensor [n, columns] or one column [n], which answers NumPy's functions with expressions."""

    def __init__(self, tensor: Tensor, names: Any = None, column: bool = False, boolean: bool = False) -> None:
        self.tensor = tensor  # always [n, columns]; `column` says that the caller sees one dimension
        self.names = None if names is None else [str(name) for name in names]
        self.column = column
        self.boolean = boolean

    def matrix(self) -> Tensor:
        """Return the tensor as float64 [n, columns]."""
        return self.tensor.cast("float64") if self.boolean else self.tensor

    def like(self, tensor: Tensor, boolean: bool = False) -> Traced:
        """Return another tensor of the same shape."""
        return Traced(tensor, self.names, self.column, boolean)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Traced:
        if method != "__call__" or keywords or ufunc.__name__ not in _UFUNCS:
            raise TypeError(f"{ufunc.__name__} with {method} {sorted(keywords)} has no expression")
        return self._apply(_UFUNCS[ufunc.__name__], ufunc.__name__ in _BOOLEAN, inputs)

    def __array_function__(self, function: Any, types: Any, inputs: Any, keywords: Any) -> Any:
        if function.__name__ not in _FUNCTIONS:
            raise TypeError(f"numpy.{function.__name__} has no expression")
        return _FUNCTIONS[function.__name__](*inputs, **keywords)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("it asks for the numbers themselves")

    def __bool__(self) -> bool:
        raise TypeError("it decides by the numbers themselves; use numpy.where")

    def __len__(self) -> int:
        raise TypeError("it asks how many rows there are")

    def __iter__(self) -> Any:
        raise TypeError("it walks over the rows one by one")

    def _apply(self, expression: Callable[..., Tensor], boolean: bool, inputs: Any) -> Traced:
        first = next(value for value in inputs if isinstance(value, Traced))
        whole = all(value.column for value in inputs if isinstance(value, Traced))
        plain = [_operand(value, expression) for value in inputs]
        if not isinstance(plain[0], Tensor):
            plain[0] = first.tensor.graph.constant(plain[0])
        return Traced(expression(*plain), None if boolean else self.names, whole, boolean)

    def __getitem__(self, key: Any) -> Traced:
        columns, single = self._columns(key)
        names = None if self.names is None else [self.names[i] for i in columns]
        chosen = self.tensor.take(columns) if self.boolean else self.tensor.columns(*columns)
        return Traced(chosen, names, single, self.boolean)

    def _columns(self, key: Any) -> tuple[list[int], bool]:
        if isinstance(key, tuple) and len(key) == 2 and key[0] == slice(None):
            key = key[1]
            if isinstance(key, int):
                return [key], True
            if isinstance(key, slice):
                if key.start is None and key.stop is None:
                    raise TypeError("all columns at once")
                return list(range(*key.indices(_width(self, key)))), False
            return [int(i) for i in key], False
        if self.names is not None and isinstance(key, str):
            return [self.names.index(key)], True
        if self.names is not None and isinstance(key, list):
            return [self.names.index(name) for name in key], False
        raise TypeError(f"it takes rows apart ({key!r}); columns are taken with x[:, i]")

    def __getattr__(self, name: str) -> Any:
        names = self.__dict__.get("names")
        if names and name in names:
            return self[name]
        raise AttributeError(f"{name} has no expression")

    def clip(self, low: Any = None, high: Any = None) -> Traced:
        """Return elements moved into [low, high]."""
        bounds = [None if bound is None else float(bound) for bound in (low, high)]
        return self.like(self.tensor.clip(*bounds))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Traced:
        """Return row sums."""
        return _reduce(self, "sum", axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Traced:
        """Return row means."""
        return _reduce(self, "mean", axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Traced:
        """Return the largest element of each row."""
        return _reduce(self, "max", axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Traced:
        """Return the smallest element of each row."""
        return _reduce(self, "min", axis, keepdims)

    def astype(self, dtype: Any, copy: bool = True) -> Traced:
        """Return the same numbers: here all are float64."""
        if np.dtype(dtype) != np.float64:
            raise TypeError(f"numbers as {np.dtype(dtype)}")
        return self.like(self.matrix())

    def to_numpy(self) -> Traced:
        """Return itself: it represents an array."""
        return Traced(self.tensor, None, self.column, self.boolean)

    def toarray(self) -> Traced:
        """Return itself: it represents the numbers of a sparse matrix."""
        return self.to_numpy()

    todense = toarray

    def copy(self) -> Traced:
        """Return itself: tensors do not change."""
        return self

    @property
    def values(self) -> Traced:
        """The same without column names."""
        return self.to_numpy()

    def reshape(self, *shape: Any) -> Traced:
        """Return one column as a matrix, or a matrix of one column as a column."""
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        if tuple(shape) == (-1, 1):
            return Traced(self.tensor, None, False, self.boolean)
        raise TypeError(f"reshape{tuple(shape)}")

    def __neg__(self) -> Traced:
        return self.like(-self.tensor)

    def __abs__(self) -> Traced:
        return self.like(self.tensor.abs())

    def __invert__(self) -> Traced:
        return self.like(~self.tensor, boolean=True)


def _operator(name: str, swapped: bool = False) -> Callable[[Traced, Any], Traced]:
    ufunc = getattr(np, name)
    if swapped:
        return lambda self, other: self.__array_ufunc__(ufunc, "__call__", other, self)
    return lambda self, other: self.__array_ufunc__(ufunc, "__call__", self, other)


for _symbol, _name in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "pow": "power",
    "mod": "remainder",
    "floordiv": "floor_divide",
}.items():
    setattr(Traced, f"__{_symbol}__", _operator(_name))
    setattr(Traced, f"__r{_symbol}__", _operator(_name, swapped=True))
for _symbol, _name in {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
    "and": "logical_and",
    "or": "logical_or",
}.items():
    setattr(Traced, f"__{_symbol}__", _operator(_name))


def _operand(value: Any, expression: Callable[..., Tensor]) -> Any:
    """Return an operand: tensors as they are, numbers as float64, an array along the columns."""
    if isinstance(value, Traced):
        return value.tensor if expression in _LOGICAL else value.matrix()
    array = np.asarray(value)
    if expression in _LOGICAL:
        return array.astype(bool)
    return array.astype(np.float64)


def _width(value: Traced, key: slice) -> int:
    if key.stop is not None and key.stop >= 0 and (key.start or 0) >= 0:
        return int(key.stop)
    if value.names is not None:
        return len(value.names)
    raise TypeError("columns counted from the end, of an unknown number; count them from the front")


def _reduce(value: Traced, name: str, axis: Any, keepdims: bool) -> Traced:
    if axis not in (1, -1):
        raise TypeError(f"{name} over all rows; only axis=1 keeps rows apart")
    return Traced(getattr(value.matrix(), name)(), None, not keepdims)


def _joined(parts: Any, **keywords: Any) -> Traced:
    if keywords.get("axis", 1) not in (1, -1):
        raise TypeError("rows joined to rows")
    return Traced(concat([part.matrix() for part in parts]))


def _chosen(condition: Traced, then: Any, otherwise: Any) -> Traced:
    plain = [
        value.matrix() if isinstance(value, Traced) else np.asarray(value, dtype=float) for value in (then, otherwise)
    ]
    return Traced(where(condition.tensor, *plain), None, condition.column)


def _nan_to_num(x: Traced, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Traced:
    largest = float(np.finfo(np.float64).max)
    high, low = largest if posinf is None else posinf, -largest if neginf is None else neginf
    tensor = x.matrix()
    infinite = tensor.op("IsInf")
    finite = where(infinite, where(tensor > 0.0, float(high), float(low)), tensor)
    return x.like(where(tensor.isnan(), float(nan), finite))


_UFUNCS: dict[str, Callable[..., Tensor]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "true_divide": lambda a, b: a / b,
    "floor_divide": elementwise.floor_divide,
    "remainder": elementwise.remainder,
    "power": elementwise.power,
    "float_power": elementwise.power,
    "maximum": lambda a, b: a.op("Max", b),
    "minimum": lambda a, b: a.op("Min", b),
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "equal": lambda a, b: a.equals(b),
    "not_equal": lambda a, b: ~a.equals(b),
    "logical_and": lambda a, b: a & b,
    "bitwise_and": lambda a, b: a & b,
    "logical_or": lambda a, b: a | b,
    "bitwise_or": lambda a, b: a | b,
    "logical_not": lambda a: ~a,
    "invert": lambda a: ~a,
    "isnan": lambda a: a.isnan(),
    "isinf": lambda a: a.op("IsInf"),
    "isfinite": lambda a: ~(a.isnan() | a.op("IsInf")),
    "negative": lambda a: -a,
    "positive": lambda a: a,
    "absolute": lambda a: a.abs(),
    "fabs": lambda a: a.abs(),
    "sign": lambda a: a.op("Sign"),
    "square": lambda a: a * a,
    "sqrt": lambda a: a.sqrt(),
    "cbrt": elementwise.cbrt,
    "reciprocal": lambda a: 1.0 / a,
    "exp": lambda a: a.exp(),
    "exp2": elementwise.exp2,
    "expm1": expm1,
    "log": lambda a: a.log(),
    "log1p": log1p,
    "log2": elementwise.log2,
    "log10": elementwise.log10,
    "sin": lambda a: a.op("Sin"),
    "cos": lambda a: a.op("Cos"),
    "tan": lambda a: a.op("Sin") / a.op("Cos"),
    "sinh": elementwise.sinh,
    "cosh": elementwise.cosh,
    "tanh": lambda a: a.op("Tanh"),
    "arcsinh": elementwise.arcsinh,
    "floor": lambda a: a.floor(),
    "ceil": lambda a: a.op("Ceil"),
    "trunc": lambda a: a.op("Sign") * a.abs().floor(),
    "rint": lambda a: a.op("Round"),
    "deg2rad": lambda a: a * (np.pi / 180.0),
    "radians": lambda a: a * (np.pi / 180.0),
    "rad2deg": lambda a: a * (180.0 / np.pi),
    "degrees": lambda a: a * (180.0 / np.pi),
    "hypot": lambda a, b: (a * a + a.graph.constant(b) * b).sqrt(),
    "erf": erf,
    "expit": expit,
    "ndtr": ndtr,
    "logit": lambda a: (a / (1.0 - a)).log(),
}
_BOOLEAN = {
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "equal",
    "not_equal",
    "logical_and",
    "bitwise_and",
    "logical_or",
    "bitwise_or",
    "logical_not",
    "invert",
    "isnan",
    "isinf",
    "isfinite",
}
_LOGICAL = [_UFUNCS[n] for n in ("logical_and", "bitwise_and", "logical_or", "bitwise_or", "logical_not", "invert")]
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "where": _chosen,
    "clip": lambda x, a_min=None, a_max=None, **b: x.clip(b.get("min", a_min), b.get("max", a_max)),
    "nan_to_num": _nan_to_num,
    "concatenate": lambda parts, axis=0: _joined(parts, axis=axis),
    "hstack": _joined,
    "column_stack": _joined,
    "stack": lambda parts, axis=0: _joined(parts, axis=axis),
    "sum": lambda x, axis=None, keepdims=False: x.sum(axis, keepdims),
    "mean": lambda x, axis=None, keepdims=False: x.mean(axis, keepdims),
    "max": lambda x, axis=None, keepdims=False: x.max(axis, keepdims),
    "amax": lambda x, axis=None, keepdims=False: x.max(axis, keepdims),
    "min": lambda x, axis=None, keepdims=False: x.min(axis, keepdims),
    "amin": lambda x, axis=None, keepdims=False: x.min(axis, keepdims),
    "round": lambda x, decimals=0: x.like(elementwise.round_to(x.tensor, decimals)),
    "reshape": lambda x, shape: x.reshape(*shape),
    "copy": lambda x: x,
}


def _function(rows: InputTensors, model: Any) -> OutputTensors:
    names = getattr(model, "feature_names_in_", None)
    return OutputTensors(transform=traced(rows.matrix, model, model.func, model.kw_args, names))
