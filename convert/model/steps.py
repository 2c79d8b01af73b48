"""Knows the estimators inside a model: all of them, those that see the table itself, and the one that answers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

BOOSTERS = ("lightgbm.", "xgboost.", "catboost.")
"""How the modules of the boosting libraries' estimators begin."""

_INNER = ("best_estimator_", "regressor_")  # where searches and target transformers keep what sees what they see


def steps(model: Any) -> Iterator[tuple[str, BaseEstimator]]:
    """Yield every estimator inside `model` with its path (`scaler`, `columns__text`), outermost first."""
    seen = set()
    waiting = [("", model)]
    while waiting:
        path, estimator = waiting.pop(0)
        if id(estimator) in seen:
            continue
        seen.add(id(estimator))
        yield path, estimator
        waiting += [(f"{path}__{name}" if path else name, part) for name, part in parts(estimator)]


def parts(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fitted estimators that `estimator` holds, by their name in it."""
    for attribute, value in list(vars(estimator).items()):
        if _is_estimator(value):
            yield attribute, value
        elif attribute == "calibrated_classifiers_":
            yield from ((str(index), part.estimator) for index, part in enumerate(value))
        elif isinstance(value, (list, np.ndarray)) and attribute in (
            "steps",
            "transformers_",
            "transformer_list",
            "estimators_",
        ):
            for index, item in enumerate(np.ravel(value) if isinstance(value, np.ndarray) else value):
                name, part = (item[0], item[1]) if isinstance(item, tuple) else (str(index), item)
                if _is_estimator(part):
                    yield name, part


def _is_estimator(value: Any) -> bool:
    """Return whether a value is one of scikit-learn's, or CatBoost's, which do not derive from it."""
    is_booster = type(value).__module__.startswith(BOOSTERS) and hasattr(value, "get_params")
    return isinstance(value, BaseEstimator) or is_booster


def first_step(model: Any) -> Any:
    """Return the estimator that sees the table itself: the first of a pipeline, also inside a search."""
    while (inner := _inside(model)) is not model:
        model = inner
    return model


def before_last(model: Any) -> tuple[list[Any], Any]:
    """Return the transformers before the estimator that gives the answer, and that estimator."""
    steps: list[Any] = []
    while isinstance(model, Pipeline) or _inside(model) is not model:
        if isinstance(model, Pipeline):
            steps += _kept(model.steps[:-1])
            model = model.steps[-1][1]
        else:
            model = _inside(model)
    return steps, model


def last_step(model: Any) -> Any:
    """Return the estimator that gives the answer; see `before_last`."""
    return before_last(model)[1]


def hashed_columns(model: Any) -> list[int]:
    """Return the positions of the columns that an estimator knows by hashes: CatBoost's categorical features."""
    indices = getattr(model, "get_cat_feature_indices", None)
    return sorted(map(int, indices())) if indices else []


def column_positions(model: Any, part: str) -> list[int]:
    """Return the positions of the columns that a ColumnTransformer gives to its part of this name.

    They may have been named there by names, positions from either end, a mask, a slice or a function.
    """
    return [int(position) for position in model._transformer_to_input_indices[part]]


def _inside(model: Any) -> Any:
    if isinstance(model, Pipeline):
        return next(iter(_kept(model.steps)), model)
    return next((getattr(model, name) for name in _INNER if hasattr(model, name)), model)


def _kept(steps: list[tuple[str, Any]]) -> list[Any]:
    """Return those of a pipeline's steps that are estimators: "passthrough" and None are none."""
    return [step for _, step in steps if step is not None and not isinstance(step, str)]
