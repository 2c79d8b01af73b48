"""Writes distances between rows and training points (sklearn.metrics.pairwise, sklearn.metrics._dist_metrics)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.errors import ConversionRefused
from convert.converters.expressions import Graph, Tensor, maximum, row, where

Points = NDArray[Any]


def distances(x: Tensor, points: Points, metric: str, parameters: dict[str, Any] | None = None) -> Tensor:
    """Return the distance of each row of x [n, d] to each of `points` [m, d], as float64 [n, m].

    Coordinates are added one after another, as scikit-learn's trees do, so that equal distances stay equal. Raises
    ConversionRefused for a metric that has no closed form here.
    """
    return finished(reduced_distances(x, points, metric, parameters), metric, parameters)


def reduced_distances(x: Tensor, points: Points, metric: str, parameters: dict[str, Any] | None = None) -> Tensor:
    """Return distances before the last root, which keeps their order ("reduced" in sklearn.metrics._dist_metrics)."""
    parameters = parameters or {}
    points = dense(points)
    if metric == "precomputed":
        return x
    if metric == "minkowski":
        return _minkowski(x, points, parameters)
    if metric == "mahalanobis":
        whitening = np.linalg.cholesky(_inverse_covariance(parameters))
        return _accumulate(x @ whitening, points @ whitening, _square)
    if metric == "seuclidean":
        scale = np.sqrt(np.asarray(parameters["V"], dtype=np.float64))
        return _accumulate(x / scale[None, :], points / scale, _square)
    if metric in ("cosine", "correlation"):
        if metric == "correlation":
            x, points = x - x.mean(), points - points.mean(axis=1, keepdims=True)
        return 1.0 - _normalized(x) @ _normalized_points(points).T
    if metric == "braycurtis":
        return _accumulate(x, points, lambda a, b: (a - b).abs()) / _accumulate(x, points, lambda a, b: (a + b).abs())
    if metric == "chebyshev":
        return _accumulate(x, points, lambda a, b: (a - b).abs(), largest=True)
    if metric not in _TERMS:
        next_step = f"use one of {', '.join(sorted({*_TERMS, 'cosine', 'chebyshev', 'minkowski'}))}"
        raise ConversionRefused("write the distances of a model", f"metric {metric!r}", next_step)
    total = _accumulate(x, points, _TERMS[metric])
    return total / float(points.shape[1]) if metric == "hamming" else total


def reduced_radius(radius: float, metric: str, parameters: dict[str, Any] | None = None) -> float:
    """Return the reduced distance that stands for `radius`."""
    power = _root(metric, parameters)
    return float(radius) if power == 1 else float(radius) * float(radius) if power == 2 else float(radius) ** power


def finished(reduced: Tensor, metric: str, parameters: dict[str, Any] | None = None) -> Tensor:
    """Return distances from reduced ones."""
    power = _root(metric, parameters)
    return reduced if power == 1 else reduced.sqrt() if power == 2 else reduced ** (1.0 / power)


def nan_euclidean(x: Tensor, points: Points) -> Tensor:
    """Return sklearn.metrics.pairwise.nan_euclidean_distances, of coordinates that both sides have; NaN without any."""
    present, here = where(x.isnan(), 0.0, 1.0), (~np.isnan(points)).astype(np.float64)
    filled, known = where(x.isnan(), 0.0, x), np.nan_to_num(points)

    def step(total: Tensor, a: Tensor, a_here: Tensor, b: Tensor, b_here: Tensor) -> Tensor:
        difference = (a.expand(1) - b.expand(0)) * a_here.expand(1) * b_here.expand(0)
        return total + difference * difference

    constant, width = x.graph.constant, known.shape[1]
    sides = (filled.transpose(), present.transpose(), constant(known.T), constant(here.T))
    squared = x.graph.scan(step, _zeros(x, len(points)), *sides)
    common = present @ here.T
    return where(common.equals(0.0), np.nan, squared / common.clip(1.0, None) * float(width)).sqrt()


def squared_by_product(x: Tensor, points: Points) -> Tensor:
    """Return squared distances as x.x - 2 x.y + y.y, as sklearn.metrics.pairwise.euclidean_distances does."""
    points = dense(points)
    squared = (x * x).sum() - 2.0 * (x @ points.T) + row((points**2).sum(axis=1))
    return squared.clip(0.0, None)


def nearest(x: Tensor, points: Points, metric: str = "euclidean") -> Tensor:
    """Return the index of the nearest of `points`, int64 [n], the first of equally near ones."""
    return reduced_distances(x, points, metric).argmin()


def dense(points: Any) -> Points:
    """Return training points as a float64 array, sparse ones written out."""
    return np.asarray(points.toarray() if hasattr(points, "toarray") else points, dtype=np.float64)


def _square(a: Tensor, b: Tensor) -> Tensor:
    difference = a - b
    return difference * difference


def _canberra(a: Tensor, b: Tensor) -> Tensor:
    size = a.abs() + b.abs()
    return (a - b).abs() / where(size.equals(0.0), 1.0, size)


_TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "euclidean": _square,
    "l2": _square,
    "sqeuclidean": _square,
    "manhattan": lambda a, b: (a - b).abs(),
    "cityblock": lambda a, b: (a - b).abs(),
    "l1": lambda a, b: (a - b).abs(),
    "canberra": _canberra,
    "hamming": lambda a, b: where(a.equals(b), 0.0, 1.0),
}


def _root(metric: str, parameters: dict[str, Any] | None) -> float:
    if metric in ("euclidean", "l2", "seuclidean", "mahalanobis"):
        return 2
    power = float((parameters or {}).get("p", 2)) if metric == "minkowski" else 1
    return 1 if np.isinf(power) else power


def _minkowski(x: Tensor, points: Points, parameters: dict[str, Any]) -> Tensor:
    power = float(parameters.get("p", 2))
    weights = parameters.get("w")
    if np.isinf(power):
        return _accumulate(x, points, lambda a, b: (a - b).abs(), largest=True)
    if weights is not None:
        scale = np.asarray(weights, dtype=np.float64) ** (1.0 / power)
        x, points = x * scale[None, :], points * scale
    if power == 2:
        return _accumulate(x, points, _square)
    return _accumulate(x, points, lambda a, b: (a - b).abs() ** power)


def _accumulate(x: Tensor, points: Points, term: Callable[[Tensor, Tensor], Tensor], largest: bool = False) -> Tensor:
    """Return the sum (or the largest) over coordinates of term(x, point), [n, m], in memory for a few [n, m] only."""

    def step(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
        value = term(a.expand(1), b.expand(0))
        return maximum(total, value) if largest else total + value

    return x.graph.scan(step, _zeros(x, len(points)), x.transpose(), x.graph.constant(points.T))


def _zeros(x: Tensor, columns: int) -> Tensor:
    """Return zeros [n, columns] for the n rows of x."""
    graph: Graph = x.graph
    rows = x.op("Shape", start=0, end=1)
    return graph.node("Expand", np.zeros((1, columns)), rows.op("Concat", [columns], axis=0))


def _inverse_covariance(parameters: dict[str, Any]) -> Points:
    if "VI" in parameters:
        return np.asarray(parameters["VI"], dtype=np.float64)
    return np.asarray(np.linalg.inv(np.asarray(parameters["V"], dtype=np.float64)))


def _normalized(x: Tensor) -> Tensor:
    norm = (x * x).sum().sqrt()
    return x / where(norm.equals(0.0), 1.0, norm)


def _normalized_points(points: Points) -> Points:
    norm = np.sqrt((points**2).sum(axis=1, keepdims=True))
    return np.asarray(points / np.where(norm == 0, 1.0, norm))
