"""Converts scikit-learn's trees and forests so that they turn and vote exactly as the originals.

scikit-learn casts rows to float32 and compares them with float64 thresholds, so the graph casts before the tree,
whatever came before it, and has each threshold rounded down to float32: `x <= t` is then the same for every float32.
skl2onnx 1.20 weighs each vote 1/n in float32, whose sum breaks ties; here whole votes are summed and then averaged,
and the first of the greatest wins, as in NumPy's argmax.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import skl2onnx
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx.common.data_types import guess_proto_type
from skl2onnx.shape_calculators.ensemble_shapes import (
    calculate_tree_classifier_output_shapes,
    calculate_tree_regressor_output_shapes,
)
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

_CLASSIFIERS = (RandomForestClassifier, ExtraTreesClassifier, DecisionTreeClassifier)
_REGRESSORS = (RandomForestRegressor, ExtraTreesRegressor, DecisionTreeRegressor)
_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "raw_scores": [True, False],
    "nocl": [True, False],
    "output_class_labels": [False, True],
}


def register() -> None:
    """Let skl2onnx use these converters in this process."""
    for estimator in _CLASSIFIERS:
        alias, shapes = f"Sklearn{estimator.__name__}", calculate_tree_classifier_output_shapes
        skl2onnx.update_registered_converter(estimator, alias, shapes, _convert_classifier, options=_OPTIONS)
    for estimator in _REGRESSORS:
        alias, shapes = f"Sklearn{estimator.__name__}", calculate_tree_regressor_output_shapes
        skl2onnx.update_registered_converter(estimator, alias, shapes, _convert_regressor)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    """Add nodes for the label, the first class of the greatest mean vote, and for the votes' mean."""
    model = operator.raw_operator
    if model.n_outputs_ != 1:
        raise NotImplementedError(f"{type(model).__name__} with several outputs")
    labels, votes = operator.outputs[0].full_name, operator.outputs[1]
    mean = _add_trees(scope, operator, container, _trees(model), len(model.classes_))
    to = guess_proto_type(votes.type)
    container.add_node("Cast", [mean], [votes.full_name], name=scope.get_unique_operator_name("votes"), to=to)
    best = scope.get_unique_variable_name("best")
    container.add_node(
        "ArgMax", [mean], [best], name=scope.get_unique_operator_name("best"), op_version=13, axis=1, keepdims=0
    )
    classes = scope.get_unique_variable_name("classes")
    if model.classes_.dtype.kind in "OUS":
        values = [str(label).encode() for label in model.classes_]
        container.add_initializer(classes, TensorProto.STRING, [len(values)], values)
    else:
        container.add_initializer(
            classes, TensorProto.INT64, [len(model.classes_)], [int(label) for label in model.classes_]
        )
    container.add_node("Gather", [classes, best], [labels], name=scope.get_unique_operator_name("label"), op_version=13)


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    """Add nodes for the mean of the trees."""
    model, output = operator.raw_operator, operator.outputs[0]
    mean = _add_trees(scope, operator, container, _trees(model), model.n_outputs_)
    to = guess_proto_type(output.type)
    container.add_node("Cast", [mean], [output.full_name], name=scope.get_unique_operator_name("mean"), to=to)


def _trees(model: Any) -> list[Any]:
    """Return the fitted `tree_` structures of a forest, or of one tree."""
    return [member.tree_ for member in getattr(model, "estimators_", [model])]


def _add_trees(scope: Any, operator: Any, container: Any, trees: list[Any], width: int) -> str:
    """Add a float32 TreeEnsembleRegressor (ai.onnx.ml 3) that averages `trees`, and return its output [rows, width]."""
    rows = scope.get_unique_variable_name("float_rows")
    name = scope.get_unique_operator_name("rows")
    container.add_node("Cast", [operator.inputs[0].full_name], [rows], name=name, to=TensorProto.FLOAT)
    mean = scope.get_unique_variable_name("mean")
    container.add_node(
        "TreeEnsembleRegressor",
        [rows],
        [mean],
        op_domain="ai.onnx.ml",
        op_version=3,
        name=scope.get_unique_operator_name("trees"),
        aggregate_function="AVERAGE",
        n_targets=width,
        **_attributes(trees, width),
    )
    return str(mean)


def _attributes(trees: Sequence[Any], width: int) -> dict[str, Any]:
    """Return the node's attributes: parallel lists over all nodes, and over all leaves times `width`."""
    sizes = [tree.node_count for tree in trees]
    leaf = np.concatenate([tree.children_left < 0 for tree in trees])
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])
    values = np.concatenate([tree.value.reshape(tree.node_count, -1)[:, :width] for tree in trees])

    def nodes(name: str, at_leaf: float = 0) -> NDArray[Any]:
        return np.where(leaf, at_leaf, np.concatenate([getattr(tree, name) for tree in trees]))

    return {
        "nodes_treeids": tree_ids.tolist(),
        "nodes_nodeids": node_ids.tolist(),
        "nodes_featureids": nodes("feature").tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values": _rounded_down(nodes("threshold")).tolist(),
        "nodes_truenodeids": nodes("children_left").tolist(),
        "nodes_falsenodeids": nodes("children_right").tolist(),
        "nodes_missing_value_tracks_true": nodes("missing_go_to_left").astype(int).tolist(),
        "target_treeids": np.repeat(tree_ids[leaf], width).tolist(),
        "target_nodeids": np.repeat(node_ids[leaf], width).tolist(),
        "target_ids": np.tile(np.arange(width), int(leaf.sum())).tolist(),
        "target_weights": values[leaf].astype("float32").reshape(-1).tolist(),
    }


def _rounded_down(thresholds: NDArray[Any]) -> NDArray[np.float32]:
    """Return the greatest float32 not above each threshold."""
    narrow = thresholds.astype("float32")
    return np.where(narrow > thresholds, np.nextafter(narrow, np.float32(-np.inf)), narrow).astype("float32")
