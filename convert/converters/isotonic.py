"""Writes isotonic regression and calibrated classifiers (sklearn.isotonic, sklearn.calibration)."""

from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression

from convert.converters.expressions import Tensor, concat, expit, interpolate, row, softmax, where
from convert.converters.writers import InputTensors, OutputTensors, ask, ask_score, classified, refuse_rows
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(IsotonicRegression, "regressor", _isotonic)
    register_writer(CalibratedClassifierCV, "classifier", _calibrated)


def isotonic_regression(x: Tensor, model: Any) -> Tensor:
    """Return `IsotonicRegression.predict(x)` for x [n, 1]: linear between its thresholds.

    Beyond them: the nearest threshold's value under out_of_bounds="clip", NaN under "nan", no answer under "raise".
    """
    result = interpolate(x, np.asarray(model.X_thresholds_), np.asarray(model.y_thresholds_))
    if model.out_of_bounds == "clip" or len(model.y_thresholds_) == 1:
        return result
    beyond = (x < float(model.X_min_)) | (x > float(model.X_max_))
    return refuse_rows(result, beyond) if model.out_of_bounds == "raise" else where(beyond, np.nan, result)


def _isotonic(rows: InputTensors, model: Any) -> OutputTensors:
    result = isotonic_regression(rows.matrix, model)
    return OutputTensors(result, transform=result)


def _calibrated(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.calibration.CalibratedClassifierCV.predict_proba: the mean of its folds' classifiers."""
    parts = [_fold(rows, fold) for fold in model.calibrated_classifiers_]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return classified(rows, model, total / float(len(parts)))


def _fold(rows: InputTensors, fold: Any) -> Tensor:
    """As sklearn.calibration._CalibratedClassifier.predict_proba."""
    if fold.method == "temperature":
        proba = _temperature(rows, fold)
    else:
        proba = _one_by_one(ask_score(rows, fold.estimator), fold)
    return where((proba > 1.0) & (proba <= 1.0 + 1e-5), 1.0, proba)


def _one_by_one(scores: Tensor, fold: Any) -> Tensor:
    """Return calibrated probabilities of each class against the rest, scaled to a sum of 1."""
    classes = [*fold.classes]
    if fold.method == "sigmoid" and len(fold.calibrators) == len(classes) > 2:
        slopes, offsets = (row([getattr(one, name) for one in fold.calibrators]) for name in ("a_", "b_"))
        return _shares(expit(scores * -slopes - offsets), len(classes))
    calibrated = [_calibrator(scores.columns(i), one) for i, one in enumerate(fold.calibrators)]
    if len(classes) == 2:
        return concat([1.0 - calibrated[0], calibrated[0]])
    column = {classes.index(label): part for label, part in zip(fold.estimator.classes_, calibrated, strict=True)}
    absent = calibrated[0] * 0.0  # a class that this fold's training rows lacked
    return _shares(concat([column.get(index, absent) for index in range(len(classes))]), len(classes))


def _shares(proba: Tensor, classes: int) -> Tensor:
    total = proba.sum()
    nothing = total.equals(0.0)
    return where(nothing, 1.0 / classes, proba / where(nothing, 1.0, total))


def _calibrator(score: Tensor, calibrator: Any) -> Tensor:
    if isinstance(calibrator, IsotonicRegression):
        return isotonic_regression(score, calibrator)
    return expit(-(score * float(calibrator.a_) + float(calibrator.b_)))


def _temperature(rows: InputTensors, fold: Any) -> Tensor:
    """As sklearn.calibration._TemperatureScaling.predict; probabilities become logits first."""
    beta = float(fold.calibrators[0].beta_)
    if not hasattr(fold.estimator, "decision_function"):
        logits = (ask(rows, fold.estimator, "predict_proba") + 1e-12).log()
    else:
        decision = ask(rows, fold.estimator, "decision_function")
        logits = concat([-decision, decision]) if len(fold.classes) == 2 else decision
    return softmax(logits * beta)
