"""Steps that are written in float32 answer as they did in float64, to the bit; what would round otherwise stays."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from appliance.inference.session import Session
from convert.converters.narrowing import narrow
from tests.loops import adding

WIDTH = 3
SINGLES = st.floats(width=32, allow_subnormal=False)
MODERATE = st.floats(min_value=-(2.0**50), max_value=2.0**50, width=32, allow_subnormal=False).filter(
    lambda x: x == 0 or abs(x) > 2.0**-50  # so that no product or quotient falls among the subnormal numbers
)


def graph(nodes: list[Any], constants: dict[str, Any], wanted: int, output: str = "y") -> onnx.ModelProto:
    """Return a model of `nodes` between x, float32 [n, 3], and an output."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])],
        [helper.make_tensor_value_info(output, wanted, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def widen(name: str = "x", to: str = "wide") -> Any:
    return helper.make_node("Cast", [name], [to], to=TensorProto.DOUBLE)


def rounded(name: str, to: str = "y") -> Any:
    return helper.make_node("Cast", [name], [to], to=TensorProto.FLOAT)


def narrowed(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    narrow(copy)
    return copy


def same(model: onnx.ModelProto, x: Any) -> onnx.ModelProto:
    """Return `model` narrowed, which answers x as before, to the bit."""
    after = narrowed(model)
    (expected,), (found,) = (Session(one.SerializeToString()).run({"x": x}) for one in (model, after))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    return after


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def rows(elements: Any) -> Any:
    return arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(WIDTH)), elements=elements)


@given(rows(MODERATE), st.sampled_from(["Add", "Sub", "Mul", "Div"]), st.data())
def test_one_operation_that_is_rounded_at_once_is_done_in_float32(x, op, data):
    constant = np.array([data.draw(st.lists(MODERATE.filter(bool), min_size=WIDTH, max_size=WIDTH))])
    model = graph(
        [widen(), helper.make_node(op, ["wide", "c"], ["z"]), rounded("z")], {"c": constant}, TensorProto.FLOAT
    )
    assert ops(same(model, x)) == {op: 1}


@given(rows(st.floats(min_value=0, max_value=2.0**100, width=32, allow_subnormal=False)))
def test_square_roots_are_done_in_float32(x):
    model = graph([widen(), helper.make_node("Sqrt", ["wide"], ["z"]), rounded("z")], {}, TensorProto.FLOAT)
    assert ops(same(model, x)) == {"Sqrt": 1}


def test_two_operations_round_once_and_stay_in_float64():
    nodes = [widen(), helper.make_node("Mul", ["wide", "c"], ["z"]), helper.make_node("Add", ["z", "c"], ["s"])]
    model = graph([*nodes, rounded("s")], {"c": np.array([[0.1, 3.0, 7.0]])}, TensorProto.FLOAT)
    after = narrowed(model)
    assert ops(after)["Mul"] == ops(after)["Add"] == ops(after)["Cast"] == 1
    assert after.graph.output[0].type.tensor_type.elem_type == TensorProto.DOUBLE


def test_constant_that_is_no_float32_keeps_the_operation_in_float64():
    model = graph(
        [widen(), helper.make_node("Mul", ["wide", "c"], ["z"]), rounded("z")], {"c": [[0.1]]}, TensorProto.FLOAT
    )
    assert ops(narrowed(model)) == {"Cast": 1, "Mul": 1}


def test_answer_computed_in_float64_is_given_in_float64():
    model = graph([widen(), helper.make_node("Exp", ["wide"], ["z"]), rounded("z")], {}, TensorProto.FLOAT)
    (found,) = Session(narrowed(model).SerializeToString()).run({"x": np.ones((1, WIDTH), np.float32)})
    assert found.dtype == np.float64
    assert found[0, 0] == pytest.approx(np.e, rel=1e-15)


LIMITS = st.one_of(st.floats(allow_nan=False), SINGLES.filter(lambda x: x == x))
COMPARISONS = st.sampled_from(["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"])


@given(st.lists(LIMITS, min_size=WIDTH, max_size=WIDTH), COMPARISONS, st.booleans(), st.data())
def test_comparisons_divide_float32_as_their_float64_limits_do(limits, op, turned, data):
    with np.errstate(over="ignore"):
        near = np.array(limits).astype(np.float32)
        x = np.stack([near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))])
    x = np.concatenate([x, data.draw(rows(SINGLES))])
    operands = ["c", "wide"] if turned else ["wide", "c"]
    model = graph([widen(), helper.make_node(op, operands, ["y"])], {"c": np.array([limits])}, TensorProto.BOOL)
    assert ops(same(model, x)) == {op: 1}


@given(rows(SINGLES))
def test_filling_gaps_becomes_one_node(x):
    nodes = [
        widen(),
        helper.make_node("IsNaN", ["wide"], ["gap"]),
        helper.make_node("Where", ["gap", "c", "wide"], ["z"]),
    ]
    model = graph([*nodes, rounded("z")], {"c": np.array([[0.1, 2.0, -1e300]])}, TensorProto.FLOAT)
    assert ops(same(model, x)) == {"Imputer": 1}


@given(rows(MODERATE))
def test_gaps_of_what_no_float32_has_are_filled_in_float64(x):
    nodes = [
        widen(),
        helper.make_node("Mul", ["wide", "c"], ["scaled"]),
        helper.make_node("Add", ["scaled", "c"], ["moved"]),
        helper.make_node("IsNaN", ["moved"], ["gap"]),
        helper.make_node("Where", ["gap", "c", "moved"], ["z"]),
    ]
    nodes += [rounded("z", "single"), helper.make_node("Neg", ["single"], ["y"])]
    model = graph(nodes, {"c": np.array([[0.1, 2.0, -1e30]])}, TensorProto.FLOAT)
    assert ops(same(model, x))["Imputer"] == 0


@given(rows(MODERATE))
def test_products_of_chosen_columns_are_done_in_float32(x):
    nodes = [
        widen(),
        helper.make_node("ArrayFeatureExtractor", ["wide", "i"], ["left"], domain="ai.onnx.ml"),
        helper.make_node("ArrayFeatureExtractor", ["wide", "j"], ["right"], domain="ai.onnx.ml"),
        helper.make_node("Mul", ["left", "right"], ["products"]),
        helper.make_node("Concat", ["wide", "products"], ["z"], axis=1),
    ]
    model = graph([*nodes, rounded("z")], {"i": np.array([0, 1]), "j": np.array([2, 2])}, TensorProto.FLOAT)
    assert "Cast" not in ops(same(model, x))


@given(rows(MODERATE))
def test_tensor_that_others_read_is_not_computed_twice(x):
    nodes = [
        widen(),
        helper.make_node("Mul", ["wide", "wide"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "axis"], ["sums"], keepdims=1),
        rounded("squares", "single"),
        rounded("sums", "single sums"),
        helper.make_node("Div", ["single", "single sums"], ["y"]),
    ]
    model = graph(nodes, {"axis": np.array([1])}, TensorProto.FLOAT)
    assert ops(same(model, x))["Mul"] == 1


def test_what_a_loop_reads_from_outside_stays():
    body = adding("wide", TensorProto.DOUBLE)
    nodes = [widen(), helper.make_node("Loop", ["times", "true", "wide"], ["z"], body=body), rounded("z")]
    model = graph(nodes, {"times": np.array(2), "true": np.array(True)}, TensorProto.FLOAT)
    (found,) = Session(narrowed(model).SerializeToString()).run({"x": np.full((1, WIDTH), 2, np.float32)})
    assert found.tolist() == [[6.0] * WIDTH]


def test_output_that_others_read_too_is_no_copy():
    nodes = [
        widen(),
        helper.make_node("Exp", ["wide"], ["z"]),
        rounded("z"),
        helper.make_node("ArgMax", ["z"], ["best"], axis=1, keepdims=0),
    ]
    model = graph(nodes, {}, TensorProto.FLOAT)
    model.graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, None))
    after = narrowed(model)
    assert ops(after) == {"Cast": 1, "Exp": 1, "ArgMax": 1}
    assert [output.name for output in after.graph.output] == ["y", "best"]
