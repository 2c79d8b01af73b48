"""Writes Gaussian mixtures (sklearn.mixture) and kernel densities (sklearn.neighbors.KernelDensity)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.neighbors import KernelDensity

from convert.converters.distances import distances
from convert.converters.expressions import Tensor, concat, row, softmax, where
from convert.converters.writers import InputTensors, OutputTensors, refusal
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(GaussianMixture, "cluster", _mixture)
    register_writer(BayesianGaussianMixture, "cluster", _mixture)
    register_writer(KernelDensity, "density", _kernel_density)


def _mixture(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.mixture._base.BaseMixture.predict_proba.

    A component's weighted log density is its value at the component's mean, less half the squared distance from it.
    """
    means = np.asarray(model.means_)
    at_means = np.diag(model._estimate_weighted_log_prob(means))
    squared = []
    for k, mean in enumerate(means):
        whitened = _whitened(rows.matrix - mean[None, :], model, k)
        squared.append((whitened * whitened).sum())
    scores = concat(squared) * -0.5 + at_means[None, :]
    top = scores.max()
    density = (scores - top).exp().sum().log() + top
    return OutputTensors(scores.argmax(), softmax(scores), score_samples=density)


def _whitened(centred: Tensor, model: Any, k: int) -> Tensor:
    """Return (x - mean) times the component's Cholesky factor of the precision."""
    factors = np.asarray(model.precisions_cholesky_, dtype=np.float64)
    factor: NDArray[np.float64] = factors if model.covariance_type == "tied" else np.asarray(factors[k])
    if model.covariance_type in ("full", "tied"):
        return centred @ factor
    return centred * row(factor)


def _kernel_density(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.neighbors.KernelDensity.score_samples: the log of the mean of kernels around the training points."""
    points = np.asarray(model.tree_.data, dtype=np.float64)
    weights = model.tree_.sample_weight
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, dtype=np.float64)
    size, width = points.shape[1], float(model.bandwidth_)
    if model.metric != "euclidean":
        raise refusal(model, f"metric {model.metric!r}", "use metric='euclidean'")
    logs = _log_kernel(distances(rows.matrix, points, "euclidean") / width, model, size) + np.log(weights)[None, :]
    top = logs.max().clip(-1e300, None)
    total = (logs - top).exp().sum().log() + top
    density = total - float(size * np.log(width) + np.log(weights.sum()))
    return OutputTensors(density, score_samples=density)


def _log_kernel(u: Tensor, model: Any, size: int) -> Tensor:
    """Return the log of the normalized kernel at u widths from a point (sklearn.neighbors._binary_tree)."""
    ball = 0.5 * size * np.log(np.pi) - gammaln(0.5 * size + 1)  # log volume of the unit ball
    sphere = np.log(size) + ball  # log area of the unit sphere
    if model.kernel == "gaussian":
        return u * u * -0.5 - 0.5 * size * float(np.log(2 * np.pi))
    if model.kernel == "exponential":
        return -u - float(sphere + gammaln(size))
    inside = u < 1.0
    near = where(inside, u, 0.0)
    if model.kernel == "tophat":
        value: Tensor = near * 0.0 - float(ball)
    elif model.kernel == "epanechnikov":
        value = (1.0 - near * near).log() - float(ball + np.log(2.0 / (size + 2.0)))
    elif model.kernel == "linear":
        value = (1.0 - near).log() - float(ball - np.log(size + 1.0))
    else:
        raise refusal(model, f"kernel {model.kernel!r}", "use gaussian, exponential, tophat, epanechnikov or linear")
    return where(inside, value, -np.inf)
