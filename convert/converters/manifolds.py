"""Writes embeddings that place a new row between its nearest training rows (sklearn.manifold)."""

from typing import Any

import numpy as np
from sklearn.manifold import Isomap, LocallyLinearEmbedding

from convert.converters.expressions import Tensor, concat, where
from convert.converters.kernels import kernel_pca_of
from convert.converters.neighbours import k_nearest
from convert.converters.writers import InputTensors, OutputTensors, refusal
from convert.converters.writers import register as register_writer
from convert.model.arrays import dense


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(Isomap, "transformer", _isomap)
    register_writer(LocallyLinearEmbedding, "transformer", _locally_linear)


def _isomap(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.manifold.Isomap.transform: the shortest way to every training point through a neighbour."""
    if model.n_neighbors is not None:
        near, index = k_nearest(rows.matrix, model.nbrs_, model.nbrs_.n_neighbors)
        through = rows.graph.constant(np.asarray(model.dist_matrix_)).take(index, axis=0) + near.expand(2)
        ways = through.min(axis=1, keepdims=False)
        return OutputTensors(transform=kernel_pca_of(ways * ways * -0.5, model.kernel_pca_))
    raise refusal(model, "it searches neighbours by radius", "use n_neighbors instead of radius")


def _locally_linear(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.manifold.LocallyLinearEmbedding.transform: the row as a weighed mean of its neighbours."""
    _, index = k_nearest(rows.matrix, model.nbrs_, model.n_neighbors)
    offsets = rows.graph.constant(dense(model.nbrs_._fit_X)).take(index, axis=0) - rows.matrix.expand(1)
    gram = offsets @ offsets.transpose(0, 2, 1)
    identity = np.eye(model.n_neighbors)[None]
    trace = (gram * identity).sum(axis=2).sum(axis=1)
    # Divided by its trace, so that no pivot is far from 1; the weights are divided by their sum later.
    weights = _solved(gram / where(trace > 0.0, trace, 1.0) + float(model.reg) * identity, model.n_neighbors)
    weights = weights / weights.sum(axis=1)
    places = rows.graph.constant(np.asarray(model.embedding_)).take(index, axis=0)
    return OutputTensors(transform=(places * weights).sum(axis=1, keepdims=False))


def _solved(matrix: Tensor, size: int) -> Tensor:
    """Return the solutions [n, size, 1] of `matrix @ x = 1` by Gauss-Jordan steps.

    The matrices [n, size, size] are symmetric and positive definite, so no pivots need to be searched.
    """
    ones = matrix.take([0], axis=2) * 0.0 + 1.0
    table = concat([matrix, ones], axis=2)
    for i in range(size):
        row = table.take([i], axis=1)
        row = row / row.take([i], axis=2)
        here = np.eye(size)[i].reshape(1, size, 1)
        column = table.take([i], axis=2)
        table = table - (column - here) * row  # its own row is divided by the pivot, the others are emptied there
    return table.take([size], axis=2)
