"""Sums up the training sample and the original's answers to it, for drift to be seen against."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from appliance.bundle.baseline import (
    FORMAT,
    LEAST_COUNT,
    MOST_CATEGORIES,
    PROBABILITIES,
    Baseline,
    Categories,
    Column,
    Numbers,
)
from appliance.bundle.manifest import Label

_DISTINCT = 20  # whole numbers with at most so many values are categories: codes, levels, counts of a few


def of(frame: pd.DataFrame, answers: dict[str, Any], labels: list[Label]) -> Baseline:
    """Return the baseline of a sample and of the answers to it ({output name: array [rows, ...]})."""
    outputs: dict[str, Column] = {}
    for name, answer in answers.items():
        for column, values in _columns(name, np.asarray(answer), labels):
            outputs[column] = summary(values)
    return Baseline(
        format=FORMAT,
        rows=len(frame),
        probabilities=PROBABILITIES,
        inputs={str(name): summary(frame[name].to_numpy()) for name in frame.columns},
        outputs=outputs,
    )


def summary(values: Any) -> Column:
    """Return the summary of one column: numbers or categories."""
    missing = pd.isna(values)
    present = values[~missing]
    rate = min(1.0, _rounded(int(missing.sum())) / len(values)) if len(values) else 0.0
    whole = values.dtype.kind in "iu" and len(np.unique(present)) <= _DISTINCT
    return _numbers(present, rate) if values.dtype.kind in "iuf" and not whole else _categories(present, rate)


def _columns(name: str, answer: Any, labels: list[Label]) -> list[tuple[str, Any]]:
    """Return an output's columns with their names."""
    if answer.ndim == 1:
        return [(name, answer)]
    flat = answer.reshape(len(answer), -1)
    named = [str(label) for label in labels] if flat.shape[1] == len(labels) else None
    return [(f"{name}[{named[i] if named else i}]", flat[:, i]) for i in range(flat.shape[1])]


def _numbers(present: Any, missing: float) -> Numbers:
    finite = present[np.isfinite(present)].astype("float64")
    if len(finite) < 2 * LEAST_COUNT:
        return Numbers(missing, [], None, None)
    # So many values lie at each quantile or beyond it: nearer to the end it would tell of single rows.
    least = (LEAST_COUNT - 1) / (len(finite) - 1)
    quantiles = [float(value) for value in np.quantile(finite, np.clip(PROBABILITIES, least, 1 - least))]
    return Numbers(missing, quantiles, float(finite.mean()), float(finite.std()))


def _categories(present: Any, missing: float) -> Categories:
    counts = Counter(_text(value) for value in present.tolist())
    shown = {text: count for text, count in sorted(counts.items()) if count >= LEAST_COUNT}
    kept = sorted(shown, key=lambda text: (-shown[text], text))[:MOST_CATEGORIES]
    others = len(present) - sum(shown[text] for text in kept)
    return Categories(missing, {text: _rounded(shown[text]) for text in sorted(kept)}, _rounded(others))


def _rounded(count: int) -> int:
    """Return a count to the nearest multiple of LEAST_COUNT, so that no smaller one can be found by subtraction."""
    return (count + LEAST_COUNT // 2) // LEAST_COUNT * LEAST_COUNT


def _text(value: Any) -> str:
    """Return a category as JSON spells it: a boolean as true, a text as it is."""
    return str(value).lower() if isinstance(value, bool) else str(value)
