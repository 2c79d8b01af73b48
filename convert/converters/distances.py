"""Writes distances between rows and training points (sklearn.metrics.pairwise, sklearn.metrics._dist_metrics)."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from appliance.errors import ConversionRefused
from convert.converters.expressions import Tensor, maximum, row, where
from convert.model.arrays import Array, dense

Points = Array
_WRITTEN_OUT = 32  # columns
_SMALL = 2**14  # coordinates of all points


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
        return accumulated(x @ whitening, points @ whitening, _square)
    if metric == "seuclidean":
        scale = np.sqrt(np.asarray(parameters["V"], dtype=np.float64))
        return accumulated(x / scale[None, :], points / scale, _square)
    if metric in ("cosine", "correlation"):
        if metric == "correlation":
            x, points = x - x.mean(), points - points.mean(axis=1, keepdims=True)
        return (1.0 - _normalized(x) @ _normalized_points(points).T).clip(0.0, 2.0)  # rounding goes beyond
    if metric == "braycurtis":
        sizes = accumulated(x, points, lambda a, b: a.abs() + b.abs())  # as in sklearn.metrics._dist_metrics, not SciPy
        return accumulated(x, points, lambda a, b: (a - b).abs()) / where(sizes.equals(0.0), 1.0, sizes)
    if metric == "chebyshev":
        return accumulated(x, points, lambda a, b: (a - b).abs(), largest=True)
    if metric not in _TERMS:
        next_step = f"use one of {', '.join(sorted({*_TERMS, 'cosine', 'chebyshev', 'minkowski'}))}"
        raise ConversionRefused("write the distances of a model", f"metric {metric!r}", next_step)
    total = accumulated(x, points, _TERMS[metric])
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
    """Return sklearn.metrics.pairwise.nan_euclidean_distances, of coordinates that both sides have.

    Where they have none in common it is infinite; scikit-learn's is NaN.
    """
    present, here = where(x.isnan(), 0.0, 1.0), (~np.isnan(points)).astype(np.float64)
    filled, known = where(x.isnan(), 0.0, x), np.nan_to_num(points)

    def term(a: Tensor, a_here: Tensor, b: Tensor, b_here: Tensor) -> Tensor:
        return _square(a * b_here, b * a_here)  # what is missing is 0 on both sides

    squared = accumulated([filled, present], [known, here], term)
    common = present @ here.T
    return where(common.equals(0.0), np.inf, squared / common.clip(1.0, None) * float(known.shape[1])).sqrt()


def squared_by_product(x: Tensor, points: Points, partly: Tensor | None = None) -> Tensor:
    """Return squared distances as x.x - 2 x.y + y.y, as sklearn.metrics.pairwise.euclidean_distances does.

    `partly` is what `partly_squared` returned of the same, where that is needed as well.
    """
    return (x.squares() + (partly or partly_squared(x, points))).clip(0.0, None)


def partly_squared(x: Tensor, points: Points) -> Tensor:
    """Return y.y - 2 x.y [n, m]: squared distances without x.x, which is the same for all points of a row."""
    points = dense(points)
    return x.affine(-2.0 * points.T, row((points**2).sum(axis=1)))


def nearest(x: Tensor, points: Points, metric: str = "euclidean") -> Tensor:
    """Return the index of the nearest of `points`, int64 [n], the first of equally near ones."""
    return reduced_distances(x, points, metric).argmin()


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
        return accumulated(x, points, lambda a, b: (a - b).abs(), largest=True)
    if weights is not None:
        scale = np.asarray(weights, dtype=np.float64) ** (1.0 / power)
        x, points = x * scale[None, :], points * scale
    if power == 2:
        return accumulated(x, points, _square)
    return accumulated(x, points, lambda a, b: (a - b).abs() ** power)


def accumulated(
    x: Tensor | Sequence[Tensor],
    points: Points | Sequence[Points],
    term: Callable[..., Tensor],
    largest: bool = False,
) -> Tensor:
    """Return the sum (or the largest) over coordinates of term(x, point), [n, m], one coordinate after another.

    For several x [n, d] and several points [m, d] the term gets a value of each. Small problems are written column by
    column. Otherwise each row is taken alone: that needs memory for [d, m] only, which stays in the cache.
    """
    rows = [x] if isinstance(x, Tensor) else list(x)
    sides = [points] if isinstance(points, np.ndarray) else list(points)
    count, width = sides[0].shape
    if width <= _WRITTEN_OUT and count * width <= _SMALL:
        return _written_out(rows, sides, term, largest)

    def step(*slices: Tensor) -> Tensor:
        constants = [slices[0].graph.constant(side.T) for side in sides]
        terms = term(*(part.expand(1) for part in slices), *constants)
        # onnxruntime adds along the first axis row by row, as a plain loop does.
        return terms.max(axis=0, keepdims=False) if largest else terms.sum(axis=0, keepdims=False)

    return rows[0].graph.each_row(step, *rows)


def _written_out(rows: list[Tensor], sides: list[Points], term: Callable[..., Tensor], largest: bool) -> Tensor:
    graph, width = rows[0].graph, sides[0].shape[1]
    split = [graph.nodes("Split", x, outputs=width, axis=1, num_outputs=width) if width > 1 else [x] for x in rows]
    terms = [
        term(*(parts[column] for parts in split), *(graph.constant(side[None, :, column]) for side in sides))
        for column in range(width)
    ]
    return functools.reduce(maximum if largest else operator.add, terms)


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
