"""Expressions of NumPy's functions of single elements that ONNX has no operator for, exact where NumPy is.

They must be exact, since rounding or a comparison may follow: `floor(log10(1000))` is 3, but 2 if the last digit is
off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.converters.expressions import Tensor, expm1, log1p, where


def remainder(a: Tensor, b: Any) -> Tensor:
    """As numpy.remainder: the result has the divisor's sign."""
    rest = a.op("Mod", b, fmod=1)
    divisor = a.graph.constant(b)
    return where(_has_other_sign(rest, divisor), rest + divisor, rest)


def floor_divide(a: Tensor, b: Any) -> Tensor:
    """As numpy.floor_divide: 1 // 0.1 is 9, while 1 / 0.1 is rounded to 10 (`npy_floor_divide`, npy_math)."""
    rest = a.op("Mod", b, fmod=1)
    divisor = a.graph.constant(b)
    quotient = (a - rest) / divisor
    quotient = where(_has_other_sign(rest, divisor), quotient - 1.0, quotient)
    down = quotient.floor()  # for results that are whole numbers except for rounding
    down = where(quotient - down > 0.5, down + 1.0, down)
    return where(divisor.equals(0.0), a / divisor, down)


def power(a: Tensor, b: Any) -> Tensor:
    """As numpy.power, whose squares are products."""
    return a * a if np.ndim(b) == 0 and not isinstance(b, Tensor) and float(b) == 2.0 else a**b


def exp2(a: Tensor) -> Tensor:
    """As numpy.exp2."""
    return a.graph.constant(2.0) ** a


def log2(a: Tensor) -> Tensor:
    """As numpy.log2."""
    return _logarithm(a, 2.0)


def log10(a: Tensor) -> Tensor:
    """As numpy.log10."""
    return _logarithm(a, 10.0)


def cbrt(a: Tensor) -> Tensor:
    """As numpy.cbrt: a power of a third, and one step of Newton's method for its last digits."""
    root = a.abs() ** (1.0 / 3.0)
    is_plain = root.equals(0.0) | root.op("IsInf")
    divisor = where(is_plain, 1.0, root)
    step = (root * root * root - a.abs()) / (divisor * divisor * 3.0)
    return a.op("Sign") * where(is_plain, root, root - step)


def cosh(a: Tensor) -> Tensor:
    """As numpy.cosh."""
    return (a.exp() + (-a).exp()) * 0.5


def sinh(a: Tensor) -> Tensor:
    """As numpy.sinh."""
    return (expm1(a) - expm1(-a)) * 0.5


def arcsinh(a: Tensor) -> Tensor:
    """As numpy.arcsinh."""
    return a.op("Sign") * log1p(a.abs() + a * a / ((a * a + 1.0).sqrt() + 1.0))


def round_to(a: Tensor, decimals: int) -> Tensor:
    """As numpy.round, which divides first where `decimals` is below 0."""
    scale = 10.0 ** abs(decimals)
    return (a * scale).op("Round") / scale if decimals >= 0 else (a / scale).op("Round") * scale


def _has_other_sign(rest: Tensor, divisor: Tensor) -> Tensor:
    return ((rest < 0.0) & (divisor > 0.0)) | ((rest > 0.0) & (divisor < 0.0))


def _logarithm(a: Tensor, base: float) -> Tensor:
    """Return the logarithm to a base; near powers of the base from the distance to them, so that it is exact there."""
    plain = a.log() / float(np.log(base))
    whole = plain.op("Round")
    nearest = a.graph.constant(base) ** whole
    beyond = (a - nearest) / nearest
    # Below 1e-300 a power has few digits: only the power itself has a whole logarithm.
    is_near = beyond.equals(0.0) | ((beyond.abs() < 1e-3) & (nearest > 1e-300))
    return where(is_near, whole + log1p(where(is_near, beyond, 0.0)) / float(np.log(base)), plain)
