"""Answers in words: labels as keys, one row or many, and any part of an answer."""

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from msgspec import UNSET

from appliance.bundle.manifest import Output
from appliance.predictor import Prediction
from appliance.response import PredictAnswer, _format, _key, _labelled, as_rows


def test_labels_that_json_must_escape_are_keys():
    labels = tuple(map(_key, ['say "no"', True, 1.5]))
    rows = _labelled(np.array([[0.25, 0.5, 0.25]], np.float32), labels)
    assert rows == [{'say "no"': 0.25, "true": 0.5, "1.5": 0.25}]


def test_a_part_of_an_answer_has_its_rows_alone():
    answer = PredictAnswer(prediction=[1, 2, 3], probability=[{"a": 1}, {"a": 2}, {"a": 3}], model="m", version="1.0.0")
    part = answer.part(1, 3)
    assert (part.prediction, part.probability, part.score) == ([2, 3], [{"a": 2}, {"a": 3}], UNSET)
    assert (part.model, part.version) == ("m", "1.0.0")


def test_a_list_of_plain_values_is_one_row():
    assert as_rows([1, 2]) == [[1, 2]]
    assert as_rows({"a": 1}) == [{"a": 1}]
    assert as_rows([[1, 2], [3, 4]]) == [[1, 2], [3, 4]]
    assert as_rows([]) == []


@pytest.mark.parametrize(
    "roles", [("prediction",), ("prediction", "probability"), ("prediction", "probability", "score"), ()]
)
@pytest.mark.parametrize("rows", [1, 3, 400])
def test_a_plain_response_is_the_same_json_as_its_record(roles, rows):
    roles = roles or ("other",)
    outputs = [
        Output(name=f"of_{role}", type="float64", shape=[-1, 2 if role == "probability" else 1], role=role)
        for role in roles
    ]
    form = _format(SimpleNamespace(outputs=outputs, class_labels=['say "no"', 1], name="m", version="1.0.0"))
    generator = np.random.default_rng(rows)
    arrays = {output.name: generator.normal(size=(rows, output.shape[1])) for output in outputs}
    prediction = Prediction("m", "1.0.0", {}, arrays, rows, "id", "http", 0.0, 0.0, 0.0)
    assert form.to_json(prediction) == msgspec.json.encode(form.answer(prediction))
