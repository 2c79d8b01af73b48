"""Converts LightGBM's models, native and scikit-learn's, which compare and add up in float64, from their text format.

The format and the rules are those of LightGBM 4: `Tree::ToString` (src/io/tree.cpp), `NumericalDecision` and
`CategoricalDecision` (include/LightGBM/tree.h), `ConvertOutput` of each objective (src/objective/).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from threadpoolctl import threadpool_limits

from convert.converters import tree_nodes
from convert.converters.expressions import Tensor, concat, expit, where
from convert.converters.tree_nodes import LEQ, MEMBER, Tree
from convert.converters.writers import InputTensors, OutputTensors, classified, refusal
from convert.converters.writers import register as register_writer
from convert.model.arrays import Array

# decision_type of a node: a bit for categories, one for the default direction, then how it takes missing values.
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_SHIFT, _ZERO, _NAN = 2, 1, 2
_ALMOST_ZERO = float(np.float32(1e-35))  # kZeroThreshold

_IDENTITY = (
    "regression",
    "regression_l1",
    "huber",
    "fair",
    "quantile",
    "mape",
    "lambdarank",
    "rank_xendcg",
)
_LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "poisson": Tensor.exp,
    "gamma": Tensor.exp,
    "tweedie": Tensor.exp,
    "cross_entropy": expit,
    "cross_entropy_lambda": lambda raw: (1.0 + raw.exp()).log(),
    "multiclass": lambda raw: raw.op("Softmax", axis=1),
}


def register() -> None:
    """Make skl2onnx write LightGBM's models exactly."""
    register_writer(lightgbm.LGBMClassifier, "classifier", _classifier)
    register_writer(lightgbm.LGBMRegressor, "regressor", regressor)
    register_writer(lightgbm.LGBMRanker, "regressor", regressor)


def categories(model: Any) -> dict[int, Array]:
    """Return {column: its categories in training} of columns that were of pandas' category dtype then."""
    known, declared = _booster(model).pandas_categorical or [], _read(model).categorical
    pairs = zip(declared, known, strict=True) if len(known) == len(declared) else ()
    return {column: np.asarray(values) for column, values in pairs}


def _classifier(rows: InputTensors, model: Any) -> OutputTensors:
    """Return `LGBMClassifier.predict_proba` and its argmax; of two classes LightGBM computes the second's."""
    if callable(model.objective) or len(model.classes_) < 2:
        raise refusal(model, "it has an objective of its own, or one class", "train it with a built-in objective")
    if model.get_params().get("pred_early_stop"):
        raise refusal(model, "it stops early at each row (pred_early_stop)", "leave pred_early_stop out")
    forest = _read(model)
    raw = _raw(rows, model, forest)
    given = _answer(raw, model, forest)
    return classified(rows, model, given if forest.targets > 1 else concat([1.0 - given, given]), raw)


def regressor(rows: InputTensors, model: Any) -> OutputTensors:
    """Return what the objective predicts [rows, targets]; for a Booster of classes, their probabilities."""
    forest = _read(model)
    return OutputTensors(predict=_answer(_raw(rows, model, forest), model, forest))


def _answer(raw: Tensor, model: Any, forest: _Forest) -> Tensor:
    """Return the objective's prediction from the raw scores."""
    name, *settings = forest.objective.split()
    options = dict(setting.split(":") for setting in settings if ":" in setting)
    if not name or callable(getattr(model, "objective", None)) or (name in _IDENTITY and "sqrt" not in settings):
        return raw
    if name in _IDENTITY:
        return where(raw < 0.0, -raw * raw, raw * raw)
    if name in ("binary", "multiclassova"):
        return expit(raw * float(options["sigmoid"]))
    if name not in _LINKS:
        raise refusal(model, f"its objective is {name}", f"use one of {', '.join([*_IDENTITY, *_LINKS])}")
    return _LINKS[name](raw)


@dataclass(frozen=True, slots=True)
class _Forest:
    """A model's text, read: `targets` trees an iteration; the sum is to be averaged where `averaged`."""

    trees: list[Tree]
    targets: int
    averaged: bool
    objective: str
    zero_is_missing: list[int]  # columns
    categorical: list[int]  # columns


def _raw(rows: InputTensors, model: Any, forest: _Forest) -> Tensor:
    """Return `GBDT::PredictRaw` [rows, targets]."""
    if not forest.trees:
        raise refusal(model, "it has no trees", "train it for one iteration at least")
    raw = tree_nodes.summed(_prepared(rows, model, forest), forest.trees, forest.targets)
    return raw / (len(forest.trees) / forest.targets) if forest.averaged else raw


def _prepared(rows: InputTensors, model: Any, forest: _Forest) -> Tensor:
    """Return the columns, categories as whole numbers from 1 on, and zeros as NaN where they count as missing."""
    x = _columns(rows, model, forest)
    width = _booster(model).num_feature()
    if forest.categorical:
        # A category is truncated to an integer, as in C. Plus 1, since onnxruntime keeps sets as bits from 1 on.
        whole = x.op("Sign") * x.abs().floor() + 1.0
        x = where(_mask(rows, forest.categorical, width), whole, x)
    if forest.zero_is_missing:
        zero = (x.abs() <= _ALMOST_ZERO) & _mask(rows, forest.zero_is_missing, width)
        x = where(zero, np.nan, x)
    return x


def _columns(rows: InputTensors, model: Any, forest: _Forest) -> Tensor:
    """Return all columns as float64: those of pandas' category dtype as the codes they had in training."""
    known = _booster(model).pandas_categorical or []
    if not known:
        return rows.matrix
    if len(known) != len(forest.categorical):
        next_step = "leave categorical_feature at 'auto' for columns of category dtype"
        raise refusal(model, "not all of its categories are columns of category dtype", next_step)
    columns = []
    categories = dict(zip(forest.categorical, known, strict=True))
    for index in range(_booster(model).num_feature()):
        column, kind = tree_nodes.column(rows.graph, rows.variables, index)
        if index in categories:
            values = np.asarray(categories[index])
            values = values.astype(str) if kind == "string" else values.astype(np.float64)
            column = tree_nodes.encoded(column, values, np.arange(len(values)))
        columns.append(column)
    return concat(columns)


def _booster(model: Any) -> Any:
    return model if isinstance(model, lightgbm.Booster) else model.booster_


def _mask(rows: InputTensors, columns: list[int], width: int) -> Tensor:
    return rows.graph.constant(np.isin(np.arange(width), columns)[None, :])


def _read(model: Any) -> _Forest:
    """Read `Booster.model_to_string`, whose numbers are written with all their digits."""
    with _one_thread():
        text = _booster(model).model_to_string()
    head, *blocks = text.split("\nTree=")
    blocks = [block.split("\n\n")[0] for block in blocks]
    settings = _settings(head)
    targets = int(settings["num_tree_per_iteration"])
    trees, zero_is_missing, categorical = [], set(), set()
    for number, block in enumerate(blocks):
        fields = _settings(block)
        if int(fields.get("is_linear", "0")):
            raise refusal(model, "its leaves are linear models", "train it with linear_tree=False")
        tree = _tree(fields, number % targets)
        trees.append(tree)
        if "decision_type" in fields:
            kinds, features = _numbers(fields["decision_type"], int), _numbers(fields["split_feature"], int)
            zero_is_missing.update(features[(kinds >> _MISSING_SHIFT) & 3 == _ZERO].tolist())
            categorical.update(features[kinds & _CATEGORICAL > 0].tolist())
    return _Forest(
        trees,
        targets,
        "average_output" in head.split("\n"),
        settings.get("objective", ""),
        sorted(zero_is_missing - categorical),
        sorted(categorical | _declared_categorical(text)),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let LightGBM use one thread: in a forked process OpenMP waits for ever for the threads of its parent.

    LightGBM has its own limit of threads (LGBM_SetMaxThreads, include/LightGBM/c_api.h), beside OpenMP's.
    """
    library, before = vars(lightgbm.basic)["_LIB"], ctypes.c_int()
    library.LGBM_GetMaxThreads(ctypes.byref(before))
    library.LGBM_SetMaxThreads(ctypes.c_int(1))
    try:
        with threadpool_limits(limits=1, user_api="openmp"):
            yield
    finally:
        library.LGBM_SetMaxThreads(before)


def _declared_categorical(text: str) -> set[int]:
    """Return the columns that were declared as categories; a tree need not use all of them."""
    for line in text.split("\n"):
        if line.startswith("[categorical_feature: "):
            columns = line.removeprefix("[categorical_feature: ").removesuffix("]")
            return {int(column) for column in columns.split(",") if column.strip()}
    return set()


def _settings(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.split("\n") if "=" in line)


def _numbers(text: str, kind: type = float) -> Array:
    return np.array([kind(part) for part in text.split()], dtype=np.int64 if kind is int else np.float64)


def _tree(fields: dict[str, str], target: int) -> Tree:
    """Return one tree: its inner nodes first, then its leaves, which the format counts as -1, -2, ..."""
    leaf_values = _numbers(fields["leaf_value"])
    if len(leaf_values) == 1:
        return tree_nodes.constant_tree(leaf_values[0], target)
    kinds = _numbers(fields["decision_type"], int)
    thresholds = _numbers(fields["threshold"])  # of a categorical node: which of the tree's sets
    inner, leaves = len(kinds), len(leaf_values)
    none = np.full(leaves, -1)
    categorical = kinds & _CATEGORICAL > 0
    missing = (kinds >> _MISSING_SHIFT) & 3
    # A node that does not treat NaN as missing takes it as zero; a missing category goes right.
    as_zero = np.where(missing == 0, thresholds >= 0.0, kinds & _DEFAULT_LEFT > 0)
    words = _numbers(fields.get("cat_threshold", ""), int)
    bounds = _numbers(fields.get("cat_boundaries", ""), int)
    members = {}
    for node in np.flatnonzero(categorical):
        which = int(thresholds[node])
        members[int(node)] = _members(words[bounds[which] : bounds[which + 1]])
    return Tree(
        left=np.concatenate([_children(fields["left_child"], inner), none]),
        right=np.concatenate([_children(fields["right_child"], inner), none]),
        feature=np.concatenate([_numbers(fields["split_feature"], int), none]),
        threshold=np.concatenate([np.where(categorical, 0.0, _as_compared(thresholds)), np.zeros(leaves)]),
        value=np.concatenate([np.zeros(inner), leaf_values]),
        missing_left=np.concatenate([as_zero & ~categorical, none > 0]),
        mode=np.concatenate([np.where(categorical, MEMBER, LEQ), np.zeros(leaves, dtype=np.int64)]),
        members=members,
        target=target,
    )


def _as_compared(thresholds: Array) -> Array:
    """Return thresholds that split rows as LightGBM does after it sets numbers near zero to zero."""
    below = np.nextafter(-_ALMOST_ZERO, -np.inf)
    return np.where(np.abs(thresholds) > _ALMOST_ZERO, thresholds, np.where(thresholds < 0, below, _ALMOST_ZERO))


def _children(text: str, inner: int) -> Array:
    children = _numbers(text, int)
    return np.where(children < 0, inner - 1 - children, children)


def _members(words: Array) -> Array:
    """Return the categories in a bitset of 32-bit words, each plus 1."""
    bits = np.arange(32 * len(words))
    return np.asarray(bits[(words[bits // 32] >> (bits % 32)) & 1 == 1] + 1)
