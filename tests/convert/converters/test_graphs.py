"""Edits to graphs, and the least onnxruntime that they need."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from appliance.inference.session import Session
from convert.converters import graphs


def branching():
    """If `x` is positive, y = x, else y = -x; with a node and an initializer that nothing needs."""
    shape = [None]
    inner = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, shape)]
    yes = helper.make_graph([helper.make_node("Identity", ["x"], ["inner"])], "yes", [], inner)
    no = helper.make_graph([helper.make_node("Neg", ["x"], ["inner"])], "no", [], inner)
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=yes, else_branch=no),
        helper.make_node("Add", ["x", "unused"], ["dead"]),
    ]
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [0.0]) for name in ("zero", "unused")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y", "dead")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_renaming_reaches_into_subgraphs():
    model = branching()
    graphs.rename(model.graph, {"x": "größe (m²)", "y": "out"})
    session = Session(model.SerializeToString())
    (answer,) = session.run({"größe (m²)": np.array([-2.0], dtype="float32")}, ["out"])
    assert answer.tolist() == [2.0]


def test_names_wanted_outside_are_freed_inside():
    model = branching()
    graphs.free_names(model.graph, ["sum", "inner"])
    used = {name for node in model.graph.node for name in (*node.input, *node.output)}
    assert "sum" not in used
    assert Session(model.SerializeToString()).run({"x": np.array([3.0], dtype="float32")}, ["y"])[0].tolist() == [3.0]


def test_pruning_keeps_only_what_the_outputs_need():
    model = branching()
    graphs.prune(model.graph, ["y"])
    assert [node.op_type for node in model.graph.node] == ["ReduceSum", "Greater", "If"]
    assert [entry.name for entry in model.graph.initializer] == ["zero"]
    assert list(Session(model.SerializeToString()).outputs) == ["y"]


def test_copies_of_copies_are_read_where_they_come_from():
    shape = [None]
    names = ["x", "y", "twin", "input again"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    copies = [("made", "b"), ("b", "y"), ("b", "c"), ("c", "twin"), ("x", "input again")]
    nodes = [helper.make_node("Neg", ["x"], ["made"]), *(helper.make_node("Identity", [a], [b]) for a, b in copies)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    graphs.drop_identities(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Neg", "Identity", "Identity"]
    answers = Session(model.SerializeToString()).run({"x": np.array([2.0], dtype="float32")}, names[1:])
    assert [answer.tolist() for answer in answers] == [[-2.0], [-2.0], [2.0]]


@pytest.mark.parametrize(
    ("opset", "ml_opset", "ir", "expected"),
    [(13, 1, 8, "1.14.0"), (19, 3, 9, "1.16.0"), (21, 3, 10, "1.18.0"), (21, 5, 10, "1.21.0"), (25, 5, 13, "9.9.9")],
)
def test_least_onnxruntime_is_the_first_in_its_table_or_the_one_that_proved(opset, ml_opset, ir, expected):
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml_opset)]
    model = helper.make_model(onnx.GraphProto(name="g"), opset_imports=opsets, ir_version=ir)
    assert graphs.least_onnxruntime(model, "9.9.9") == expected
