"""An output as JSON, of a large one part by part, and the memory that it takes at most. Pure."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from appliance.arrays import Array
from appliance.bundle.manifest import Output
from appliance.inference.values import to_values

NUMBER = 25
"""Bytes of a number in JSON, with its comma, at most."""
TEXT = 64
"""Bytes of a text that an output gives, for which nothing is known."""
COPIES = 3
"""Times that an answer in JSON lies in memory at most: as parts, put together, and on its way to the socket."""
LARGE = 16384
"""Values of an output from which on it becomes JSON in parts of so many."""

_encode_json = msgspec.json.Encoder().encode


def as_json(array: Array, values: Callable[[Array], list[Any]] = to_values) -> Any:
    """Return an output as `values` has it, in JSON; of a large one never more than a part is plain values at once.

    So no other request waits long for Python's one running thread, and memory is that of the JSON.
    """
    width = math.prod(array.shape[1:])
    step = max(1, LARGE // max(1, width))
    parts = [b"["]
    for first in range(0, len(array), step):
        if first:
            parts.append(b",")
        parts.append(_encode_json(values(array[first : first + step]))[1:-1])
    parts.append(b"]")
    return msgspec.Raw(b"".join(parts))


def output_bytes(output: Output, *, binary: bool = False) -> int:
    """Return the memory that one row of an output takes at most, as the graph gives it and as it is answered."""
    values = math.prod(size for size in output.shape[1:] if size > 0)
    if output.type == "string":
        return values * (2 * TEXT if binary else COPIES * TEXT)
    itemsize = np.dtype(output.type).itemsize
    return values * (4 * itemsize if binary else itemsize + COPIES * NUMBER)
