"""Knows the estimators inside a model: how they nest, which see the table itself, and which gives the answer.

Fitted models are walked by what they hold (`steps`), models that need not be trained by their options (`given_steps`).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.cluster import Birch
from sklearn.compose import TransformedTargetRegressor
from sklearn.feature_selection import SelectFromModel, SequentialFeatureSelector
from sklearn.pipeline import FeatureUnion, Pipeline

BOOSTERS = ("lightgbm.", "xgboost.", "catboost.")
"""How the modules of the boosting libraries' estimators begin."""

# Parts that are asked in training only, or whose inverse alone is asked (lint_rules judges that).
_NOT_ASKED = {
    Birch: "n_clusters",
    SelectFromModel: "estimator",
    SequentialFeatureSelector: "estimator",
    TransformedTargetRegressor: "transformer",
}
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


def first_steps(model: Any) -> Iterator[Any]:
    """Yield what sees the table itself: of a pipeline and a search the first step, of a union all parts.

    Unlike `first_step`, this takes "passthrough" for a step, and a target transformer as a whole.
    """
    if isinstance(model, Pipeline):
        yield from first_steps(model.steps[0][1])
    elif isinstance(model, FeatureUnion):
        for _, part in model.transformer_list:
            yield from first_steps(part)
    elif hasattr(model, "best_estimator_"):
        yield from first_steps(model.best_estimator_)
    else:
        yield model


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


def given_steps(model: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every estimator that answers for a model that need not be trained, with its path, outermost first.

    Those are the estimators that were given to it as options, and of a search that is over its best.
    """
    yield path, model
    for name, part in _given_parts(model):
        yield from given_steps(part, f"{path}__{name}" if path else name)


def _given_parts(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the estimators that were given to `model`, by their name in it; a search that is over has its best."""
    if hasattr(model, "best_estimator_"):
        yield "best_estimator_", model.best_estimator_
        return
    skipped = next((name for kind, name in _NOT_ASKED.items() if isinstance(model, kind)), None)
    options = model.get_params(deep=False) if is_given_estimator(model) else {}
    for name, value in options.items():
        if is_given_estimator(value) and name != skipped:
            yield name, value
        elif isinstance(value, list | tuple):
            yield from _listed(value)
        elif isinstance(value, dict) and name in ("param_grid", "param_distributions"):
            yield from _candidates(name, value)


def _listed(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield the estimators of a list like a pipeline's: (name, estimator) or (name, estimator, columns)."""
    for item in values:
        if isinstance(item, tuple) and len(item) in (2, 3) and isinstance(item[0], str) and is_given_estimator(item[1]):
            yield item[0], item[1]


def _candidates(name: str, grid: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the estimators among which a search chooses."""
    for option, values in grid.items():
        for value in values if isinstance(values, list | tuple) else ():
            if is_given_estimator(value):
                yield f"{name}__{option}", value


def is_given_estimator(value: Any) -> bool:
    """Return whether a value is an estimator, of any library, trained or not."""
    return hasattr(value, "get_params") and hasattr(value, "fit") and not isinstance(value, type)


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
