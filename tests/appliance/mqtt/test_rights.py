"""No sender gains a right to publish by the appliance: neither by a Response Topic nor by the levels of its topic."""

import msgspec
import pytest

from appliance.config import MqttConfig
from appliance.mqtt.outbox import LOCAL, UPSTREAM
from appliance.mqtt.topic_table import TopicTable

ROW = [5.1, 3.5, 1.4, 0.2]
NEVER = [
    "appliance/edge/status", "appliance/edge/online", "appliance/edge/errors", "appliance/edge",
    "appliance/other/status", "homeassistant/sensor/x/config", "homeassistant/status", "$SYS/broker",
    "reply/+", "reply/#", "ask/again", "", "line/a/t", "reply/\0",
]  # fmt: skip


def topic_table(way=LOCAL, **settings):
    return TopicTable(msgspec.convert(settings, MqttConfig), "edge", way=way)


@pytest.mark.parametrize("topic", NEVER)
def test_no_response_goes_there_even_where_every_topic_is_allowed(topic):
    rows = {"name": "r", "answer": "x", "feeds": [{"topic": "line/{a}/t", "columns": {"c": "last"}}]}
    made = topic_table(subscriptions=[{"topic": "ask/#", "respond": ["#"]}], rows=[rows])
    (subscription,) = made.subscriptions
    assert not made.rights.may_respond(topic, subscription.respond)
    assert made.rights.may_respond("reply/me", subscription.respond)


def test_a_response_topic_is_not_followed_unless_listed(listen, plain):
    """Where there is an answer, it goes there; else the error topic is told."""
    quiet = {"topic": "in", "model": "iris", "answer": "out"}
    listen(subscriptions=[quiet, {"topic": "ask", "model": "iris", "respond": ["reply/+"]}]).connected()
    client = plain("valve/#", "homeassistant/#", "appliance/edge/status", "appliance/edge/errors", "out", "reply/#")
    for response in ("valve/7/set", "appliance/edge/status", "homeassistant/x/config", "reply/me"):
        client.publish("in", ROW, ResponseTopic=response)
        client.publish("ask", ROW, ResponseTopic=response, CorrelationData=b"x")
    assert len(client.wait(4, "out")) == 4
    told = client.answers(3, "appliance/edge/errors")
    assert [one["error"] for one in told] == ["answer_topic"] * 3
    assert len(client.wait(1, "reply/me")) == 1
    assert {message.topic for message in client.heard} <= {
        "out", "reply/me", "appliance/edge/errors", "appliance/edge/status",
    }  # fmt: skip
    assert all(b"client_id" in message.payload for message in client.wait(1, "appliance/edge/status"))


@pytest.mark.parametrize(
    ("topic", "answer", "sent", "given"),
    [
        ("+/in", "{1}/set", "valve/in", "valve/set"),
        ("+/+/in", "{1}/{2}/status", "appliance/edge/in", ""),
        ("+/+/in", "{1}/{2}/status", "appliance/other/in", ""),
        ("+/+/in", "{1}/{2}/status", "plant/a/in", "plant/a/status"),
        ("in/#", "{1}", "in/homeassistant/sensor/x/config", ""),
        ("in/#", "{1}", "in/$SYS/x", ""),
        ("in/#", "{1}", "in/", ""),
        ("in/+", "appliance/{1}/prediction", "in/other", "appliance/other/prediction"),
        ("in/+", "appliance/{1}/prediction", "in/edge", ""),
        ("in/+/+", "homeassistant/sensor/{1}/{2}", "in/x/state", "homeassistant/sensor/x/state"),
        ("in/+/+", "homeassistant/sensor/{1}/{2}", "in/x/config", ""),
    ],
)
def test_the_levels_of_a_topic_steer_no_answer_to_where_only_we_publish(topic, answer, sent, given):
    made = topic_table(UPSTREAM, subscriptions=[{"topic": topic, "answer": answer}])
    assert made.answer_topic(made.subscriptions[0], sent) == given


def test_a_key_of_a_row_steers_no_answer_either(listen, plain):
    feeds = [{"topic": "in/{a}/{b}", "columns": {"sepal_length": "last"}}]
    rows = {"name": "r", "model": "gaps", "answer": "{a}/{b}", "when": "each", "feeds": feeds}
    listen(rows=[rows]).connected()
    client = plain("appliance/edge/#", "x/y")
    client.publish("in/appliance/edge", "1")
    client.publish("in/x/y", "1")
    client.wait(1, "x/y")
    assert client.answers(1, "appliance/edge/errors")[0]["error"] == "answer_topic"
    assert {message.topic for message in client.heard} <= {
        "appliance/edge/errors", "appliance/edge/online", "appliance/edge/status", "x/y",
    }  # fmt: skip


def test_a_response_topic_is_not_told_to_home_assistant(listen, plain):
    asked = {"topic": "in", "model": "iris", "answer": "out", "respond": ["reply/#"]}
    listen(subscriptions=[asked], discovery=True).connected()
    client = plain("homeassistant/sensor/#", "out", "reply/#")
    client.publish("in", ROW, ResponseTopic="reply/me")
    client.publish("in", ROW)
    client.wait(1, "out")
    told = [message for message in client.wait(3) if message.topic.endswith("/config")]
    assert [msgspec.json.decode(message.payload)["state_topic"] for message in told] == ["out"]


def test_correlation_data_id_and_echo_are_bounded(listen, plain):
    subscription = {"topic": "in", "model": "iris", "answer": "out", "at": "row", "id": "id", "echo": ["more"]}
    listen(subscriptions=[subscription]).connected()
    client = plain("out", "appliance/edge/errors")
    client.publish("in", {"row": ROW}, CorrelationData=b"x" * 1025)
    client.publish("in", {"row": ROW, "id": "x" * 257})
    client.publish("in", b'{"row": [5.1, 3.5, 1.4, 0.2], "id": %s}' % (b"7" * 300))
    client.publish("in", {"row": ROW, "more": "x" * 20_000})
    told = client.answers(4, "appliance/edge/errors")
    assert [one["error"] for one in told] == ["too_large"] * 4
    client.publish("in", {"row": ROW, "id": "x" * 256, "more": "x" * 1000}, CorrelationData=b"x" * 1024)
    assert client.answers(1, "out")[0]["id"] == "x" * 256
