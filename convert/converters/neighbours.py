"""Writes nearest-neighbour models (sklearn.neighbors): distances, then votes or means."""

from typing import Any

import numpy as np
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    KNeighborsTransformer,
    LocalOutlierFactor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
    RadiusNeighborsTransformer,
)

from convert.converters import neighbour_ties
from convert.converters.distances import distances, finished, reduced_distances, reduced_radius
from convert.converters.expressions import Tensor, maximum, one_hot, softmax, where
from convert.converters.writers import InputTensors, OutputTensors, classified, outlier, refusal, refuse_rows
from convert.converters.writers import register as register_writer
from convert.model.arrays import dense


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(KNeighborsClassifier, "classifier", _k_classifier)
    register_writer(KNeighborsRegressor, "regressor", _k_regressor)
    register_writer(KNeighborsTransformer, "transformer", _k_transformer)
    register_writer(RadiusNeighborsClassifier, "classifier", _radius_classifier)
    register_writer(RadiusNeighborsRegressor, "regressor", _radius_regressor)
    register_writer(RadiusNeighborsTransformer, "transformer", _radius_transformer)
    register_writer(NearestCentroid, "classifier", _nearest_centroid)
    register_writer(LocalOutlierFactor, "outlier", _local_outlier_factor)


def k_nearest(x: Tensor, model: Any, k: int) -> tuple[Tensor, Tensor]:
    """Return the distances float64 [n, k] and indices int64 [n, k] of the nearest training points, nearest first.

    Of equally near points those are taken that scikit-learn's tree takes.
    """
    metric, parameters = _metric(model)
    reduced = reduced_distances(x, model._fit_X, metric, parameters)
    more = min(k + 1, model.n_samples_fit_)
    nearest, index = x.graph.nodes("TopK", reduced, [more], outputs=2, axis=1, largest=0, sorted=1)
    if more > k:
        index = neighbour_ties.settled(x, reduced, nearest, index, model, k)
        nearest = nearest.columns(*range(k))
    return finished(nearest, metric, parameters), index


def _k_classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.neighbors.KNeighborsClassifier.predict_proba: votes of the neighbours, weighed."""
    near, index = k_nearest(rows.matrix, model, model.n_neighbors)
    votes = one_hot(rows.graph.constant(np.asarray(model._y).reshape(-1)).take(index, axis=0), len(model.classes_))
    weights = _weights(near, model)
    sums = votes.sum(axis=1, keepdims=False) if weights is None else (votes * weights.expand(2)).sum(1, keepdims=False)
    return classified(rows, model, sums / sums.sum(), index=sums.argmax())


def _k_regressor(rows: InputTensors, model: Any) -> OutputTensors:
    near, index = k_nearest(rows.matrix, model, model.n_neighbors)
    values = rows.graph.constant(_values(model)).take(index, axis=0)
    weights = _weights(near, model)
    if weights is None:
        return OutputTensors(values.mean(axis=1, keepdims=False))
    return OutputTensors((values * weights.expand(2)).sum(axis=1, keepdims=False) / weights.sum())


def _k_transformer(rows: InputTensors, model: Any) -> OutputTensors:
    near, index = k_nearest(rows.matrix, model, model.n_neighbors + int(model.mode == "distance"))
    values = near if model.mode == "distance" else near * 0.0 + 1.0
    empty = where(_is_far(rows.matrix, model), 0.0, 0.0)
    return OutputTensors(transform=empty.op("ScatterElements", index, values, axis=1))


def _radius_classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.neighbors.RadiusNeighborsClassifier.predict_proba, outliers included."""
    _one_output(model)
    weights = _radius_weights(rows.matrix, model)
    classes = len(model.classes_)
    sums = weights @ np.eye(classes)[np.asarray(model._y).reshape(-1)]
    alone = weights.sum().equals(0.0)
    label = None if model.outlier_label_ is None else np.ravel(model.outlier_label_)[0]
    if label is None:
        sums = refuse_rows(sums, alone)
    known = np.flatnonzero(model.classes_ == label)
    if len(known) == 1:
        sums = where(alone, np.eye(classes)[None, known[0]], sums)
    elif label is not None:
        raise refusal(model, "its outlier label is not a class", "use one of the training classes as outlier_label")
    return classified(rows, model, sums / sums.sum(), index=sums.argmax())


def _radius_regressor(rows: InputTensors, model: Any) -> OutputTensors:
    weights = _radius_weights(rows.matrix, model)
    return OutputTensors((weights @ _values(model)) / weights.sum())


def _radius_transformer(rows: InputTensors, model: Any) -> OutputTensors:
    metric, parameters = _metric(model)
    near = ~_is_far(rows.matrix, model)
    if model.mode == "connectivity":
        return OutputTensors(transform=near.cast("float64"))
    return OutputTensors(transform=where(near, distances(rows.matrix, model._fit_X, metric, parameters), 0.0))


def _nearest_centroid(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.neighbors.NearestCentroid: the nearest where all priors are equal, else its discriminant scores."""
    priors = np.asarray(getattr(model, "class_prior_", np.full(len(model.classes_), 1 / len(model.classes_))))
    index = reduced_distances(rows.matrix, model.centroids_, model.metric).argmin()
    if not hasattr(model, "within_class_std_dev_"):  # scikit-learn before 1.6 has the nearest alone
        return classified(rows, model, index=index)
    scale = np.where(model.within_class_std_dev_ != 0, model.within_class_std_dev_, 1.0)
    away = reduced_distances(rows.matrix / scale[None, :], np.asarray(model.centroids_) / scale, model.metric)
    squared = away if model.metric == "euclidean" else away * away
    scores = 2.0 * np.log(priors)[None, :] - squared
    if not np.isclose(priors, 1 / len(priors)).all():
        index = scores.argmax()
    decision = scores.columns(1) - scores.columns(0) if len(priors) == 2 else scores
    return classified(rows, model, softmax(scores), decision, index=index)


def _local_outlier_factor(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.neighbors.LocalOutlierFactor.score_samples, which answers new rows under novelty=True only."""
    near, index = k_nearest(rows.matrix, model, model.n_neighbors_)
    reach = rows.graph.constant(np.asarray(model._distances_fit_X_)[:, model.n_neighbors_ - 1]).take(index, axis=0)
    density = 1.0 / (maximum(near, reach).mean() + 1e-10)
    ratios = rows.graph.constant(np.asarray(model._lrd)).take(index, axis=0) / density
    return outlier(-ratios.mean(), float(model.offset_))


def _metric(model: Any) -> tuple[str, dict[str, Any]]:
    if callable(model.effective_metric_):
        raise refusal(model, "its metric is a function", "use a metric by name")
    parameters = {k: v for k, v in (model.effective_metric_params_ or {}).items() if v is not None}
    return str(model.effective_metric_), parameters


def _values(model: Any) -> Any:
    return np.asarray(model._y, dtype=np.float64).reshape(len(model._y), -1)


def _one_output(model: Any) -> None:
    if model.outputs_2d_:
        raise refusal(model, "it answers several outputs at once", "train one classifier for each output")


def _weights(near: Tensor, model: Any) -> Tensor | None:
    """Return the neighbours' weights, as sklearn.neighbors._base._get_weights; None where all count alike."""
    if model.weights in (None, "uniform"):
        return None
    if model.weights != "distance":
        raise refusal(model, "its weights are a function", "use weights='uniform' or 'distance'")
    here = near.equals(0.0).cast("float64")
    return where(here.max() > 0.0, here, 1.0 / near)


def _is_far(x: Tensor, model: Any) -> Tensor:
    """Return for each row and training point whether it lies outside the radius, bool [n, m]."""
    metric, parameters = _metric(model)
    radius = reduced_radius(getattr(model, "radius", None) or 0.0, metric, parameters)
    return reduced_distances(x, dense(model._fit_X), metric, parameters) > radius


def _radius_weights(x: Tensor, model: Any) -> Tensor:
    """Return each training point's weight for each row, 0 outside the radius, float64 [n, m]."""
    metric, parameters = _metric(model)
    reduced = reduced_distances(x, model._fit_X, metric, parameters)
    far = reduced > reduced_radius(model.radius, metric, parameters)
    weights = _weights(where(far, np.inf, finished(reduced, metric, parameters)), model)
    return where(far, 0.0, 1.0 if weights is None else weights)
