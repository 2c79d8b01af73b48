"""Drift: what is chance is no alarm, what is none is one, and three traps into which the plain way falls."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

from appliance.bundle.baseline import PROBABILITIES
from appliance.inference import binning
from appliance.monitoring import drift
from appliance.monitoring.drift import DRIFT, FINE, TOO_FEW, WATCH
from convert import baseline

ALPHA = drift.alpha_of(1, 3600, 30)


def edges_and_counts(sample, kind="float32"):
    """Return the edges in the tensor's type and the counts of a column, as a bundle has them."""
    found = baseline.summary(sample, kind)
    return np.array(found.edges, kind), np.array(found.counts, float)


def blocks(values, edges, count=20):
    return binning.consecutive(np.searchsorted(edges, values), len(edges) + 1, count)


def autoregressive(rows, phi, seed):
    from scipy.signal import lfilter

    noise = np.random.default_rng(seed).normal(size=rows) * math.sqrt(1 - phi * phi)
    return lfilter([1], [1, -phi], noise).astype(np.float32)


def first_alarm(reference, windows):
    """Return after how many windows there is an alarm, None for none."""
    state = before = FINE
    for place, window in enumerate(windows, 1):
        level = drift.judge(reference, drift.Window(window), ALPHA, 0.1).level
        state, before = drift.settled(state, before, level), level
        if state in (WATCH, DRIFT):
            return place
    return None


# The three traps of facts: each has the plain way beside ours, which must fail.


def test_trap_1_edges_in_the_tensors_type():
    rng = np.random.default_rng(0)
    training, live = rng.normal(20, 0.2, (2, 5000)).round(1)
    wide = np.unique(np.quantile(training, PROBABILITIES))
    naive = np.bincount(np.searchsorted(wide, training), minlength=len(wide) + 1)
    arrived = np.bincount(np.searchsorted(wide, live.astype(np.float32)), minlength=len(wide) + 1)
    assert drift.psi(naive, arrived) > 0.5
    edges, counted = edges_and_counts(training)
    assert drift.psi(counted, binning.counts(live.astype(np.float32), edges)) < 0.01


def test_trap_2_counted_shares_where_quantiles_coincide():
    rng = np.random.default_rng(0)
    training, live = rng.normal(20, 1.2, (2, 5000)).round(0)
    quantiles = np.quantile(training, PROBABILITIES)
    nominal = np.diff([0, *PROBABILITIES, 1])
    arrived = np.diff([0, *(np.mean(live <= quantile) for quantile in quantiles), 1])
    filled = np.maximum(arrived, 1e-4)
    assert ((filled - nominal) * np.log(filled / nominal)).sum() > 0.09
    edges, counted = edges_and_counts(training)
    assert drift.psi(counted, binning.counts(live.astype(np.float32), edges)) < 0.01


def test_trap_3_outputs_of_training_rows_are_no_reference():
    x, y = make_classification(6000, 10, n_informative=5, flip_y=0.2, random_state=0)
    model = RandomForestClassifier(50, random_state=0, n_jobs=1).fit(x[:2000], y[:2000])
    seen, unseen, live = (model.predict_proba(part)[:, 1] for part in (x[:2000], x[2000:4000], x[4000:]))
    edges, counted = edges_and_counts(seen)
    assert drift.psi(counted, binning.counts(live.astype(np.float32), edges)) > 0.5
    edges, counted = edges_and_counts(unseen)
    assert drift.psi(counted, binning.counts(live.astype(np.float32), edges)) < 0.03


def test_edges_hold_where_the_last_digit_of_an_answer_differs():
    """A graph's answer differs from the original's by its rounding: 0.3 as 0.30000001."""
    answers = np.random.default_rng(0).integers(0, 11, 5000) / 10
    edges, counted = edges_and_counts(answers)
    above = np.nextafter(answers.astype(np.float32), np.float32(2))
    assert drift.psi(counted, binning.counts(above, edges)) < 1e-3


# The figures.


def test_psi_is_none_for_the_same_shares_and_finite_for_an_empty_bin():
    assert drift.psi(np.array([10.0, 20, 30]), np.array([100.0, 200, 300])) == pytest.approx(0)
    assert drift.psi(np.array([500.0, 500]), np.array([250.0, 750])) == pytest.approx(
        0.25 * math.log(1.5) + 0.25 * math.log(2)
    )
    assert math.isfinite(drift.psi(np.array([100.0, 0]), np.array([0.0, 100])))


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=2, max_size=20))
def test_psi_is_never_negative_and_the_same_both_ways(pairs):
    one, other = np.array(pairs, float).T
    assert drift.psi(one, other) >= 0
    assert drift.psi(one, other) == pytest.approx(drift.psi(other, one))


@pytest.mark.parametrize(("first", "second"), [(13, 82), (1, 19), (14, 400), (5, 33)])
@pytest.mark.parametrize("alpha", [1e-2, 1e-4, 4e-6])
def test_the_bound_of_f_is_never_bolder_than_it_says(first, second, alpha):
    bound = stats.f.isf(alpha, first, second)
    claimed = 1 - NormalDist().cdf(drift.paulson(bound, first, second))
    assert 0.8 * alpha < claimed < 6 * alpha


def test_chi_square_counts_dependent_rows_for_fewer():
    reference, window = np.array([500.0, 500]), np.array([60.0, 40])
    plain = drift.chi_square(reference, window, 1, 1)
    assert plain == pytest.approx(100 * (0.01 / 0.5 * 2) / 1.1)
    assert drift.chi_square(reference, window, 10, 10) == pytest.approx(plain / 10)


def test_false_alarms_a_year_become_a_probability_for_each_test():
    assert drift.alpha_of(1, 3600, 30) == pytest.approx(3.8e-6, rel=0.01)
    assert drift.alpha_of(1, 86400, 1) == pytest.approx(1 / 365)


# Verdicts.


@pytest.fixture(scope="module")
def training():
    return edges_and_counts(np.random.default_rng(1).normal(size=5000))


def test_a_shift_of_one_deviation_is_found_in_the_second_window(training):
    edges, counted = training
    live = np.random.default_rng(2).normal(1, 1, (4, 3600)).astype(np.float32)
    assert first_alarm(drift.Reference(counted), [blocks(one, edges) for one in live]) == 2


def test_two_hundred_rows_of_the_same_kind_are_no_drift(training):
    edges, counted = training
    for seed in range(50):
        live = np.random.default_rng(seed).normal(size=200).astype(np.float32)
        assert drift.judge(drift.Reference(counted), drift.Window(blocks(live, edges)), ALPHA, 0.1).level == FINE


def test_a_slow_sensor_is_judged_by_the_hosts_own_past(training):
    edges, _ = training
    windows = [blocks(one, edges) for one in autoregressive(300 * 3600, 0.99, 3).reshape(300, 3600)]
    live = drift.live_reference(np.array([one.sum(axis=0) for one in windows[:72]]))
    assert live.window_design > 10
    large = [drift.psi(live.counts, one.sum(axis=0)) > 0.1 for one in windows[72:]]
    assert np.mean(large) > 0.3  # the plain threshold would alarm all the time
    assert first_alarm(live, windows[72:]) is None
    shifted = autoregressive(4 * 3600, 0.99, 4).reshape(4, 3600) + 2
    assert first_alarm(live, [blocks(one, edges) for one in shifted]) == 2


def test_one_window_alone_raises_nothing_and_one_calm_window_ends_nothing():
    levels, state, before, found = [DRIFT, FINE, DRIFT, WATCH, DRIFT, FINE, DRIFT, FINE, FINE], FINE, FINE, []
    for level in levels:
        state, before = drift.settled(state, before, level), level
        found.append(state)
    assert found == [FINE, FINE, FINE, WATCH, WATCH, WATCH, WATCH, WATCH, FINE]


def test_too_few_rows_leave_the_state_as_it_is():
    assert drift.settled(DRIFT, DRIFT, TOO_FEW) == DRIFT
    assert drift.settled(TOO_FEW, TOO_FEW, FINE) == FINE


def test_rows_of_one_burst_tell_nothing_of_chance(training):
    edges, counted = training
    burst = np.random.default_rng(0).normal(3, 1, 1000).astype(np.float32)
    one_block = drift.Window(binning.counts(burst, edges)[None].astype(float))
    assert drift.judge(drift.Reference(counted), one_block, ALPHA, 0.1).level == TOO_FEW


def test_without_rows_or_bins_nothing_is_said():
    window = drift.Window(np.ones((20, 3)))
    assert drift.judge(drift.Reference(np.zeros(3)), window, ALPHA, 0.1).level == TOO_FEW
    assert drift.judge(drift.Reference(np.ones(1)), drift.Window(np.ones((20, 1))), ALPHA, 0.1).level == TOO_FEW
    assert drift.judge(drift.Reference(np.ones(3)), drift.Window(np.zeros((20, 3))), ALPHA, 0.1).level == TOO_FEW


def test_expected_accuracy_is_what_calibration_says():
    right = np.array([0.5, 0.9])
    assert drift.expected_accuracy(np.array([0.4, 0.6, 0.61, 1.0]), np.array([0.6, 0.99]), right) == pytest.approx(2.8)
