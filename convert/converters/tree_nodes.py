"""Knows how decision trees become one ONNX TreeEnsemble node, in the number type that their library compares in.

The node is ai.onnx.ml 5's (https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html): the older tree nodes hold
float32 thresholds and cannot stand in one graph with it. onnxruntime runs it in the dtype of its thresholds and, on one
thread, adds the trees up in their order, so that sums round as the library's own do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from onnx import numpy_helper
from skl2onnx.common import _topology

from convert.converters.expressions import ML_DOMAIN, Graph, Tensor
from convert.model.arrays import Array

LEQ, LT, MEMBER = 0, 1, 6  # nodes_modes of the operator
_AVERAGE = 0  # its aggregate_function; a sum is the default
_ML_OPSET = 5
_MOST_COUNTED = 2**24  # up to here a float32 holds every whole number
# onnxruntime does not accept an empty set. Categories are codes from 0 up, so this code never occurs.
_NO_CATEGORY = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """A decision tree in flat arrays with an entry for each node, the root first.

    `left` and `right` (int [nodes]) are the children's places, negative at a leaf. A row goes left where its `feature`
    (int [nodes]) compares by `mode` (uint8 [nodes]) with `threshold` (float [nodes]), or is among `members` of a node
    in mode MEMBER; where it is NaN, as `missing_left` (bool [nodes]) says. A leaf adds its `value` (float64 [nodes]) to
    the ensemble's output `target`, one for the tree or one for each node.
    """

    left: Array
    right: Array
    feature: Array
    threshold: Array
    value: Array
    missing_left: Array
    mode: Array | int = LEQ
    members: Mapping[int, Array] = field(default_factory=dict)
    target: Array | int = 0

    @property
    def is_leaf(self) -> Array:
        """Whether each node is a leaf, bool [nodes]."""
        return np.asarray(self.left) < 0


def constant_tree(value: float, target: int = 0) -> Tree:
    """Return a tree that is one leaf; as the first tree of a target it is the start of the sum."""
    one, none = np.array([value]), np.array([-1])
    return Tree(none, none, np.array([0]), np.array([0.0]), one, np.array([False]), target=target)


def of_sklearn(tree: Any, value: Array | None = None, features: Array | None = None, target: int = 0) -> Tree:
    """Return scikit-learn's `tree_` (sklearn/tree/_tree.pyx) with leaf values `value` (default: its first output's).

    `features` are the columns that the tree's own column numbers stand for, where it saw only some.
    """
    columns = np.maximum(tree.feature, 0)  # leaves have the feature -2
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        feature=columns if features is None else np.asarray(features)[columns],
        threshold=tree.threshold,
        value=tree.value[:, 0, 0] if value is None else value,
        missing_left=np.asarray(tree.missing_go_to_left, dtype=bool),
        target=target,
    )


def summed(x: Tensor, trees: Sequence[Tree], targets: int = 1, dtype: type = np.float64) -> Tensor:
    """Return the sums [rows, targets] of the leaves that rows `x` reach, in their trees' order.

    `x` is [rows, features] in `dtype`, float32 or float64, in which thresholds and leaves are kept too.
    """
    return x.graph.node("TreeEnsemble", x, domain=ML_DOMAIN, n_targets=targets, **_attributes(trees, dtype))


def averaged(x: Tensor, trees: Sequence[Tree]) -> Tensor:
    """Return the mean [rows, 1] of the leaves that float64 rows `x` reach: their sum divided by the number of trees."""
    attributes = _attributes(trees, np.float64)
    return x.graph.node("TreeEnsemble", x, domain=ML_DOMAIN, n_targets=1, aggregate_function=_AVERAGE, **attributes)


def summed_leaves(rows: Tensor, trees: Sequence[Tree], values: Sequence[Array]) -> Tensor:
    """Return [rows, width]: the sums of `values` (one array [nodes, width] a tree) at the leaves that rows reach.

    The operator's leaves hold one number; where these hold several, each tree gives the place of its leaf in a table.
    `rows` are float64 and `trees` compare with them rounded to float32. The sums are float64's, tree after tree.
    """
    held = [of_nodes[tree.is_leaf] for tree, of_nodes in zip(trees, values, strict=True)]
    if all((np.count_nonzero(numbers, axis=1) == 1).all() for numbers in held):
        return _summed_pure(rows, trees, values)
    if len(trees) == 1:
        places = np.cumsum(trees[0].is_leaf) - 1.0
        reached = _summed_counts(rows, [replace(trees[0], value=places)], 1, len(held[0])).cast("int64")
        return rows.graph.constant(held[0]).take(reached.reshape(-1), axis=0)
    placed: list[Tree] = []
    start = 0
    for target, tree in enumerate(trees):
        leaf = tree.is_leaf
        places = np.zeros(len(leaf))
        places[leaf] = start + np.arange(np.count_nonzero(leaf))
        start += int(np.count_nonzero(leaf))
        placed.append(replace(tree, value=places, target=target))
    reached = _summed_counts(rows, placed, len(trees), start).cast("int64").transpose()
    # onnxruntime adds along the first axis row by row; along another axis it adds in pairs, which rounds differently.
    return rows.graph.constant(np.concatenate(held)).take(reached, axis=0).sum(axis=0, keepdims=False)


def are_votes(trees: Sequence[Tree], values: Sequence[Array]) -> bool:
    """Return whether each leaf of each tree holds one 1 and otherwise zeros: then `summed_leaves` counts votes."""
    held = (of_nodes[tree.is_leaf] for tree, of_nodes in zip(trees, values, strict=True))
    return all(((numbers == 0.0) | (numbers == 1.0)).all() and (numbers.sum(axis=1) == 1.0).all() for numbers in held)


def rounded(x: Tensor) -> Tensor:
    """Return float64 rows rounded to float32, as scikit-learn's forests see them, in float64."""
    return x if x.is_single else x.cast("float32").cast("float64")


def allow_opset() -> None:
    """Let skl2onnx write ai.onnx.ml 5: its version 1.20 assumes that onnx stops at 3. May be called more than once."""
    original: Callable[[str], Any] = _topology.get_default_opset_for_domain
    if getattr(original, "allows_tree_ensemble", False):
        return

    def newest(domain: str) -> Any:
        return _ML_OPSET if domain == ML_DOMAIN else original(domain)

    newest.allows_tree_ensemble = True  # type: ignore[attr-defined]
    _topology.get_default_opset_for_domain = newest


def encoded(column: Tensor, categories: Array, codes: Array, unknown: float = np.nan) -> Tensor:
    """Return float64 `codes` for the `categories` that `column` holds, `unknown` for every other value.

    `column` is a string or float64 tensor; `categories` are texts or numbers to match.
    """
    keys = categories.astype(object) if categories.dtype.kind in "OUS" else categories.astype(np.float64)
    if not len(keys):
        return column.isnan().cast("float64") * 0.0 + unknown
    attributes: dict[str, Any] = {
        "keys_tensor": numpy_helper.from_array(keys),
        "values_tensor": numpy_helper.from_array(codes.astype(np.float64)),
        "default_tensor": numpy_helper.from_array(np.array([unknown])),
    }
    return column.graph.node("LabelEncoder", column, domain=ML_DOMAIN, **attributes)


def column(graph: Graph, variables: Sequence[Any], index: int) -> tuple[Tensor, Literal["string", "float64"]]:
    """Return column `index` of skl2onnx's variables [rows, 1], strings as they are and numbers as float64."""
    first = 0
    for variable in variables:
        width = variable.type.shape[1] if variable.type.shape and len(variable.type.shape) > 1 else None
        if width is None or index < first + width:
            tensor = graph.tensor(variable.onnx_name)
            tensor = tensor if width == 1 else tensor.columns(index - first)
            is_text = "String" in type(variable.type).__name__
            return (tensor, "string") if is_text else (tensor.cast("float64"), "float64")
        first += width
    raise ValueError(f"no input has column {index}")


def _summed_pure(rows: Tensor, trees: Sequence[Tree], values: Sequence[Array]) -> Tensor:
    """Return `summed_leaves` where each leaf holds one number only, as those of fully grown trees do."""
    width = values[0].shape[1]
    pure = [
        replace(tree, value=of_nodes.sum(axis=1), target=of_nodes.argmax(axis=1))
        for tree, of_nodes in zip(trees, values, strict=True)
    ]
    if all((tree.value[tree.is_leaf] == 1.0).all() for tree in pure):
        return _summed_counts(rows, pure, width, len(pure)).cast("float64")
    return summed(rounded(rows), pure, width)


def _summed_counts(rows: Tensor, trees: Sequence[Tree], targets: int, most: int) -> Tensor:
    """Return `summed` for leaves of whole numbers whose sums are at most `most`: in float32 where it counts so far.

    With every threshold rounded down, `x <= threshold` is the same in float32 for each float32 x.
    """
    if most > _MOST_COUNTED:
        return summed(rounded(rows), trees, targets)
    narrow = [replace(tree, threshold=_rounded_down(tree.threshold)) for tree in trees]
    return summed(rows.cast("float32"), narrow, targets, np.float32)


def _rounded_down(thresholds: Array) -> Array:
    """Return the greatest float32 not above each threshold, as float64."""
    with np.errstate(over="ignore"):
        narrow = np.asarray(thresholds).astype(np.float32)
        below = np.nextafter(narrow, np.float32(-np.inf))
    return np.where(narrow > thresholds, below, narrow).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The operator's attributes for one tree, with places counted from `first` inner node and `first_leaf` on."""

    tree: Tree
    first: int
    first_leaf: int

    def columns(self) -> dict[str, Array]:
        """Return the operator's per-node and per-leaf columns."""
        tree, leaf = self.tree, self.tree.is_leaf
        values = np.asarray(tree.value)[leaf]
        reached = {"leaf_weights": values, "leaf_targetids": np.broadcast_to(tree.target, leaf.shape)[leaf]}
        if leaf[0]:
            return reached | self._only_leaf()
        place = np.where(leaf, np.cumsum(leaf) - 1 + self.first_leaf, np.cumsum(~leaf) - 1 + self.first)
        left, right = np.asarray(tree.left)[~leaf], np.asarray(tree.right)[~leaf]
        return reached | {
            "nodes_modes": np.broadcast_to(tree.mode, leaf.shape)[~leaf],
            "nodes_splits": np.asarray(tree.threshold)[~leaf],
            "nodes_featureids": np.asarray(tree.feature)[~leaf],
            "nodes_missing_value_tracks_true": np.asarray(tree.missing_left)[~leaf],
            "nodes_truenodeids": place[left],
            "nodes_falsenodeids": place[right],
            "nodes_trueleafs": leaf[left],
            "nodes_falseleafs": leaf[right],
        }

    def _only_leaf(self) -> dict[str, Array]:
        """Return the one node that the operator asks for where a tree is a leaf: both branches lead to it."""
        leaf = np.array([self.first_leaf])
        zero, one = np.array([0]), np.array([1])
        return {
            "nodes_modes": zero,
            "nodes_splits": np.array([0.0]),
            "nodes_featureids": zero,
            "nodes_missing_value_tracks_true": zero,
            "nodes_truenodeids": leaf,
            "nodes_falsenodeids": leaf,
            "nodes_trueleafs": one,
            "nodes_falseleafs": one,
        }

    def members(self) -> list[Array]:
        """Return the sets of the nodes that have one, in the nodes' order, each closed by NaN."""
        modes = np.broadcast_to(self.tree.mode, self.tree.is_leaf.shape)
        nodes = np.flatnonzero((modes == MEMBER) & ~self.tree.is_leaf)
        sets = [np.asarray(self.tree.members[int(node)], dtype=np.float64) for node in nodes]
        return [np.append(one if len(one) else [_NO_CATEGORY], np.nan) for one in sets]


def _attributes(trees: Sequence[Tree], dtype: type) -> dict[str, Any]:
    """Return the operator's attributes for an ensemble."""
    first = first_leaf = 0
    roots, parts, members = [], [], []
    for tree in trees:
        nodes = _Nodes(tree, first, first_leaf)
        roots.append(first)
        parts.append(nodes.columns())
        members += nodes.members()
        first += len(parts[-1]["nodes_modes"])
        first_leaf += len(parts[-1]["leaf_weights"])
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    tensors = {"nodes_modes": np.uint8, "nodes_splits": dtype, "leaf_weights": dtype}
    attributes: dict[str, Any] = {"tree_roots": roots}
    for name, values in joined.items():
        as_tensor = tensors.get(name)
        if as_tensor is None:
            attributes[name] = values.astype(np.int64).tolist()
        else:
            attributes[name] = numpy_helper.from_array(values.astype(as_tensor))
    if members:
        attributes["membership_values"] = numpy_helper.from_array(np.concatenate(members).astype(dtype))
    return attributes
