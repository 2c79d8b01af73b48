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


def test_bins_are_counted_in_the_tensors_type_and_rounded():
    values = np.random.default_rng(0).normal(20, 0.5, 1000).round(1)
    found = baseline.summary(values, "float32")
    edges = np.array(found.edges, np.float32)
    assert found.edges == [float(edge) for edge in edges]
    plain = np.bincount(np.searchsorted(edges, values.astype(np.float32)), minlength=len(edges) + 1)
    assert all(count % LEAST_COUNT == 0 for count in found.counts)
    assert np.abs(plain - found.counts).max() <= LEAST_COUNT // 2
    assert found.counts[0] == found.counts[-1] == 0  # nothing is beyond the fences


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [0.0, 20.1, 65504.0, -3e4])
def test_a_constant_column_has_a_bin_of_its_own_between_its_fences(kind, value):
    found = baseline.summary(np.full(1000, value), kind)
    assert found.counts[np.searchsorted(np.array(found.edges, kind), np.array(value, kind))] == 1000
    assert sorted(found.counts, reverse=True)[1:] == [0] * (len(found.counts) - 1)


def test_where_most_rows_hold_one_value_the_others_are_within_the_fences():
    values = np.concatenate([np.zeros(9950), np.linspace(1, 3, 50)])
    found = baseline.summary(np.random.default_rng(0).permutation(values), "float32")
    assert found.edges[-1] > 0.5
    assert found.edges[0] < 0


def test_training_in_the_order_of_time_shows_that_its_readings_depend_on_each_other():
    slow = np.repeat(np.random.default_rng(0).normal(size=200), 25)
    assert baseline.summary(slow).design > 10
    assert baseline.summary(np.random.default_rng(1).permutation(slow)).design < 1.5


def test_calibration_says_how_often_the_top_label_was_right():
    rng = np.random.default_rng(0)
    top = rng.uniform(0.5, 1, 20_000)
    truth = (rng.random(20_000) > top**2).astype(np.int64)  # too sure of itself: right in top * top of the rows
    found = baseline.calibration(np.column_stack([top, 1 - top]), truth)
    assert len(found) == 10
    assert [one.right for one in found] == pytest.approx([one.mean**2 for one in found], abs=0.04)
    assert baseline.calibration(np.column_stack([top, 1 - top])[:49], truth[:49]) == []


def test_conformal_quantile_covers_new_rows():
    errors = np.abs(np.random.default_rng(0).standard_t(3, (30_000, 2)))
    found = baseline.conformal("absolute", errors[:2000])
    assert (errors[2000:] <= found.quantiles).mean(axis=0) == pytest.approx([0.9, 0.9], abs=0.02)
    assert baseline.conformal("absolute", errors[:40]) is None
