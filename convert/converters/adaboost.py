"""Converts scikit-learn's AdaBoost: a weighted vote of classifiers, a weighted median of regressors."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor

from convert.converters import tree_nodes
from convert.converters.expressions import Tensor, concat, softmax
from convert.converters.tree_nodes import of_sklearn, rounded
from convert.converters.writers import InputTensors, OutputTensors, ask, ask_index, classified, refusal
from convert.converters.writers import register as register_writer
from convert.model.arrays import Array


def register() -> None:
    """Make skl2onnx write both estimators exactly."""
    tree_nodes.allow_opset()
    register_writer(AdaBoostClassifier, "classifier", _classifier)
    register_writer(AdaBoostRegressor, "regressor", _regressor)


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """Return `AdaBoostClassifier.decision_function` and what follows from it (sklearn/ensemble/_weight_boosting.py)."""
    if model.n_classes_ < 2:
        raise refusal(model, "it knows one class only", "train it with two classes at least")
    by_shares = (
        getattr(model, "algorithm", "SAMME") == "SAMME.R"
    )  # the default until scikit-learn 1.6, which removed it
    total = _logarithms(rows, model) if by_shares else _votes(rows, model)
    decision = total / float(model.estimator_weights_.sum())
    if model.n_classes_ > 2:
        return classified(rows, model, softmax(decision / (model.n_classes_ - 1.0)), decision, decision.argmax())
    decision = -decision.columns(0) + decision.columns(1)
    proba = softmax(concat([-decision, decision]) / 2.0)
    return classified(rows, model, proba, decision, (decision > 0.0).cast("int64").reshape(-1))


def _votes(rows: InputTensors, model: Any) -> Tensor:
    """Return the weighted votes' sums [rows, classes], added one estimator after the other."""
    tables = [
        _vote(np.asarray(estimator.classes_)[:, None] == model.classes_[None, :], weight)
        for estimator, weight in zip(model.estimators_, model.estimator_weights_, strict=False)
    ]
    if all(hasattr(estimator, "tree_") for estimator in model.estimators_):
        forest = [estimator.tree_ for estimator in model.estimators_]
        values = [table[tree.value[:, 0, :].argmax(axis=1)] for tree, table in zip(forest, tables, strict=True)]
        return tree_nodes.summed_leaves(rows.matrix, [of_sklearn(tree) for tree in forest], values)
    pairs = zip(tables, model.estimators_, strict=True)
    votes = [rows.graph.constant(table).take(ask_index(rows, one), axis=0) for table, one in pairs]
    return functools.reduce(operator.add, votes)


def _logarithms(rows: InputTensors, model: Any) -> Tensor:
    """Return the sums of `_samme_proba` [rows, classes] (sklearn/ensemble/_weight_boosting.py before 1.6)."""
    classes, eps = model.n_classes_, float(np.finfo(np.float64).eps)
    if any(len(estimator.classes_) < classes for estimator in model.estimators_):
        raise refusal(model, "an estimator knows some classes only", "train it with algorithm='SAMME'")
    if all(hasattr(estimator, "tree_") for estimator in model.estimators_):
        forest = [estimator.tree_ for estimator in model.estimators_]
        values = []
        for tree in forest:
            logarithms = np.log(np.maximum(tree.value[:, 0, :], eps))
            values.append((classes - 1) * (logarithms - logarithms.sum(axis=1, keepdims=True) / classes))
        return tree_nodes.summed_leaves(rows.matrix, [of_sklearn(tree) for tree in forest], values)
    terms = [ask(rows, estimator, "predict_proba").clip(eps, None).log() for estimator in model.estimators_]
    return functools.reduce(operator.add, [(term - term.mean()) * float(classes - 1) for term in terms])


def _vote(is_class: Array, weight: float) -> Array:
    """Return for each class an estimator may predict what it adds to every class [predicted, classes]."""
    return np.where(is_class, weight, -1 / (is_class.shape[1] - 1) * weight)


def _regressor(rows: InputTensors, model: Any) -> OutputTensors:
    """Return the predictions' weighted median, as `_get_median_predict` (sklearn/ensemble/_weight_boosting.py)."""
    count = len(model.estimators_)
    if all(hasattr(estimator, "tree_") for estimator in model.estimators_):
        trees = [of_sklearn(estimator.tree_, target=target) for target, estimator in enumerate(model.estimators_)]
        predictions = tree_nodes.summed(rounded(rows.matrix), trees, count)
    else:
        predictions = concat([ask(rows, estimator, "predict").reshape(-1, 1) for estimator in model.estimators_])
    graph = rows.graph
    ordered, places = graph.nodes("TopK", predictions, [count], outputs=2, axis=1, largest=0, sorted=1)
    weights = graph.constant(model.estimator_weights_[:count]).take(places, axis=0)
    passed = graph.node("CumSum", weights, np.int64(1))
    median = (passed >= passed.columns(count - 1) * 0.5).cast("int64").argmax()
    return OutputTensors(predict=graph.node("GatherElements", ordered, median.reshape(-1, 1), axis=1))
