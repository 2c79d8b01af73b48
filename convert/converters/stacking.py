"""Writes voting and stacking (sklearn.ensemble): estimators' answers averaged, counted or fed to another one."""

from typing import Any

import numpy as np
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor

from convert.converters.expressions import Tensor, concat, one_hot
from convert.converters.writers import InputTensors, OutputTensors, ask, classified, refusal
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(VotingClassifier, "classifier", _voting_classifier)
    register_writer(VotingRegressor, "regressor", _voting_regressor)
    register_writer(StackingClassifier, "classifier", _stacking_classifier)
    register_writer(StackingRegressor, "regressor", _stacking_regressor)


def _voting_classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.ensemble.VotingClassifier: the mean of probabilities, or the class with most votes."""
    _one_label(model)
    weights = _weights(model)
    if model.voting == "soft":
        parts = [ask(rows, part, "predict_proba") for part in model.estimators_]
        return classified(rows, model, _weighed(parts, weights) / float(sum(weights)))
    # The parts were fitted on positions in classes_, and so predict these.
    parts = [one_hot(ask(rows, part, "predict").reshape(-1), len(model.classes_)) for part in model.estimators_]
    votes = _weighed(parts, weights)
    return classified(rows, model, index=votes.argmax())


def _voting_regressor(rows: InputTensors, model: Any) -> OutputTensors:
    weights = _weights(model)
    parts = [ask(rows, part, "predict") for part in model.estimators_]
    return OutputTensors(_weighed(parts, weights) / float(sum(weights)), transform=concat(parts))


def _stacking_classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.ensemble.StackingClassifier: the final estimator predicts positions in classes_."""
    _one_label(model)
    stacked = _stacked(rows, model, len(model.classes_))
    final = model.final_estimator_
    if np.asarray(final.classes_).dtype.kind not in "iu":
        raise refusal(model, "its final estimator predicts texts", "fit it without cv='prefit'")
    proba = ask(stacked, final, "predict_proba") if hasattr(final, "predict_proba") else None
    decision = None
    if proba is None and hasattr(final, "decision_function"):
        decision = ask(stacked, final, "decision_function")
    return classified(rows, model, proba, decision, index=ask(stacked, final, "predict").reshape(-1))


def _stacking_regressor(rows: InputTensors, model: Any) -> OutputTensors:
    return OutputTensors(ask(_stacked(rows, model, 0), model.final_estimator_, "predict"))


def _stacked(rows: InputTensors, model: Any, classes: int) -> InputTensors:
    """As sklearn.ensemble._stacking._BaseStacking._concatenate_predictions."""
    parts = []
    methods = [method for method in model.stack_method_ if method is not None]
    for part, method in zip([part for part in model.estimators_ if part != "drop"], methods, strict=True):
        answer = ask(rows, part, method)
        if method == "predict":
            answer = answer.cast("float64")
            answer = answer.reshape(-1, 1) if classes else answer
        elif method == "predict_proba" and classes == 2:
            answer = answer.columns(1)
        parts.append(answer)
    if model.passthrough:
        parts.append(rows.matrix)
    final = model.final_estimator_
    return rows.of(concat(parts), getattr(final, "n_features_in_", None))


def _weights(model: Any) -> list[float]:
    weights = model._weights_not_none
    return [1.0] * len(model.estimators_) if weights is None else [float(weight) for weight in weights]


def _weighed(parts: list[Tensor], weights: list[float]) -> Tensor:
    """Return the weighted sum; a weight of 1 costs no node."""
    first, *others = (part if weight == 1 else part * weight for part, weight in zip(parts, weights, strict=True))
    return sum(others, first)


def _one_label(model: Any) -> None:
    if isinstance(model.classes_, list):
        raise refusal(model, "it answers several outputs at once", "train one classifier for each output")
