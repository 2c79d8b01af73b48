"""The session runs a graph as it is written: onnxruntime's optimizers change no number."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from appliance.inference.session import Session


@pytest.mark.parametrize(("op", "constant"), [("Mul", 1 + 1e-9), ("Div", 1 + 1e-9), ("Add", 1e-300), ("Sub", 1e-300)])
def test_float64_constant_that_float32_would_take_for_none_counts(op, constant):
    nodes = [
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node(op, ["size", "c"], ["changed"]),
        helper.make_node("Neg", ["changed"], ["y"]),
    ]
    wide = TensorProto.DOUBLE
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", wide, [None, 1])],
        [helper.make_tensor_value_info("y", wide, [None, 1])],
        [numpy_helper.from_array(np.array(constant), "c")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = 1.0 if op in ("Mul", "Div") else 0.0
    expected = {"Mul": x * constant, "Div": x / constant, "Add": x + constant, "Sub": x - constant}[op]
    (found,) = Session(model.SerializeToString()).run({"x": np.array([[x]])})
    assert found[0, 0] == -expected != x
