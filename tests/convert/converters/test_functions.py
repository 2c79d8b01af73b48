import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from skl2onnx.common._container import ModelComponentContainer
from skl2onnx.common._topology import Scope
from sklearn.preprocessing import FunctionTransformer

from appliance.errors import ConversionRefused
from convert.converters import elementwise, expressions, smooth_functions


def ratio_and_parts(x):
    first = x[:, 0] / (np.abs(x[:, 1]) + 1)
    return np.column_stack([first, np.where(x[:, 2] > 0, x[:, 3], -x[:, 4]), np.log1p(np.abs(x[:, 0]))])


def clipped_and_summed(x):
    return np.hstack([np.clip(x, -1, 1), x.sum(axis=1, keepdims=True), (x**2).mean(axis=1).reshape(-1, 1)])


def by_name(table):
    return np.column_stack([table["a"] * table["b"], np.maximum(table["a"], 2.0)])


@pytest.mark.parametrize(
    "function",
    [
        None,
        np.log1p,
        np.sqrt,
        np.expm1,
        np.cbrt,
        np.tanh,
        np.square,
        np.sign,
        np.rint,
        np.floor,
        np.reciprocal,
        np.sin,
        np.log10,
        np.nan_to_num,
        np.isnan,
        special.expit,
        special.erf,
        ratio_and_parts,
        clipped_and_summed,
    ],
    ids=lambda function: getattr(function, "__name__", "identity"),
)
def test_functions_of_columns_are_traced(data, fresh, assert_same, function):
    rows, _ = data["positive"]
    assert_same(FunctionTransformer(function).fit(rows), fresh(rows))


@pytest.mark.parametrize("modulus", [2.0, -3.0])
def test_remainders_have_the_sign_of_the_divisor(data, assert_same, modulus):
    rows, _ = data["rows"]
    assert_same(FunctionTransformer(np.remainder, kw_args={}).set_params(func=lambda x: x % modulus).fit(rows), rows)


def test_arguments_are_handed_to_the_function(data, assert_same):
    rows, _ = data["rows"]
    assert_same(FunctionTransformer(np.clip, kw_args={"a_min": -1, "a_max": 1}).fit(rows), rows)


def test_columns_are_found_by_name(graph, ask):
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]})
    model = FunctionTransformer(by_name).fit(table)
    np.testing.assert_allclose(ask(graph(model, table), table)[0], model.transform(table))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.mean() > 0 else -x,
        lambda x: x - x.mean(axis=0),
        lambda x: np.sort(x, axis=1),
        lambda x: np.array([row * 2 for row in x]),
        lambda x: x[::-1],
        lambda x: 7,
    ],
    ids=["branches", "over rows", "sorts", "loops", "turns rows over", "constant"],
)
def test_functions_that_look_at_the_numbers_are_refused(data, graph, function):
    rows, _ = data["rows"]
    with pytest.raises(ConversionRefused, match="function"):
        graph(FunctionTransformer(function).fit(rows), rows)


@pytest.fixture(scope="module")
def evaluated():
    """Return a function that runs an expression on a column of numbers."""

    def evaluated(expression):
        scope, container = Scope("test"), ModelComponentContainer({"": 21})
        graph = expressions.Graph(scope, container)
        result = expression(graph.tensor("x"))
        column = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, [None, 1]) for n in ("x", result.name)]
        built = onnx.helper.make_graph(container.nodes, "test", column[:1], column[1:], container.initializers)
        model = onnx.helper.make_model(built, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda numbers: session.run(None, {"x": np.reshape(numbers, (-1, 1)).astype("float64")})[0][:, 0]

    return evaluated


KNOTS = np.array([-1.0, 0.0, 0.0, 2.5, 2.5, 7.0])
HEIGHTS = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
PAIRS = {
    "log1p": (expressions.log1p, np.log1p, st.floats(-1 + 1e-12, 1e200)),
    "expm1": (expressions.expm1, np.expm1, st.floats(-800, 700)),
    "erf": (smooth_functions.erf, special.erf, st.floats(-50, 50)),
    "ndtr": (smooth_functions.ndtr, special.ndtr, st.floats(-50, 50)),
    "ndtri": (smooth_functions.ndtri, special.ndtri, st.floats(1e-7, 1 - 1e-7)),
    "interpolate": (
        lambda x: expressions.interpolate(x, KNOTS, HEIGHTS),
        lambda x: np.interp(x, KNOTS, HEIGHTS),
        st.one_of(st.floats(-1e6, 1e6), st.sampled_from(list(KNOTS))),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_functions_that_onnxruntime_lacks_are_exact(evaluated, name):
    expression, original, numbers = PAIRS[name]
    run = evaluated(expression)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(numbers, min_size=1, max_size=20))
    def holds(values):
        np.testing.assert_allclose(run(values), original(np.array(values)), rtol=1e-12, atol=1e-14)

    holds()


@pytest.mark.parametrize(
    ("expression", "function", "numbers"),
    [
        (elementwise.log10, np.log10, 10.0 ** np.arange(-20, 25)),
        (elementwise.log2, np.log2, 2.0 ** np.arange(-60, 60)),
        (elementwise.cbrt, np.cbrt, np.arange(-2_000.0, 2_000.0) ** 3),
        (elementwise.exp2, np.exp2, np.arange(-50.0, 50.0)),
    ],
    ids=["log10", "log2", "cbrt", "exp2"],
)
def test_what_is_whole_stays_whole(evaluated, expression, function, numbers):
    ours, numpys = evaluated(expression)(numbers), function(numbers)
    np.testing.assert_array_equal(ours, np.round(ours) if function is not np.exp2 else numpys)
    np.testing.assert_allclose(ours, numpys, rtol=4.5e-16)  # on some processors NumPy's own cube roots are not whole


@pytest.mark.parametrize(
    ("expression", "function"),
    [
        (elementwise.log10, np.log10),
        (elementwise.log2, np.log2),
        (elementwise.cbrt, np.cbrt),
        (elementwise.exp2, np.exp2),
    ],
    ids=["log10", "log2", "cbrt", "exp2"],
)
def test_logarithms_roots_and_powers_of_any_number_are_as_numpys(evaluated, expression, function):
    rng = np.random.default_rng(0)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, 1e-300, 1e300]
    numbers = np.concatenate([edges, rng.normal(0, 100, 1_000), np.exp(rng.uniform(-600, 600, 1_000))])
    with np.errstate(all="ignore"):
        expected = function(numbers)
    np.testing.assert_allclose(evaluated(expression)(numbers), expected, rtol=1e-13)


@pytest.mark.parametrize("divisor", [0.1, 0.3, -0.1, 60.0, -7.0, 0.0, np.inf])
def test_division_with_floor_is_numpys_and_not_the_floor_of_the_quotient(evaluated, divisor):
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan]
    numbers = np.concatenate([edges, np.arange(-500, 500) / 10, np.random.default_rng(0).normal(0, 100, 500)])
    with np.errstate(all="ignore"):
        expected = np.floor_divide(numbers, divisor)
    found = evaluated(lambda x: elementwise.floor_divide(x, divisor))(numbers)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("decimals", [2, 1, 0, -1, -2])
def test_numbers_are_rounded_as_numpy_rounds_them(evaluated, decimals):
    numbers = np.concatenate([np.arange(-2_000, 2_000) * 0.25, np.nextafter(np.arange(-50, 50) * 5.0, 0.0)])
    found = evaluated(lambda x: elementwise.round_to(x, decimals))(numbers)
    np.testing.assert_array_equal(found, np.round(numbers, decimals))
