"""Says which steps of an estimator convert, which do not and what to use instead; it need not be trained for that."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from skl2onnx._supported_operators import sklearn_operator_name_map
from sklearn.cluster import Birch
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.feature_selection import SelectFromModel, SequentialFeatureSelector
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

from appliance.errors import ConversionRefused
from convert.converters import refusals
from convert.converters.skl2onnx_graph import OWN_CONVERTERS
from convert.lint_rules import Reason, refused_option, traced

Verdict = Literal["converts", "depends", "refused"]
_ANSWERS = ("predict", "transform", "score_samples")
_CONTAINERS = (Pipeline, ColumnTransformer, FeatureUnion)
_COVERAGE = "use an estimator that docs/coverage.md lists as exact"
_FUNCTION = "use a transformer of scikit-learn, or a FunctionTransformer with NumPy functions"
# Parts that are asked in training only, or whose inverse alone is asked (lint_rules judges that).
_NOT_ASKED = {
    Birch: "n_clusters",
    SelectFromModel: "estimator",
    SequentialFeatureSelector: "estimator",
    TransformedTargetRegressor: "transformer",
}


class Finding(msgspec.Struct, frozen=True):
    """What is known of one step: its path in the model (`scaler`, `columns__text`; "" is the model) and class.

    `depends` is a step that cannot be judged before it is trained. `found` and `next_step` are empty where it converts.
    """

    step: str
    estimator: str
    verdict: Verdict
    found: str = ""
    next_step: str = ""


def lint(model: Any) -> list[Finding]:
    """Return a finding for each estimator in `model`, outermost first; `model` may be trained or not.

    A step that converts may still be refused in its place, for what only the data show: `appliance convert` proves
    the trained model on rows. Raises ConversionRefused for what is no estimator.
    """
    for module in OWN_CONVERTERS:
        module.register()
    if not _is_estimator(model) and type(model) not in sklearn_operator_name_map:
        found = f"it is a {type(model).__name__}, which has no fit"
        raise ConversionRefused("lint the model", found, "give an estimator or a pipeline")
    return [_finding(path, step) for path, step in _steps("", model)]


def _finding(path: str, step: Any) -> Finding:
    name = type(step).__name__
    if reason := _refused_class(step) or refused_option(step):
        return Finding(path, name, "refused", *reason)
    if isinstance(step, FunctionTransformer) and (reason := traced(step)):
        trained = hasattr(step, "n_features_in_")  # else the columns, and their names, are not known yet
        return Finding(path, name, "refused" if trained else "depends", *reason)
    return Finding(path, name, "converts")


def _refused_class(step: Any) -> Reason | None:
    """Return why no estimator of this class converts, or None."""
    if reason := refusals.reason(step):
        return reason
    if isinstance(step, _CONTAINERS) or type(step) in sklearn_operator_name_map:
        return None
    if not any(hasattr(type(step), answer) for answer in _ANSWERS):
        return "it has no answer for new rows", "choose an estimator that predicts or transforms new rows"
    known = [parent.__name__ for parent in type(step).__mro__[1:] if parent in sklearn_operator_name_map]
    if known:
        return f"it is a {known[0]} with changes of its own, which no converter knows", f"use {known[0]} itself"
    return "no converter knows this class", _COVERAGE if hasattr(step, "predict") else _FUNCTION


def _steps(path: str, model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every estimator that answers for the model, with its path."""
    yield path, model
    for name, part in _parts(model):
        yield from _steps(f"{path}__{name}" if path else name, part)


def _parts(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the estimators that were given to `model`, by their name in it; a search that is over has its best."""
    if hasattr(model, "best_estimator_"):
        yield "best_estimator_", model.best_estimator_
        return
    skipped = next((name for kind, name in _NOT_ASKED.items() if isinstance(model, kind)), None)
    options = model.get_params(deep=False) if _is_estimator(model) else {}
    for name, value in options.items():
        if _is_estimator(value) and name != skipped:
            yield name, value
        elif isinstance(value, list | tuple):
            yield from _listed(value)
        elif isinstance(value, dict) and name in ("param_grid", "param_distributions"):
            yield from _candidates(name, value)


def _listed(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield the estimators of a list like a pipeline's: (name, estimator) or (name, estimator, columns)."""
    for item in values:
        if isinstance(item, tuple) and len(item) in (2, 3) and isinstance(item[0], str) and _is_estimator(item[1]):
            yield item[0], item[1]


def _candidates(name: str, grid: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the estimators among which a search chooses."""
    for option, values in grid.items():
        for value in values if isinstance(values, list | tuple) else ():
            if _is_estimator(value):
                yield f"{name}__{option}", value


def _is_estimator(value: Any) -> bool:
    return hasattr(value, "get_params") and hasattr(value, "fit") and not isinstance(value, type)
