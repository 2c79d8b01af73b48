"""Knows the values of a column that a step may treat specially, whether or not the sample holds them.

Examples: what an imputer fills in or takes as missing, a scaler's centre and limits, the edges of bins, the knots of
splines, an encoder's categories, and the numbers written in a function.
"""

import warnings
from collections.abc import Iterator
from types import CodeType
from typing import Any

import numpy as np
from sklearn.preprocessing import FunctionTransformer

from convert.model.original import Original
from convert.model.steps import Step, walk

MOST_VALUES = 128  # of one column, beside those of every column
_MOST_CONSTANTS = 32
_ONE_EACH = ("statistics_", "mean_", "center_", "data_min_", "data_max_", "max_abs_")  # a number for each column
_SEVERAL_EACH = ("categories_", "bin_edges_")  # an array for each column
_OF_ALL = ("missing_values", "missing", "fill_value", "threshold", "X_thresholds_")  # for every column alike


def of(original: Original) -> dict[str, list[Any]]:
    """Return {column: values}, numbers and texts, each once, at most MOST_VALUES of them."""
    names = _names(original)
    found: dict[str, dict[Any, None]] = {name: {} for name in names}
    walked = list(walk(original.model, len(names)))
    for step in walked:
        for value in _of_all(step.estimator):
            for own in found.values():
                own[value] = None
    for step in walked:
        positions = step.columns or ()
        for position, values in zip(positions, _of_columns(step, len(positions)), strict=True):
            found[names[position]].update(dict.fromkeys(values))
    return {name: _spread(list(own)) for name, own in found.items()}


def _names(original: Original) -> list[str]:
    """Return the columns that the model was fitted on, also those that it drops and the schema leaves out."""
    names = [column.name for column in original.schema.columns]
    fitted = [str(name) for name in getattr(original.model, "feature_names_in_", ())]
    return fitted if len(fitted) > len(names) else names


def _of_columns(walked: Step, columns: int) -> list[list[Any]]:
    """Return what is special to a step in each of the `columns` columns that it sees, in the table's own numbers."""
    step = walked.estimator
    found: list[list[Any]] = [[] for _ in range(columns)]
    for name in _ONE_EACH:
        values: Any = getattr(step, name, ())
        if np.shape(values) == (columns,):
            for own, value in zip(found, np.asarray(values).tolist(), strict=True):
                own += [value, -value] if name == "max_abs_" else [value]
    for name in _SEVERAL_EACH:
        listed = getattr(step, name, None)
        if isinstance(listed, list | np.ndarray) and len(listed) == columns:
            for own, several in zip(found, listed, strict=True):
                own += np.asarray(several).tolist()
    quantiles = np.transpose(getattr(step, "quantiles_", np.zeros((0, columns))))
    knots = [np.unique(spline.t) for spline in getattr(step, "bsplines_", ())]
    for several_each in (quantiles, knots):
        for own, several in zip(found, several_each, strict=False):
            own += several.tolist()
    return _taken_back(found, walked.scalers) if walked.scalers else found


def _taken_back(found: list[list[Any]], scalers: tuple[Any, ...]) -> list[list[Any]]:
    """Return the columns' own numbers for those that a step sees after `scalers`; texts pass no scaler."""
    numbers = [[value for value in own if _is_number(value)] for own in found]
    table = np.zeros((max(map(len, numbers), default=0), len(numbers)))
    for index, own in enumerate(numbers):
        table[: len(own), index] = own
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for scaler in reversed(scalers if len(table) else ()):
                table = np.asarray(scaler.inverse_transform(table))
    except Exception:  # noqa: BLE001 - a scaler may refuse what no row of its training could become
        return [[] for _ in found]
    taken = (column[: len(own)] for column, own in zip(table.T, numbers, strict=True))
    return [column[np.isfinite(column)].tolist() for column in taken]


def _of_all(step: Any) -> Iterator[Any]:
    """Yield the numbers that are special to a step in every column."""
    for name in _OF_ALL:
        yield from (value for value in np.ravel(getattr(step, name, ())).tolist() if _is_number(value))
    if isinstance(step, FunctionTransformer):
        given = [
            step.kw_args or {},
            getattr(step.func, "keywords", {}),
            dict(enumerate(getattr(step.func, "args", ()))),
        ]
        for arguments in given:
            yield from (value for value in arguments.values() if _is_number(value))
        yield from _constants(getattr(step.func, "__code__", None))


def _constants(code: CodeType | None) -> list[float]:
    """Return the constant numbers in a function's code, and in functions defined inside it."""
    found: list[float] = []
    waiting = [code] if code else []
    while waiting:
        for constant in waiting.pop().co_consts:
            if isinstance(constant, CodeType):
                waiting.append(constant)
            else:
                items = constant if isinstance(constant, tuple) else (constant,)
                found += [value for value in items if _is_number(value)]
    return found[:_MOST_CONSTANTS]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _spread(values: list[Any]) -> list[Any]:
    """Return at most MOST_VALUES of `values`, first and last among them."""
    if len(values) <= MOST_VALUES:
        return values
    return [values[index] for index in np.unique(np.linspace(0, len(values) - 1, MOST_VALUES).astype(int))]
