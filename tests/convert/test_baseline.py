"""The baseline of a training sample: quantiles, counts, missing rates, and nothing that tells of one row."""

import numpy as np
import pandas as pd

from appliance.bundle.baseline import LEAST_COUNT, PROBABILITIES, Categories, Numbers
from convert import baseline


def test_numbers_have_quantiles_mean_and_missing_rate():
    values = np.concatenate([np.arange(1, 101, dtype=float), [np.nan] * 25])
    found = baseline.summary(values)
    assert isinstance(found, Numbers)
    assert found.missing == 0.2
    assert found.quantiles == [float(v) for v in np.quantile(np.arange(1, 101), PROBABILITIES)]
    assert (found.mean, round(found.deviation, 3)) == (50.5, 28.866)


def test_extremes_do_not_stand_in_the_baseline():
    values = np.concatenate([np.linspace(0, 1, 1000), [1e9, -1e9]])
    found = baseline.summary(values)
    assert max(found.quantiles) < 2
    assert min(found.quantiles) > -1


def test_infinity_does_not_spoil_the_quantiles():
    found = baseline.summary(np.array([1.0, 2, 3, 4, 5, np.inf, -np.inf]))
    assert np.isfinite(found.quantiles).all()
    assert np.isfinite([found.mean, found.deviation]).all()


def test_too_few_numbers_give_no_quantiles():
    assert baseline.summary(np.array([1.5, 2.5])) == Numbers(0.0, [], None, None)


def test_rare_categories_are_counted_together():
    values = np.array(["north"] * 20 + ["south"] * 10 + ["Meier, room 4"] * (LEAST_COUNT - 1) + [None] * 6, object)
    found = baseline.summary(values)
    assert found == Categories(6 / 40, {"north": 20, "south": 10}, LEAST_COUNT - 1)


def test_most_frequent_categories_are_kept():
    values = np.array([f"c{index:03d}" for index in range(150) for _ in range(LEAST_COUNT + index)], object)
    found = baseline.summary(values)
    assert len(found.counts) == 100
    assert "c149" in found.counts
    assert "c000" not in found.counts
    assert sum(found.counts.values()) + found.others == len(values)


def test_booleans_and_few_whole_numbers_are_categories_and_many_are_numbers():
    assert baseline.summary(np.array([True] * 7 + [False] * 5)).counts == {"false": 5, "true": 7}
    assert baseline.summary(np.array([0, 1, 2] * 10)).counts == {"0": 10, "1": 10, "2": 10}
    assert isinstance(baseline.summary(np.arange(1000)), Numbers)


def test_outputs_of_several_columns_are_named_by_label():
    frame = pd.DataFrame({"x": np.arange(30.0), "site": ["north"] * 30})
    answers = {
        "prediction": np.array(["a"] * 20 + ["b"] * 10),
        "probability": np.column_stack([np.linspace(0, 1, 30), np.linspace(1, 0, 30)]),
        "score": np.ones((30, 3)),
    }
    found = baseline.of(frame, answers, ["a", "b"])
    assert found.rows == 30
    assert set(found.inputs) == {"x", "site"}
    expected = {"prediction", "probability[a]", "probability[b]", "score[0]", "score[1]", "score[2]"}
    assert set(found.outputs) == expected
    assert found.outputs["prediction"] == Categories(0.0, {"a": 20, "b": 10}, 0)
