"""Lets steps of an original compute their own formulas with fewer rounding errors."""

from functools import partial
from typing import Any

import numpy as np
from sklearn.impute import KNNImputer
from sklearn.kernel_approximation import PolynomialCountSketch
from sklearn.neighbors import KernelDensity, NearestCentroid

from convert.model.arrays import Array, dense

_KINDS = (KernelDensity, KNNImputer, NearestCentroid, PolynomialCountSketch)
_MOST_PAIRS = 1_000_000  # pairs of a row and a training row; each pair takes some microseconds


def knows(step: Any, rows: int) -> bool:
    """Return whether `compute` changes a step, and this many rows then take seconds at most."""
    return isinstance(step, _KINDS) and rows * len(getattr(step, "_fit_X", ())) <= _MOST_PAIRS


def compute(step: Any) -> None:
    """Make a step compute with fewer rounding errors from now on; a step of an unknown class stays as it is.

    The tree of a density loses small densities far from its rows; with all rows in one leaf it simply adds them.
    KNNImputer and NearestCentroid subtract squares; with a large number in a row, few digits of the distances remain. A
    count sketch computes a whole row by one Fourier transform, so each number has the rounding errors of the largest.
    """
    if isinstance(step, KernelDensity) and hasattr(step, "tree_"):  # a search also holds one that is not fitted
        tree, parameters = step.tree_, {"metric": step.metric, **(step.metric_params or {})}
        rows = np.asarray(tree.data)
        weights = None if tree.sample_weight is None else np.asarray(tree.sample_weight)
        step.tree_ = type(tree)(rows, leaf_size=len(rows), sample_weight=weights, **parameters)
    elif isinstance(step, KNNImputer) and step.metric == "nan_euclidean":
        step.metric = _nan_euclidean
    elif isinstance(step, NearestCentroid) and step.metric == "euclidean":
        step._decision_function = partial(_discriminant, step)
    elif isinstance(step, PolynomialCountSketch):
        step.transform = partial(_convolved, step)


def _nan_euclidean(a: Array, b: Array, missing_values: Any = np.nan, **_: Any) -> float:
    """Return sklearn.metrics.pairwise.nan_euclidean_distances of two rows, from their differences."""
    gaps = [np.isnan(row) if missing_values != missing_values else row == missing_values for row in (a, b)]
    apart = (a - b)[~(gaps[0] | gaps[1])]
    return float(np.sqrt(apart @ apart / len(apart) * len(a))) if len(apart) else np.nan


def _discriminant(model: Any, rows: Any) -> Array:
    """As NearestCentroid._decision_function (scikit-learn 1.6 and later), from differences; [rows, classes]."""
    x = dense(rows)
    scale = np.where(model.within_class_std_dev_ != 0, model.within_class_std_dev_, 1.0)
    squares = ((x[:, None] / scale - np.asarray(model.centroids_) / scale) ** 2).sum(axis=2)
    return np.asarray(2.0 * np.log(model.class_prior_) - squares)


def _convolved(model: Any, rows: Any) -> Array:
    """As PolynomialCountSketch.transform, the sketches of the columns convolved one by one."""
    x = dense(rows) * np.sqrt(model.gamma)
    if model.coef0 != 0:
        x = np.hstack([x, np.full((len(x), 1), np.sqrt(model.coef0))])
    answer = np.eye(1, model.n_components).repeat(len(x), axis=0)
    for places, signs in zip(model.indexHash_, model.bitHash_, strict=True):
        weights = (x * signs)[:, :, None]
        answer = sum(weights[:, i] * np.roll(answer, place, axis=1) for i, place in enumerate(places))
    return answer
