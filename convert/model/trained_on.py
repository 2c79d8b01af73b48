"""Knows what a fitted model tells of its columns' values: which were texts, and how a missing one was written."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.impute import MissingIndicator, SimpleImputer

from convert.model.steps import walk


def text_columns(model: Any, count: int) -> set[int]:
    """Return the positions, among `count` columns, of those in which the model knows texts alone."""
    found: set[int] = set()
    for step in walk(model, count):
        if isinstance(step.estimator, CountVectorizer | HashingVectorizer):
            found.update(step.columns or ())
    for position, values in known_values(model, count):
        present = [value for value in values if not pd.isna(value)]
        if position is not None and present and all(isinstance(value, str) for value in present):
            found.add(position)
    return found


def nulls(model: Any, count: int) -> tuple[dict[int, list[Any]], list[Any]]:
    """Return the missing values that the model knows, as None, NaN or NA: of each column, and of all its encoders."""
    columns: dict[int, list[Any]] = {}
    every: list[Any] = []
    for position, values in known_values(model, count):
        gaps = [value for value in values if pd.isna(value)]
        every += gaps
        if position is not None and gaps:
            columns.setdefault(position, []).extend(gaps)
    for step in walk(model, count):
        if isinstance(step.estimator, SimpleImputer | MissingIndicator) and pd.isna(step.estimator.missing_values):
            for position in step.columns or ():
                columns.setdefault(position, [step.estimator.missing_values])
    return columns, every


def known_values(model: Any, count: int) -> Iterator[tuple[int | None, Iterable[Any]]]:
    """Yield values that parts of the model know, with the position of their column among `count`, None where unclear.

    They are encoders' categories, and the texts that imputers fill in.
    """
    for step in walk(model, count):
        for index, values in enumerate(_lists(step.estimator)):
            yield (step.columns[index] if step.columns and index < len(step.columns) else None), values


def _lists(estimator: Any) -> list[Iterable[Any]]:
    if isinstance(estimator, SimpleImputer):
        return [[value] if isinstance(value, str) else [] for value in estimator.statistics_]
    listed = getattr(estimator, "categories_", None)
    return listed if isinstance(listed, list) else []
