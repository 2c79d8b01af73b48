"""Summarizes the sample and the original's answers to it: the reference that drift is measured against."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from appliance.bundle.baseline import (
    FORMAT,
    LEAST_COUNT,
    MOST_CATEGORIES,
    PROBABILITIES,
    Baseline,
    CalibrationBin,
    Categories,
    Column,
    Conformal,
    Numbers,
    column_names,
)
from appliance.bundle.manifest import Label
from appliance.inference import binning
from convert.model.arrays import Array

_DISTINCT = 20  # whole numbers with at most this many values count as categories: codes, levels, small counts
_FENCE = 1.5  # times the distance of the outermost quantiles: how far beyond them a fence stands
_NORMAL_SPREAD = 4.65  # deviations between the 1 % and the 99 % quantile of a normal distribution
_ROUNDING = 1e-5  # relative: by which a graph's answer may differ from the original's
_BINS = 10  # of the calibration


def of(
    frame: pd.DataFrame,
    answers: dict[str, Any],
    labels: list[Label],
    types: Mapping[str, str] | None = None,
    *,
    unseen: bool = False,
    calibration: Sequence[CalibrationBin] = (),
    conformal: Conformal | None = None,
) -> Baseline:
    """Return the baseline of a sample and of the answers to it ({output name: array [rows, ...]}).

    `types` are {column or output: the type of its tensor}: rows arrive on the device in that type, so edges and counts
    are made in it. `unseen` says that the model was not trained on the sample.
    """
    types = types or {}
    names = [str(label) for label in labels]
    outputs: dict[str, Column] = {}
    for name, answer in answers.items():
        for column, values in _columns(name, np.asarray(answer), names):
            outputs[column] = summary(values, types.get(name, ""))
    return Baseline(
        format=FORMAT,
        rows=len(frame),
        probabilities=PROBABILITIES,
        inputs={str(name): summary(frame[name].to_numpy(), types.get(str(name), "")) for name in frame.columns},
        outputs=outputs,
        unseen=unseen,
        calibration=list(calibration),
        conformal=conformal,
    )


def summary(values: Any, type_: str = "") -> Column:
    """Return the summary of one column [rows] as numbers or categories; `type_` is that of its tensor."""
    missing = pd.isna(values)
    present = values[~missing]
    rate = min(1.0, _rounded(int(missing.sum())) / len(values)) if len(values) else 0.0
    whole = values.dtype.kind in "iu" and len(np.unique(present)) <= _DISTINCT
    return _numbers(present, rate, type_) if values.dtype.kind in "iuf" and not whole else _categories(present, rate)


def calibration(probability: Array, truth: NDArray[np.int64]) -> list[CalibrationBin]:
    """Return bins of about equal counts of the top probability of unseen rows, ascending; none for too few rows.

    `probability` is [rows, labels], `truth` [rows] the number of each row's true label, -1 for a label that the model
    does not know.
    """
    top = probability.max(axis=1)
    right = probability.argmax(axis=1) == truth
    if len(top) < _BINS * LEAST_COUNT:
        return []
    bounds = np.unique(np.quantile(top, np.linspace(0, 1, _BINS + 1)[1:]))
    bin_of = np.minimum(np.searchsorted(bounds, top), len(bounds) - 1)
    found = []
    for index, bound in enumerate(bounds):
        own = bin_of == index
        if own.sum() >= LEAST_COUNT:
            rows = _rounded(int(own.sum()))
            share = min(1.0, _rounded(int(right[own].sum())) / rows)
            found.append(CalibrationBin(min(1.0, float(bound)), min(1.0, float(top[own].mean())), share, rows))
    return found


def conformal(score: str, errors: Array, level: float = 0.9) -> Conformal | None:
    """Return the quantiles of errors [rows, columns] on unseen rows; None where the rows are too few for them.

    The quantile is the ceil((rows + 1) level)-th smallest error: new rows of the same kind stay within it with a
    probability of at least `level` (Angelopoulos and Bates 2021, section 1).
    """
    rows = len(errors)
    place = int(np.ceil((rows + 1) * level))
    if rows - place < LEAST_COUNT or not np.isfinite(errors).all():
        return None
    quantiles = np.sort(errors, axis=0)[place - 1]
    kind: Any = score
    return Conformal(kind, level, _rounded(rows), [float(max(0.0, one)) for one in quantiles])


def _columns(name: str, answer: Any, labels: list[str]) -> list[tuple[str, Any]]:
    """Return an output's columns with their names."""
    names = column_names(name, list(answer.shape), labels)
    flat = answer.reshape(len(answer), -1)
    return [(column, flat[:, index]) for index, column in enumerate(names)]


def _numbers(present: Any, missing: float, type_: str) -> Numbers:
    finite = present[np.isfinite(present)]
    if len(finite) < 2 * LEAST_COUNT:
        return Numbers(missing, [], None, None)
    wide = finite.astype("float64")
    # So many values lie at each quantile or beyond it: nearer to the end it would tell of single rows.
    least = (LEAST_COUNT - 1) / (len(wide) - 1)
    quantiles = np.quantile(wide, np.clip(PROBABILITIES, least, 1 - least))
    mean, deviation = float(wide.mean()), float(wide.std())
    # As they arrive on the device; what an integer tensor holds, float64 holds here.
    rows = finite.astype(type_) if type_.startswith("float") else wide
    rows = rows[np.isfinite(rows)]
    limits = np.finfo(rows.dtype)
    wanted = np.clip(quantiles, float(limits.min), float(limits.max))
    low, high = fences(wanted, deviation, rows.dtype)
    wanted = np.array([low, *wanted, high])
    edges = binning.edges_between(np.sort(rows), wanted)
    bins = np.searchsorted(np.array(edges, rows.dtype), rows)
    counts = np.bincount(bins, minlength=len(edges) + 1)
    design = binning.design_effect(binning.consecutive(bins, len(edges) + 1))
    rounded = [_rounded(int(count)) for count in counts]
    return Numbers(missing, [float(one) for one in quantiles], mean, deviation, edges, rounded, round(design, 3))


def fences(quantiles: Array, deviation: float, dtype: Any) -> tuple[float, float]:
    """Return the fences around a column in its dtype: 1.5 times the distance of its outermost quantiles beyond them.

    Where these coincide, most rows hold one value; the deviation then says how far the others lie. A constant column
    has them where rounding ends.
    """
    first, last = dtype.type(quantiles[0]), dtype.type(quantiles[-1])
    reach = _FENCE * (float(quantiles[-1] - quantiles[0]) or _NORMAL_SPREAD * deviation) or _ROUNDING * abs(first)
    with np.errstate(over="ignore"):
        low, high = dtype.type(float(quantiles[0]) - reach), dtype.type(float(quantiles[-1]) + reach)
        low = low if low < first else np.nextafter(first, dtype.type(-np.inf))
        high = high if high > last else np.nextafter(last, dtype.type(np.inf))
    limits = np.finfo(dtype)
    return max(float(low), float(limits.min)), min(float(high), float(limits.max))


def _categories(present: Any, missing: float) -> Categories:
    texts = [_text(value) for value in present.tolist()]
    counts = Counter(texts)
    shown = {text: count for text, count in sorted(counts.items()) if count >= LEAST_COUNT}
    kept = sorted(shown, key=lambda text: (-shown[text], text))[:MOST_CATEGORIES]
    others = len(present) - sum(shown[text] for text in kept)
    number = {text: index for index, text in enumerate(kept)}
    bins = np.array([number.get(text, len(kept)) for text in texts], np.int64)
    design = binning.design_effect(binning.consecutive(bins, len(kept) + 1))
    return Categories(
        missing, {text: _rounded(shown[text]) for text in sorted(kept)}, _rounded(others), round(design, 3)
    )


def _rounded(count: int) -> int:
    """Round a count to a multiple of LEAST_COUNT: then no smaller count can be computed by subtraction."""
    return (count + LEAST_COUNT // 2) // LEAST_COUNT * LEAST_COUNT


def _text(value: Any) -> str:
    """Return a category as JSON spells it: a boolean as true, a text as it is."""
    return str(value).lower() if isinstance(value, bool) else str(value)
