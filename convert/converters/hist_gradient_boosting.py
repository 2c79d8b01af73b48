"""Converts scikit-learn's HistGradientBoosting estimators, which compare in float64 and know categories."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from convert.converters import tree_nodes
from convert.converters.expressions import Tensor, concat, expit
from convert.converters.tree_nodes import LEQ, MEMBER, Tree
from convert.converters.writers import InputTensors, OutputTensors, classified, refusal
from convert.converters.writers import register as register_writer
from convert.model.arrays import Array

_BITS = np.arange(256)


def register() -> None:
    """Make skl2onnx write both estimators exactly."""
    tree_nodes.allow_opset()
    register_writer(HistGradientBoostingClassifier, "classifier", _classifier)
    register_writer(HistGradientBoostingRegressor, "regressor", _regressor)


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    raw = _raw_predict(rows, model)
    if len(model.classes_) > 2:
        return classified(rows, model, proba=raw.op("Softmax", axis=1), decision=raw, index=raw.argmax())
    positive = expit(raw)
    index = (raw > 0.0).cast("int64").reshape(-1)
    return classified(rows, model, proba=concat([1.0 - positive, positive]), decision=raw, index=index)


def _regressor(rows: InputTensors, model: Any) -> OutputTensors:
    raw = _raw_predict(rows, model)
    link = type(model._loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise refusal(model, f"its loss has the link {link}", "use one of scikit-learn's own losses")
    return OutputTensors(predict=raw.exp() if link == "LogLink" else raw)


def _raw_predict(rows: InputTensors, model: Any) -> Tensor:
    """Return `_raw_predict` [rows, trees an iteration] (sklearn/ensemble/_hist_gradient_boosting)."""
    targets = model.n_trees_per_iteration_
    start = np.ravel(model._baseline_prediction)
    trees = [tree_nodes.constant_tree(value, target) for target, value in enumerate(start)]
    for iteration in model._predictors:
        trees += [_tree(predictor, target) for target, predictor in enumerate(iteration)]
    return tree_nodes.summed(_preprocessed(rows, model), trees, targets)


def _tree(predictor: Any, target: int) -> Tree:
    """Return a TreePredictor (sklearn/ensemble/_hist_gradient_boosting/predictor.py)."""
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    categorical = nodes["is_categorical"].astype(bool) & ~leaf
    return Tree(
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        feature=nodes["feature_idx"],
        threshold=np.where(leaf | categorical, 0.0, nodes["num_threshold"]),
        value=nodes["value"],
        missing_left=nodes["missing_go_to_left"].astype(bool),
        mode=np.where(categorical, MEMBER, LEQ),
        members={
            int(node): _members(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
            for node in np.flatnonzero(categorical)
        },
        target=target,
    )


def _members(bitset: Array) -> Array:
    """Return the codes in a bitset, eight uint32 with the least bit first, as `_preprocessed` numbers them: from 1."""
    return np.asarray(_BITS[(bitset[_BITS // 32] >> (_BITS % 32)) & 1 == 1] + 1)


def _preprocessed(rows: InputTensors, model: Any) -> Tensor:
    """Return the columns as the trees number them: categories as codes first, then the others as they are.

    As the model's own `_preprocessor`: unknown and missing categories are NaN. Codes start at 1, since
    onnxruntime keeps sets as bits from 1 on.
    """
    if model._preprocessor is None:
        return rows.matrix
    encoder = model._preprocessor.named_transformers_["encoder"]
    categorical = np.flatnonzero(model.is_categorical_)
    columns = []
    for index, categories in zip(categorical, encoder.categories_, strict=True):
        columns.append(_codes(rows, int(index), np.asarray(categories), model))
    for index in np.flatnonzero(~model.is_categorical_):
        column, kind = tree_nodes.column(rows.graph, rows.variables, int(index))
        if kind == "string":
            raise refusal(
                model, f"column {index} holds texts but is not categorical", "declare it in categorical_features"
            )
        columns.append(column)
    return concat(columns)


def _codes(rows: InputTensors, index: int, categories: Array, model: Any) -> Tensor:
    """Return a categorical column's codes, as its OrdinalEncoder's plus one."""
    column, kind = tree_nodes.column(rows.graph, rows.variables, index)
    known = np.array([value is not None and value == value for value in categories.tolist()], dtype=bool)
    codes = np.arange(len(categories))[known] + 1.0
    texts = {isinstance(value, str) for value in categories[known].tolist()}
    if len(texts) > 1:
        raise refusal(model, f"the categories of column {index} mix texts and numbers", "use one kind")
    if texts and (kind == "string") != texts.pop():
        raise refusal(
            model, f"column {index} is not of the same kind as its categories", "give the sample as in training"
        )
    values = categories[known]
    return tree_nodes.encoded(column, values.astype(str) if kind == "string" else values.astype(np.float64), codes)
