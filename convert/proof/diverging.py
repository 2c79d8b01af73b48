"""Finds the step of a pipeline from which a graph's answers differ, and what both sides have after it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from appliance.bundle.manifest import Tolerance
from convert.model.arrays import Array
from convert.model.original import Original
from convert.model.schema import Limits
from convert.proof import differences
from convert.proof.candidate import Candidate
from convert.proof.certificate import Diverged

_INNER = ("best_estimator_", "regressor_")  # where searches and target transformers hold the pipeline
_MOST_STEPS = 16
_VALUES_SHOWN = 4

Convert = Callable[[Original], Candidate]
"""Makes the graph of a part of the model, as the whole one was made; raises where it cannot."""


def first_step(
    original: Original, convert: Convert, limits: Limits, tolerance: Tolerance, row: pd.DataFrame
) -> Diverged | None:
    """Return the first step after which both sides differ for `row`, one row that is off; None where no step is known.

    The steps up to each one, the last left out, are converted by themselves and asked the row. One that cannot be
    converted alone is passed over. Where both sides agree after all of them, the last step is the one.
    """
    pipeline = _pipeline(original.model)
    if pipeline is None:
        return None
    steps = [(name, step) for name, step in pipeline.steps if not _passes(step)]
    compared = 0
    for count, (name, step) in list(enumerate(steps[:-1], 1))[:_MOST_STEPS]:
        sides = _after(Pipeline(steps[:count]), original, convert, limits, row)
        if sides is None:
            continue
        compared += 1
        apart = np.flatnonzero(_apart(*sides, tolerance))
        if len(apart):
            path = "__".join([name, *_part(step, int(apart[0]))])
            expected, found = (_shown(side, apart) for side in sides)
            return Diverged(path, type(step).__name__, expected, found, _places(apart))
    if not compared:
        return None
    name, step = steps[-1]
    return Diverged(name, type(step).__name__, [], [], [])


def _pipeline(model: Any) -> Pipeline | None:
    """Return the pipeline that a model is, or that a search or a target's transformer holds; None for any other."""
    while not isinstance(model, Pipeline):
        inner = next((getattr(model, name) for name in _INNER if hasattr(model, name)), None)
        if inner is None:
            return None
        model = inner
    return model


def _passes(step: Any) -> bool:
    return step is None or (isinstance(step, str) and step == "passthrough")


def _after(
    part: Pipeline, original: Original, convert: Convert, limits: Limits, row: pd.DataFrame
) -> tuple[Array, Array] | None:
    """Return what the original and a graph of its own have for a row after some of the steps, each [values].

    None where these steps cannot be converted, or asked, by themselves: that says nothing about them.
    """
    try:
        alone = Original(part, original.schema)
        (expected,) = alone.answers(row).values()
        (found,) = convert(alone).answers(row, limits).values()
    except Exception:  # noqa: BLE001 - a model is other people's code, and converters raise every kind there is
        return None
    return np.ravel(expected), np.ravel(found)


def _apart(expected: Array, found: Array, tolerance: Tolerance) -> Array:
    """Return which values differ: numbers beyond the tolerance, texts that are not the same."""
    if expected.shape != found.shape:
        return np.ones(max(len(expected), len(found)), dtype=bool)
    if expected.dtype.kind in "OUSb":
        return differences.labels(expected, found).off
    return differences.numbers(expected, found, tolerance).off


def _part(step: Any, value: int) -> Iterator[str]:
    """Yield the name of the part of a ColumnTransformer that makes its value at this position."""
    if isinstance(step, ColumnTransformer):
        for name, made in step.output_indices_.items():
            if made.start <= value < made.stop:
                yield name
                return


def _shown(side: Array, apart: Array) -> list[Any]:
    plain = (value.item() if isinstance(value, np.generic) else value for value in side[apart[:_VALUES_SHOWN]])
    return [None if value is None or value != value else value for value in plain]


def _places(apart: Array) -> list[int]:
    return [int(place) for place in apart[:_VALUES_SHOWN]]
