"""Converts scikit-learn's Bagging: the mean of estimators that each see some of the columns."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
from sklearn.ensemble import BaggingClassifier, BaggingRegressor

from convert.converters import tree_nodes
from convert.converters.expressions import Tensor, one_hot
from convert.converters.tree_nodes import of_sklearn, rounded
from convert.converters.writers import InputTensors, OutputTensors, ask, ask_index, classified
from convert.converters.writers import register as register_writer


def register() -> None:
    """Make skl2onnx write both estimators exactly."""
    tree_nodes.allow_opset()
    register_writer(BaggingClassifier, "classifier", _classifier)
    register_writer(BaggingRegressor, "regressor", _regressor)


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """Return `BaggingClassifier.predict_proba`, or shares of votes of estimators that have no probabilities.

    As `_parallel_predict_proba` (sklearn/ensemble/_bagging.py): the estimators' classes are positions in the model's.
    """
    if _all_trees(model):
        values = []
        for estimator in model.estimators_:
            table = np.zeros((estimator.tree_.node_count, len(model.classes_)))
            table[:, estimator.classes_.astype(np.int64)] = estimator.tree_.value[:, 0, : len(estimator.classes_)]
            values.append(table)
        total = tree_nodes.summed_leaves(rows.matrix, _trees(model), values)
        return classified(rows, model, total / float(len(values)))
    return classified(rows, model, _mean([_proba(part, one, len(model.classes_)) for part, one in _each(rows, model)]))


def _proba(rows: InputTensors, estimator: Any, classes: int) -> Tensor:
    """Return one estimator's probabilities, or its vote, in the model's classes [rows, classes]."""
    own = np.eye(classes)[np.asarray(estimator.classes_).astype(np.int64)]
    if hasattr(estimator, "predict_proba"):
        proba = ask(rows, estimator, "predict_proba")
        return proba if len(own) == classes else proba @ own
    vote = one_hot(ask_index(rows, estimator), len(own))
    return vote if len(own) == classes else vote @ own


def _regressor(rows: InputTensors, model: Any) -> OutputTensors:
    """Return `BaggingRegressor.predict`."""
    if _all_trees(model):
        values = [estimator.tree_.value.reshape(estimator.tree_.node_count, -1) for estimator in model.estimators_]
        if values[0].shape[1] == 1:
            return OutputTensors(predict=tree_nodes.averaged(rounded(rows.matrix), _trees(model)))
        total = tree_nodes.summed_leaves(rows.matrix, _trees(model), values)
        return OutputTensors(predict=total / float(len(values)))
    return OutputTensors(predict=_mean([ask(part, estimator, "predict") for part, estimator in _each(rows, model)]))


def _all_trees(model: Any) -> bool:
    return all(hasattr(estimator, "tree_") for estimator in model.estimators_)


def _trees(model: Any) -> list[tree_nodes.Tree]:
    pairs = zip(model.estimators_, model.estimators_features_, strict=True)
    return [of_sklearn(estimator.tree_, features=features) for estimator, features in pairs]


def _each(rows: InputTensors, model: Any) -> list[tuple[InputTensors, Any]]:
    """Return each estimator with the columns that it sees."""
    everything = list(range(model.n_features_in_))
    pairs = []
    for estimator, features in zip(model.estimators_, model.estimators_features_, strict=True):
        own = [int(feature) for feature in features]
        part = rows if own == everything else rows.of(rows.matrix.columns(*own), len(own))
        pairs.append((part, estimator))
    return pairs


def _mean(answers: list[Tensor]) -> Tensor:
    return functools.reduce(operator.add, answers) / float(len(answers))
