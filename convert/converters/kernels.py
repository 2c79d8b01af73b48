"""Writes kernels between rows and training points (sklearn.metrics.pairwise) and the models that are sums of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import KernelPCA
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import KernelCenterer

from convert.converters.distances import accumulated, distances
from convert.converters.expressions import Tensor, row, where
from convert.converters.writers import InputTensors, OutputTensors, refusal
from convert.converters.writers import register as register_writer
from convert.model.arrays import Array, dense

_FAR = 300.0  # exp of it is about 1e130


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(KernelRidge, "regressor", _kernel_ridge)
    register_writer(
        KernelPCA,
        "transformer",
        lambda rows, model: OutputTensors(transform=kernel_pca_of(_own_kernel(rows, model), model)),
    )
    register_writer(
        KernelCenterer, "transformer", lambda rows, model: OutputTensors(transform=_centered(rows.matrix, model))
    )
    register_writer(Nystroem, "transformer", _nystroem)


def pairwise_kernel(x: Tensor, points: Any, model: Any, kernel: Any, **parameters: Any) -> Tensor:
    """Return `sklearn.metrics.pairwise.pairwise_kernels(x, points, kernel, **parameters)`, float64 [n, m].

    A parameter of None takes the kernel's own default. Raises ConversionRefused for a kernel that is a function.
    """
    if kernel == "precomputed":
        return x
    if not isinstance(kernel, str):
        raise refusal(model, "its kernel is a function", "use a kernel by name")
    points = dense(points)
    given = {name: value for name, value in parameters.items() if value is not None}
    gamma = float(given.get("gamma", 1.0 if kernel == "chi2" else 1.0 / points.shape[1]))
    coef0, degree = float(given.get("coef0", 1.0)), float(given.get("degree", 3.0))
    if kernel == "rbf":
        return _gaussian(x, points, gamma)
    if kernel == "laplacian":
        return (distances(x, points, "manhattan") * -gamma).exp()
    if kernel == "cosine":
        return 1.0 - distances(x, points, "cosine")
    if kernel in ("additive_chi2", "chi2"):
        chi2 = _additive_chi2(x, points)
        return chi2 if kernel == "additive_chi2" else (chi2 * gamma).exp()
    product: Tensor = x @ points.T
    if kernel == "linear":
        return product
    if kernel in ("poly", "polynomial"):
        return power(product * gamma + coef0, degree)
    if kernel == "sigmoid":
        return (product * gamma + coef0).op("Tanh")
    raise refusal(model, f"kernel {kernel!r}", "use linear, poly, rbf, sigmoid, laplacian, cosine or chi2")


def _gaussian(x: Tensor, points: Array, gamma: float) -> Tensor:
    """Return exp(-gamma |x - y|^2) as exp(2 gamma x.y - gamma y.y - gamma x.x), in few nodes; distances are >= 0."""
    products = x.affine(points.T * (2.0 * gamma), row((points**2).sum(axis=1)) * -gamma)
    return (products - x.squares() * gamma).clip(None, 0.0).exp()


def weighed_gaussian(x: Tensor, points: Array, gamma: float, weights: Array, offsets: Any) -> Tensor:
    """Return `exp(-gamma |x - y|^2) @ weights + offsets`, offsets [1, k], in fewer nodes than with the kernel first.

    What depends on the points alone, exp(-gamma |y|^2), stands in the weights. It and the other factor, which is at
    most exp(gamma |y|^2), must be far from overflow; otherwise the kernel is computed first.
    """
    exponents = gamma * (points**2).sum(axis=1)
    if exponents.max(initial=0.0) > _FAR:
        return _gaussian(x, points, gamma).affine(weights, offsets)
    factors = x.affine(points.T * (2.0 * gamma), x.squares() * -gamma).exp()
    return factors.affine(weights * np.exp(-exponents)[:, None], offsets)


def power(base: Tensor, exponent: float) -> Tensor:
    """Return base**exponent; small whole exponents by multiplication, which keeps the sign exact."""
    if exponent == int(exponent) and 1 <= exponent <= 4:
        result = base
        for _ in range(int(exponent) - 1):
            result = result * base
        return result
    return base.op("Pow", exponent)


def kernel_pca_of(kernel: Tensor, model: Any) -> Tensor:
    """Return the projection of kernel values [n, m], as sklearn.decomposition.KernelPCA.transform."""
    values = np.asarray(model.eigenvalues_)
    kept = np.flatnonzero(values)
    scaled: NDArray[np.float64] = np.zeros(np.shape(model.eigenvectors_))
    scaled[:, kept] = model.eigenvectors_[:, kept] / np.sqrt(values[kept])
    return _centered(kernel, model._centerer) @ scaled


def _centered(kernel: Tensor, centerer: Any) -> Tensor:
    """As sklearn.preprocessing.KernelCenterer.transform."""
    rows = np.asarray(centerer.K_fit_rows_)
    return kernel - (kernel.mean() + row(rows - float(centerer.K_fit_all_)))


def _own_kernel(rows: InputTensors, model: Any) -> Tensor:
    parameters = {"gamma": getattr(model, "gamma_", model.gamma), "degree": model.degree, "coef0": model.coef0}
    return pairwise_kernel(rows.matrix, model.X_fit_, model, model.kernel, **parameters)


def _kernel_ridge(rows: InputTensors, model: Any) -> OutputTensors:
    parameters = {"gamma": model.gamma, "degree": model.degree, "coef0": model.coef0}
    kernel = pairwise_kernel(rows.matrix, model.X_fit_, model, model.kernel, **parameters)
    return OutputTensors(kernel @ np.asarray(model.dual_coef_).reshape(len(model.dual_coef_), -1))


def _nystroem(rows: InputTensors, model: Any) -> OutputTensors:
    kernel = pairwise_kernel(rows.matrix, model.components_, model, model.kernel, **model._get_kernel_params())
    return OutputTensors(transform=kernel @ np.asarray(model.normalization_).T)


def _additive_chi2(x: Tensor, points: Any) -> Tensor:
    """As sklearn.metrics.pairwise.additive_chi2_kernel: -sum((x - y)^2 / (x + y)), nothing where both are 0."""

    def term(a: Tensor, b: Tensor) -> Tensor:
        size = a + b
        return (a - b) * (a - b) / where(size.equals(0.0), 1.0, size)

    return -accumulated(x, points, term)
