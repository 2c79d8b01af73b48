"""Writes clusterings that place new rows (sklearn.cluster): the nearest centre, or a walk down a tree of centres."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.cluster import (
    AffinityPropagation,
    Birch,
    BisectingKMeans,
    FeatureAgglomeration,
    KMeans,
    MeanShift,
    MiniBatchKMeans,
)

from convert.converters.distances import partly_squared, squared_by_product
from convert.converters.expressions import Tensor, concat, where
from convert.converters.writers import InputTensors, OutputTensors, refusal
from convert.converters.writers import register as register_writer


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    for clustering in (KMeans, MiniBatchKMeans, MeanShift, AffinityPropagation):
        register_writer(clustering, "cluster", _centres)
    register_writer(Birch, "cluster", _birch)
    register_writer(BisectingKMeans, "cluster", _bisecting)
    register_writer(FeatureAgglomeration, "transformer", _agglomeration)


def _centres(rows: InputTensors, model: Any) -> OutputTensors:
    """The nearest of cluster_centers_; KMeans also gives the distances to all."""
    centres = getattr(model, "cluster_centers_", np.empty((0, 0)))
    if not len(centres):
        raise refusal(model, "it has no cluster centres", "fit it so that it converges, with affinity='euclidean'")
    by_product = partly_squared(rows.matrix, centres)
    away = squared_by_product(rows.matrix, centres, by_product).sqrt() if hasattr(model, "transform") else None
    return OutputTensors(by_product.argmin(), transform=away)


def _birch(rows: InputTensors, model: Any) -> OutputTensors:
    labels = rows.graph.constant(np.asarray(model.subcluster_labels_))
    by_product = partly_squared(rows.matrix, model.subcluster_centers_)
    away = squared_by_product(rows.matrix, model.subcluster_centers_, by_product).sqrt()
    return OutputTensors(labels.take(by_product.argmin(), axis=0), transform=away)


def _bisecting(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.cluster.BisectingKMeans._predict_recursive: at each node the nearer of its two centres."""
    shift = getattr(model, "_X_mean", 0.0)

    def label(node: Any) -> Tensor:
        if node.left is None:
            return rows.graph.constant(np.array([int(node.label)]))
        centres = np.vstack([node.left.center, node.right.center]) + shift
        left = _nearest(rows.matrix, centres).equals(0)
        return where(left, label(node.left), label(node.right))

    root = model._bisecting_tree
    whole = label(root) if root.left is not None else _nearest(rows.matrix, model.cluster_centers_)
    return OutputTensors(whole, transform=squared_by_product(rows.matrix, model.cluster_centers_).sqrt())


def _nearest(x: Tensor, centres: Any) -> Tensor:
    """Return the index of the nearest centre c, int64 [n], by c.c - 2 x.c (sklearn.cluster._k_means_lloyd)."""
    return partly_squared(x, centres).argmin()


def _agglomeration(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.cluster.FeatureAgglomeration.transform: the columns of each cluster pooled."""
    labels = np.asarray(model.labels_)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    pools: dict[Any, Callable[[Tensor], Tensor]] = {
        np.mean: Tensor.mean,
        np.max: Tensor.max,
        np.min: Tensor.min,
        np.sum: Tensor.sum,
        np.median: _median,
    }
    if model.pooling_func not in pools:
        raise refusal(model, "its pooling function has no ONNX form", "use numpy.mean, median, max, min or sum")
    pool = pools[model.pooling_func]
    return OutputTensors(transform=concat([pool(rows.matrix.columns(*group)) for group in groups]))


def _median(x: Tensor) -> Tensor:
    size = x.op("Shape", start=1, end=2)
    ordered = x.graph.nodes("TopK", x, size, outputs=2, axis=1)[0]
    low, high = (size - 1).op("Div", 2), size.op("Div", 2)
    return (ordered.take(low) + ordered.take(high)) * 0.5
