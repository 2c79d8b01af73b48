"""Booleans with gaps: a tensor of floats whose only values are 0 and 1 takes true, false and null too."""

import numpy as np
import pytest

from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference.tensors import InputSchema

FLAG = Input(name="on", type="float32", shape=[-1, 1], columns=["on"], missing=True, categories=[0.0, 1.0])
NUMBER = Input(name="t", type="float32", shape=[-1, 1], columns=["t"])


@pytest.mark.parametrize("inputs", [[FLAG], [FLAG, NUMBER]], ids=["alone", "beside a number"])
@pytest.mark.parametrize("as_objects", [True, False], ids=["objects", "lists"])
def test_true_false_and_null_are_one_zero_and_missing(inputs, as_objects):
    schema = InputSchema(inputs)
    values = [True, False, None, 1, 0.0]
    rows = [{"on": value, "t": 2.5} if len(inputs) == 2 else {"on": value} for value in values]
    feeds = schema.from_rows(rows if as_objects else [list(row.values()) for row in rows])
    assert feeds["on"].dtype == np.float32
    np.testing.assert_array_equal(feeds["on"].ravel(), [1.0, 0.0, np.nan, 1.0, 0.0])


def test_a_tensor_of_booleans_is_taken_as_well():
    feeds = InputSchema([FLAG]).from_tensors({"on": np.array([[True], [False]])})
    assert feeds["on"].tolist() == [[1.0], [0.0]]


def test_other_values_and_booleans_elsewhere_stay_refused():
    schema = InputSchema([FLAG, NUMBER])
    with pytest.raises(InvalidInput, match="never seen"):
        schema.from_rows([{"on": 2, "t": 1.0}])
    with pytest.raises(InvalidInput, match="boolean"):
        schema.from_rows([{"on": 1, "t": True}])
