"""Knows the rows of the sample that reach an estimator, for converters of models that keep hashes of what they saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from convert.model.arrays import Array
from convert.model.steps import before_last, hashed_columns

_known: dict[int, list[Array]] = {}


@contextmanager
def rows(model: Any, sample: Callable[[], Any]) -> Iterator[None]:
    """Make available to `values` what reaches the last step of `model`, if that step keeps hashes.

    `sample` returns the rows as `model` takes them."""
    steps, last = before_last(model)
    if columns := hashed_columns(last):
        reaching = sample()
        for step in steps:
            reaching = step.transform(reaching)
        _known[id(last)] = [_column(reaching, index) for index in columns]
    try:
        yield
    finally:
        _known.pop(id(last), None)


def values(model: Any) -> list[Array] | None:
    """Return the sample's values in each of an estimator's hashed columns, or None where that is not known."""
    return _known.get(id(model))


def _column(table: Any, index: int) -> Array:
    column = table.iloc[:, index] if isinstance(table, pd.DataFrame) else np.asarray(table)[:, index]
    return np.asarray(column, dtype=object)
