"""How far the answers of one output are from the original model's, and which rows are beyond the tolerance. Pure.

One rule for the proof of a conversion, the self-test and the probe of a running service: a number a may be
|a - b| <= absolute + relative * |b| from the original's b; NaN equals NaN; infinities, labels, whole numbers and
booleans must be the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.arrays import Array
from appliance.bundle.manifest import Output, Tolerance

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output beside the original's."""

    wrong: NDArray[np.bool_]
    """For each row, whether it is beyond the tolerance: a [rows] array."""
    largest_difference: float = 0.0
    """The largest |a - b| of any number; NaN or infinite where only one of the two is a finite number."""
    found: str = ""
    """Which row is worst and by how much, for a person; empty where none is wrong."""


@dataclass(frozen=True, slots=True)
class Distances:
    """How far numbers are from the original's, element by element; see `distances`."""

    difference: Floats
    """|a - b|; 0 where both are the same, NaN or infinite where only one of the two is a finite number."""
    allowed: Floats
    """The largest difference that passes."""
    excess: Floats
    """How far the difference is beyond what is allowed: an element passes unless this is above 0."""


def distances(a: Floats, b: Floats, tolerance: Tolerance) -> Distances:
    """Return how far the numbers `a` are from the original's `b`, both float64 of one shape: the rule of tolerance."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
        allowed = tolerance.absolute + tolerance.relative * np.abs(b)
        excess = np.where(same, -1.0, difference - allowed)
    # Where only one of the two is a finite number, they are infinitely far apart.
    excess = np.where(same | (np.isfinite(a) & np.isfinite(b)), excess, np.inf)
    return Distances(difference, allowed, excess)


def compare(output: Output, tolerance: Tolerance, answer: Array, expected: Array) -> Comparison:
    """Return how `answer` compares with `expected`, both of shape [rows, ...]."""
    if answer.shape != expected.shape:
        found = f"output {output.name!r} has shape {list(answer.shape)}, the original's has {list(expected.shape)}"
        return Comparison(np.ones(len(expected), bool), np.nan, found)
    if answer.dtype.kind != "f" or expected.dtype.kind != "f":
        return _exactly(output, answer, expected)
    return _numbers(output, tolerance, answer.astype(np.float64), expected.astype(np.float64))


def _exactly(output: Output, answer: Array, expected: Array) -> Comparison:
    """Compare element by element."""
    differs = np.atleast_1d(np.asarray(answer != expected))
    wrong = _rows(differs)
    if not wrong.any():
        return Comparison(wrong)
    place = np.unravel_index(int(np.argmax(differs)), differs.shape)
    found = (
        f"output {output.name!r} differs in {int(np.count_nonzero(wrong))} of {len(wrong)} rows; in row {place[0]} it "
        f"is {answer[place]!r} instead of {expected[place]!r}"
    )
    return Comparison(wrong, found=found)


def _numbers(output: Output, tolerance: Tolerance, a: Floats, b: Floats) -> Comparison:
    """Compare numbers within the tolerance."""
    far = distances(a, b, tolerance)
    wrong, largest = _rows(far.excess > 0), float(far.difference.max(initial=0.0))
    if not wrong.any():
        return Comparison(wrong, largest)
    place = np.unravel_index(int(np.argmax(far.excess)), far.excess.shape)
    found = (
        f"output {output.name!r} is {a[place]:.9g} instead of {b[place]:.9g} in row {place[0]}: a difference of "
        f"{abs(a[place] - b[place]):.3g}, {far.allowed[place]:.3g} is allowed"
    )
    return Comparison(wrong, largest, found)


def _rows(wrong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each row whether any of its elements is wrong."""
    any_of: NDArray[np.bool_] = np.any(wrong.reshape(len(wrong), -1), axis=1)
    return any_of
