"""Writes linear classifiers in float64: their scores, and their probabilities where they have any."""

from typing import Any

import numpy as np
from sklearn import linear_model
from sklearn.svm import LinearSVC

from convert.converters.distances import dense
from convert.converters.expressions import Tensor, concat, expit, softmax, where
from convert.converters.writers import Answers, Rows, classified
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx.

    Logistic regression alone stays with skl2onnx: one node, as right and quicker.
    """
    for name in ("LogisticRegression", "LogisticRegressionCV"):
        register_writer(getattr(linear_model, name), "classifier", _classifier, alone=False)
    for name in ("SGDClassifier", "Perceptron", "PassiveAggressiveClassifier", "RidgeClassifier", "RidgeClassifierCV"):
        register_writer(getattr(linear_model, name, None), "classifier", _classifier)
    register_writer(LinearSVC, "classifier", _classifier)


def _classifier(rows: Rows, model: Any) -> Answers:
    """As sklearn.linear_model._base.LinearClassifierMixin.decision_function, and each model's own probabilities."""
    decision = rows.matrix @ np.atleast_2d(dense(model.coef_)).T + np.asarray(
        model.intercept_, dtype=np.float64
    ).reshape(1, -1)
    index = decision.argmax() if len(model.classes_) > 2 else (decision > 0.0).cast("int64").reshape(-1)
    return classified(rows, model, _probabilities(decision, model), decision, index)


def _probabilities(decision: Tensor, model: Any) -> Tensor | None:
    """As each model's predict_proba; None where it has none."""
    if not hasattr(model, "predict_proba"):
        return None
    classes, how = len(model.classes_), getattr(model, "multi_class", "auto")
    if getattr(model, "loss", None) == "modified_huber":
        return _shares((decision.clip(-1.0, 1.0) + 1.0) / 2.0, classes)
    if classes == 2:
        return softmax(concat([-decision, decision])) if how == "multinomial" else _shares(expit(decision), classes)
    one_by_one = hasattr(model, "loss") or how == "ovr" or model.solver == "liblinear"
    return _shares(expit(decision), classes) if one_by_one else softmax(decision)


def _shares(proba: Tensor, classes: int) -> Tensor:
    """Return probabilities of each class alone brought to a sum of 1; equal ones where all are 0."""
    if classes == 2:
        return concat([1.0 - proba, proba])
    total = proba.sum()
    nothing = total.equals(0.0)
    return where(nothing, 1.0 / classes, proba / where(nothing, 1.0, total))
