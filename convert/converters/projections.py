"""Writes random and fixed feature maps (sklearn.kernel_approximation, sklearn.random_projection)."""

from typing import Any

import numpy as np
from sklearn.kernel_approximation import AdditiveChi2Sampler, PolynomialCountSketch, RBFSampler, SkewedChi2Sampler
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from convert.converters.expressions import Tensor, concat, where
from convert.converters.writers import InputTensors, OutputTensors, refuse_rows
from convert.converters.writers import register as register_writer
from convert.model.arrays import dense

_COPIED = 8192  # numbers that a count sketch copies of a row at once


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(AdditiveChi2Sampler, "transformer", _additive_chi2)
    register_writer(SkewedChi2Sampler, "transformer", _skewed_chi2)
    register_writer(
        RBFSampler, "transformer", lambda rows, model: OutputTensors(transform=_fourier(rows.matrix, model))
    )
    register_writer(PolynomialCountSketch, "transformer", _count_sketch)
    for projection in (SparseRandomProjection, GaussianRandomProjection):
        register_writer(
            projection,
            "transformer",
            lambda rows, model: OutputTensors(transform=rows.matrix @ dense(model.components_).T),
        )


def _fourier(x: Tensor, model: Any) -> Tensor:
    """As sklearn.kernel_approximation.RBFSampler.transform."""
    angles = x @ np.asarray(model.random_weights_) + np.asarray(model.random_offset_).reshape(1, -1)
    return angles.op("Cos") * float((2.0 / model.n_components) ** 0.5)


def _skewed_chi2(rows: InputTensors, model: Any) -> OutputTensors:
    x = refuse_rows(rows.matrix, rows.matrix <= -float(model.skewedness))
    return OutputTensors(transform=_fourier((x + float(model.skewedness)).log(), model))


def _additive_chi2(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.kernel_approximation.AdditiveChi2Sampler._transform_dense; zeros stay zeros."""
    x = refuse_rows(rows.matrix, rows.matrix < 0.0)
    interval = model.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[model.sample_steps]
    zero = x.equals(0.0)
    positive = where(zero, 1.0, x)
    parts = [where(zero, 0.0, (positive * float(interval)).sqrt())]
    logarithm = positive.log() * float(interval)
    for step in range(1, model.sample_steps):
        factor = (positive * float(2 * interval / np.cosh(np.pi * step * interval))).sqrt()
        for wave in ("Cos", "Sin"):
            parts.append(where(zero, 0.0, factor * (logarithm * float(step)).op(wave)))
    return OutputTensors(transform=concat(parts))


def _count_sketch(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.kernel_approximation.PolynomialCountSketch.transform (Pham & Pagh 2013).

    The sketches are convolved directly. scikit-learn multiplies their Fourier transforms, which gives every component
    the rounding errors of the largest one.
    """
    x = rows.matrix * float(np.sqrt(model.gamma))
    if model.coef0 != 0:
        x = concat([x, x.columns(0) * 0.0 + float(np.sqrt(model.coef0))])
    size = int(model.n_components)
    convolved = x @ _sketch(model.indexHash_[0], model.bitHash_[0], size)
    for hashes, signs in zip(model.indexHash_[1:], model.bitHash_[1:], strict=True):
        # By columns or by components, whichever are fewer: one copy each, rotated by an offset.
        by_column = len(hashes) <= size
        offsets = hashes if by_column else np.arange(size)
        weights = x * np.asarray(signs, dtype=np.float64)[None, :] if by_column else x @ _sketch(hashes, signs, size)
        portions = np.array_split(np.arange(len(offsets)), -(-len(offsets) * size // _COPIED))
        parts = [_turned(convolved, weights.columns(*portion), offsets[portion], size) for portion in portions]
        convolved = sum(parts[1:], parts[0])
    return OutputTensors(transform=convolved)


def _turned(x: Tensor, weights: Tensor, offsets: Any, size: int) -> Tensor:
    """Return the sum of copies of x [n, size], each rotated by an offset, times their weights [n, offsets]."""
    copies = x.take((np.arange(size)[None, :] - offsets[:, None]) % size)
    return (weights.reshape(0, 1, -1) @ copies).reshape(0, size)


def _sketch(hashes: Any, signs: Any, size: int) -> Any:
    """Return the matrix [columns, size] that takes rows to their count sketch."""
    sketch = np.zeros((len(hashes), size))
    sketch[np.arange(len(hashes)), hashes] = signs
    return sketch
