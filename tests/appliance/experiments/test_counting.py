"""What arms did: every request, each key once, over all processes and over a restart."""

import numpy as np
import pytest

from appliance.errors import InvalidInput
from appliance.experiments import counting
from appliance.experiments.counting import FAILED, NAN, SEEN, SLOW, ArmCounters, has_nan
from appliance.predictor import Prediction
from appliance.store.routing_record import Arm, Routing

BOUND = 0.001


def routing(step=1, share=0.5, bound=BOUND, identifier="abcd1234"):
    snapshot = {"1.0.0": {"slow_bound": bound}} if bound else {}
    arms = (Arm("1.0.0", 1 - share), Arm("2.0.0", share))
    return Routing(id=identifier, salt="s", kind="canary", base="1.0.0", arms=arms, step=step, snapshot=snapshot)


def answered(version, *keys, seconds=0.0, value=1.0, identifier="abcd1234"):
    outputs = {"prediction": np.array([value], np.float32)}
    return Prediction(
        "iris", version, {}, outputs, 1, "r", "http", 0.0, 0.0, seconds, (), f"{identifier}/{version}", keys
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "experiments"


@pytest.fixture
def counters(folder, tmp_path):
    return ArmCounters(lambda model: routing(), folder, within=tmp_path)


def counts(folder, tmp_path, now=None):
    return counting.read(folder, now or routing(), "iris", within=tmp_path)


def fail(counters, version, key=""):
    counters.failed("iris", version, InvalidInput("a", "b", "c"), 0.0, f"abcd1234/{version}", key)


def test_requests_without_a_key_count_each(counters, folder, tmp_path):
    for _ in range(3):
        counters.predicted(answered("2.0.0", ""))
    fail(counters, "1.0.0")
    ours, theirs = counts(folder, tmp_path)[::-1]
    assert (ours.events[SEEN], ours.units[SEEN], theirs.events[FAILED], theirs.units[FAILED]) == (3, 3, 1, 1)


def test_a_key_counts_once_for_each_kind_of_event(counters, folder, tmp_path):
    for _ in range(10):
        fail(counters, "2.0.0", "press-7")
        counters.predicted(answered("2.0.0", "press-7", "press-8"))
    ours = counts(folder, tmp_path)[1]
    assert (ours.events[FAILED], ours.units[FAILED]) == (10, 1)
    assert (ours.events[SEEN], ours.units[SEEN]) == (30, 2)


def test_a_key_counts_once_over_all_processes(folder, tmp_path):
    for slot in range(3):
        own = ArmCounters(lambda model: routing(), folder, slot, within=tmp_path)
        fail(own, "2.0.0", "press-7")
        fail(own, "2.0.0", f"press of {slot}")
    assert counts(folder, tmp_path)[1].units[FAILED] == 4


def test_keys_beyond_the_buckets_fall_to_the_arms_by_their_share(folder, tmp_path):
    counters = ArmCounters(lambda model: routing(share=0.1), folder, within=tmp_path)
    random = np.random.default_rng(1)
    for n in range(60_000):
        fail(counters, "2.0.0" if random.random() < 0.1 else "1.0.0", f"k{n}")
    theirs, ours = (one.units[FAILED] for one in counts(folder, tmp_path))
    assert ours + theirs <= counting.BUCKETS
    assert ours / (ours + theirs) == pytest.approx(0.1, abs=0.01)


def test_what_was_counted_outlives_the_process(counters, folder, tmp_path):
    counters.predicted(answered("2.0.0", ""))
    again = ArmCounters(lambda model: routing(), folder, within=tmp_path)
    again.predicted(answered("2.0.0", ""))
    assert counts(folder, tmp_path)[1].events[SEEN] == 2


def test_each_step_counts_from_zero(folder, tmp_path):
    now = [routing(1)]
    counters = ArmCounters(lambda model: now[0], folder, within=tmp_path)
    counters.predicted(answered("2.0.0", ""))
    now[0] = routing(2)
    counters.predicted(answered("2.0.0", ""))
    counters.predicted(answered("2.0.0", ""))
    assert counts(folder, tmp_path, routing(1))[1].events[SEEN] == 1
    assert counts(folder, tmp_path, routing(2))[1].events[SEEN] == 2


def test_slow_runs_are_told_after_the_first_ones(counters, folder, tmp_path):
    for _ in range(counting.WARM_UP + 10):
        counters.predicted(answered("2.0.0", "", seconds=2 * BOUND))
    counters.predicted(answered("2.0.0", "", seconds=BOUND / 2))
    ours = counts(folder, tmp_path)[1]
    assert (ours.runs, ours.events[SLOW]) == (11, 10)


def test_a_bound_that_comes_during_a_step_counts_from_then_on(folder, tmp_path):
    now = [routing(bound=None)]
    counters = ArmCounters(lambda model: now[0], folder, within=tmp_path)
    for _ in range(counting.WARM_UP):
        counters.predicted(answered("2.0.0", "", seconds=1.0))
    now[0] = routing()
    counters.predicted(answered("2.0.0", "", seconds=1.0))
    assert counts(folder, tmp_path)[1].events[SLOW] == 1


def test_nan_is_counted(counters, folder, tmp_path):
    counters.predicted(answered("2.0.0", "", value=float("nan")))
    assert counts(folder, tmp_path)[1].events[NAN] == 1
    assert not has_nan([np.array(["nan"], object), np.array([1])])


def test_requests_of_another_experiment_or_none_are_not_counted(counters, folder, tmp_path):
    counters.predicted(answered("2.0.0", "", identifier="ffff0000"))
    counters.predicted(Prediction("iris", "2.0.0", {}, {}, 1, "r", "http", 0.0, 0.0, 0.0))
    assert counts(folder, tmp_path)[1].events[SEEN] == 0
