"""Writes models that answer the same whatever the row (sklearn.dummy)."""

from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor

from convert.converters.writers import InputTensors, OutputTensors, classified, refusal
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(DummyClassifier, "classifier", _classifier)
    register_writer(DummyRegressor, "regressor", _regressor)


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.dummy.DummyClassifier: its prior, or one class; a graph cannot draw at random."""
    prior = np.asarray(model.class_prior_)
    if model.strategy == "prior":
        proba, chosen = prior, int(prior.argmax())
    elif model.strategy == "most_frequent":
        proba, chosen = np.eye(len(prior))[prior.argmax()], int(prior.argmax())
    elif model.strategy == "constant":
        chosen = int(np.flatnonzero(model.classes_ == np.ravel(model.constant)[0])[0])
        proba = np.eye(len(prior))[chosen]
    else:
        raise refusal(
            model, f"strategy={model.strategy!r} draws at random", "use 'prior', 'most_frequent' or 'constant'"
        )
    zero = _zero(rows)
    return classified(rows, model, zero + proba[None, :], index=zero.cast("int64").reshape(-1) + chosen)


def _regressor(rows: InputTensors, model: Any) -> OutputTensors:
    return OutputTensors(_zero(rows) + np.asarray(model.constant_, dtype=np.float64).reshape(1, -1))


def _zero(rows: InputTensors) -> Any:
    """Return zeros [n, 1], whatever the rows hold: texts and missing values too."""
    count = rows.tensors[0].op("Shape", start=0, end=1)
    return rows.graph.node("Expand", np.zeros((1, 1)), count.op("Concat", [1], axis=0))
