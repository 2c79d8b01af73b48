"""An answer that overflowed is refused, and one that the row itself made infinite or missing is given."""

import numpy as np
import pytest

from appliance.bundle.manifest import Input, Output
from appliance.errors import InvalidInput
from appliance.inference import lenient_json
from appliance.inference.overflow import check_overflow
from appliance.inference.tensors import InputSchema

INF, NAN = np.inf, np.nan


def check(answer: object, feed: object, role: str = "prediction", dtype: str = "float32") -> None:
    array = np.array(answer, dtype)
    output = Output(name="y", type=dtype, shape=[-1, *array.shape[1:]], role=role)
    check_overflow([output], ["y"], [array], {"x": np.array(feed, dtype), "t": np.array([["a"]] * len(array), object)})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("role", ["prediction", "probability", "score", "other"])
def test_infinite_answer_to_finite_numbers_is_refused_and_names_the_row(role, dtype):
    for answer in ([1.0, INF], [[1.0, 2.0], [3.0, -INF]]):
        with pytest.raises(InvalidInput, match=r"'y' to row 1 is infinite"):
            check(answer, [[1.0], [2.0]], role, dtype)


def test_answer_to_a_row_with_infinity_or_without_a_value_may_be_anything():
    check([1.0, INF, NAN], [[1.0], [INF], [NAN]])
    with pytest.raises(InvalidInput, match="row 0"):
        check([INF, INF, NAN], [[1.0], [INF], [NAN]])


def test_nan_is_an_overflow_where_no_original_gives_it():
    for role in ("prediction", "probability"):
        with pytest.raises(InvalidInput, match="or no number"):
            check([1.0, NAN], [[1.0], [2.0]], role)
    for role in ("score", "other"):
        check([1.0, NAN], [[1.0], [2.0]], role)


def test_large_answers_whose_squares_overflow_are_given():
    check([3e38, -3e38], [[1.0], [2.0]])


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_finite_number_that_the_input_cannot_hold_is_refused_in_every_form(kind):
    schema = InputSchema([Input(name="x", type=kind, shape=[-1, 1], columns=["x"], finite=False, missing=True)])
    large = {"float16": 1e5, "float32": 1e39, "float64": 10**400}[kind]
    for rows, typed in (([[large]], kind != "float64"), ([{"x": large}], False), ([[1.0], [large]], False)):
        with pytest.raises(InvalidInput, match=f"'x'.*infinite or too large for {kind}"):
            schema.from_rows(rows, typed=typed)
    for rows in ([[INF]], [{"x": -INF}], [[1.0], [INF], [None]]):
        assert np.isinf(schema.from_rows(rows, typed=True)["x"]).any()
    if kind != "float64":
        with pytest.raises(InvalidInput, match="too large"):
            schema.from_tensors({"x": np.array([[large]], np.float64)})
    assert np.isinf(schema.from_tensors({"x": np.array([[INF]], np.float64)})["x"]).all()


def test_pythons_words_are_read_and_numbers_out_of_range_are_not():
    found = lenient_json.loads(b'\xef\xbb\xbf{"a": [NaN, Infinity, -Infinity, 1, 2.5, "NaN"]}')["a"]
    assert np.isnan(found[0])
    assert found[1:] == [INF, -INF, 1, 2.5, "NaN"]
    for text in (b"[NaN, 1e400]", b"[NaN, -1e400]", b"[NaN, %s]" % (b"9" * 310), b"[NaN, -%s]" % (b"9" * 5000)):
        with pytest.raises(InvalidInput, match="out of range"):
            lenient_json.loads(text)
    for text in (b"NaNa", b"nan", b"1NaN", b"--Infinity", b"[NaN", b"\xff", b""):
        with pytest.raises(ValueError, match=r".*"):
            lenient_json.loads(text)
