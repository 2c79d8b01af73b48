"""Writes Gaussian processes (sklearn.gaussian_process): kernels as trees of expressions, then Laplace's formulas."""

import math
from typing import Any

import numpy as np
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process import kernels as gp
from sklearn.gaussian_process._gpc import _BinaryGaussianProcessClassifierLaplace as _BinaryClassifier

from convert.converters.distances import distances, reduced_distances
from convert.converters.expressions import Tensor, concat
from convert.converters.kernels import pairwise_kernel, power
from convert.converters.multiclass import one_vs_one, one_vs_rest
from convert.converters.smooth_functions import erf
from convert.converters.writers import InputTensors, OutputTensors, classified, refusal
from convert.converters.writers import register as register_writer

# Williams & Barber's five error functions; sklearn.gaussian_process._gpc has them as LAMBDAS and COEFS.
_LAMBDAS = np.array([[0.41, 0.4, 0.37, 0.44, 0.39]])
_COEFFICIENTS = np.array([-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654])


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(GaussianProcessRegressor, "regressor", _regressor)
    register_writer(GaussianProcessClassifier, "classifier", _classifier)
    register_writer(_BinaryClassifier, "classifier", _binary)


def kernel_values(x: Tensor, points: Any, kernel: Any) -> Tensor:
    """Return `kernel(x, points)` for a kernel of sklearn.gaussian_process.kernels, float64 [n, m].

    Raises ConversionRefused for a kernel without a closed form here.
    """
    if isinstance(kernel, gp.Sum):
        return kernel_values(x, points, kernel.k1) + kernel_values(x, points, kernel.k2)
    if isinstance(kernel, gp.Product):
        return kernel_values(x, points, kernel.k1) * kernel_values(x, points, kernel.k2)
    if isinstance(kernel, gp.Exponentiation):
        return power(kernel_values(x, points, kernel.kernel), float(kernel.exponent))
    if isinstance(kernel, gp.ConstantKernel):
        return _constant(x, points, float(kernel.constant_value))
    if isinstance(kernel, gp.WhiteKernel):  # noise counts only between a point and itself
        return _constant(x, points, 0.0)
    if isinstance(kernel, gp.DotProduct):
        return x @ np.asarray(points).T + float(kernel.sigma_0) ** 2
    if isinstance(kernel, gp.PairwiseKernel):
        parameters = {"gamma": float(kernel.gamma), **(kernel.pairwise_kernels_kwargs or {})}
        return pairwise_kernel(x, points, kernel, kernel.metric, **parameters)
    return _stationary(x, points, kernel)


def kernel_diagonal(x: Tensor, kernel: Any) -> Tensor:
    """Return `kernel.diag(x)`, float64 [n, 1]."""
    if isinstance(kernel, gp.Sum):
        return kernel_diagonal(x, kernel.k1) + kernel_diagonal(x, kernel.k2)
    if isinstance(kernel, gp.Product):
        return kernel_diagonal(x, kernel.k1) * kernel_diagonal(x, kernel.k2)
    if isinstance(kernel, gp.Exponentiation):
        return power(kernel_diagonal(x, kernel.kernel), float(kernel.exponent))
    if isinstance(kernel, gp.DotProduct):
        return (x * x).sum() + float(kernel.sigma_0) ** 2
    if isinstance(kernel, gp.PairwiseKernel):
        raise refusal(kernel, "its variance depends on the rows", "use RBF or Matern")
    constant = float(kernel.diag(np.zeros((1, 1)))[0])  # every other kernel has one constant value there
    return x.columns(0) * 0.0 + constant


def _stationary(x: Tensor, points: Any, kernel: Any) -> Tensor:
    if isinstance(kernel, gp.RationalQuadratic):
        squared = reduced_distances(x, points, "sqeuclidean")
        return (1.0 + squared / float(2 * kernel.alpha * kernel.length_scale**2)) ** float(-kernel.alpha)
    if isinstance(kernel, gp.ExpSineSquared):
        sine = (distances(x, points, "euclidean") * (np.pi / float(kernel.periodicity))).op("Sin") / float(
            kernel.length_scale
        )
        return (sine * sine * -2.0).exp()
    if not isinstance(kernel, gp.RBF):  # Matern is one too
        raise refusal(kernel, "it has no closed form here", "use RBF, Matern, RationalQuadratic or DotProduct")
    scale = np.broadcast_to(np.asarray(kernel.length_scale, dtype=np.float64), np.shape(points)[1:])
    scaled, scaled_points = x / scale[None, :], np.asarray(points) / scale
    nu = getattr(kernel, "nu", math.inf)
    if math.isinf(nu):
        return (reduced_distances(scaled, scaled_points, "sqeuclidean") * -0.5).exp()
    away = distances(scaled, scaled_points, "euclidean") * math.sqrt(2 * nu)
    if nu not in (0.5, 1.5, 2.5):
        raise refusal(kernel, f"nu={nu}", "use nu=0.5, 1.5, 2.5 or infinity")
    polynomial = {0.5: away * 0.0, 1.5: away, 2.5: away + away * away / 3.0}[nu] + 1.0
    return (-away).exp() * polynomial


def _constant(x: Tensor, points: Any, value: float) -> Tensor:
    return x.columns(0) * 0.0 + np.full((1, len(points)), value)


def _regressor(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.gaussian_process.GaussianProcessRegressor.predict (Rasmussen & Williams, algorithm 2.1)."""
    if not hasattr(model, "X_train_"):
        raise refusal(model, "it is not fitted", "fit it first")
    alpha = np.asarray(model.alpha_).reshape(len(model.X_train_), -1)
    mean = kernel_values(rows.matrix, model.X_train_, model.kernel_) @ alpha
    return OutputTensors(mean * np.reshape(model._y_train_std, (1, -1)) + np.reshape(model._y_train_mean, (1, -1)))


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    inner = model.base_estimator_
    if model.n_classes_ == 2:
        return _binary(rows, inner)
    if model.multi_class == "one_vs_rest":
        return one_vs_rest(rows, inner)
    return one_vs_one(rows, inner)


def _binary(rows: InputTensors, model: Any) -> OutputTensors:
    """As _BinaryGaussianProcessClassifierLaplace.predict_proba (Rasmussen & Williams, algorithm 3.2)."""
    near = kernel_values(rows.matrix, model.X_train_, model.kernel_)
    mean = near @ np.asarray(model.y_train_ - model.pi_).reshape(-1, 1)
    solved = near @ (np.asarray(model.W_sr_)[:, None] * np.linalg.inv(model.L_).T)
    variance = kernel_diagonal(rows.matrix, model.kernel_) - (solved * solved).sum()
    alpha = 0.5 / variance
    errors = erf(mean * _LAMBDAS * (alpha / (alpha + _LAMBDAS**2)).sqrt())
    integrals = (np.pi / alpha).sqrt() * errors / ((variance * (2.0 * np.pi)).sqrt() * 2.0)
    second = integrals @ _COEFFICIENTS.reshape(-1, 1) + 0.5 * float(_COEFFICIENTS.sum())
    index = (mean > 0.0).cast("int64").reshape(-1)
    return classified(rows, model, concat([1.0 - second, second]), index=index)
