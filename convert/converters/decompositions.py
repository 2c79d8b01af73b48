"""Writes projections learned from data (sklearn.decomposition, sklearn.cross_decomposition): a shift and a matrix."""

from typing import Any

import numpy as np
from sklearn.cross_decomposition import CCA, PLSSVD, PLSCanonical, PLSRegression
from sklearn.decomposition import FactorAnalysis, FastICA, MiniBatchSparsePCA, SparsePCA
from sklearn.neural_network import BernoulliRBM

from convert.converters.expressions import Tensor, expit, row
from convert.converters.writers import InputTensors, OutputTensors
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(FactorAnalysis, "transformer", _factor_analysis)
    register_writer(FastICA, "transformer", _fast_ica)
    register_writer(SparsePCA, "transformer", _sparse_pca)
    register_writer(MiniBatchSparsePCA, "transformer", _sparse_pca)
    register_writer(
        PLSSVD,
        "transformer",
        lambda rows, model: OutputTensors(transform=_standardized(rows, model) @ model.x_weights_),
    )
    for regressor in (CCA, PLSCanonical, PLSRegression):
        register_writer(regressor, "regressor", _partial_least_squares)
    register_writer(BernoulliRBM, "transformer", _boltzmann_machine)


def _factor_analysis(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.decomposition.FactorAnalysis.transform (Barber 21.2.33, Bishop 12.66)."""
    weighted = model.components_ / model.noise_variance_
    covariance = np.linalg.inv(np.eye(len(model.components_)) + weighted @ model.components_.T)
    return OutputTensors(transform=(rows.matrix - row(model.mean_)) @ weighted.T @ covariance)


def _fast_ica(rows: InputTensors, model: Any) -> OutputTensors:
    x = rows.matrix - row(model.mean_) if model.whiten else rows.matrix
    return OutputTensors(transform=x @ np.asarray(model.components_).T)


def _sparse_pca(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.decomposition.SparsePCA.transform: a ridge regression on the components, in closed form."""
    components = np.asarray(model.components_)
    gram = components @ components.T + model.ridge_alpha * np.eye(len(components))
    solution = np.linalg.solve(gram, components).T
    return OutputTensors(transform=(rows.matrix - row(model.mean_)) @ solution)


def _partial_least_squares(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.cross_decomposition._PLS.predict and transform."""
    centred = rows.matrix - row(model._x_mean)
    prediction = centred.affine(np.asarray(model.coef_).T, row(model.intercept_))
    return OutputTensors(prediction, transform=_standardized(rows, model) @ np.asarray(model.x_rotations_))


def _standardized(rows: InputTensors, model: Any) -> Tensor:
    return (rows.matrix - row(model._x_mean)) / row(model._x_std)


def _boltzmann_machine(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.neural_network.BernoulliRBM.transform: the hidden units' probabilities."""
    return OutputTensors(transform=expit(rows.matrix @ np.asarray(model.components_).T + row(model.intercept_hidden_)))
