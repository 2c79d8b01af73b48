"""Writes outlier detection by a robust covariance (sklearn.covariance.EllipticEnvelope)."""

from typing import Any

import numpy as np
from sklearn.covariance import EllipticEnvelope

from convert.converters.writers import InputTensors, OutputTensors, outlier
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(EllipticEnvelope, "outlier", _envelope)


def _envelope(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.covariance.EllipticEnvelope.score_samples: minus the squared Mahalanobis distance."""
    centred = rows.matrix - np.asarray(model.location_)[None, :]
    squared = ((centred @ np.asarray(model.get_precision())) * centred).sum()
    return outlier(-squared, float(model.offset_))
