"""Converts XGBoost's models, native and scikit-learn's, which round rows to float32 and compare and add up in float32.

Read from the JSON model (https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html); the rules are XGBoost
3's: `GetNextNode` (src/predictor/), `Decision` for categories (src/common/categorical.h), `ProbToMargin` and
`PredTransform` of each objective (src/objective/).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xgboost
from threadpoolctl import threadpool_limits

from convert.converters import tree_nodes
from convert.converters.expressions import Tensor, concat, where
from convert.converters.tree_nodes import LT, MEMBER, Tree
from convert.converters.writers import InputTensors, OutputTensors, classified, refusal
from convert.converters.writers import register as register_writer
from convert.model import sparse_input
from convert.model.arrays import Array

_MOST_CATEGORY = 2**24  # from here on a float32 cannot hold every category's code


def register() -> None:
    """Make skl2onnx write XGBoost's models exactly."""
    for estimator in (xgboost.XGBClassifier, xgboost.XGBRFClassifier):
        register_writer(estimator, "classifier", _classifier)
    for estimator in (xgboost.XGBRegressor, xgboost.XGBRFRegressor, xgboost.XGBRanker):
        register_writer(estimator, "regressor", regressor)


def categories(model: Any) -> dict[int, Array]:
    """Return {column: its categories in training} of columns that were of pandas' category dtype then.

    XGBoost keeps them from version 3.1 on. Raises ConversionRefused for names that it keeps only parts of.
    """
    found = {column: _categories(encoding, model) for column, encoding in enumerate(_encodings(model))}
    return {column: known for column, known in found.items() if len(known)}


def _encodings(model: Any) -> list[dict[str, Any]]:
    """Return what XGBoost keeps of each column's categories; the first trees alone, as taken below, lack it."""
    whole = model if isinstance(model, xgboost.Booster) else model.get_booster()
    if "c" not in (whole.feature_types or ()):
        return []  # the JSON of a large model takes a while
    booster = _json(whole)["gradient_booster"]
    found: list[dict[str, Any]] = booster.get("gbtree", booster).get("model", {}).get("cats", {}).get("enc", [])
    return found


def _single(rows: InputTensors, value: float) -> Tensor:
    return rows.graph.constant(value).cast("float32")


def _sigmoid(rows: InputTensors, raw: Tensor) -> Tensor:
    """Return `Sigmoid` (src/common/math.h), exactly 0.5 for 0: labels depend on it."""
    return _single(rows, 1.0) / ((-raw).exp() + _single(rows, 1.0))


def _softmax(rows: InputTensors, raw: Tensor) -> Tensor:
    """Return `Softmax` (src/common/math.h), which adds up in float64."""
    powers = (raw - raw.max()).exp()
    return powers / powers.cast("float64").sum().cast("float32")


def _same(rows: InputTensors, raw: Tensor) -> Tensor:
    return raw


def _exp(rows: InputTensors, raw: Tensor) -> Tensor:
    return raw.exp()


def _hinge(rows: InputTensors, raw: Tensor) -> Tensor:
    return (raw > _single(rows, 0.0)).cast("float32")


def _logit(share: Array) -> Array:
    return np.asarray(-np.log(1 / share - 1))


# objective -> (what it makes of the user's base score, what it makes of raw scores)
_Objective = tuple[Callable[[Array], Array], Callable[[InputTensors, Tensor], Tensor]]
_OBJECTIVES: dict[str, _Objective] = {
    **dict.fromkeys(
        ("reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror", "reg:quantileerror"),
        (np.asarray, _same),
    ),
    **dict.fromkeys(("rank:ndcg", "rank:map", "rank:pairwise"), (np.asarray, _same)),
    **dict.fromkeys(("binary:logistic", "reg:logistic"), (_logit, _sigmoid)),
    **dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"), (np.log, _exp)),
    **dict.fromkeys(("multi:softprob", "multi:softmax"), (np.asarray, _softmax)),
    "binary:logitraw": (np.asarray, _same),
    "binary:hinge": (np.asarray, _hinge),
}


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """Return `XGBClassifier.predict_proba` and `predict`: for two classes XGBoost computes the second's probability."""
    learner = _learner(model)
    if int(learner["learner_model_param"]["num_target"]) > 1:
        raise refusal(model, "it answers several outputs at once", "train one classifier for each output")
    raw = _raw(rows, model, learner)
    given = _objective(model, learner)[1](rows, raw)
    if len(model.classes_) > 2:
        index = raw.argmax() if model.objective == "multi:softmax" else given.argmax()
        return classified(rows, model, given.cast("float64"), raw.cast("float64"), index=index)
    proba = concat([_single(rows, 1.0) - given, given]).cast("float64")
    index = (given > _single(rows, 0.5)).cast("int64").reshape(-1)
    return classified(rows, model, proba, raw.cast("float64"), index=index)


def regressor(rows: InputTensors, model: Any) -> OutputTensors:
    """Return what the objective predicts [rows, targets]; of a Booster, what it predicts for a DMatrix."""
    learner = _learner(model)
    raw = _raw(rows, model, learner)
    if learner["objective"]["name"] == "multi:softmax":
        return OutputTensors(predict=raw.argmax().cast("float64").reshape(-1, 1))
    return OutputTensors(predict=_objective(model, learner)[1](rows, raw).cast("float64"))


def _learner(model: Any) -> dict[str, Any]:
    """Return the JSON of the iterations that `predict` uses."""
    learner = _json(_booster(model))
    if learner["gradient_booster"]["name"] not in ("gbtree", "dart"):
        raise refusal(model, "its booster is linear", "use scikit-learn's linear models, or booster='gbtree'")
    return learner


def _one_thread() -> threadpool_limits:
    """A conversion runs in a forked process, where OpenMP waits for ever for the threads of its parent."""
    return threadpool_limits(limits=1, user_api="openmp")


def _json(booster: xgboost.Booster) -> dict[str, Any]:
    with _one_thread():
        content = bytes(booster.save_raw("json"))
    learner: dict[str, Any] = json.loads(content)["learner"]
    return learner


def _booster(model: Any) -> xgboost.Booster:
    """Return a model's trees; up to the best iteration, where a scikit-learn model's training was stopped early."""
    if isinstance(model, xgboost.Booster):
        return model
    if callable(model.objective):
        raise refusal(model, "it has an objective of its own", "train it with a built-in objective")
    booster: xgboost.Booster = model.get_booster()
    try:
        with _one_thread():
            return booster[: model.best_iteration + 1]
    except AttributeError:  # without early stopping it has no best iteration
        return booster


def _objective(model: Any, learner: dict[str, Any]) -> _Objective:
    name = learner["objective"]["name"]
    if name not in _OBJECTIVES:
        raise refusal(model, f"its objective is {name}", f"use one of {', '.join(_OBJECTIVES)}")
    return _OBJECTIVES[name]


def _raw(rows: InputTensors, model: Any, learner: dict[str, Any]) -> Tensor:
    """Return the margins, float32 [rows, targets]: base scores, then tree after tree."""
    parameters = learner["learner_model_param"]
    targets = max(1, int(parameters["num_class"]), int(parameters["num_target"]))
    booster = learner["gradient_booster"]
    inner = booster.get("gbtree", booster)["model"]
    weights = np.asarray(booster.get("weight_drop", np.ones(len(inner["trees"]))), dtype=np.float32)
    base = np.asarray(json.loads(parameters["base_score"]), dtype=np.float32)  # a number, since version 3.1 a list
    base = np.broadcast_to(_objective(model, learner)[0](base), targets)
    trees = [tree_nodes.constant_tree(value, target) for target, value in enumerate(base)]
    for parts, target, weight in zip(inner["trees"], inner["tree_info"], weights, strict=True):
        if int(parts["tree_param"]["size_leaf_vector"]) > 1:
            raise refusal(model, "its leaves hold vectors", "use multi_strategy='one_output_per_tree'")
        trees.append(_tree(parts, target, weight))
    kinds = learner["feature_types"] or ["q"] * int(parameters["num_feature"])
    categorical = np.array([kind == "c" for kind in kinds])
    x = _prepared(rows, model, _encodings(model), categorical)
    return tree_nodes.summed(x, trees, targets, np.float32)


def _prepared(rows: InputTensors, model: Any, encodings: list[Any], categorical: Array) -> Tensor:
    """Return the columns in float32, categories as whole numbers from 1 on, what stands for missing as NaN."""
    x = _columns(rows, model, encodings)
    if sparse_input.gets_sparse(model):  # before rounding: a number too small for float32 still counts as stored
        x = where(x.equals(0.0), np.nan, x)
    x = x.cast("float32")
    missing = getattr(model, "missing", np.nan)
    if not np.isnan(missing):
        x = where(x.equals(_single(rows, missing)), _single(rows, np.nan), x)
    if not categorical.any():
        return x
    # XGBoost's code plus 1, since onnxruntime keeps sets as bits from 1 on; a negative code is in no set.
    whole = where(x < _single(rows, 0.0), _single(rows, -1.0), x.floor() + _single(rows, 1.0))
    return where(rows.graph.constant(categorical[None, :]), whole, x)


def _columns(rows: InputTensors, model: Any, encodings: list[Any]) -> Tensor:
    """Return all columns as float64: those of a table's category dtype as the codes they had in training."""
    categories = [_categories(encoding, model) for encoding in encodings]
    if not any(map(len, categories)):
        return rows.matrix
    columns = []
    for index, known in enumerate(categories):
        column, kind = tree_nodes.column(rows.graph, rows.variables, index)
        if len(known):
            known = known.astype(str) if kind == "string" else known.astype(np.float64)
            column = tree_nodes.encoded(column, known, np.arange(len(known)))
        columns.append(column)
    return concat(columns)


def _categories(encoding: dict[str, Any], model: Any) -> Array:
    """Return a column's categories: texts are kept as bytes and the places where they start."""
    if "offsets" not in encoding:
        return np.asarray(encoding["values"])
    content = bytes(value % 256 for value in encoding["values"])
    if not content.isascii():  # XGBoost 3.2 counts characters instead of bytes, and keeps only parts of the names
        raise refusal(model, "it has categories that are not ASCII, of which XGBoost loses letters", "rename them")
    bounds = encoding["offsets"]
    return np.array([content[a:b].decode() for a, b in itertools.pairwise(bounds)], dtype=object)


def _tree(parts: dict[str, Any], target: int, weight: np.float32) -> Tree:
    """Return one tree. In a categorical node rows that are in the set go right, so its children are swapped."""
    left, right = np.asarray(parts["left_children"]), np.asarray(parts["right_children"])
    conditions = np.asarray(parts["split_conditions"], dtype=np.float32)
    categorical = (np.asarray(parts["split_type"]) == 1) & (left >= 0)
    default_left = np.asarray(parts["default_left"]).astype(bool)
    members = {}
    spans = zip(parts["categories_nodes"], parts["categories_segments"], parts["categories_sizes"], strict=True)
    for node, start, size in spans:
        codes = np.asarray(parts["categories"][start : start + size], dtype=np.float64)
        members[int(node)] = codes[codes < _MOST_CATEGORY] + 1.0
    return Tree(
        left=np.where(categorical, right, left),
        right=np.where(categorical, left, right),
        feature=np.asarray(parts["split_indices"]),
        threshold=np.where(categorical, 0.0, conditions),
        value=conditions * weight,
        missing_left=default_left ^ categorical,
        mode=np.where(categorical, MEMBER, LT),
        members=members,
        target=target,
    )
