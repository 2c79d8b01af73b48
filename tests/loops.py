"""A Loop's body for graphs that run long, or for ever."""

import onnx
from onnx import TensorProto, helper


def adding(other: str, element: int = TensorProto.FLOAT) -> onnx.GraphProto:
    """Return the body of a Loop that adds the tensor `other` to what it carries (`sum`), and always goes on."""
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["sum", other], ["more"])],
        "step",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", element, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", element, None),
        ],
    )
