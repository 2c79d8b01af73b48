"""Converts scikit-learn's trees, forests, gradient boosting and tree embeddings, which compare in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from convert.converters import tree_nodes
from convert.converters.expressions import Tensor, concat, expit
from convert.converters.tree_nodes import Tree, of_sklearn, rounded
from convert.converters.writers import InputTensors, OutputTensors, ask, classified, several
from convert.converters.writers import register as register_writer

_CLASSIFIERS = (DecisionTreeClassifier, ExtraTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)
_REGRESSORS = (DecisionTreeRegressor, ExtraTreeRegressor, RandomForestRegressor, ExtraTreesRegressor)


def register() -> None:
    """Make skl2onnx write these estimators exactly."""
    tree_nodes.allow_opset()
    for classifier in _CLASSIFIERS:
        register_writer(classifier, "classifier", _classifier)
    for regressor in _REGRESSORS:
        register_writer(regressor, "regressor", _regressor)
    register_writer(GradientBoostingClassifier, "classifier", _boosted_classifier)
    register_writer(GradientBoostingRegressor, "regressor", _boosted_regressor)
    register_writer(RandomTreesEmbedding, "transformer", _embedding)


def _forest(model: Any) -> list[Any]:
    """Return the `tree_` of a tree or of each of a forest's."""
    return [model.tree_] if hasattr(model, "tree_") else [tree.tree_ for tree in model.estimators_]


def _leaves(model: Any) -> tuple[list[Tree], list[Any]]:
    """Return the trees, and what each of their nodes holds, float64 [nodes, outputs x classes] a tree."""
    forest = _forest(model)
    return [of_sklearn(tree) for tree in forest], [tree.value.reshape(tree.node_count, -1) for tree in forest]


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """As `_accumulate_prediction` (sklearn/ensemble/_forest.py): the trees' answers are added up, then divided."""
    trees, values = _leaves(model)
    total = tree_nodes.summed_leaves(rows.matrix, trees, values)
    averaged = total if len(trees) == 1 else total / float(len(trees))
    if isinstance(model.classes_, list):
        return _several(rows, model, averaged)
    # Counts keep their order when they are divided; sums of fractions may become equal by rounding.
    index = total.argmax() if tree_nodes.are_votes(trees, values) else None
    return classified(rows, model, averaged, index=index)


def _several(rows: InputTensors, model: Any, averaged: Tensor) -> OutputTensors:
    """Return the labels of several outputs, whose classes stand side by side [rows, outputs x most classes]."""
    width = max(len(classes) for classes in model.classes_)
    parts = [averaged.columns(*range(k * width, k * width + len(c))) for k, c in enumerate(model.classes_)]
    return several(rows, model, [part.argmax() for part in parts])


def _regressor(rows: InputTensors, model: Any) -> OutputTensors:
    trees, values = _leaves(model)
    if values[0].shape[1] == 1:
        return OutputTensors(predict=tree_nodes.averaged(rounded(rows.matrix), trees))
    total = tree_nodes.summed_leaves(rows.matrix, trees, values)
    return OutputTensors(predict=total if len(trees) == 1 else total / float(len(trees)))


def _boosted(rows: InputTensors, model: Any) -> Tensor:
    """Return `_raw_predict` (sklearn/ensemble/_gb.py) [rows, trees an iteration]: the start and the scaled trees."""
    stages = model.estimators_
    trees = [
        of_sklearn(stage.tree_, value=model.learning_rate * stage.tree_.value[:, 0, 0], target=target)
        for iteration in stages
        for target, stage in enumerate(iteration)
    ]
    x = rounded(rows.matrix)
    if model.init is None or isinstance(model.init_, str):
        start = model._raw_predict_init(np.zeros((1, model.n_features_in_)))[0]
        constants = [tree_nodes.constant_tree(value, target) for target, value in enumerate(start)]
        return tree_nodes.summed(x, constants + trees, stages.shape[1])
    start = _start(rows.of(x, model.n_features_in_), model)
    return start + tree_nodes.summed(x, trees, stages.shape[1])


def _start(rows: InputTensors, model: Any) -> Tensor:
    """Return `_init_raw_predictions` (sklearn/ensemble/_gb.py): the link of what the estimator `init` predicts."""
    if not hasattr(model, "classes_"):
        return ask(rows, model.init_, "predict")
    epsilon = float(np.finfo(np.float64).eps)
    proba = ask(rows, model.init_, "predict_proba").clip(epsilon, 1 - epsilon)
    if model._loss.is_multiclass:
        logarithm = proba.log()
        return logarithm - logarithm.mean()
    odds = (proba.columns(1) / (1.0 - proba.columns(1))).log()
    return odds * 0.5 if model.loss == "exponential" else odds


def _boosted_classifier(rows: InputTensors, model: Any) -> OutputTensors:
    raw = _boosted(rows, model)
    if len(model.classes_) > 2:
        return classified(rows, model, proba=raw.op("Softmax", axis=1), decision=raw, index=raw.argmax())
    positive = expit(raw * 2.0 if model.loss == "exponential" else raw)
    index = (raw >= 0.0).cast("int64").reshape(-1)
    return classified(rows, model, proba=concat([1.0 - positive, positive]), decision=raw, index=index)


def _boosted_regressor(rows: InputTensors, model: Any) -> OutputTensors:
    return OutputTensors(predict=_boosted(rows, model))


def _embedding(rows: InputTensors, model: Any) -> OutputTensors:
    """Return one-hot leaves, in the order of the model's `one_hot_encoder_` (sklearn/ensemble/_forest.py).

    Every tree gives the place of its leaf among the encoder's columns; a leaf that no training row reached has none.
    """
    trees: list[Tree] = []
    first = 0
    for tree, categories in zip(_forest(model), model.one_hot_encoder_.categories_, strict=True):
        places = np.full(tree.node_count, -1.0)
        places[categories.astype(np.int64)] = first + np.arange(len(categories))
        trees.append(of_sklearn(tree, value=places, target=len(trees)))
        first += len(categories)
    places_reached = tree_nodes.summed(rounded(rows.matrix), trees, len(trees)).cast("int64")
    hit = places_reached.expand(2).equals(np.arange(first)[None, None, :]).cast("float64")
    return OutputTensors(transform=hit.max(axis=1, keepdims=False))
