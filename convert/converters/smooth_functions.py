"""Writes smooth functions that onnxruntime lacks in float64, by polynomials: the normal distribution's and its kin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from convert.converters.expressions import Tensor, minimum, where


def erf(x: Tensor) -> Tensor:
    """Return the error function, within 1e-15: onnxruntime has no Erf in float64. Beyond 6 it is 1."""
    return x.op("Sign") * piecewise(x.abs(), special.erf, 0.0, 6.0)


def ndtr(x: Tensor) -> Tensor:
    """Return the normal distribution's probability below x, within 1e-15 absolute."""
    return (erf(x / np.sqrt(2.0)) + 1.0) * 0.5


def ndtri(p: Tensor) -> Tensor:
    """Return the normal distribution's quantile of p in [1e-8, 1 - 1e-8], within 1e-14; further out it stays there."""
    tail = minimum(p, 1.0 - p)
    depth = (tail.clip(1e-8, None).log() * -2.0).sqrt()
    outer = piecewise(depth, lambda t: special.ndtri(np.exp(-0.5 * t**2)), 2.0, 6.1)
    inner = -piecewise((p - 0.5).abs(), lambda q: special.ndtri(0.5 + q), 0.0, 0.4)
    return (p - 0.5).op("Sign") * -where(tail < 0.1, outer, inner)


def piecewise(x: Tensor, function: Callable[[Any], Any], start: float, end: float) -> Tensor:
    """Return a smooth function of x [n, k], x moved into [start, end], by Chebyshev polynomials on 32 equal pieces."""
    pieces, degree = 32, 10
    width = (end - start) / pieces
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    middles = start + (np.arange(pieces) + 0.5) * width
    values = function(middles[:, None] + nodes * width / 2)
    fits = np.linalg.solve(np.polynomial.chebyshev.chebvander(nodes, degree), values.T).T
    table = np.zeros((pieces, degree + 1))
    for row, fit in zip(table, fits, strict=True):
        powers = np.polynomial.chebyshev.cheb2poly(fit)
        row[: len(powers)] = powers
    gap = x.isnan()
    inside = where(gap, start, x.clip(start, end))
    piece = ((inside - start) / width).floor().clip(0.0, pieces - 1.0).cast("int64")
    coefficients = x.graph.constant(table).take(piece, axis=0)  # [n, k, degree + 1]
    offset = (inside - x.graph.constant(middles).take(piece, axis=0)) * (2 / width)
    result = coefficients.take(degree, axis=2)
    for power in range(degree - 1, -1, -1):
        result = result * offset + coefficients.take(power, axis=2)
    return where(gap, np.nan, result)
