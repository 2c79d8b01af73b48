"""The rows on which float32 inputs lose most: numbers halfway between two float32, and a search among them."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from appliance.bundle.manifest import Tolerance
from convert.model.original import Original
from convert.model.schema import Limits, Schema
from convert.proof import differences
from convert.proof.candidate import Candidate
from convert.proof.rows import DRAWN_ROWS, MOST_CELLS, SEED, Batch

_NOISE = 0.3  # of a column's deviation
_HALF = 0.5 - 2.0**-20  # of the way to the neighbour; at exactly half, rounding takes the even one
_LARGEST = float(np.finfo(np.float32).max)
_TURNS = 6
_KEPT = 32
_VARIED = 16  # of each row kept

Floats = NDArray[np.float64]


def search(original: Original, candidate: Candidate, limits: Limits, tolerance: Tolerance) -> list[Batch]:
    """Return rows around the sample halfway between float32 numbers, and the worst of such rows, found by a search.

    Readings of few digits are often near to a float32, and so rarely show how much a row may lose. The loss is largest
    where the errors of several columns add up in an answer near 0. So the rows that take the largest share of
    `tolerance` are varied again and again, and the worst are kept (an evolution strategy: Beyer and Schwefel 2002). The
    search ends when the original or the graph refuses a row.
    """
    rng = np.random.default_rng(SEED)
    columns = _columns(original.schema, limits)
    if not columns:
        return []
    sample = original.schema.frame
    count = max(50, min(2 * DRAWN_ROWS, MOST_CELLS // len(sample.columns)))
    rows = sample.iloc[rng.integers(0, len(sample), count)].reset_index(drop=True)
    rows = _varied(rows, sample, columns, _NOISE, rng)
    drawn = "numbers of the sample, or moved by a third of their deviation, each almost halfway to the next float32"
    batches = [Batch("float32 halfway", drawn, rows)]
    try:
        for turn in range(_TURNS):
            best = rows.iloc[np.argsort(-_shares(original, candidate, limits, tolerance, rows), kind="stable")[:_KEPT]]
            again = best.iloc[np.repeat(np.arange(len(best)), _VARIED)].reset_index(drop=True)
            rows = pd.concat([best, _varied(again, sample, columns, _NOISE / 2**turn, rng)], ignore_index=True)
    except Exception:  # noqa: BLE001 - a model is other people's code: what it raises is its refusal
        return batches
    return [*batches, Batch("float32 search", "the costliest of such rows, varied over and over", rows)]


def _columns(schema: Schema, limits: Limits) -> list[str]:
    """Return the columns that float32 inputs round."""
    floats = (c.name for c in schema.columns if c.kind == "float" and not c.levels and c.name not in limits.categories)
    return [name for name in floats if schema.frame[name].dtype == np.float64]


def _varied(
    rows: pd.DataFrame, sample: pd.DataFrame, columns: list[str], noise: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Return rows of which half of the numbers are moved by `noise` of their column's deviation; see `_halfway`."""
    moved = {}
    for name in columns:
        known, values = sample[name].to_numpy(), rows[name].to_numpy()
        finite = known[np.isfinite(known)]
        near = values + rng.normal(0.0, noise * (float(finite.std()) if len(finite) else 0.0), len(values))
        near = np.abs(near) if (finite >= 0).all() else near
        near = np.where(rng.random(len(values)) < 0.5, near, values)
        # Zeros stay 0: columns of counts and flags have them, and some models take no negative numbers.
        kept = ~np.isfinite(values) | (values == 0) | (np.abs(near) >= _LARGEST)
        moved[name] = pd.Series(np.where(kept, values, _halfway(near, rng)))
    return rows.assign(**moved)


def _halfway(values: Floats, rng: np.random.Generator) -> Floats:
    """Return the numbers moved almost halfway from their nearest float32 to one of its neighbours, as drawn."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32)
        towards = np.where(rng.random(len(values)) < 0.5, -np.inf, np.inf).astype(np.float32)
        return np.asarray(single + _HALF * (np.nextafter(single, towards).astype(np.float64) - single))


def _shares(
    original: Original, candidate: Candidate, limits: Limits, tolerance: Tolerance, rows: pd.DataFrame
) -> Floats:
    """Return for each row how much of the tolerance its farthest number takes."""
    expected, found = original.answers(rows), candidate.answers(rows, limits)
    share = np.zeros(len(rows))
    for name, answer in expected.items():
        if answer.dtype.kind == "f":
            share = np.maximum(share, differences.numbers(answer, found[name], tolerance).share)
    return share
