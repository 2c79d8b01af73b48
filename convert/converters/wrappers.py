"""Writes estimators that ask another one for the answer (searches, frozen ones) or move its threshold."""

from dataclasses import replace
from typing import Any

import numpy as np
import sklearn.model_selection as selection
from sklearn.base import is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.feature_selection import RFE, RFECV, SequentialFeatureSelector
from sklearn.semi_supervised import SelfTrainingClassifier

from convert.converters.inverses import inverse_transform
from convert.converters.writers import (
    EstimatorKind,
    InputTensors,
    OutputTensors,
    ask,
    ask_index,
    classified,
    refusal,
    register_wrapper,
)
from convert.converters.writers import register as register_writer

try:  # scikit-learn 1.6 and newer
    from sklearn.frozen import FrozenEstimator
except ImportError:
    FrozenEstimator = None


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    for search in (selection.GridSearchCV, selection.RandomizedSearchCV, *_halving_searches()):
        register_wrapper(search, _best)
    register_wrapper(FrozenEstimator, lambda model: model.estimator)
    register_wrapper(SelfTrainingClassifier, lambda model: _first(model, "estimator_", "base_estimator_"))
    register_writer(getattr(selection, "FixedThresholdClassifier", None), "classifier", _fixed_threshold)
    register_writer(getattr(selection, "TunedThresholdClassifierCV", None), "classifier", _tuned_threshold)
    register_writer(TransformedTargetRegressor, "regressor", _transformed_target)
    register_writer(SequentialFeatureSelector, "transformer", _selected)
    for elimination in (RFE, RFECV):
        register_writer(elimination, _kind_of_predictor, _eliminated)


def _halving_searches() -> list[type]:
    """Return the successive-halving searches, which scikit-learn holds behind an experimental import."""
    from sklearn.model_selection import _search_successive_halving as halving

    return [halving.HalvingGridSearchCV, halving.HalvingRandomSearchCV]


def _best(model: Any) -> Any:
    if not hasattr(model, "best_estimator_"):
        raise refusal(model, "it was not refitted on all rows", "set refit=True, or convert the estimator you choose")
    return model.best_estimator_


def _first(model: Any, *names: str) -> Any:
    return next(getattr(model, name) for name in names if hasattr(model, name))


def _fixed_threshold(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.model_selection.FixedThresholdClassifier.predict; probabilities are the estimator's own."""
    estimator = getattr(model, "estimator_", model.estimator)
    method = _response_method(estimator, model.response_method)
    threshold = model.threshold
    if isinstance(threshold, str):  # "auto"
        threshold = 0.5 if method == "predict_proba" else 0.0
    return _thresholded(rows, model, estimator, method, float(threshold), model.pos_label)


def _tuned_threshold(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.model_selection.TunedThresholdClassifierCV.predict."""
    method = _response_method(model.estimator_, model.response_method)
    positive = model._curve_scorer._get_pos_label()
    return _thresholded(rows, model, model.estimator_, method, float(model.best_threshold_), positive)


def _response_method(estimator: Any, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return next(name for name in ("predict_proba", "decision_function") if hasattr(estimator, name))


def _thresholded(
    rows: InputTensors, model: Any, estimator: Any, method: str, threshold: float, positive: Any
) -> OutputTensors:
    """As sklearn.metrics._scorer._threshold_scores_to_class_labels."""
    position = 1 if positive is None else int(np.flatnonzero(model.classes_ == positive)[0])
    answer = ask(rows, estimator, method)
    signed = answer if position == 1 else -answer
    score = answer.columns(position) if method == "predict_proba" else signed
    passed = (score >= threshold).cast("int64").reshape(-1)
    proba = ask(rows, estimator, "predict_proba") if hasattr(estimator, "predict_proba") else None
    decision = None if proba is not None else ask(rows, estimator, "decision_function")
    return classified(rows, model, proba, decision, index=passed if position == 1 else 1 - passed)


def _transformed_target(rows: InputTensors, model: Any) -> OutputTensors:
    prediction = ask(rows, model.regressor_, "predict")
    return OutputTensors(inverse_transform(prediction, model.transformer_))


def _kind_of_predictor(model: Any) -> EstimatorKind:
    return "classifier" if is_classifier(model) else "regressor"


def _eliminated(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.feature_selection.RFE: its estimator on the columns it kept."""
    kept = rows.matrix.columns(*np.flatnonzero(model.support_))
    inner = rows.of(kept, int(model.n_features_))
    if not is_classifier(model):
        return OutputTensors(ask(inner, model.estimator_, "predict"), transform=kept)
    method = "predict_proba" if hasattr(model.estimator_, "predict_proba") else "decision_function"
    answer = ask(inner, model.estimator_, method)
    proba, decision = (answer, None) if method == "predict_proba" else (None, answer)
    answers = classified(inner, model, proba, decision, ask_index(inner, model.estimator_))
    return replace(answers, transform=kept)


def _selected(rows: InputTensors, model: Any) -> OutputTensors:
    return OutputTensors(transform=rows.matrix.columns(*np.flatnonzero(model.get_support())))
