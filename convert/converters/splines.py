"""Writes spline features (sklearn.preprocessing.SplineTransformer) as one polynomial per interval between knots."""

import math
from typing import Any

import numpy as np
from sklearn.preprocessing import SplineTransformer

from convert.converters.elementwise import remainder
from convert.converters.expressions import Tensor, concat, where
from convert.converters.writers import InputTensors, OutputTensors, refuse_rows
from convert.converters.writers import register as register_writer
from convert.model.arrays import Array


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(SplineTransformer, "transformer", _splines)


def _splines(rows: InputTensors, model: Any) -> OutputTensors:
    parts, degree = [], model.degree
    for i, spline in enumerate(model.bsplines_):
        parts.append(_basis(rows.matrix.columns(i), spline, model, degree))
        # scikit-learn increases its loop variable here, and so places the next column's boundary knots elsewhere.
        degree += int(model.extrapolation == "linear" and degree <= 1)
    return OutputTensors(transform=concat(parts))


def _basis(x: Tensor, spline: Any, model: Any, degree: int) -> Tensor:
    """Return the basis functions of one column x [n, 1], float64 [n, splines].

    As scipy.interpolate.BSpline inside the knots; outside by `extrapolation`, as SplineTransformer.transform.
    """
    low, high = float(spline.t[degree]), float(spline.t[-degree - 1])
    result = _extrapolated(x, spline, model.extrapolation, low, high, degree)
    if getattr(model, "handle_missing", "error") == "zeros":
        result = where(x.isnan(), 0.0, result)
    kept = range(np.shape(spline.c)[1] - (not model.include_bias))
    return result if model.include_bias else result.columns(*kept)


def _extrapolated(x: Tensor, spline: Any, how: str, low: float, high: float, degree: int) -> Tensor:
    if how == "periodic":
        return _pieces(remainder(x - low, high - low) + low, spline)
    if how == "continue":
        return _pieces(x, spline)
    outside = (x < low) | (x > high)
    if how == "error":
        return _pieces(refuse_rows(x, outside), spline)
    inside = _pieces(x.clip(low, high), spline)
    if how == "constant":
        return where(outside, 0.0, inside) if degree == 0 else inside
    first, last = _line(x, spline, low, degree, front=True), _line(x, spline, high, degree, front=False)
    return where(x < low, first, where(x > high, last, inside))


def _line(x: Tensor, spline: Any, knot: float, degree: int, front: bool) -> Tensor:
    """Return the linear continuation of the basis functions beyond a boundary knot; 0 except at the end."""
    value, slope = spline(knot), spline(knot, nu=1)
    count = degree + 1 if degree <= 1 else degree
    at_end = np.arange(len(value)) < count if front else np.arange(len(value)) >= len(value) - count
    return (x - knot) * np.where(at_end, slope, 0.0)[None, :] + np.where(at_end, value, 0.0)[None, :]


def _pieces(x: Tensor, spline: Any) -> Tensor:
    """Return the piecewise polynomials at x; the first and last piece go on beyond the knots."""
    degree = int(spline.k)
    knots = np.asarray(spline.t[degree : len(spline.t) - degree])
    starts = knots[:-1]
    piece = (x >= starts[None, 1:]).cast("int64").sum() if len(starts) > 1 else (x * 0.0).cast("int64")
    offset = x - x.graph.constant(starts).take(piece, axis=0)
    result = x * 0.0
    for coefficients in reversed(_taylor(spline, starts, degree)):
        result = result * offset + x.graph.constant(coefficients).take(piece.reshape(-1), axis=0)
    return result


def _taylor(spline: Any, starts: Array, degree: int) -> list[Array]:
    """Return for each power the coefficients [pieces, splines] around each piece's start."""
    return [np.asarray(spline(starts, nu=power)) / math.factorial(power) for power in range(degree + 1)]
