"""Rows, columns and tensors: what a model would have refused is refused, and everything else keeps its value."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference.tensors import InputSchema
from appliance.inference.values import Scalar, from_values, to_values


def column(name: str, kind: str, **rest: object) -> Input:
    return Input(name=name, type=kind, shape=[-1, 1], columns=[name], **rest)


def plain(width: int = 3, kind: str = "float32", **rest: object) -> InputSchema:
    return InputSchema(
        [Input(name="features", type=kind, shape=[-1, width], columns=[f"c{i}" for i in range(width)], **rest)]
    )


TABLE = InputSchema([column("size", "float64"), column("n", "int64"), column("site", "string"), column("on", "bool")])
ROW = [1.5, 2, "north", True]
NAMED = dict(zip(TABLE.columns, ROW, strict=True))


def test_value_type_is_a_float_only_for_one_float_tensor():
    assert plain().value_type is float
    assert plain(missing=True).value_type == float | None
    assert plain(kind="int64").value_type == Scalar
    assert TABLE.value_type == Scalar


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_rows_by_order_and_by_name_are_the_same_array(typed, count):
    rows = np.random.default_rng(0).random((count, 3)).tolist()
    schema = plain()
    listed = schema.from_rows(rows, typed=typed)["features"]
    named = schema.from_rows([dict(zip(schema.columns, row, strict=True)) for row in rows], typed=typed)["features"]
    assert (listed.dtype, listed.shape) == (np.float32, (count, 3))
    np.testing.assert_array_equal(listed, np.array(rows, np.float32))
    np.testing.assert_array_equal(named, listed)


@pytest.mark.parametrize("typed", [True, False])
def test_columns_get_their_own_types(typed):
    feeds = TABLE.from_rows([ROW, ROW], typed=typed)
    assert [feeds[name].dtype.kind for name in TABLE.columns] == ["f", "i", "O", "b"]
    assert all(array.shape == (2, 1) for array in feeds.values())
    for other in (
        TABLE.from_rows([NAMED, NAMED], typed=typed),
        TABLE.from_columns({k: [v] * 2 for k, v in NAMED.items()}),
    ):
        assert {name: array.tolist() for name, array in other.items()} == {n: a.tolist() for n, a in feeds.items()}


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("wrong", [{"size": "1.5"}, {"size": True}, {"n": "2"}, {"n": 2.5}, {"site": 1}, {"on": 1}])
def test_value_of_another_type_is_refused_with_its_column(typed, wrong):
    (name,) = wrong
    for rows in ([{**NAMED, **wrong}], [list({**NAMED, **wrong}.values())]):
        with pytest.raises(InvalidInput, match=f"column '{name}'"):
            TABLE.from_rows(rows, typed=typed)


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("count", [1, 100])
def test_missing_value_is_refused_or_nan(typed, count):
    rows = [[1.0, None, 3.0]] * count
    feeds = plain(missing=True).from_rows(rows, typed=typed)
    assert np.isnan(feeds["features"][:, 1]).all()
    if not typed:  # a typed decoder has refused it already
        with pytest.raises(InvalidInput, match="'c1': a value is missing"):
            plain().from_rows(rows)


@pytest.mark.parametrize("count", [1, 100])
def test_number_beyond_float32_is_refused_with_its_column(count):
    for typed in (True, False):
        with pytest.raises(InvalidInput, match="'c2': a value is infinite or too large for float32"):
            plain().from_rows([[1.0, 2.0, 1e39]] * count, typed=typed)
    assert plain(kind="float64").from_rows([[1.0, 2.0, 1e39]])["features"][0, 2] == 1e39


def test_whole_numbers_beyond_any_float_are_refused():
    for value in (10**400, -(10**400)):
        with pytest.raises(InvalidInput, match="infinite"):
            plain(1).from_rows([[value]])


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, 2**63 + 1])
def test_uint64_keeps_every_bit(value):
    schema = InputSchema([column("x", "uint64")])
    assert schema.from_rows([[value]])["x"].tolist() == [[value]]
    with pytest.raises(InvalidInput, match="outside the whole numbers of int64"):
        InputSchema([column("x", "int64")]).from_rows([[value]])


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], "there are none"),
        ([[1.0, 2.0]], "row 0 has 2 values"),
        ([[1.0, 2.0, 3.0], [1.0]], "row 1 has 1 values"),
        ([[1.0, 2.0, 3.0]] * 50 + [[1.0] * 4], "row 50 has 4 values"),
        ([[1.0, 2.0, 3.0]] * 50 + [{"c0": 1.0, "c1": 2.0, "c2": 3.0}], "row 50 is an object"),
        ([{"c0": 1.0, "c1": 2.0, "c2": 3.0}, [1.0, 2.0, 3.0]], "row 1 is a list"),
        ([1.0, 2.0, 3.0], "row 0 is a number"),
        ([[1.0, 2.0, 3.0], "abc"], "row 1 is a text"),
        ([{"c0": 1.0, "c1": 2.0}], "lacks 'c2'"),
        ([{"c0": 1.0, "c1": 2.0, "c2": 1.0, "C2": 2.0}], "unknown column 'C2'"),
    ],
)
@pytest.mark.parametrize("typed", [True, False])
def test_uneven_rows_are_refused_with_the_first_that_is(rows, found, typed):
    with pytest.raises(InvalidInput) as raised:
        plain().from_rows(rows, typed=typed)
    assert found in str(raised.value)


def test_extra_keys_are_left_out_when_asked():
    feeds = plain(1).from_rows([{"c0": 1, "id": "x"}], extra=True)
    assert feeds["features"].tolist() == [[1]]


def test_optional_column_may_be_left_out():
    schema = InputSchema([column("a", "float32"), column("b", "float32", required=False, missing=True)])
    assert np.isnan(schema.from_rows([{"a": 1}])["b"]).all()
    assert np.isnan(schema.from_columns({"a": [1, 2]})["b"]).all()
    assert np.isnan(schema.from_tensors({"a": np.array([1], np.float32)})["b"]).all()
    with pytest.raises(InvalidInput, match="lacks 'a'"):
        schema.from_columns({"b": [1.0]})


def test_missing_text_has_its_stand_in():
    schema = InputSchema([column("site", "string", missing=True, missing_text="?")])
    assert schema.from_rows([[None], ["a"]])["site"].tolist() == [["?"], ["a"]]
    with pytest.raises(InvalidInput, match="a value is missing"):
        InputSchema([column("site", "string")]).from_rows([[None]])


def test_category_that_training_never_saw_is_refused():
    schema = InputSchema([column("site", "string", categories=["a", "b"], missing=True, missing_text="?")])
    assert schema.from_rows([["a"], [None]])["site"].tolist() == [["a"], ["?"]]
    with pytest.raises(InvalidInput, match="'c' was never seen in training"):
        schema.from_rows([["a"], ["c"]])


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_categories_of_numbers_are_compared_in_the_tensors_type(kind):
    schema = InputSchema([column("x", kind, categories=[0.1, 0.7])])
    assert schema.from_rows([[0.1], [0.7]])["x"].shape == (2, 1)
    with pytest.raises(InvalidInput, match="never seen"):
        schema.from_rows([[0.2]])


@pytest.mark.parametrize(
    ("sent", "kind", "expected"),
    [
        (np.array([[1.0, 2, 3]]), "float32", np.float32),
        (np.array([[1, 2, 3]], np.int64), "float32", np.float32),
        (np.array([[1, 2, 3]], np.uint8), "int64", np.int64),
        (np.array([[1.0, 2, 3]]), "int32", np.int32),
    ],
)
def test_tensors_are_cast_where_no_value_changes_its_meaning(sent, kind, expected):
    feeds = plain(kind=kind).from_tensors({"features": sent})
    assert feeds["features"].dtype == expected
    assert feeds["features"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (np.array([[1.5, 2, 3]]), "int32"),
        (np.array([[2.0**63, 2, 3]]), "int64"),
        (np.array([[np.nan, 2, 3]]), "int64"),
        (np.array([[300, 2, 3]]), "uint8"),
        (np.array([[True, False, True]]), "float32"),
        (np.array([["a", "b", "c"]], object), "float32"),
        (np.array([[1, 0, 1]]), "bool"),
        (np.array([[np.nan, 2, 3]]), "float32"),
        (np.array([[np.inf, 2, 3]]), "float32"),
        (np.array([1.0, 2]), "float32"),
        (np.array([[[1.0, 2, 3]]]), "float32"),
        (np.array([[1.0, 2]]), "float32"),
        (np.zeros((0, 3)), "float32"),
        (np.array(1.0), "float32"),
    ],
)
def test_tensor_that_would_change_its_meaning_is_refused(sent, kind):
    with pytest.raises(InvalidInput):
        plain(kind=kind).from_tensors({"features": sent})


def test_tensors_named_as_columns_are_a_table():
    parts = {"c2": np.array([3.0]), "c0": np.array([[1]]), "c1": np.array([2], np.int8)}
    assert plain().from_tensors(parts)["features"].tolist() == [[1, 2, 3]]
    with pytest.raises(InvalidInput, match="send exactly features"):
        plain().from_tensors({**parts, "x": np.array([1])})


@pytest.mark.parametrize("name", ["features", "input-0", "predict"])
@pytest.mark.parametrize("sent", [[[1, 2, 3]], [1, 2, 3]])
def test_one_tensor_of_any_name_is_the_one_input(name, sent):
    assert plain().from_tensors({name: np.array(sent, np.int32)})["features"].tolist() == [[1, 2, 3]]


NUMBERS = InputSchema([column("b", "float64"), column("a", "int64"), column("c", "float32")])


@pytest.mark.parametrize("sent", [[[1.5, 2, 3], [4, 5, 6.5]], [1.5, 2, 3]])
def test_one_matrix_is_named_columns_in_their_order(sent):
    feeds = NUMBERS.from_tensors({"input-0": np.array(sent, np.float32)})
    assert {name: (array.dtype.name, array.tolist()) for name, array in feeds.items()} == {
        name: (kind, [[row[place]] for row in np.atleast_2d(sent)])
        for place, (name, kind) in enumerate({"b": "float64", "a": "int64", "c": "float32"}.items())
    }


@pytest.mark.parametrize(
    ("schema", "tensors", "found"),
    [
        (NUMBERS, {"input-0": np.array([[1.5, 2.5, 3]])}, "'a'.* 2.5"),
        (NUMBERS, {"input-0": np.ones((2, 4))}, r"got input-0 of shape \[2, 4\]; send .* \[rows, 3\]"),
        (NUMBERS, {"input-0": np.ones((1, 1, 3))}, r"of shape \[1, 1, 3\]"),
        (NUMBERS, {"x": np.ones((1, 3)), "y": np.ones((1, 3))}, "got x, y"),
        (NUMBERS, {"input-0": np.ones((0, 3))}, "there are none"),
        (NUMBERS, {"a": np.ones((3, 1))}, "lacks"),
        (TABLE, {"input-0": np.ones((1, 4))}, "'site'"),
        (TABLE, {"input-0": np.array([["1", "2", "n", "x"]], object)}, "'size'"),
        (plain(), {"input-0": np.ones((2, 4))}, r"its shape is \[2, 4\]"),
    ],
)
def test_matrix_that_does_not_fit_the_columns_is_refused(schema, tensors, found):
    with pytest.raises(InvalidInput, match=found):
        schema.from_tensors(tensors)


def test_tensors_of_different_rows_are_refused():
    tensors = {"size": np.ones(2), "n": np.ones(2, int), "site": np.array(["a", "b"], object), "on": np.array([True])}
    with pytest.raises(InvalidInput, match="differ in rows"):
        TABLE.from_tensors(tensors)


def test_given_array_is_passed_on_without_a_copy():
    array = np.ones((2, 3), np.float32)
    assert plain().from_tensors({"features": array})["features"] is array


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0.1], [np.nan]], np.float32), [float(np.float32(0.1)), pytest.approx(np.nan, nan_ok=True)]),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.array(["a"], object), ["a"]),
        (np.array([True]), [True]),
    ],
)
def test_outputs_are_plain_values_by_row(array, expected):
    assert to_values(array) == expected


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
NAMES = st.sampled_from([*TABLE.columns, "c0", "c1", "c2", "x"])
ROWS = st.lists(VALUES, max_size=5) | st.dictionaries(NAMES, VALUES, max_size=5) | VALUES
SCHEMAS = st.sampled_from([TABLE, plain(), plain(missing=True), plain(2, "uint8"), plain(1, "string")])


@settings(deadline=None)
@given(SCHEMAS, st.lists(ROWS, max_size=4))
def test_any_rows_are_feeds_of_the_declared_shape_or_refused(schema, rows):
    try:
        feeds = schema.from_rows(rows)
    except InvalidInput:
        return
    for tensor in schema.inputs:
        assert feeds[tensor.name].shape == (len(rows), tensor.shape[1])
        assert feeds[tensor.name].dtype == (object if tensor.type == "string" else tensor.type)


@settings(deadline=None)
@given(
    SCHEMAS, st.lists(st.lists(st.none() | st.floats(), max_size=4) | st.dictionaries(NAMES, st.floats()), max_size=4)
)
def test_typed_rows_are_judged_as_untyped_ones_are(schema, rows):
    def judged(typed: bool) -> object:
        try:
            feeds = schema.from_rows(rows, typed=typed)
        except InvalidInput:
            return None
        return {name: array.tobytes() for name, array in feeds.items() if array.dtype != object}

    missing = any(None in row for row in rows if isinstance(row, list))
    if not missing or schema.value_type is not float:  # else a typed decoder has refused the rows already
        assert judged(True) == judged(False)


KINDS = ["bool", "int8", "uint64", "float16", "float32", "float64", "string"]


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.lists(VALUES | st.lists(VALUES, max_size=2), min_size=1, max_size=4))
def test_any_values_are_an_array_or_refused(kind, values):
    try:
        array = from_values("x", kind, values)
    except InvalidInput:
        return
    assert array.shape == (len(values),)
    back = [None if value != value else value for value in array.tolist()]
    if kind in ("float64", "string", "uint64", "bool"):
        assert back == [None if value != value else value for value in values]


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.none() | st.floats() | st.lists(st.floats(), max_size=2), min_size=1))
def test_typed_values_are_an_array_or_refused(kind, values):
    try:
        array = from_values("x", kind, values, typed=True)
    except InvalidInput:
        return
    assert array.shape == (len(values),)


@pytest.mark.parametrize(
    ("rows", "column", "reason"),
    [
        ([[1.0, None]], "b", "missing"),
        ([[1.0, math.nan]], "b", "missing"),
        ([[math.inf, 1.0]], "a", "infinite"),
        ([[1.0, 1e39]], "b", "infinite"),
        ([["x", 1.0]], "a", "type"),
        ([{"a": 1.0}], "b", "absent"),
        ([[1.0]], "", ""),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_a_refusal_names_the_column_and_what_is_wrong_with_it(rows, column, reason, apart):
    together = [Input(name="features", type="float32", shape=[-1, 2], columns=["a", "b"])]
    alone = [Input(name=name, type="float32", shape=[-1, 1], columns=[name]) for name in "ab"]
    with pytest.raises(InvalidInput) as refused:
        InputSchema(alone if apart else together).from_rows(rows)
    assert (refused.value.column, refused.value.reason) == (column, reason)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("int64", 1.5, "type"),
        ("int64", None, "missing"),
        ("string", 3, "type"),
        ("bool", 1.0, "type"),
        ("string", "C", "unseen"),
    ],
)
def test_a_refusal_of_other_types_names_its_reason(kind, value, reason):
    categories = ["A", "B"] if kind == "string" else None
    schema = InputSchema([Input(name="x", type=kind, shape=[-1, 1], columns=["x"], categories=categories)])
    with pytest.raises(InvalidInput) as refused:
        schema.from_rows([[value]])
    assert (refused.value.column, refused.value.reason) == ("x", reason)


numbers = st.one_of(
    st.floats(), st.none(), st.sampled_from([0.0, -0.0, 1e39, -3.5e38, 3.4028235e38, 3.4028235677973366e38, 1.7e308])
)


@given(
    st.lists(numbers, min_size=2, max_size=4),
    st.sampled_from(["float32", "float64"]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=300)
def test_one_row_is_what_it_is_among_others(row, kind, missing, finite):
    schema = plain(kind=kind, missing=missing, finite=finite)

    def made(rows: list[list[float | None]]) -> bytes | str:
        try:
            return schema.from_rows(rows, typed=True)["features"][0].tobytes()
        except InvalidInput as error:
            return error.found.replace("row 1", "row 0")

    assert made([row]) == made([row, [1.0, 2.0, 3.0]])
