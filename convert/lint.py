"""Says which steps of an estimator convert, which do not, and what to use instead. It need not be trained."""

from typing import Any, Literal

import msgspec
from skl2onnx._supported_operators import sklearn_operator_name_map
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

from appliance.errors import ConversionRefused
from convert.converters import refusals
from convert.converters.skl2onnx_graph import OWN_CONVERTERS
from convert.lint_rules import Reason, refused_option, traced
from convert.model.steps import given_steps, is_given_estimator

Verdict = Literal["converts", "depends", "refused"]
_ANSWERS = ("predict", "transform", "score_samples")
_CONTAINERS = (Pipeline, ColumnTransformer, FeatureUnion)
_COVERAGE = "use an estimator that docs/coverage.md lists as exact"
_FUNCTION = "use a transformer of scikit-learn, or a FunctionTransformer with NumPy functions"


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

    A step that converts may still be refused later, for reasons that only the data show: `appliance convert` proves
    the trained model on rows. Raises ConversionRefused for what is no estimator.
    """
    for module in OWN_CONVERTERS:
        module.register()
    if not is_given_estimator(model) and type(model) not in sklearn_operator_name_map:
        found = f"it is a {type(model).__name__}, which has no fit"
        raise ConversionRefused("lint the model", found, "give an estimator or a pipeline")
    return [_finding(path, step) for path, step in given_steps(model)]


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
