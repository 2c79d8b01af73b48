"""Knows the values of a column at which a step may do something of its own, whether or not the sample holds them.

Such are what an imputer fills in or takes as missing, a scaler's middle and ends, the edges of bins, the knots of
splines, an encoder's categories, and the numbers written in a function.
"""

import warnings
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from convert.model.original import Original
from convert.model.steps import column_positions, parts, steps

MOST_VALUES = 128  # of one column, beside those of every column
_MOST_CONSTANTS = 32
_ONE_EACH = ("statistics_", "mean_", "center_", "data_min_", "data_max_", "max_abs_")  # a number for each column
_SEVERAL_EACH = ("categories_", "bin_edges_")  # an array for each column
_OF_ALL = ("missing_values", "missing", "fill_value", "threshold", "X_thresholds_")  # for every column alike
_SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PowerTransformer, QuantileTransformer)

Back = Callable[[NDArray[Any]], NDArray[Any]]
"""From the numbers [rows, columns] that a step sees to those of the columns themselves."""


def of(original: Original) -> dict[str, list[Any]]:
    """Return {column: values}, numbers and texts, each once, at most MOST_VALUES of them."""
    names = _names(original)
    found: dict[str, dict[Any, None]] = {name: {} for name in names}
    for _, step in steps(original.model):
        for value in _of_all(step):
            for own in found.values():
                own[value] = None
    for step, positions, back in _looking_at_columns(original.model, list(range(len(names))), _same):
        for position, values in zip(positions, _of_columns(step, len(positions), back), strict=True):
            found[names[position]].update(dict.fromkeys(values))
    return {name: _spread(list(own)) for name, own in found.items()}


def _names(original: Original) -> list[str]:
    """Return the columns that the model was fitted on, also those that it drops and the schema leaves out."""
    names = [column.name for column in original.schema.columns]
    fitted = [str(name) for name in getattr(original.model, "feature_names_in_", ())]
    return fitted if len(fitted) > len(names) else names


def _looking_at_columns(model: Any, positions: list[int], back: Back) -> Iterator[tuple[Any, list[int], Back]]:
    """Yield every step that sees the columns at `positions`, as they are or as a scaler made them."""
    if isinstance(model, Pipeline):
        for _, step in model.steps:
            if step is None or isinstance(step, str):
                continue
            yield from _looking_at_columns(step, positions, back)
            if not _keeps_columns(step):
                return
            back = _through(step, back)
    elif isinstance(model, ColumnTransformer):
        for name, step, _ in getattr(model, "transformers_", ()):
            own = [positions[index] for index in column_positions(model, name)]
            if not isinstance(step, str) and own:
                yield from _looking_at_columns(step, own, _same if back is _same else _nowhere)
    elif isinstance(model, FeatureUnion):
        for _, step in model.transformer_list:
            yield from _looking_at_columns(step, positions, back)
    else:
        yield model, positions, back
        for _, part in parts(model):  # a wrapper's parts see what it sees, if they take as many columns
            if getattr(part, "n_features_in_", None) == len(positions):
                yield from _looking_at_columns(part, positions, back)


def _keeps_columns(step: Any) -> bool:
    """Return whether the columns after a step are those before it, one by one."""
    if isinstance(step, SimpleImputer):
        return not step.add_indicator and all(value == value for value in step.statistics_)
    return isinstance(step, _SCALERS) or (isinstance(step, FunctionTransformer) and step.func is None)


def _through(step: Any, back: Back) -> Back:
    """Return the way back from what follows a step."""
    if not isinstance(step, _SCALERS):
        return back
    return lambda numbers: back(np.asarray(step.inverse_transform(numbers)))


def _same(numbers: NDArray[Any]) -> NDArray[Any]:
    return numbers


def _nowhere(numbers: NDArray[Any]) -> NDArray[Any]:
    return np.full_like(numbers, np.nan)


def _of_columns(step: Any, columns: int, back: Back) -> list[list[Any]]:
    """Return what is special to a step in each of so many columns."""
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
    return found if back is _same else _taken_back(found, back)


def _taken_back(found: list[list[Any]], back: Back) -> list[list[Any]]:
    """Return the columns' own numbers for those that a step sees; texts pass no scaler."""
    numbers = [[value for value in own if _is_number(value)] for own in found]
    table = np.zeros((max(map(len, numbers), default=0), len(numbers)))
    for index, own in enumerate(numbers):
        table[: len(own), index] = own
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            columns = back(table).T if len(table) else table.T
    except Exception:  # noqa: BLE001 - a scaler may refuse what no row of its training could become
        return [[] for _ in found]
    taken = (column[: len(own)] for column, own in zip(columns, numbers, strict=True))
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
    """Return the numbers written in a function, and in those written inside it."""
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
