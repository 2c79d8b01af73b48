"""Tensors as Open Inference writes them in JSON: its datatype names, shapes and values. Pure.

Source: the Open Inference Protocol (REST), "Tensor Data".
"""

import math
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar

import msgspec

from appliance.arrays import Array
from appliance.errors import InvalidInput
from appliance.inference.values import Scalar, from_values, quoted

V = TypeVar("V")
Parameters = dict[str, Scalar]

DATATYPES = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FP16": "float16", "FP32": "float32",
    "FP64": "float64", "BYTES": "string",
}  # fmt: skip
"""Open Inference's datatype -> the manifest's type."""
NAMES = {kind: name for name, kind in DATATYPES.items()}
"""The manifest's type -> Open Inference's datatype."""

MAX_RANK = 8
"""Dimensions of a tensor at most."""
_LARGEST = 2**63 - 1  # elements


class InferInputOf(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """One tensor; `data` row-major, flat or as rows, absent when its bytes follow (`binary_data_size`)."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[V | list[V]] | None = None


def elements(name: str, shape: Sequence[int]) -> int:
    """Return how many elements a tensor of `shape` has. Raises InvalidInput for what can be no shape, or is empty."""
    count = math.prod(shape) if len(shape) <= MAX_RANK else 0
    if not 0 < count <= _LARGEST or (shape and min(shape) < 1):
        found = f"its shape is [{', '.join(map(quoted, shape[:MAX_RANK]))}]"
        next_step = f"send at most {MAX_RANK} sizes, each 1 or more"
        raise InvalidInput(f"read the tensor {quoted(name)}", found, next_step)
    return count


def check_tensor(tensor: InferInputOf[Any], before: Container[str]) -> None:
    """Raise InvalidInput for an invalid tensor, before anything is made of its shape.

    `before` holds the names of the request's tensors so far.
    """
    if tensor.name in before:
        raise InvalidInput(f"read the tensor {quoted(tensor.name)}", "it is sent twice", "send each input once")
    if tensor.datatype not in DATATYPES:
        found = f"datatype {quoted(tensor.datatype)} is unknown"
        raise InvalidInput(f"read the tensor {quoted(tensor.name)}", found, f"send one of {', '.join(DATATYPES)}")
    elements(tensor.name, tensor.shape)


def checked(inputs: Iterable[InferInputOf[V]]) -> Iterator[InferInputOf[V]]:
    """Yield a request's tensors, each after check_tensor, so that an array is made of sound ones alone.

    Raises InvalidInput.
    """
    names: set[str] = set()
    for tensor in inputs:
        check_tensor(tensor, names)
        names.add(tensor.name)
        yield tensor


def from_json(tensor: InferInputOf[Any], typed: bool) -> Array:
    """Return the array of a tensor whose data is in JSON, flat or nested as its shape says."""
    values = tensor.data
    if values is None:
        tried = f"read the tensor {quoted(tensor.name)}"
        raise InvalidInput(tried, "it has no data", "send data, or its bytes with binary_data_size")
    count = elements(tensor.name, tensor.shape)
    if values and isinstance(values[0], list):
        values = _flat(tensor, values)
    if len(values) != count:
        found = f"shape {tensor.shape} has {count} values, {len(values)} were sent"
        tried = f"read the tensor {quoted(tensor.name)}"
        raise InvalidInput(tried, found, "send as many values as the shape has")
    kind = DATATYPES[tensor.datatype]
    return from_values(tensor.name, kind, values, typed=typed).reshape(tensor.shape)


def _flat(tensor: InferInputOf[Any], rows: Sequence[Any]) -> list[Any]:
    """Return nested data flat; a nesting that disagrees with the shape would put values in the wrong columns."""
    widths = {len(row) if isinstance(row, list) else -1 for row in rows}
    nested = [size for size in (len(rows), min(widths)) if size != 1]
    if len(widths) != 1 or nested != [size for size in tensor.shape if size != 1]:
        found = f"its data is not nested as its shape {tensor.shape}"
        raise InvalidInput(f"read the tensor {quoted(tensor.name)}", found, "nest it so, or send it flat")
    return list(chain.from_iterable(rows))
