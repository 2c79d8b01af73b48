"""Knows how far two answers are apart: labels that differ; numbers by their absolute, relative and ULP difference."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import Tolerance
from appliance.inference.comparison import distances
from convert.model.arrays import Mask


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a graph's answer is from the original's.

    `off` (bool [rows]) are the rows that do not pass; `share` (float [rows]) is how much of the tolerance a row's
    farthest number takes, infinite for a label that differs. `ulp` counts units in the last place of the larger number,
    in the type that the graph answers in (Goldberg 1991): at most 2^53, whatever lies on either side of zero.
    """

    off: Mask
    share: NDArray[np.float64]
    flips: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    ulp: float = 0.0


def labels(expected: Any, found: Any) -> Difference:
    """Return how far labels, texts or whole numbers are apart: equal or not."""
    off = _by_row(_plain(expected) != _plain(found)).any(axis=1)
    return Difference(off, np.where(off, np.inf, 0.0), flips=int(off.sum()))


def numbers(expected: Any, found: Any, tolerance: Tolerance) -> Difference:
    """Return how far numbers are apart, by the device's own rule: NaN equals NaN, and an infinity itself."""
    if found.dtype.kind not in "fiub":
        off = np.ones(len(expected), dtype=bool)
        return Difference(off, np.full(len(off), np.inf), 0, np.inf, np.inf, np.inf)
    own = found.dtype if found.dtype.kind == "f" else np.dtype("float64")
    expected, found = expected.astype("float64"), found.astype("float64")
    far = distances(found, expected, tolerance)
    absolute = np.where(np.isnan(far.difference), np.inf, far.difference)
    apart = absolute > 0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        relative = np.where(apart & (expected != 0), absolute / np.abs(expected), 0.0)
        share = np.where(apart, absolute / far.allowed, 0.0)
        ulp = np.where(apart, absolute / _last_place(expected, found, own), 0.0)
    off = _by_row(far.excess > 0).any(axis=1)
    farthest = _by_row(np.where(np.isnan(share), np.inf, share)).max(axis=1, initial=0.0)
    largest = (float(np.nanmax(part, initial=0.0)) for part in (absolute, relative, ulp))
    return Difference(off, farthest, 0, *largest)


def _last_place(one: Any, other: Any, dtype: Any) -> Any:
    """Return the unit in the last place of the larger of two numbers in `dtype`."""
    larger = np.maximum(np.abs(one), np.abs(other)).astype(dtype)
    return np.abs(np.spacing(larger)).astype("float64")


def _plain(answer: Any) -> Any:
    """Return labels in a dtype that compares by value."""
    return answer.astype(str) if answer.dtype.kind in "OUS" else answer


def _by_row(values: Any) -> Any:
    return np.asarray(values).reshape(len(values), -1)
