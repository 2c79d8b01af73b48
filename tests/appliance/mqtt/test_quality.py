"""The quality of each row over a real broker: told where it is configured, and to the message that asks for it."""

import msgspec

from appliance.fallback import QualityPolicy

ROW = [5.1, 3.5, 1.4, 0.2]
NAMED = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
PLANT = {"topic": "plant/+/sensors", "model": "gaps", "answer": "plant/{1}/prediction"}


def test_messages_that_share_a_run_have_the_quality_of_their_own_rows(listen, plain):
    listen(subscriptions=[PLANT], quality=QualityPolicy(enabled=True)).connected()
    client = plain("plant/+/prediction")
    rows = {"a": ROW, "b": [ROW, [5.1, None, 1.4, 0.2]], "c": [None, 3.5, 1.4, 0.2]}
    for name, row in rows.items():
        client.publish(f"plant/{name}/sensors", row)
    found = {message.topic.split("/")[1]: msgspec.json.decode(message.payload) for message in client.wait(3)}
    good = {"flag": "good"}
    assert {name: answer["quality"] for name, answer in found.items()} == {
        "a": [good],
        "b": [good, {"flag": "imputed", "column": "sepal_width"}],
        "c": [{"flag": "imputed", "column": "sepal_length"}],
    }


def test_a_message_asks_for_the_quality_of_its_own_rows_alone(listen, plain):
    running = listen(subscriptions=[PLANT], batch=64).connected()
    client = plain("plant/+/prediction")
    tensor = {"name": "features", "shape": [1, 4], "datatype": "FP32", "data": ROW}
    sent = {
        "features": {"features": [ROW, [None, *ROW[1:]]], "quality": True},
        "named": NAMED | {"quality": True},
        "tensors": {"inputs": [tensor], "parameters": {"quality": True}},
        "plain": NAMED,
        "word": NAMED | {"quality": "good"},  # as OPC UA and others say of their reading
    }
    for name, payload in sent.items():
        client.publish(f"plant/{name}/sensors", payload)
    found = {message.topic.split("/")[1]: msgspec.json.decode(message.payload) for message in client.wait(5)}
    good = {"flag": "good"}
    assert {name: answer.get("quality") for name, answer in found.items()} == {
        "features": [good, {"flag": "imputed", "column": "sepal_length"}],
        "named": [good],
        "tensors": [good],
        "plain": None,
        "word": None,
    }
    assert running.listener.state().problems == []


def test_labels_that_stand_worse_are_retained_below_their_own_topic(listen, plain, until):
    running = listen(subscriptions=[PLANT], status_seconds=0.05).connected()
    client = plain("appliance/edge/#")
    quality = {"state": "worse", "since": "2026-03-01T00:00:00+00:00", "because": "wrong on 20.0%"}
    running.served = [{"model": "gaps", "version": "1.0.0", "quality": quality}]
    (alarm,) = client.wait(1, "appliance/edge/quality/gaps")
    assert msgspec.json.decode(alarm.payload) == {"model": "gaps", "version": "1.0.0", **quality}
    late = plain("appliance/edge/quality/#")
    assert late.wait(1)[0].retain
    running.served = []
    assert client.wait(2, "appliance/edge/quality/gaps")[-1].payload == b""


def test_a_subscription_and_rows_of_several_topics_have_it_by_their_setting(listen, plain):
    columns = [{"topic": f"line/{{device}}/{name}", "columns": {name: "last"}} for name in NAMED]
    rows = {"name": "rows", "model": "gaps", "answer": "line/{device}/prediction", "feeds": columns, "quality": True}
    listen(subscriptions=[PLANT | {"quality": True}], rows=[rows]).connected()
    client = plain("plant/+/prediction", "line/+/prediction")
    client.publish("plant/a/sensors", ROW)
    for name, value in NAMED.items():
        client.publish(f"line/7/{name}", value)
    answers = [msgspec.json.decode(message.payload) for message in client.wait(2)]
    assert [answer["quality"] for answer in answers] == [[{"flag": "good"}]] * 2
