"""Converts CatBoost's models, which round numbers to float32, hash categories and add up in float64.

Read from the JSON model (https://catboost.ai/docs/en/concepts/python-reference_catboost_save_model); the rules are
those of CatBoost's applier (catboost/libs/model/) and of its prediction types (catboost/libs/eval_result/).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import catboost
import numpy as np

from convert.converters import boosting_catboost_columns, tree_nodes
from convert.converters.boosting_catboost_columns import Place
from convert.converters.expressions import Tensor, concat, expit
from convert.converters.tree_nodes import Tree, rounded
from convert.converters.writers import InputTensors, OutputTensors, classified, refusal
from convert.converters.writers import register as register_writer
from convert.model.arrays import Array

Placed = Callable[[dict[str, Any]], Place]
_BINARY = ("Logloss", "CrossEntropy", "Focal")
_CLASSES = ("MultiClass", "MultiClassOneVsAll")
_EXPONENT = ("Poisson", "Tweedie")
_RAW = (
    "RMSE",
    "MAE",
    "Quantile",
    "MultiQuantile",
    "MultiRMSE",
    "LogLinQuantile",
    "MAPE",
    "Expectile",
    "Huber",
    "Lq",
    "LogCosh",
    "Cox",
    "GroupQuantile",
)
_RANKING = (
    "YetiRank",
    "YetiRankPairwise",
    "PairLogit",
    "PairLogitPairwise",
    "QueryRMSE",
    "QuerySoftMax",
    "StochasticRank",
)


def register() -> None:
    """Make skl2onnx write CatBoost's models of numbers exactly."""
    register_writer(catboost.CatBoostClassifier, "classifier", _classifier)
    register_writer(catboost.CatBoostRegressor, "regressor", _regressor)
    register_writer(catboost.CatBoostRanker, "regressor", _regressor)


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """Return the prediction types Probability and Class."""
    raw, loss = _raw(rows, model, (*_BINARY, *_CLASSES))
    if loss in _BINARY:
        positive = expit(raw)
        index = (raw > _binary_border(model)).cast("int64").reshape(-1)
        return classified(rows, model, concat([1.0 - positive, positive]), raw, index=index)
    proba = raw.op("Softmax", axis=1) if loss == "MultiClass" else expit(raw)
    return classified(rows, model, proba, raw, index=raw.argmax())


def _regressor(rows: InputTensors, model: Any) -> OutputTensors:
    """Return what `predict` gives by default: the exponent for losses on a logarithmic scale, else the raw value."""
    raw, loss = _raw(rows, model, (*_EXPONENT, *_RAW, *_RANKING))
    return OutputTensors(predict=raw.exp() if loss in _EXPONENT else raw)


def _content(model: Any, pool: Any = None) -> dict[str, Any]:
    """Return the model's JSON, which CatBoost writes to files only; with the hashes of the texts in a pool."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json", pool=pool)
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _binary_border(model: Any) -> float:
    """Return the raw value above which the second class is predicted."""
    share = dict(model.get_metadata().items()).get("binclass_probability_threshold")
    if share is None:
        return 0.0
    with np.errstate(divide="ignore"):
        return float(-np.log(1 / np.float64(share) - 1))


def _raw(rows: InputTensors, model: Any, losses: tuple[str, ...]) -> tuple[Tensor, str]:
    """Return the prediction type RawFormulaVal [rows, dimensions], and the loss, which must be one of `losses`."""
    for kind in ("text", "embedding"):
        if getattr(model, f"get_{kind}_feature_indices")():
            raise refusal(model, f"it has {kind} features", "make numbers of them with scikit-learn and train on those")
    columns, content = boosting_catboost_columns.written(rows, model, lambda pool: _content(model, pool))
    loss = str(content["model_info"]["params"]["loss_function"]["type"])
    if loss not in losses:
        raise refusal(model, f"its loss is {loss}", f"use one of {', '.join(losses)}")
    scale, bias = content["scale_and_bias"]
    pairs = [_oblivious(tree, columns.place, len(bias)) for tree in content.get("oblivious_trees", [])]
    pairs += [_grown(tree, columns.place, len(bias)) for tree in content.get("trees", [])]
    if not pairs:
        raise refusal(model, "it has no trees", "train it for one iteration at least")
    trees, values = [tree for tree, _ in pairs], [rows_of_values for _, rows_of_values in pairs]
    if len(bias) == 1:
        return tree_nodes.summed(rounded(columns.matrix), trees) * float(scale) + float(bias[0]), loss
    raw = tree_nodes.summed_leaves(columns.matrix, trees, values) * float(scale)
    return raw + np.array([bias], dtype=np.float64), loss


def _oblivious(tree: dict[str, Any], placed: Placed, dimensions: int) -> tuple[Tree, Array]:
    """Return a symmetric tree (one split for each level), and its leaves' values [nodes, dimensions].

    A leaf's number has a bit for each split, the first split's the lowest: the last split is the root's.
    """
    splits = (tree["splits"] or [])[::-1]  # null in a tree without splits
    inner = 2 ** len(splits) - 1
    levels = np.repeat(np.arange(len(splits)), 2 ** np.arange(len(splits)))
    children = 2 * np.arange(inner) + 1
    none = np.full(inner + 1, -1)
    values = np.zeros((2 * inner + 1, dimensions))
    values[inner:] = np.reshape(tree["leaf_values"], (inner + 1, dimensions))
    columns = np.array([placed(split) for split in splits]).reshape(-1, 3)[levels]
    columns = np.concatenate([columns, np.zeros((inner + 1, 3))])
    return _tree(np.append(children, none), np.append(children + 1, none), columns, values), values


def _grown(tree: dict[str, Any], placed: Placed, dimensions: int) -> tuple[Tree, Array]:
    """Return a tree of any shape, and its leaves' values [nodes, dimensions]."""
    nodes = list(_nodes(tree))
    places = {id(node): place for place, node in enumerate(nodes)}
    left, right = (
        np.array([places[id(node[side])] if "split" in node else -1 for node in nodes]) for side in ("left", "right")
    )
    columns = np.array([placed(node["split"]) if "split" in node else (0.0, 0.0, 0.0) for node in nodes])
    values = np.array([np.broadcast_to(node.get("value", 0.0), dimensions) for node in nodes], dtype=np.float64)
    return _tree(left, right, columns, values), values


def _tree(left: Array, right: Array, columns: Array, values: Array) -> Tree:
    """Return a tree whose `columns` are the places of each node."""
    feature, border, missing_left = columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2] > 0
    return Tree(left, right, feature, border, values[:, 0], missing_left)


def _nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a tree's nodes, the root first."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if "split" in node:
            waiting += [node["right"], node["left"]]
