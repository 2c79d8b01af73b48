"""Answers in words: labels as keys, one row or many, and any part of an answer."""

import numpy as np
from msgspec import UNSET

from appliance.response import PredictAnswer, _key, _labelled, as_rows


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
