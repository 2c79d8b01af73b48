"""Writes naive Bayes over categories in float64 (sklearn.naive_bayes.CategoricalNB)."""

from typing import Any

import numpy as np
from sklearn.naive_bayes import CategoricalNB

from convert.converters.expressions import Tensor, one_hot, softmax
from convert.converters.writers import InputTensors, OutputTensors, classified, refuse_rows
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(CategoricalNB, "classifier", _categorical)


def _categorical(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.naive_bayes.CategoricalNB._joint_log_likelihood; it refuses categories beyond those of training."""
    codes = rows.matrix.cast("int64")
    total: Tensor | None = None
    for i, logarithms in enumerate(model.feature_log_prob_):
        code = codes.columns(i)
        count = np.shape(logarithms)[1]
        term = one_hot(code.reshape(-1), count) @ np.asarray(logarithms).T
        term = refuse_rows(term, (code < 0) | (code >= count))
        total = term if total is None else total + term
    scores = (total if total is not None else rows.matrix) + np.asarray(model.class_log_prior_)[None, :]
    return classified(rows, model, softmax(scores), index=scores.argmax())
