"""The tests that may be looked at all the time: their numbers, their error rate, and that more evidence is more."""

from math import exp, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.experiments.evidence import (
    ALPHA,
    LEAST_OF_MEANS,
    Events,
    Rate,
    Sums,
    difference,
    log_evidence,
    rate_is_higher,
)

counts = st.integers(0, 5000)
shares = st.floats(0.001, 0.5)


def test_evidence_is_the_formula_of_the_source():
    # B(1 + 2, 1 + 1) / B(1, 1) / (0.25^2 * 0.75) = 1/12 / (0.0625 * 0.75)
    assert exp(log_evidence(2, 1, 0.25)) == pytest.approx(1 / 12 / (0.0625 * 0.75))
    assert log_evidence(0, 0, 0.3) == 0


@pytest.mark.parametrize(("trials", "percent"), [(100, 5.7), (300, 2.1), (1000, 0.70), (3000, 0.25)])
def test_bound_of_a_rate_without_an_event(trials, percent):
    low, high = Rate(0, trials).bounds()
    assert low == 0
    assert round(100 * high, 1 if percent > 1 else 2) == percent


@pytest.mark.parametrize(("share", "found"), [(0.05, 2), (0.1, 3), (0.5, 11)])
def test_requests_until_everything_failing_is_seen(share, found):
    assert next(n for n in range(1, 99) if Events(n, 0, share).prove()) == found


def test_one_failure_at_little_traffic_proves_nothing():
    assert not Events(1, 0, 0.01).prove()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_alike_versions_are_hardly_ever_told_apart_however_often_one_looks(share):
    random = np.random.default_rng(17)
    falls = random.random((1000, 400)) < share
    canary = np.cumsum(falls, axis=1)
    everywhere = np.arange(1, falls.shape[1] + 1)
    wrong = 0
    for row in canary:
        looks = np.flatnonzero(row > share * everywhere)  # elsewhere the test cannot act
        wrong += any(Events(int(row[at]), int(everywhere[at] - row[at]), share).prove() for at in looks)
    assert wrong / len(canary) <= ALPHA


def test_a_worse_canary_is_found():
    random = np.random.default_rng(18)
    falls = np.cumsum(random.random((200, 400)) < 0.3, axis=1)  # 0.05 by design
    found = [any(Events(int(row[at]), at + 1 - int(row[at]), 0.05).prove() for at in range(400)) for row in falls]
    assert np.mean(found) > 0.99


def test_bounds_hold_at_every_look():
    random = np.random.default_rng(5)
    wrong = 0
    for _ in range(150):
        hits = np.cumsum(random.random(300) < 0.03)
        bounds = [Rate(int(hits[at]), at + 1).bounds() for at in range(0, 300, 10)]
        wrong += any(not low <= 0.03 <= high for low, high in bounds)
    assert wrong / 150 <= 0.05


def test_evidence_of_the_steps_done_counts():
    done = Events(3, 20, 0.05)
    assert not done.prove()
    both = Events(6, 30, 0.1, done.log_e)
    assert both.log_e == pytest.approx(done.log_e + Events(6, 30, 0.1).log_e)


def test_a_canary_that_was_better_is_not_sent_back_for_a_single_failure_later():
    better = Events(0, 2000, 0.05)
    assert log_evidence(0, 2000, 0.05) > log(1 / ALPHA)
    assert not Events(1, 1, 0.25, better.log_e).prove()


@given(counts, counts, shares)
def test_one_more_failure_of_a_worse_canary_is_more_evidence(canary, others, share):
    now = Events(canary, others, share)
    if now.are_more:
        assert Events(canary + 1, others, share).log_e >= now.log_e - 1e-9
        assert Events(canary, others + 1, share).log_e <= now.log_e + 1e-9


@given(counts, st.integers(1, 5000), st.floats(0.001, 0.2))
def test_bounds_enclose_the_rate_and_widen_with_less_risk(events, more, alpha):
    rate = Rate(events, events + more)
    low, high = rate.bounds(alpha)
    wide_low, wide_high = rate.bounds(alpha / 10)
    assert 0 <= wide_low <= low <= rate.point <= high <= wide_high <= 1
    assert Rate(events + 1, events + more).bounds(alpha)[1] >= high - 1e-12


def test_nothing_is_known_of_a_rate_without_trials():
    assert Rate(0, 0).bounds() == (0, 1)
    assert not rate_is_higher(Rate(50, 50), Rate(0, 0), 0.025)


def test_a_rate_at_another_time_is_higher_only_beyond_the_margin():
    before = Rate(3, 3000)
    assert rate_is_higher(Rate(4, 4), before, 0.025)
    assert not rate_is_higher(Rate(60, 3000), before, 0.025)
    assert rate_is_higher(Rate(150, 3000), before, 0.025)
    assert not rate_is_higher(Rate(50, 50), Rate(50, 50), 0.025)


def test_means_are_told_apart_by_the_confidence_sequence():
    random = np.random.default_rng(3)
    old, new = random.normal(1, 0.3, 4000), random.normal(1.1, 0.3, 4000)
    wrong = 0
    for alike in random.normal(1, 0.3, (40, 2000)):
        sums, others, found = Sums(), Sums(), False
        for value, other in zip(alike, old, strict=False):
            sums, others = sums.plus(float(value)), others.plus(float(other))
            found |= sums.count % 100 == 0 and difference(sums, others)[0] > 0
        wrong += found
    assert wrong <= 1
    low, high = difference(sums_of(new), sums_of(old))
    assert 0 < low < 0.1 < high


def test_few_means_say_nothing():
    few = sums_of(np.arange(LEAST_OF_MEANS - 1.0))
    assert difference(few, sums_of(np.arange(1000.0))) == (-inf, inf)


def test_halfwidth_is_equation_9_of_the_source():
    """Against the formula as GrowthBook's SequentialTTest writes it, by its own steps."""
    new, old = sums_of(np.arange(200.0)), sums_of(np.arange(300.0))
    low, high = difference(new, old, 0.05)
    n, rho = 500, np.sqrt((-2 * np.log(0.05) + np.log(-2 * np.log(0.05) + 1)) / 5000)
    variance = n * (np.var(np.arange(200.0), ddof=1) / 200 + np.var(np.arange(300.0), ddof=1) / 300)
    half = np.sqrt(variance) * np.sqrt(2 * (n * rho**2 + 1) * np.log(np.sqrt(n * rho**2 + 1) / 0.05) / (n * rho) ** 2)
    assert (high - low) / 2 == pytest.approx(half)
    assert (high + low) / 2 == pytest.approx(new.mean - old.mean)


def sums_of(values) -> Sums:
    sums = Sums()
    for value in values:
        sums = sums.plus(float(value))
    return sums
