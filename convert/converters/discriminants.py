"""Writes discriminant analysis (sklearn.discriminant_analysis)."""

from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis

from convert.converters.expressions import Tensor, concat, expit, row, softmax
from convert.converters.writers import InputTensors, OutputTensors, classified
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(LinearDiscriminantAnalysis, "classifier", _linear)
    register_writer(QuadraticDiscriminantAnalysis, "classifier", _quadratic)


def _linear(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.discriminant_analysis.LinearDiscriminantAnalysis.predict_proba and transform."""
    decision = rows.matrix.affine(np.asarray(model.coef_).T, row(model.intercept_))
    if len(model.classes_) == 2:
        second = expit(decision)
        answers = classified(
            rows, model, concat([1.0 - second, second]), decision, (decision > 0.0).cast("int64").reshape(-1)
        )
    else:
        answers = classified(rows, model, softmax(decision), decision, decision.argmax())
    return OutputTensors(
        answers.predict, answers.predict_proba, decision, _projection(rows.matrix, model), index=answers.index
    )


def _projection(x: Tensor, model: Any) -> Tensor | None:
    if model.solver == "lsqr":
        return None
    centred = x - np.asarray(model.xbar_)[None, :] if model.solver == "svd" else x
    return centred @ np.asarray(model.scalings_)[:, : model._max_components]


def _quadratic(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis._decision_function (ESL, eq. 4.12)."""
    norms = []
    for mean, rotation, scaling in zip(model.means_, model.rotations_, model.scalings_, strict=True):
        rotated = (rows.matrix - np.asarray(mean)[None, :]) @ (np.asarray(rotation) * np.asarray(scaling) ** -0.5)
        norms.append((rotated * rotated).sum())
    logarithms = np.array([np.sum(np.log(scaling)) for scaling in model.scalings_])
    scores = (concat(norms) + logarithms[None, :]) * -0.5 + np.log(np.asarray(model.priors_))[None, :]
    decision = scores.columns(1) - scores.columns(0) if len(model.classes_) == 2 else scores
    return classified(rows, model, softmax(scores), decision, scores.argmax())
