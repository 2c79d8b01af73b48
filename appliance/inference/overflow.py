"""Answers that left the range of their numbers: one rule for every listener and form. Pure.

A row of finite numbers whose answer is infinite was too large for the graph's arithmetic, most often float32's: that
is no answer. JSON would say null for it and a binary tensor Infinity. A row that holds infinity, or lacks a value, may
have any answer; and outputs that are neither prediction nor probability may be NaN, which JSON says as null.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.arrays import Array
from appliance.bundle.manifest import Output
from appliance.errors import InvalidInput
from appliance.inference.values import all_finite

_NEVER_NAN = ("prediction", "probability")


def check_overflow(
    outputs: Sequence[Output], names: Sequence[str], answers: Sequence[Array], feeds: Mapping[str, Array]
) -> bool:
    """Return whether every number of the answers is known to be finite.

    Raises InvalidInput where one is infinite (a prediction or probability: or NaN) for a row of finite numbers.
    `answers` are the arrays [rows, ...] of the outputs `names`; `feeds` is {input name: array [rows, ...]}.
    """
    finite = True
    for name, array in zip(names, answers, strict=True):
        if array.dtype.kind == "f" and not all_finite(array):
            finite = False
            _check(next(output for output in outputs if output.name == name), np.atleast_1d(array), feeds)
    return finite


def _check(output: Output, array: Array, feeds: Mapping[str, Array]) -> None:
    """Raise InvalidInput for the first row of one output that overflowed."""
    bad = ~_rows(np.isfinite(array)) if output.role in _NEVER_NAN else ~_rows(~np.isinf(array))
    if not bad.any():  # only the sum was too large
        return
    for feed in feeds.values():
        if feed.dtype.kind == "f" and len(feed) == len(bad):
            bad &= _rows(np.isfinite(feed))
    if bad.any():
        row = int(np.argmax(bad))
        found = f"the answer {output.name!r} to row {row} is infinite or no number: {output.type} cannot hold it"
        raise InvalidInput("run the model", found, "send numbers in the range of the training data")


def _rows(good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return of each row whether all of it is good."""
    whole: Any = good.reshape(len(good), -1).all(axis=1)
    flat: NDArray[np.bool_] = whole
    return flat
