"""Rows put together from several topics: windows, when a row is complete, ages, bounds, and a restart."""

import math
import statistics

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import MqttConfig
from appliance.errors import ConfigError, InvalidInput
from appliance.mqtt import rows as rows_module
from appliance.mqtt.bad_message import BadMessage
from appliance.mqtt.disk import Disk
from appliance.mqtt.messages import Message
from appliance.mqtt.rows import RowBuilder
from appliance.mqtt.topic_table import TopicTable
from appliance.mqtt.windows import Window, is_number

FEEDS = [
    {"topic": "line/{device}/temp", "columns": {"temp": "last", "temp_mean": "mean"}, "values": 3},
    {"topic": "line/{device}/state", "columns": {"state": "last"}, "path": "data.state"},
]


def topic_table(**rest) -> TopicTable:
    rows = {"name": "line", "answer": "line/{device}/prediction", "feeds": FEEDS, **rest}
    return TopicTable(msgspec.convert({"host": "h", "rows": [rows]}, MqttConfig), "edge", way=0)


class Bench:
    """A builder and its disk."""

    def __init__(self, folder, **rest) -> None:
        self.topic_table = topic_table(**rest)
        self.disk = Disk(folder / "o")
        self.rows = RowBuilder(self.topic_table.rows[0], self.disk, max_bytes=1000)

    def observe(self, topic: str, payload: bytes, now: float, *, retain: bool = False):
        ((_, feed, key),) = self.topic_table.fed(topic)
        job = self.rows.observe(feed, key, Message(topic, payload, retain=retain), now)
        self.disk.commit(self.rows.writes())
        return job

    def temp(self, value: object, now: float, device: str = "7"):
        return self.observe(f"line/{device}/temp", str(value).encode(), now)

    def state(self, value: str, now: float, device: str = "7"):
        return self.observe(f"line/{device}/state", msgspec.json.encode({"data": {"state": value}}), now)


@pytest.fixture
def bench(tmp_path):
    return lambda **rest: Bench(tmp_path, **rest)


def test_a_row_is_complete_when_every_topic_has_a_new_value(bench):
    one = bench()
    assert one.temp(20, 100.0) is None
    assert one.temp(22, 101.0) is None
    job = one.state("on", 102.0)
    assert job.call.rows == [{"temp": 22.0, "temp_mean": 21.0, "state": "on"}]
    assert (job.topic, job.call.echo) == ("line/7/prediction", {"device": "7"})
    assert one.temp(24, 103.0) is None  # the state is not new
    assert one.state("off", 104.0).call.rows == [{"temp": 24.0, "temp_mean": 22.0, "state": "off"}]


def test_each_message_gives_a_row_with_what_is_known(bench):
    one = bench(when="each")
    assert one.temp(20, 100.0).call.rows == [{"temp": 20.0, "temp_mean": 20.0}]
    assert one.state("on", 101.0).call.rows == [{"temp": 20.0, "temp_mean": 20.0, "state": "on"}]


def test_rows_by_the_clock_come_once_an_interval_while_something_is_new(bench):
    one = bench(when="every", seconds=10.0)
    assert one.temp(20, 100.0) is None
    assert [job.call.rows for job in one.rows.timed(100.5)] == [[{"temp": 20.0, "temp_mean": 20.0}]]
    assert list(one.rows.timed(120.0)) == []
    one.temp(21, 121.0)
    assert len(list(one.rows.timed(121.0))) == 1
    one.temp(22, 122.0)
    assert list(one.rows.timed(125.0)) == []
    assert len(list(one.rows.timed(131.0))) == 1


def test_an_old_value_counts_as_missing(bench):
    one = bench(max_age=60.0)
    one.temp(20, 100.0)
    assert one.state("on", 200.0) is None
    assert one.temp(21, 201.0) is not None


def test_devices_are_apart(bench):
    one = bench()
    one.temp(1, 100.0, "a")
    assert one.state("on", 100.0, "b") is None
    assert one.state("on", 100.0, "a").topic == "line/a/prediction"


def test_the_state_survives_a_restart(bench):
    one = bench()
    one.temp(20, 100.0)
    one.temp(22, 101.0)
    one.disk.close()
    again = bench()
    assert again.state("on", 102.0).call.rows == [{"temp": 22.0, "temp_mean": 21.0, "state": "on"}]
    again.disk.close()
    third = bench()
    assert third.state("off", 103.0) is None  # the temperature was answered before the restart
    assert third.temp(24, 104.0).call.rows == [{"temp": 24.0, "temp_mean": 22.0, "state": "off"}]


def test_feeds_that_the_configuration_no_longer_has_are_passed_over(bench):
    one = bench()
    one.temp(20, 100.0)
    one.disk.close()
    again = bench(feeds=FEEDS[1:])
    assert again.state("on", 101.0).call.rows == [{"state": "on"}]


def test_a_retained_value_fills_a_window_but_grows_no_younger_by_coming_again(bench):
    one = bench(when="each", max_age=50.0)
    one.state("on", 100.0)
    first = one.observe("line/7/temp", b"3", 100.0, retain=True)
    assert first.call.rows == [{"temp": 3.0, "temp_mean": 3.0, "state": "on"}]
    assert one.observe("line/7/temp", b"3", 140.0, retain=True) is None
    assert one.state("off", 160.0).call.rows == [{"state": "off"}]
    other = one.observe("line/7/temp", b"4", 170.0, retain=True)  # what was said while we were away
    assert other.call.rows == [{"temp": 4.0, "temp_mean": 3.5, "state": "off"}]


def test_no_statement_looks_at_other_devices_values(bench):
    one = bench(when="each")
    one.temp(1, 100.0)
    one.temp(1, 101.0)
    one.rows.observe(0, {"device": "7"}, Message("line/7/temp", b"2"), 102.0)
    writes = [*one.rows.writes(), *one.rows.prune(103.0), (rows_module._FORGET, [("line", '["7"]')])]
    statements = {statement for statement, _ in writes if statement.startswith("delete")}
    assert len(statements) == 3
    for statement in statements:
        marks = ("x",) * statement.count("?")
        ((*_, how),) = one.disk.read(f"explain query plan {statement}", marks)
        assert "USING INDEX observed" in how or "USING COVERING INDEX observed" in how


def test_the_number_of_devices_is_bounded_and_the_silent_ones_go_first(bench):
    one = bench(max_keys=2)
    for number, device in enumerate(["a", "b", "a", "c"]):
        one.temp(number, 100.0 + number, device)
    kept = {key for (key,) in one.disk.read("select distinct key from observations")}
    assert kept == {'["a"]', '["c"]'}
    assert one.state("on", 105.0, "a") is not None


def test_what_no_window_holds_is_deleted_from_the_disk(bench):
    one = bench()
    for number in range(10):
        one.temp(number, 100.0 + number)
    one.disk.commit(one.rows.prune(110.0))
    assert one.disk.read("select count(*) from observations") == [(3,)]


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("line/7/state", b"no json", "payload"),
        ("line/7/state", b"{}", "field"),
        ("line/7/temp", b"warm", "form"),
        ("line/7/temp", b"[1]", "form"),
        ("line/7/temp", b"null", "form"),
        ("line/7/temp", b"9" * 400, "form"),
        ("line/7/temp", b"\xff", "payload"),
        ("line/7/temp", b"1" * 1001, "too_large"),
    ],
)
def test_a_bad_value_has_its_reason_and_changes_nothing(bench, topic, payload, reason):
    one = bench()
    with pytest.raises(BadMessage) as caught:
        one.observe(topic, payload, 100.0)
    assert caught.value.reason == reason
    assert one.disk.read("select count(*) from observations") == [(0,)]


def test_a_key_that_makes_no_topic_is_refused(bench):
    one = bench(answer="{device}")
    with pytest.raises(InvalidInput, match="no answer goes to"):
        one.temp(1, 100.0, "")


@pytest.mark.parametrize(
    "rest",
    [
        {"feeds": []},
        {"feeds": [FEEDS[0], {**FEEDS[1], "topic": "line/{other}/state"}]},
        {"feeds": [FEEDS[0], FEEDS[0]]},
        {"feeds": [{**FEEDS[0], "topic": "line/{model}/temp"}], "answer": "x/{model}"},
        {"answer": "line/{place}/prediction"},
        {"answer": "line/{device}/temp"},
    ],
)
def test_rows_that_cannot_be_are_config_errors(rest):
    with pytest.raises(ConfigError):
        topic_table(**rest)


NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(st.floats(0, 1000), NUMBERS), min_size=1, max_size=30), st.integers(1, 20))
def test_statistics_agree_with_the_standard_ones(observed, size):
    observed.sort(key=lambda pair: pair[0])
    window = Window(values=size, seconds=0.0)
    for at, value in observed:
        window.add(at, value)
    kept = observed[-size:]
    numbers = [value for _, value in kept]
    assert window.tell("last") == numbers[-1]
    assert window.tell("count") == len(numbers)
    assert window.tell("min") == min(numbers)
    assert window.tell("max") == max(numbers)
    assert window.tell("mean") == pytest.approx(statistics.fmean(numbers), abs=1e-6)
    assert window.tell("std") == pytest.approx(statistics.pstdev(numbers), abs=1e-4)
    times = np.array([at for at, _ in kept])
    if len(kept) > 1 and np.ptp(times) > 1:
        assert window.tell("slope") == pytest.approx(np.polyfit(times, numbers, 1)[0], rel=1e-4, abs=1e-3)


def test_a_window_of_time_lets_go_of_what_is_older():
    window = Window(values=100, seconds=10.0)
    for at in range(30):
        window.add(float(at), float(at))
    assert (window.first, window.tell("min"), window.tell("count")) == (19.0, 19.0, 11.0)
    window.age(100.0)
    assert window.latest is None


@pytest.mark.parametrize("statistic", ["mean", "std", "slope"])
def test_statistics_beyond_any_float_are_infinite_and_no_fault(statistic):
    window = Window(values=5, seconds=0.0)
    for at, value in enumerate([1.7e308, -1.7e308, 1.7e308, 1.7e308]):
        window.add(float(at), value)
    assert not math.isnan(window.tell(statistic))
    assert statistic != "std" or window.tell(statistic) == math.inf


def test_one_value_has_no_slope_and_no_spread():
    window = Window(values=5, seconds=0.0)
    window.add(1.0, 7.0)
    assert (window.tell("slope"), window.tell("std")) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("value", "expected"), [(1, True), (1.5, True), (True, True), ("1", False), (math.nan, False), (10**400, False)]
)
def test_what_statistics_can_be_told_of(value, expected):
    assert is_number(value) is expected
