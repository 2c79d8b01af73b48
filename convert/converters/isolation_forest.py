"""Converts scikit-learn's IsolationForest into one tree ensemble and the formula on its sum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.ensemble._iforest import _average_path_length

from convert.converters import tree_nodes
from convert.converters.expressions import where
from convert.converters.tree_nodes import of_sklearn, rounded
from convert.converters.writers import InputTensors, OutputTensors
from convert.converters.writers import register as register_writer
from convert.model import sparse_input


def register() -> None:
    """Make skl2onnx write IsolationForest exactly."""
    tree_nodes.allow_opset()
    register_writer(IsolationForest, "outlier", _isolation_forest)


def _isolation_forest(rows: InputTensors, model: Any) -> OutputTensors:
    """Return labels, decision function and score, as `_compute_score_samples` (sklearn/ensemble/_iforest.py)."""
    trees = [
        of_sklearn(estimator.tree_, value=lengths + averages - 1.0, features=features)
        for estimator, features, lengths, averages in zip(
            model.estimators_,
            model.estimators_features_,
            model._decision_path_lengths,
            model._average_path_length_per_tree,
            strict=True,
        )
    ]
    # The trees know no missing values: what is not below a threshold goes right
    if sparse_input.gets_sparse(model):
        trees = [replace(tree, missing_left=np.zeros_like(tree.missing_left)) for tree in trees]
    depths = tree_nodes.summed(rounded(rows.matrix), trees)
    longest = _denominator(model)
    share = depths / longest if longest else depths * 0.0 + 1.0
    score = -(rows.graph.constant(2.0) ** -share)
    # The offset is often the score of a training row. So the sum of depths is compared, which is exact.
    label = where(depths < _least_inlier(model), -1, 1).reshape(-1)
    return OutputTensors(predict=label, decision_function=score - float(model.offset_), score_samples=score)


def _denominator(model: Any) -> float:
    return float(len(model.estimators_) * _average_path_length([model._max_samples])[0])


def _least_inlier(model: Any) -> float:
    """Return the least sum of depths whose decision function is not negative in scikit-learn's own arithmetic."""

    def is_outlier(depths: float) -> bool:
        return bool(_decision(model, np.array([depths]))[0] < 0)

    low, high = 0, int(np.array(np.inf).view(np.int64))  # non-negative floats are ordered as their bits are
    while low < high:
        middle = (low + high) // 2
        if is_outlier(float(np.array(middle).view(np.float64))):
            low = middle + 1
        else:
            high = middle
    return float(np.array(low).view(np.float64))


def _decision(model: Any, depths: NDArray[np.float64]) -> NDArray[np.float64]:
    longest = _denominator(model)
    share = np.divide(depths, longest, out=np.ones_like(depths), where=longest != 0)
    decision: NDArray[np.float64] = -(2**-share) - model.offset_
    return decision
