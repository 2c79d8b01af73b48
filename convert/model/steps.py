"""Knows the estimators inside a model: how they nest, what each of them sees, and which gives the answer.

The one place that knows how estimators nest: `parts` says what one estimator holds, and all else here follows from it.
Fitted models are walked by what they hold (`walk`, `steps`), models that need not be trained by their options
(`given_steps`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.cluster import Birch
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.feature_selection import RFE, SelectFromModel, SequentialFeatureSelector
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelBinarizer,
    LabelEncoder,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

BOOSTERS = ("lightgbm.", "xgboost.", "catboost.")
"""How the modules of the boosting libraries' estimators begin."""
_SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PowerTransformer, QuantileTransformer)

# Parts that are used in training only, or whose inverse alone is used (lint_rules checks that).
_NOT_ASKED = {
    Birch: "n_clusters",
    SelectFromModel: "estimator",
    SequentialFeatureSelector: "estimator",
    TransformedTargetRegressor: "transformer",
}
_INNER = (
    "best_estimator_",
    "regressor_",
)  # where searches and target transformers hold the estimator that sees the same columns as they do
_CONTAINERS = ("steps", "transformer_list", "transformers_")  # named parts, "passthrough" and "drop" among them
_ENSEMBLES = ("estimators_", "calibrated_classifiers_")


class Sees(Enum):
    """What a part of an estimator is given, in terms of the estimator that holds it."""

    SAME = "the columns that the estimator around it sees"
    PICKED = "some of those columns"
    BEFORE = "what the part before it gives; the first, what the estimator around it sees"
    ANSWERS = "what the other parts answer"
    TARGET = "the target, or answers on their way back to it"
    NOTHING = "nothing: it was given to be copied, and the trained copies are asked"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an estimator, by its name in it; of a ColumnTransformer and a FeatureUnion also "passthrough".

    `picked` holds the positions, among the columns that the estimator around it sees, of those that a part sees with
    Sees.PICKED.
    """

    name: str
    estimator: Any
    sees: Sees
    picked: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One estimator inside a fitted model, and what is known of the columns that reach it.

    `path` names it (`scaler`, `columns__text`; "" is the model). `columns` are the positions in the table of the
    columns that it sees, each as one column, and `scalers` what scaled all of them on their way, in order. `columns`
    is None where the step sees something else: what other estimators made or answered, or more columns than these.
    """

    path: str
    estimator: Any
    columns: tuple[int, ...] | None = None
    scalers: tuple[Any, ...] = ()


def walk(model: Any, columns: int | None = None) -> Iterator[Step]:
    """Yield every estimator inside a fitted model once, outermost first; `columns` is how many the table has.

    Without it, no step knows its columns.
    """
    seen = set()
    waiting = [Step("", model, None if columns is None else tuple(range(columns)))]
    while waiting:
        step = waiting.pop(0)
        if id(step.estimator) in seen:
            continue
        seen.add(id(step.estimator))
        yield step
        waiting += _below(step)


def _below(step: Step) -> Iterator[Step]:
    """Yield the estimators that a step holds, each with the columns that reach it."""
    reaching = step
    for part in parts(step.estimator):
        if isinstance(part.estimator, str) or part.estimator is None:
            continue
        path = f"{step.path}__{part.name}" if step.path else part.name
        below = Step(path, part.estimator, *_reaching(reaching, part))
        yield below
        if part.sees is Sees.BEFORE:
            reaching = _after(below)


def _reaching(step: Step, part: Part) -> tuple[tuple[int, ...] | None, tuple[Any, ...]]:
    """Return which columns a part sees, and their scalers, where `step` is the estimator around it or before it."""
    if step.columns is None or part.sees in (Sees.ANSWERS, Sees.TARGET, Sees.NOTHING):
        return None, ()
    if part.sees is Sees.PICKED:
        picked = tuple(step.columns[position] for position in part.picked)
        # The inverse of a scaler takes all of its columns or none.
        return (None, ()) if step.scalers and picked != step.columns else (picked, step.scalers)
    if part.sees is Sees.SAME and getattr(part.estimator, "n_features_in_", len(step.columns)) != len(step.columns):
        return None, ()  # a later model of a chain takes answers beside the columns
    return step.columns, step.scalers


def _after(step: Step) -> Step:
    """Return a step with what the next one in the pipeline sees: the same columns where this one keeps them apart."""
    if step.columns is None or not keeps_columns(step.estimator):
        return Step(step.path, step.estimator)
    scalers = (*step.scalers, step.estimator) if isinstance(step.estimator, _SCALERS) else step.scalers
    return Step(step.path, step.estimator, step.columns, scalers)


def keeps_columns(step: Any) -> bool:
    """Return whether the columns after a step are those before it, one by one."""
    if isinstance(step, SimpleImputer):
        return not step.add_indicator and all(value == value for value in step.statistics_)
    return isinstance(step, _SCALERS) or (isinstance(step, FunctionTransformer) and step.func is None)


def steps(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every estimator inside a fitted `model` with its path, outermost first; see `walk`."""
    yield from ((step.path, step.estimator) for step in walk(model))


def parts(estimator: Any) -> list[Part]:
    """Return what an estimator holds, by the names that the parts have in it.

    Estimators that were given to be copied see nothing, unless no trained ones stand beside them.
    """
    found: list[Part] = []
    for attribute, value in list(getattr(estimator, "__dict__", {}).items()):
        if _is_estimator(value):
            found.append(Part(attribute, value, _sees(estimator, attribute), _picked(estimator, attribute)))
        elif attribute in _CONTAINERS:
            found += _contained(estimator, attribute, value)
        elif attribute in _ENSEMBLES and isinstance(value, list | tuple | np.ndarray):
            # An ensemble is a sequence too: NumPy would split one that stands in a list.
            found += _ensemble(estimator, np.ravel(value) if isinstance(value, np.ndarray) else value)
    if any(part.sees not in (Sees.NOTHING, Sees.TARGET) for part in found):
        return found
    skipped = next((name for kind, name in _NOT_ASKED.items() if isinstance(estimator, kind)), None)
    return [replace(p, sees=Sees.SAME) if p.sees is Sees.NOTHING and p.name != skipped else p for p in found]


def asked_parts(estimator: Any) -> list[Part]:
    """Return the parts that are asked where a trained estimator answers."""
    return [part for part in parts(estimator) if part.sees not in (Sees.NOTHING, Sees.TARGET)]


def _sees(estimator: Any, attribute: str) -> Sees:
    """Return what an estimator that another one holds as `attribute` sees."""
    value = getattr(estimator, attribute)
    if isinstance(value, LabelEncoder | LabelBinarizer):
        return Sees.TARGET
    if attribute == "transformer_" and hasattr(estimator, "regressor_"):
        return Sees.TARGET
    if attribute == "final_estimator_":
        return Sees.ANSWERS
    if attribute == "estimator_" and hasattr(estimator, "estimators_"):  # what an ensemble made copies of
        return Sees.NOTHING
    if hasattr(estimator, "get_params") and attribute in estimator.get_params(deep=False):
        return Sees.NOTHING
    return Sees.PICKED if isinstance(estimator, RFE) else Sees.SAME


def _picked(estimator: Any, attribute: str) -> tuple[int, ...]:
    return _plain(np.flatnonzero(estimator.support_)) if _sees(estimator, attribute) is Sees.PICKED else ()


def _contained(estimator: Any, attribute: str, value: list[tuple[Any, ...]]) -> Iterator[Part]:
    """Yield the parts of a Pipeline, a FeatureUnion or a ColumnTransformer."""
    for name, part, *_ in value:
        if attribute == "transformers_":
            yield Part(name, part, Sees.PICKED, tuple(column_positions(estimator, name)))
        else:
            yield Part(name, part, Sees.BEFORE if attribute == "steps" else Sees.SAME)


def _ensemble(estimator: Any, value: Iterable[Any]) -> Iterator[Part]:
    """Yield the trained estimators of an ensemble: by their number, or the name that they were given by."""
    picked = getattr(estimator, "estimators_features_", None)  # by bagging
    for index, item in enumerate(value):
        name, part = item if isinstance(item, tuple) else (str(index), item)
        part = part if _is_estimator(part) else getattr(part, "estimator", None)  # calibrated
        if _is_estimator(part):
            sees = Sees.SAME if picked is None else Sees.PICKED
            yield Part(name, part, sees, () if picked is None else _plain(picked[index]))


def _plain(positions: Any) -> tuple[int, ...]:
    return tuple(int(position) for position in positions)


def _is_estimator(value: Any) -> bool:
    """Return whether a value is one of scikit-learn's, or CatBoost's, which do not derive from it."""
    is_booster = type(value).__module__.startswith(BOOSTERS) and hasattr(value, "get_params")
    return isinstance(value, BaseEstimator) or is_booster


def first_steps(model: Any) -> list[Any]:
    """Return what sees the table itself: of a pipeline its first step, of a search its best, of a union all parts.

    In a union, "passthrough" counts as one. An estimator that asks several others (Voting, Stacking) counts itself.
    """
    if isinstance(model, FeatureUnion):
        return [step for part in parts(model) if not is_dropped(part.estimator) for step in first_steps(part.estimator)]
    inner = _inside(model)
    return [model] if inner is model else first_steps(inner)


def first_step(model: Any) -> Any:
    """Return the one estimator that sees the table itself; `model` where several do (see `first_steps`)."""
    found = first_steps(model)
    return found[0] if len(found) == 1 else model


def dropped_columns(model: Any) -> frozenset[str]:
    """Return the names of the columns that a ColumnTransformer in front leaves out: scikit-learn can do without them.

    Where it finds columns by their positions there are none: it then needs every column of a table.
    """
    first = first_step(model)
    if not isinstance(first, ColumnTransformer):
        return frozenset()
    used: set[str] = set()
    for _, step, columns in first.transformers_:
        if is_dropped(step):
            continue
        if not all(isinstance(name, str) for name in np.atleast_1d(columns).tolist()):
            return frozenset()
        used.update(np.atleast_1d(columns).tolist())
    return frozenset(map(str, first.feature_names_in_)) - used


def is_dropped(step: Any) -> bool:
    """Return whether a part of a union or a ColumnTransformer leaves its columns out."""
    return isinstance(step, str) and step == "drop"


def stages(pipeline: Any) -> list[Any]:
    """Return the steps of a Pipeline in order, "passthrough" and None among them."""
    return [part.estimator for part in parts(pipeline) if part.sees is Sees.BEFORE]


def before_last(model: Any) -> tuple[list[Any], Any]:
    """Return the transformers before the estimator that gives the answer, and that estimator."""
    steps: list[Any] = []
    while isinstance(model, Pipeline) or _inside(model) is not model:
        if isinstance(model, Pipeline):
            steps += _kept(stages(model)[:-1])
            model = stages(model)[-1]
        else:
            model = _inside(model)
    return steps, model


def last_step(model: Any) -> Any:
    """Return the estimator that gives the answer; see `before_last`."""
    return before_last(model)[1]


def given_steps(model: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every estimator that takes part in the answer of a model, trained or not, with its path, outermost first.

    Those are the estimators that were given to it as options; of a finished search, the best one.
    """
    yield path, model
    for name, part in _given_parts(model):
        yield from given_steps(part, f"{path}__{name}" if path else name)


def _given_parts(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the estimators that were given to `model`, by their name in it; of a finished search, the best one."""
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
    """Yield the estimators of a list as pipelines have it: (name, estimator) or (name, estimator, columns)."""
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
        return next(iter(_kept(stages(model))), model)
    return next((getattr(model, name) for name in _INNER if hasattr(model, name)), model)


def _kept(steps: list[Any]) -> list[Any]:
    """Return those of a pipeline's steps that are estimators: "passthrough" and None are none."""
    return [step for step in steps if step is not None and not isinstance(step, str)]
