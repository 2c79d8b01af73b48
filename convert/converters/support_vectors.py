"""Writes support vector machines in float64 (sklearn.svm, libsvm): onnxruntime's own SVM nodes compute in float32."""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM

from convert.converters.expressions import Tensor, concat, row, where
from convert.converters.kernels import pairwise_kernel, weighed_gaussian
from convert.converters.writers import InputTensors, OutputTensors, classified
from convert.converters.writers import register as register_writer
from convert.model.arrays import dense


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    for classifier in (SVC, NuSVC):
        register_writer(classifier, "classifier", _classifier)
    for regressor in (SVR, NuSVR):
        register_writer(regressor, "regressor", lambda rows, model: OutputTensors(_distance(rows.matrix, model)))
    register_writer(OneClassSVM, "outlier", _one_class)


def votes_and_confidences(predictions: Tensor, confidences: Tensor, classes: int) -> Tensor:
    """Return `sklearn.utils.multiclass._ovr_decision_function`: [n, classes] from pairwise results [n, pairs].

    `predictions` are 1.0 where the later class of the pair won, else 0.0.
    """
    first, second = _places(classes)
    sums: Tensor = confidences @ (second - first)
    return _votes(predictions, classes) + sums / ((sums.abs() + 1.0) * 3.0)


def _kernel(x: Tensor, model: Any) -> Tensor:
    """Return the kernel between rows and support vectors, as libsvm's Kernel::k_function, float64 [n, vectors]."""
    if model.kernel == "precomputed":
        return x.take(np.asarray(model.support_))
    vectors = dense(model.support_vectors_)
    return pairwise_kernel(
        x, vectors, model, model.kernel, gamma=model._gamma, coef0=model.coef0, degree=float(model.degree)
    )


def _distance(x: Tensor, model: Any) -> Tensor:
    """Return the one weighted sum of a regression or one-class machine, [n, 1]."""
    return _weighed(x, model, dense(model._dual_coef_).T, row(np.ravel(model._intercept_)[:1]))


def _weighed(x: Tensor, model: Any, weights: Any, offsets: Any) -> Tensor:
    """Return `kernel @ weights + offsets`, weights [vectors, k] and offsets [1, k]."""
    if model.kernel == "rbf":
        return weighed_gaussian(x, dense(model.support_vectors_), float(model._gamma), weights, offsets)
    return _kernel(x, model).affine(weights, offsets)


def _one_class(rows: InputTensors, model: Any) -> OutputTensors:
    decision = _distance(rows.matrix, model)
    label = where(decision > 0.0, 1, -1).reshape(-1)
    return OutputTensors(label, decision_function=decision, score_samples=decision + float(np.ravel(model.offset_)[0]))


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """As libsvm's svm_predict_values and svm_predict, and sklearn.svm._base.BaseSVC around them."""
    classes = len(model.classes_)
    # Of each pair libsvm's value has the sign of the earlier class, scikit-learn's that of the later: here the latter.
    weights, offsets = _pairwise_weights(model), row(np.ravel(model._intercept_))
    pairwise = _weighed(rows.matrix, model, -weights, -offsets)
    later = pairwise >= 0.0  # the earlier class of a pair wins above 0 only
    decision = pairwise if classes == 2 or model.decision_function_shape == "ovr" else -pairwise
    if classes > 2 and model.decision_function_shape == "ovr":
        decision = votes_and_confidences((pairwise > 0.0).cast("float64"), decision, classes)
    if classes == 2:
        index = later.cast("int64").reshape(-1)
    elif model.break_ties:
        index = decision.argmax()
    else:
        index = _votes(later.cast("float64"), classes).argmax()
    proba = _probabilities(-pairwise, model) if getattr(model, "_probA", np.empty(0)).size else None
    return classified(rows, model, proba, decision, index=index)


def _pairwise_weights(model: Any) -> Any:
    """Return the weight of each support vector in each pair of classes (i < j), float64 [vectors, pairs].

    libsvm keeps, for a vector of class i, its weight against class j in row j - 1 (j > i) or j (j < i) of dual_coef.
    """
    ends = np.cumsum(np.asarray(model._n_support))
    spans = [slice(end - count, end) for end, count in zip(ends, model._n_support, strict=True)]
    coefficients = dense(model._dual_coef_)
    pairs = list(combinations(range(len(model.classes_)), 2))
    weights = np.zeros((coefficients.shape[1], len(pairs)))
    for column, (i, j) in enumerate(pairs):
        weights[spans[i], column] = coefficients[j - 1, spans[i]]
        weights[spans[j], column] = coefficients[i, spans[j]]
    return weights


def _votes(later: Tensor, classes: int) -> Tensor:
    """Return how many pairs each class wins, [n, classes], for 1.0 where the later class of a pair won, else 0.0."""
    first, second = _places(classes)
    return later.affine(second - first, row(first.sum(axis=0)))


def _places(classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each pair of classes where the earlier and where the later one stands, float64 [pairs, classes]."""
    pairs = np.array(list(combinations(range(classes), 2)))
    every: NDArray[np.float64] = np.eye(classes)
    return every[pairs[:, 0]], every[pairs[:, 1]]


def _probabilities(pairwise: Tensor, model: Any) -> Tensor:
    """Return libsvm's svm_predict_probability: pairwise sigmoids, clipped, coupled for more than two classes."""
    # libsvm: 1 / (1 + exp(A * decision + B)), in a form that does not overflow; onnxruntime's exp gives infinity, so
    # the plain form is safe here.
    slopes, offsets = np.ravel(model._probA)[None, :], np.ravel(model._probB)[None, :]
    pairs = (1.0 / (1.0 + (pairwise * slopes + offsets).exp())).clip(1e-7, 1.0 - 1e-7)
    return _coupled(pairs, len(model.classes_))


def _coupled(pairs: Tensor, classes: int) -> Tensor:
    """Return class probabilities from pairwise ones (libsvm's multiclass_probability; Wu, Lin, Weng 2004, method 2).

    libsvm stops its iteration early, so that the exact solution would differ: the same steps are taken here, each
    row until it is within libsvm's tolerance.
    """
    wins: dict[tuple[int, int], Tensor] = {}
    for column, (i, j) in enumerate(combinations(range(classes), 2)):
        wins[i, j] = pairs.columns(column)
        wins[j, i] = 1.0 - wins[i, j]

    def entry(t: int, j: int) -> Tensor:
        if t != j:
            return -(wins[j, t] * wins[t, j])
        squares = [wins[other, t] * wins[other, t] for other in range(classes) if other != t]
        return concat(squares).sum()

    q = concat([concat([entry(t, j) for j in range(classes)]).expand(1) for t in range(classes)])
    start = pairs.columns(0) * 0.0 + np.full((1, classes), 1.0 / classes)

    def step(p: Tensor, q: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        qp = (q * p.expand(1)).sum(axis=2, keepdims=False)
        pqp = (p * qp).sum()
        waiting = (qp - pqp).abs().max() >= 0.005 / classes
        after = where(waiting, _coupling_step(p, q, qp, pqp, classes), p)
        return waiting.cast("int64").max(axis=0).cast("bool").reshape(), after

    return pairs.graph.loop(step, max(100, classes), start, q)


def _coupling_step(p: Tensor, q: Tensor, qp: Tensor, pqp: Tensor, classes: int) -> Tensor:
    for t in range(classes):
        own = q.take(t, axis=1)
        diagonal = own.columns(t)
        change = (pqp - qp.columns(t)) / diagonal
        grown = change + 1.0
        here = np.eye(classes)[None, t]
        pqp = (pqp + change * (change * diagonal + qp.columns(t) * 2.0)) / grown / grown
        qp = (qp + change * own) / grown
        p = (p + change * here) / grown
    return p
