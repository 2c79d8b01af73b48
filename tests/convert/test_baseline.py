"""The baseline of a training sample: quantiles, counts, missing rates, and nothing that tells of one row."""

import numpy as np
import pandas as pd
import pytest

from appliance.bundle.baseline import LEAST_COUNT, PROBABILITIES, Categories, Numbers
from convert import baseline


def test_numbers_have_quantiles_mean_and_missing_rate():
    values = np.concatenate([np.arange(1, 1001, dtype=float), [np.nan] * 250])
    found = baseline.summary(values)
    assert isinstance(found, Numbers)
    assert found.missing == 0.2
    assert found.quantiles == [float(v) for v in np.quantile(np.arange(1, 1001), PROBABILITIES)]
    assert (found.mean, round(found.deviation, 3)) == (500.5, 288.675)


@pytest.mark.parametrize("count", [10, 11, 30, 150, 400, 1000])
def test_no_quantile_lies_beyond_all_but_a_few_values(count):
    values = np.random.default_rng(0).lognormal(size=count)
    found = baseline.summary(values).quantiles
    assert len(found) == len(PROBABILITIES)
    assert found == sorted(found)
    assert (values <= found[0]).sum() >= LEAST_COUNT
    assert (values >= found[-1]).sum() >= LEAST_COUNT


def test_extremes_do_not_stand_in_the_baseline():
    values = np.concatenate([np.linspace(0, 1, 1000), [1e9, -1e9]])
    found = baseline.summary(values)
    assert max(found.quantiles) < 2
    assert min(found.quantiles) > -1


def test_infinity_does_not_spoil_the_quantiles():
    found = baseline.summary(np.array([*range(10), np.inf, -np.inf]))
    assert np.isfinite(found.quantiles).all()
    assert np.isfinite([found.mean, found.deviation]).all()


def test_too_few_numbers_give_no_quantiles():
    assert baseline.summary(np.arange(2 * LEAST_COUNT - 1) + 0.5) == Numbers(0.0, [], None, None)


def test_rare_categories_are_counted_together():
    values = np.array(["north"] * 20 + ["south"] * 10 + ["Meier, room 4"] * (LEAST_COUNT - 1) + [None] * 6, object)
    found = baseline.summary(values)
    assert found == Categories(5 / 40, {"north": 20, "south": 10}, LEAST_COUNT)


@pytest.mark.parametrize("few", range(LEAST_COUNT))
def test_small_counts_cannot_be_had_by_subtraction(few):
    for total in range(50, 60):
        flags = baseline.summary(np.array([True] * (total - few) + [False] * few))
        gaps = baseline.summary(np.array(["north"] * (total - few) + [None] * few, object))
        numbers = baseline.summary(np.array([0.5] * (total - few) + [np.nan] * few))
        counts = [*flags.counts.values(), flags.others, *gaps.counts.values(), gaps.others]
        missing = [round(one.missing * total, 9) for one in (gaps, numbers)]
        assert {count % LEAST_COUNT for count in [*counts, *missing]} == {0}
        assert set(flags.counts) == {"true"}


def test_most_frequent_categories_are_kept():
    values = np.array([f"c{index:03d}" for index in range(150) for _ in range(LEAST_COUNT + index)], object)
    found = baseline.summary(values)
    assert len(found.counts) == 100
    assert "c149" in found.counts
    assert "c000" not in found.counts
    assert abs(sum(found.counts.values()) + found.others - len(values)) <= 101 * (LEAST_COUNT // 2)


def test_booleans_and_few_whole_numbers_are_categories_and_many_are_numbers():
    assert baseline.summary(np.array([True] * 7 + [False] * 5)).counts == {"false": 5, "true": 5}
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
