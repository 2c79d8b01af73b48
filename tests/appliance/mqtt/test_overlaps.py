"""Filters that overlap: a publish counts once in a window and is answered once a subscription, whoever copies it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import MqttConfig
from appliance.errors import ConfigError
from appliance.mqtt.outbox import LOCAL
from appliance.mqtt.overlaps import covering, identifiers, numbered
from appliance.mqtt.topic_table import TopicTable
from appliance.mqtt.topics import Filter

ALL = {"topic": "line/#", "model": "iris", "answer": "answers/all/{1}"}
SOME = {"topic": "line/+/t", "model": "iris", "answer": "answers/some/{1}"}
COUNT = {
    "name": "counts",
    "model": "gaps",
    "answer": "rows/{dev}",
    "when": "each",
    "feeds": [{"topic": "line/{dev}/t", "path": "v", "columns": {"sepal_length": "count"}}],
}
ROW = {"sepal_length": 5.0, "sepal_width": 3.5, "petal_length": 1.5, "petal_width": 0.5}
BIAS = 3100.0  # three missing values, and the version's
LEVELS = st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=4).map("/".join)


@st.composite
def filters(draw):
    levels = draw(st.lists(st.sampled_from(["a", "b", "", "+"]), min_size=1, max_size=3))
    return "/".join(levels + (["#"] if draw(st.booleans()) else [])) or "/"


@given(filters(), filters(), LEVELS)
def test_what_a_covered_filter_matches_its_cover_matches(one, two, topic):
    first, second = Filter(one), Filter(two)
    if first.covers(second) and second.match(topic) is not None:
        assert first.match(topic) is not None
        assert first.overlaps(second)


@given(st.lists(filters(), min_size=1, max_size=4, unique=True), LEVELS)
def test_without_identifiers_one_filter_at_most_matches_a_topic(texts, topic):
    asked = [(Filter(text), 0) for text in texts]
    try:
        chosen = covering(asked)
    except ConfigError:
        return
    wanted = any(filter_.match(topic) is not None for filter_, _ in asked)
    assert sum(ask.filter.match(topic) is not None for ask in chosen) == wanted


def test_a_cover_takes_the_higher_qos():
    (only,) = covering([(Filter("line/+/t"), 1), (Filter("line/#"), 0)])
    assert (only.text, only.qos, only.identifier) == ("line/#", 1, 0)


@pytest.mark.parametrize("pair", [("a/+/c", "+/b/c"), ("$share/g/a/#", "a/b"), ("$share/g/a", "$share/h/a")])
def test_filters_that_overlap_in_part_are_refused_with_3_1_1_and_named(pair):
    subscriptions = [{"topic": topic, "answer": f"out/{place}"} for place, topic in enumerate(pair)]
    config = msgspec.convert({"protocol": "3.1.1", "subscriptions": subscriptions}, MqttConfig)
    with pytest.raises(ConfigError) as raised:
        TopicTable(config, "edge", way=LOCAL)
    assert all(repr(topic) in raised.value.found for topic in pair)
    assert TopicTable(msgspec.structs.replace(config, protocol="5"), "edge", way=LOCAL)


def test_filters_that_stand_alone_have_no_identifier_and_overlapping_ones_differ():
    asks = numbered([(Filter(text), 1) for text in ("a/#", "a/b", "c")])
    numbers = {ask.text: ask.identifier for ask in asks}
    assert numbers["c"] == 0
    assert 0 < numbers["a/#"] != numbers["a/b"] > 0
    assert identifiers(["a/#", "z"]).items() & {(numbers["a/#"], "a/#")}


def test_a_subscription_that_stands_there_twice_is_refused():
    twice = [{"topic": "in/#", "model": "iris", "answer": "out"}] * 2
    with pytest.raises(ConfigError, match="twice"):
        TopicTable(msgspec.convert({"subscriptions": twice}, MqttConfig), "edge", way=LOCAL)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_each_publish_counts_once_and_is_answered_once_a_subscription(listen, plain, protocol):
    listen(protocol=protocol, subscriptions=[ALL, SOME], rows=[COUNT]).connected()
    client = plain("answers/#", "rows/#")
    for _ in range(3):
        client.publish("line/a/t", {**ROW, "v": 7})
    for topic in ("answers/some/a", "answers/all/a/t"):
        assert len(client.wait(3, topic)) == 3
    client.publish("line/b/t", {**ROW, "v": 7})  # behind everything that might still come
    client.wait(1, "rows/b")
    client.wait(1, "answers/all/b/t")
    counts = [sum(answer["prediction"]) - BIAS for answer in client.answers(3, "rows/a")]
    assert counts == [1.0, 2.0, 3.0]
    assert len(client.wait(3, "answers/some/a")) == len(client.wait(3, "answers/all/a/t")) == 3


def test_two_subscriptions_with_one_filter_are_answered_once_each_also_after_waiting(
    listen, plain, tmp_path, bundle_bytes
):
    two = [{"topic": "in", "model": name, "answer": f"out/{name}"} for name in ("iris", "late")]
    three = [*two, {"topic": "in", "model": "later", "answer": "out/later"}]
    listener = listen(subscriptions=three).connected()
    client = plain("out/#")
    client.publish("in", ROW)
    client.wait(1, "out/iris")
    install(listener, tmp_path, bundle_bytes, "late")
    assert client.answers(1, "out/late")[0]["model"] == "late"
    install(listener, tmp_path, bundle_bytes, "later")
    assert client.answers(1, "out/later")[0]["model"] == "later"
    assert len(client.heard) == 3


def test_a_shared_and_a_plain_filter_each_have_their_answer(listen, plain):
    shared = {"topic": "$share/group/line/+/t", "model": "iris", "answer": "answers/shared"}
    listen(subscriptions=[ALL, shared]).connected()
    client = plain("answers/#")
    for _ in range(5):
        client.publish("line/a/t", ROW)
    client.wait(5, "answers/shared")
    client.wait(5, "answers/all/a/t")
    assert len(client.heard) == 10


def test_a_retained_message_is_answered_once_a_subscription(listen, plain):
    client = plain("answers/#")
    client.publish("line/a/t", ROW, retain=True)
    listen(subscriptions=[ALL, SOME]).connected()
    client.wait(1, "answers/some/a")
    client.wait(1, "answers/all/a/t")
    client.publish("line/b/t", ROW)
    client.wait(1, "answers/some/b")
    client.wait(1, "answers/all/b/t")
    assert len(client.heard) == 4


def test_what_the_broker_kept_while_we_were_away_and_it_started_anew_counts_once(listen, plain, broker):
    listen(subscriptions=[ALL, SOME], rows=[COUNT]).connected().stop()
    sensor = plain()
    for _ in range(3):
        sensor.publish("line/a/t", {**ROW, "v": 7})
    broker.stop()
    broker.start()
    client = plain("answers/#", "rows/#")
    listen(subscriptions=[ALL, SOME], rows=[COUNT]).connected()
    client.wait(3, "answers/some/a")
    client.wait(3, "answers/all/a/t")
    assert [sum(answer["prediction"]) - BIAS for answer in client.answers(3, "rows/a")] == [1.0, 2.0, 3.0]
    assert len(client.heard) == 9


def test_what_waits_under_a_filter_of_an_earlier_configuration_is_answered(listen, plain):
    listen(subscriptions=[ALL, SOME]).connected().stop()
    client = plain("answers/#")
    client.publish("line/a/t", ROW)
    listen(subscriptions=[{**SOME, "topic": "line/a/+"}, {**ALL, "topic": "line/+/x"}]).connected()
    assert client.wait(1, "answers/some/t")


def test_a_broker_without_identifiers_is_asked_for_filters_that_do_not_overlap():
    topic_table = TopicTable(msgspec.convert({"subscriptions": [ALL, SOME]}, MqttConfig), "edge", way=LOCAL)
    assert [(ask.text, ask.identifier) for ask in topic_table.asks(with_identifiers=False)] == [("line/#", 0)]
    parts = [{**ALL, "topic": "line/+/t"}, {**SOME, "topic": "line/a/+"}]
    topic_table = TopicTable(msgspec.convert({"subscriptions": parts}, MqttConfig), "edge", way=LOCAL)
    with pytest.raises(ConfigError, match="overlap"):
        topic_table.asks(with_identifiers=False)


def install(listener, folder, bundle_bytes, name):
    path = folder / f"{name}.bundle"
    path.write_bytes(bundle_bytes(name, "1.0.0"))
    listener.store.install(path)
    listener.activate(name, "1.0.0")
