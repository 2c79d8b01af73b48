"""Writes linear models in float64: numbers, scores, and probabilities where they have any."""

from typing import Any

import numpy as np
from sklearn import linear_model
from sklearn.svm import LinearSVC

from convert.converters.expressions import Tensor, concat, expit, softmax, where
from convert.converters.writers import InputTensors, OutputTensors, classified, outlier
from convert.converters.writers import register as register_writer
from convert.model.arrays import dense

_REGRESSORS = ("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "SGDRegressor")


def register() -> None:
    """Register every estimator of this family with skl2onnx.

    Logistic and plain linear regression alone stay with skl2onnx: one node, as right and quicker.
    """
    for name in ("LogisticRegression", "LogisticRegressionCV"):
        register_writer(getattr(linear_model, name), "classifier", _classifier, alone=False)
    for name in ("SGDClassifier", "Perceptron", "PassiveAggressiveClassifier", "RidgeClassifier", "RidgeClassifierCV"):
        register_writer(getattr(linear_model, name, None), "classifier", _classifier)
    register_writer(LinearSVC, "classifier", _classifier)
    register_writer(linear_model.SGDOneClassSVM, "outlier", _one_class)
    for name in _REGRESSORS:
        register_writer(getattr(linear_model, name), "regressor", _regressor, alone=False)


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.linear_model._base.LinearClassifierMixin.decision_function, and each model's own probabilities."""
    decision = rows.matrix.affine(*_coefficients(model))
    index = decision.argmax() if len(model.classes_) > 2 else (decision > 0.0).cast("int64").reshape(-1)
    return classified(rows, model, _probabilities(decision, model), decision, index)


def _regressor(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.linear_model._base.LinearModel.predict."""
    return OutputTensors(predict=rows.matrix.affine(*_coefficients(model)))


def _one_class(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.linear_model.SGDOneClassSVM.score_samples; a score of exactly 0 is an inlier's."""
    return outlier(rows.matrix @ dense(model.coef_).T, float(np.ravel(model.offset_)[0]))


def _coefficients(model: Any) -> tuple[Any, Any]:
    """Return the weights [features, outputs] and the offsets [1, outputs], float64."""
    weights = np.atleast_2d(dense(model.coef_)).T
    return weights, np.broadcast_to(np.ravel(np.asarray(model.intercept_, dtype=np.float64)), (1, weights.shape[1]))


def is_one_by_one(model: Any) -> bool:
    """Return whether a classifier of two classes takes its probabilities from one score by the logistic function."""
    return getattr(model, "multi_class", "auto") != "multinomial"


def _probabilities(decision: Tensor, model: Any) -> Tensor | None:
    """As each model's predict_proba; None where it has none."""
    if not hasattr(model, "predict_proba"):
        return None
    classes, how = len(model.classes_), getattr(model, "multi_class", "auto")
    if getattr(model, "loss", None) == "modified_huber":
        return _shares((decision.clip(-1.0, 1.0) + 1.0) / 2.0, classes)
    if classes == 2:
        return _shares(expit(decision), 2) if is_one_by_one(model) else softmax(concat([-decision, decision]))
    one_by_one = hasattr(model, "loss") or how == "ovr" or model.solver == "liblinear"
    return _shares(expit(decision), classes) if one_by_one else softmax(decision)


def _shares(proba: Tensor, classes: int) -> Tensor:
    """Return the probabilities of each class alone, scaled to a sum of 1; equal ones where all are 0."""
    if classes == 2:
        return concat([1.0 - proba, proba])
    total = proba.sum()
    nothing = total.equals(0.0)
    return where(nothing, 1.0 / classes, proba / where(nothing, 1.0, total))
