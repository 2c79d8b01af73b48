"""Writes power and quantile transforms and their inverses (sklearn.preprocessing)."""

from typing import Any

import numpy as np
from scipy import stats
from sklearn.preprocessing import PowerTransformer, QuantileTransformer

from convert.converters.expressions import Tensor, concat, expm1, interpolate, log1p, row, where
from convert.converters.smooth_functions import ndtr, ndtri
from convert.converters.writers import InputTensors, OutputTensors, refuse_rows
from convert.converters.writers import register as register_writer
from convert.model import sparse_input

_EPS = float(np.finfo(np.float64).eps)
_LEAST_DIVISOR = 1e-8  # 2^-52 over it is 2e-8
_BOUNDS_THRESHOLD = 1e-7  # sklearn.preprocessing._data.BOUNDS_THRESHOLD


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(PowerTransformer, "transformer", _power)
    register_writer(QuantileTransformer, "transformer", _quantile)


def inverse_power(y: Tensor, model: Any) -> Tensor:
    """Return `PowerTransformer.inverse_transform(y)`."""
    if model.standardize:
        y = y * np.asarray(model._scaler.scale_)[None, :] + np.asarray(model._scaler.mean_)[None, :]
    inverse = _inverse_box_cox if model.method == "box-cox" else _inverse_yeo_johnson
    return concat([inverse(y.columns(i), float(power)) for i, power in enumerate(model.lambdas_)])


def inverse_quantile(y: Tensor, model: Any) -> Tensor:
    """Return `QuantileTransformer.inverse_transform(y)`."""
    columns = []
    for i, quantiles in enumerate(np.asarray(model.quantiles_).T):
        level = y.columns(i)
        if model.output_distribution == "normal":
            level = ndtr(level)
            high, low = level + _BOUNDS_THRESHOLD > 1.0, level - _BOUNDS_THRESHOLD < 0.0
        else:
            high, low = level.equals(1.0), level.equals(0.0)
        value = interpolate(level, np.asarray(model.references_), quantiles)
        columns.append(where(low, float(quantiles[0]), where(high, float(quantiles[-1]), value)))
    return concat(columns)


def _power(rows: InputTensors, model: Any) -> OutputTensors:
    x = rows.matrix
    powers = np.asarray(model.lambdas_, dtype=np.float64)
    if model.method == "box-cox":
        x = refuse_rows(x, x <= 0.0)
    elif model.standardize and _is_plain(powers, model._scaler.scale_):
        return OutputTensors(transform=_plain_yeo_johnson(x, powers, model._scaler))
    y = _box_cox(x, powers) if model.method == "box-cox" else _yeo_johnson(x, powers)
    if model.standardize:
        y = (y - row(model._scaler.mean_)) / row(model._scaler.scale_)
    return OutputTensors(transform=y)


def _grown(logarithm: Tensor, powers: Any, none: Any) -> Tensor:
    """Return expm1(power log) / power by column, and log where the power is 0."""
    grown = expm1(logarithm * row(powers)) / row(np.where(none, 1.0, powers))
    return where(logarithm.graph.constant(none[None, :]), logarithm, grown) if none.any() else grown


def _box_cox(x: Tensor, powers: Any) -> Tensor:
    """As scipy.special.boxcox."""
    return _grown(x.log(), powers, powers == 0)


def _yeo_johnson(x: Tensor, powers: Any) -> Tensor:
    """As scipy.stats.yeojohnson."""
    logarithm = log1p(x.abs())  # of 1 + x where x >= 0, of 1 - x where x < 0
    above = _grown(logarithm, powers, np.abs(powers) < _EPS)
    below = -_grown(logarithm, 2.0 - powers, np.abs(2.0 - powers) <= _EPS)
    return where(x >= 0.0, above, where(x.isnan(), np.nan, below))


def _is_plain(powers: Any, scale: Any) -> bool:
    """Return whether the rounding of 1 + x, divided by the power, stays far below any tolerance."""
    divisors = np.minimum(np.abs(powers), np.abs(2.0 - powers)) * np.asarray(scale)
    return bool((divisors > _LEAST_DIVISOR).all())


def _plain_yeo_johnson(x: Tensor, powers: Any, scaler: Any) -> Tensor:
    """Return the standardized transform in a third of the nodes: sign(x) ((1 + |x|)^a - 1) / a, a by the sign of x."""
    above = x >= 0.0
    own = where(above, row(powers), row(2.0 - powers))
    divisor = where(above, row(powers * scaler.scale_), row((2.0 - powers) * scaler.scale_))
    grown = ((1.0 + x.abs()).log() * own).exp() - 1.0
    return x.op("Sign") * grown / divisor - row(scaler.mean_ / scaler.scale_)


def _inverse_box_cox(y: Tensor, power: float) -> Tensor:
    """As scipy.special.inv_boxcox."""
    return y.exp() if power == 0 else (log1p(y * power) / power).exp()


def _inverse_yeo_johnson(y: Tensor, power: float) -> Tensor:
    """As sklearn.preprocessing.PowerTransformer._yeo_johnson_inverse_transform."""
    above = y.exp() - 1.0 if abs(power) < _EPS else (y * power + 1.0) ** (1.0 / power) - 1.0
    rest = 2.0 - power
    below = 1.0 - (-y).exp() if abs(rest) <= _EPS else 1.0 - (y * -rest + 1.0) ** (1.0 / rest)
    return where(y >= 0.0, above, below)


def _quantile(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.preprocessing.QuantileTransformer._transform: in a sparse matrix only stored entries change."""
    quantiles = np.asarray(model.quantiles_)
    columns = [_levels(rows.matrix.columns(i), quantiles[:, i], model) for i in range(quantiles.shape[1])]
    changed = concat(columns)
    if sparse_input.gets_sparse(model):
        changed = where(rows.matrix.equals(0.0), 0.0, changed)
    return OutputTensors(transform=changed)


def _levels(x: Tensor, quantiles: Any, model: Any) -> Tensor:
    references = np.asarray(model.references_)
    level = interpolate(x, quantiles, references)
    if (np.diff(quantiles) == 0).any():  # the mean of the interpolation from below and from above
        level = (level - interpolate(-x, -quantiles[::-1], -references[::-1])) * 0.5
    if model.output_distribution == "normal":
        low, high = x - _BOUNDS_THRESHOLD < float(quantiles[0]), x + _BOUNDS_THRESHOLD > float(quantiles[-1])
    else:
        low, high = x.equals(float(quantiles[0])), x.equals(float(quantiles[-1]))
    level = where(low, 0.0, where(high, 1.0, level))
    if model.output_distribution == "normal":
        threshold = _BOUNDS_THRESHOLD - np.spacing(1)
        level = ndtri(level).clip(float(stats.norm.ppf(threshold)), float(stats.norm.ppf(1 - threshold)))
    return where(x.isnan(), np.nan, level)
