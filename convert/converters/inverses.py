"""Writes the inverse transforms that bring a regressor's target back to its own scale (TransformedTargetRegressor)."""

from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from convert.converters.expressions import Tensor, row
from convert.converters.functions import traced
from convert.converters.powers import inverse_power, inverse_quantile
from convert.converters.writers import refusal
from convert.model.steps import stages

INVERTIBLE = (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Pipeline,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
INSTEAD = "use a StandardScaler, MinMaxScaler, PowerTransformer, QuantileTransformer or a pair of functions"
"""What a refusal says to use in place of any other transformer."""


def inverse_transform(y: Tensor, transformer: Any) -> Tensor:
    """Return `transformer.inverse_transform(y)` for y [n, targets].

    Raises ConversionRefused for a transformer whose inverse is not written here.
    """
    if isinstance(transformer, Pipeline):
        for step in reversed(stages(transformer)):
            y = y if step is None or step == "passthrough" else inverse_transform(y, step)
        return y
    if isinstance(transformer, FunctionTransformer):
        return traced(y, transformer, transformer.inverse_func, transformer.inv_kw_args)
    if isinstance(transformer, PowerTransformer):
        return inverse_power(y, transformer)
    if isinstance(transformer, QuantileTransformer):
        return inverse_quantile(y, transformer)
    if isinstance(transformer, MinMaxScaler):
        return (y - row(transformer.min_)) / row(transformer.scale_)
    if isinstance(transformer, MaxAbsScaler):
        return y * row(transformer.scale_)
    if isinstance(transformer, StandardScaler | RobustScaler):
        scaled = transformer.with_std if isinstance(transformer, StandardScaler) else transformer.with_scaling
        centred = transformer.with_mean if isinstance(transformer, StandardScaler) else transformer.with_centering
        middle = transformer.mean_ if isinstance(transformer, StandardScaler) else transformer.center_
        y = y * row(transformer.scale_) if scaled else y
        return y + row(middle) if centred else y
    raise refusal(transformer, "its inverse has no ONNX form here", INSTEAD)
