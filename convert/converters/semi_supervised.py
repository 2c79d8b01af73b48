"""Writes label propagation (sklearn.semi_supervised)."""

from typing import Any

import numpy as np
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from convert.converters.kernels import pairwise_kernel
from convert.converters.neighbours import k_nearest
from convert.converters.writers import InputTensors, OutputTensors, classified
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    for model in (LabelPropagation, LabelSpreading):
        register_writer(model, "classifier", _propagation)


def _propagation(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.semi_supervised._label_propagation.BaseLabelPropagation.predict_proba."""
    distributions = np.asarray(model.label_distributions_)
    if model.kernel == "knn":
        _, index = k_nearest(rows.matrix, model.nn_fit, model.n_neighbors)
        sums = rows.graph.constant(distributions).take(index, axis=0).sum(axis=1, keepdims=False)
    else:
        sums = pairwise_kernel(rows.matrix, model.X_, model, model.kernel, gamma=model.gamma) @ distributions
    return classified(rows, model, sums / sums.sum())
