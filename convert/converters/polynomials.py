"""Writes products and thresholds of columns in float64 (sklearn.preprocessing.PolynomialFeatures, Binarizer)."""

from typing import Any

import numpy as np
from sklearn.preprocessing import Binarizer, PolynomialFeatures

from convert.converters.expressions import Tensor, concat
from convert.converters.writers import InputTensors, OutputTensors
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(PolynomialFeatures, "transformer", _polynomial)
    register_writer(Binarizer, "transformer", _binarizer)


def _polynomial(rows: InputTensors, model: Any) -> OutputTensors:
    """Each output column is a product of `degree` input columns; the constant 1 fills lower degrees up."""
    powers = np.asarray(model.powers_)
    degree = max(1, int(powers.sum(axis=1).max()))
    one = powers.shape[1]
    factors = np.full((len(powers), degree), one)
    for row, exponents in zip(factors, powers, strict=True):
        columns = np.repeat(np.arange(one), exponents)
        row[: len(columns)] = columns
    padded = concat([rows.matrix, rows.matrix.columns(0) * 0.0 + 1.0])
    product: Tensor = padded.columns(*factors[:, 0])
    for position in range(1, degree):
        product = product * padded.columns(*factors[:, position])
    return OutputTensors(transform=product)


def _binarizer(rows: InputTensors, model: Any) -> OutputTensors:
    return OutputTensors(transform=(rows.matrix > float(model.threshold)).cast("float64"))
