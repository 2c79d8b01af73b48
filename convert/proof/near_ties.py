"""Where a graph differs from the original, asks the original again with its inputs moved by one rounding.

If one rounding (ULP) of its inputs changes the original's own answer, the graph need not give exactly that answer.
Examples are a label at a decision boundary, and a difference of two large numbers that leaves only rounding errors.
"""

from typing import Any

import numpy as np
import pandas as pd

from convert.model.arrays import Array
from convert.model.schema import Limits
from convert.proof.rows import SEED

MOST_ROWS = 2_000
"""At most this many rows may be near-ties; where more differ, something else is wrong."""
_TURNS = 16
_WIDER_ULPS = (2, 3, 4)
_WIDER_TURNS = 8
_DRAWN = 1e-12
"""Probabilities this near are equal except for rounding: Gaussian processes add terms of some thousands to get them."""


def moved(frame: pd.DataFrame, limits: Limits) -> list[pd.DataFrame]:
    """Return copies of the rows, each float moved to the float64 above or below: all up, all down, then mixed."""
    return [_moved(frame, limits, 1, turn) for turn in range(_TURNS)]


def moved_wider_ulp(frame: pd.DataFrame, limits: Limits) -> list[pd.DataFrame]:
    """Return copies of the rows, each float moved by two, three, then four float64.

    One step gives few different roundings where a single column is large.
    """
    return [_moved(frame, limits, ulps, turn) for ulps in _WIDER_ULPS for turn in range(_WIDER_TURNS)]


def _moved(frame: pd.DataFrame, limits: Limits, ulps: int, turn: int) -> pd.DataFrame:
    """Return the rows with each float moved by so many float64: up in turn 0, down in turn 1, then either way.

    Infinity stays, since no number rounds to it. 0 stays, since some models refuse negative numbers.
    """
    rng = np.random.default_rng((SEED, ulps, turn))
    names = [name for name in frame if frame[name].dtype.kind == "f" and name not in limits.categories]
    share = {0: 1.0, 1: 0.0}.get(turn, 0.5)
    ways = np.where(rng.random((len(names), len(frame))) < share, np.inf, -np.inf)
    columns = {}
    for name, way in zip(names, ways, strict=True):
        values = frame[name].to_numpy()
        for _ in range(ulps):
            values = np.where(np.isinf(values) | (values == 0), values, np.nextafter(values, way.astype(values.dtype)))
        columns[name] = pd.Series(values, index=frame.index)
    return frame.assign(**columns)


def as_float32(frame: pd.DataFrame, limits: Limits) -> pd.DataFrame:
    """Return the rows as float32 inputs hold them: each float64 rounded to float32."""
    names = [n for n in frame if frame[n].dtype == np.float64 and n not in limits.categories]
    with np.errstate(over="ignore"):
        return frame.assign(**{name: frame[name].astype("float32").astype("float64") for name in names})


def nearest(found: Array, expected: Array, around: list[Array]) -> Array:
    """Return the numbers nearest to `found` in the range that the original's answers span: `expected`, and `around`.

    The range is widened by its own width on either side: a few answers do not show all that rounding may do, and a
    graph that adds in another order rounds in its own way. NaN and infinity match only the same value in one of the
    answers.
    """
    if found.dtype.kind not in "fiub":
        return expected
    low, high = np.full(expected.shape, np.inf), np.full(expected.shape, -np.inf)
    same = np.zeros(expected.shape, dtype=bool)
    for answer in (expected, *around):
        finite = np.isfinite(answer)
        low = np.minimum(low, np.where(finite, answer, np.inf))
        high = np.maximum(high, np.where(finite, answer, -np.inf))
        same |= (answer == found) | (np.isnan(answer) & np.isnan(found))
    ranged = (low <= high) & np.isfinite(found)
    with np.errstate(over="ignore"):
        reach = np.where(ranged & np.isfinite(high - low), high - low, 0.0)
        clipped = np.clip(found, low - reach, high + reach)
    return np.asarray(np.where(same, found, np.where(ranged, clipped, expected)))


def drawn(own: Array, given: Array, labels: list[Any], shares: Array) -> Array:
    """Return where rounding decides the label: the original's probabilities of both labels differ by rounding alone.

    `own` and `given` are the original's and the graph's label of each row, of `labels`; `shares` the original's
    probabilities [rows, labels].
    """
    columns = {label: column for column, label in enumerate(labels)}
    mine, other = (np.array([columns.get(label, -1) for label in side.tolist()], dtype=int) for side in (own, given))
    rows = np.arange(len(own))
    apart = np.abs(shares[rows, mine] - shares[rows, other])
    return np.asarray((apart <= _DRAWN) & (mine >= 0) & (other >= 0))
