"""What counts of two versions that served one after the other prove, and how the record of them is read."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import ProbationConfig
from appliance.experiments import probation, probation_record
from appliance.experiments.evidence import Rate, Sums
from appliance.experiments.probation_record import Counts, Probation, Watch, followed
from appliance.experiments.quality import Quality
from appliance.monitoring.counters import BOUNDS
from appliance.store.record import Activation

SETTINGS = ProbationConfig(min_requests=300, min_seconds=600)


def buckets(seconds, runs):
    """Return run buckets with all runs in the bucket whose bound is `seconds`."""
    made = [0] * (len(BOUNDS) + 1)
    made[BOUNDS.index(seconds)] = runs
    return tuple(made)


def watch(now=(300, 0), before=(3000, 3), *, seconds=1000.0, slow=(0.001, 0.001), **rest):
    """Return a watch on 2.0.0 after 1.0.0, by (requests, failures) of each and the bucket of their runs."""
    return Watch(
        "2026-12-01T00:00:00+00:00",
        Counts("2.0.0", *now, buckets(slow[0], now[0])),
        Counts("1.0.0", *before, buckets(slow[1], before[0])),
        seconds=seconds,
        **rest,
    )


def test_enough_good_requests_and_time_are_marked_good():
    action, why = probation.judge(SETTINGS, watch())
    assert action == "mark good"
    assert why == "2.0.0 failed on 0 of 300 requests (at most 2.1 %), 1.0.0 on 3 of 3000"


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (watch((299, 0)), "299 of 300 requests"),
        (watch(seconds=599.0), "599 of 600 s"),
        (watch((300, 2)), "more than 2.5 % above is possible still"),
        (watch((20, 0), seconds=700_000.0), "too little traffic to judge it"),
    ],
)
def test_until_then_it_waits_and_says_for_what(seen, found):
    action, why = probation.judge(SETTINGS, seen)
    assert action == "wait"
    assert found in why


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (watch((10, 10)), "2.0.0 failed on 10 of 10 requests"),
        (watch((200, 20)), "2.0.0 failed on 20 of 200 requests"),
        (watch((100, 0), slow=(0.01, 0.001)), "100 of 100 runs of 2.0.0 took longer than 0.0025 s, 0 of 3000"),
        (watch((50, 0), nan=(50, 20)), "answered NaN to 20 of 50 requests, where 1.0.0 answers numbers"),
    ],
)
def test_what_is_proved_takes_it_back(seen, found):
    action, why = probation.judge(SETTINGS, seen)
    assert action == "go back"
    assert found in why


@pytest.mark.parametrize(
    "seen",
    [
        watch((300, 3)),  # within the margin
        watch((200, 20), (200, 20)),  # callers that send what no version can take
        watch((50, 50), (0, 0)),  # nothing is known of the version before
        watch((100, 0), slow=(0.001, 1e-4)),  # ten times slower, and still nothing to notice
        watch((100, 0), slow=(0.0025, 0.001)),  # the next bucket: the host may be busier
        watch((9, 9)),  # somebody tries out requests by hand
    ],
)
def test_what_is_not_proved_does_not(seen):
    assert probation.judge(SETTINGS, seen)[0] != "go back"


def test_a_failing_self_test_takes_it_back():
    assert probation.judge(SETTINGS, watch((1, 0)), self_test="row 3 differs") == (
        "go back",
        "2.0.0 fails its self-test: row 3 differs",
    )


def test_labels_take_it_back_once_there_are_enough():
    def right(share, count):
        return Quality(Rate(int(share * count), count), Sums(count))

    few = {"1.0.0": right(0.95, 90), "2.0.0": right(0.5, 90)}
    assert probation.judge(SETTINGS, watch(), quality=few)[0] == "mark good"
    many = {"1.0.0": right(0.95, 400), "2.0.0": right(0.8, 400)}
    action, why = probation.judge(SETTINGS, watch(), quality=many)
    assert action == "go back"
    assert "with labels, 2.0.0 is right on" in why


def test_the_counts_of_the_version_before_are_its_baseline():
    first = Watch("t1", Counts("1.0.0", 500, 2))
    second = followed(first, Activation(active="2.0.0", previous="1.0.0", since="t2"))
    assert (second.now, second.before) == (Counts("2.0.0"), Counts("1.0.0", 500, 2))
    back = followed(second, Activation(active="1.0.0", state="good", since="t3"))
    assert (back.now, back.before) == (Counts("1.0.0", 500, 2), None)
    # One that was never marked good is passed over: 3.0.0 goes back to 1.0.0.
    third = followed(second, Activation(active="3.0.0", previous="1.0.0", since="t3"))
    assert third.before == Counts("1.0.0", 500, 2)


@given(st.binary(max_size=200))
def test_a_record_that_cannot_be_read_is_begun_anew(tmp_path_factory, content):
    state = tmp_path_factory.getbasetemp()
    (state / "probation").mkdir(exist_ok=True)
    (state / "probation" / "iris.json").write_bytes(content)
    assert probation_record.read(state, "iris") is None


def test_a_record_comes_back_as_it_was_written(tmp_path):
    probation_record.write(tmp_path, "iris", watch(verdict="wait"))
    assert probation_record.read(tmp_path, "iris") == watch(verdict="wait")
    told = probation_record.described(tmp_path, "iris", Activation(active="2.0.0", since=watch().since))
    assert told == Probation("probation", "wait", None, 300, 0)
    other = msgspec.structs.replace(Activation(active="3.0.0", since="t"), state="good")
    assert probation_record.described(tmp_path, "iris", other) == Probation("good")
