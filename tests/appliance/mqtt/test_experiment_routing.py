"""While an experiment runs, each message is routed by its key; the order within a topic and the ids stay."""

import pytest

from appliance.errors import ConfigError
from appliance.inference import selftest
from appliance.mqtt.codec import message_id
from appliance.routing import Router
from appliance.store import experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm

SENSORS = {"topic": "plant/+/sensors", "model": "iris", "answer": "plant/{1}/prediction", "echo": ["n"]}
HALF = (Arm("1.0.0", 0.5), Arm("2.0.0", 0.5))
DEVICES = [f"press-{number}" for number in range(12)]
NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


@pytest.fixture
def split(store, make_bundle, tmp_path):
    """Return a function that begins a split of iris 1.0.0 and 2.0.0 in halves, and gives {key: version}."""
    store.install(make_bundle(tmp_path, "iris", "2.0.0"))

    def begin(**rest):
        made = experiments.begin(store, "iris", Wish("split", arms=HALF, **rest), selftest.self_test)
        pick = Router(made.salt, [(arm.version, arm.share) for arm in made.arms]).pick
        return made, lambda key: pick(key, 0.0)

    return begin


def row(number: float = 0.0, width: float = 3.5) -> dict[str, float]:
    return dict(zip(NAMES, (number, width, 1.4, 0.2), strict=True)) | {"n": number}


def answers_by_topic(client, count):
    by_topic: dict[str, list] = {}
    for message, answer in zip(client.wait(count), client.answers(count), strict=True):
        by_topic.setdefault(message.topic, []).append(answer)
    return by_topic


def test_a_device_meets_one_version_by_its_topic_in_order_and_with_its_ids(listen, plain, split):
    made, version_of = split()
    running = listen(subscriptions=[{**SENSORS, "key": "{1}"}]).connected()
    client = plain("plant/+/prediction")
    for number in range(60):
        client.publish(f"plant/{DEVICES[number % 12]}/sensors", row(number))
    found = answers_by_topic(client, 60)
    assert {answer["version"] for answers in found.values() for answer in answers} == {"1.0.0", "2.0.0"}
    for place, device in enumerate(DEVICES):
        answers = found[f"plant/{device}/prediction"]
        assert {answer["version"] for answer in answers} == {version_of(device)}
        assert [answer["n"] for answer in answers] == list(range(place, 60, 12))
    keys = {(prediction.arm, key) for prediction in running.seen for key in prediction.keys}
    assert keys == {(f"{made.id}/{version_of(device)}", device) for device in DEVICES}
    assert sum(prediction.requests for prediction in running.seen) == 60


def test_the_key_may_be_a_field_of_the_payload_and_a_bad_message_counts_for_its_arm(listen, plain, split):
    made, version_of = split()
    running = listen(subscriptions=[{**SENSORS, "key": "from.device", "id": "id"}]).connected()
    client = plain("plant/+/prediction", "appliance/edge/errors")
    for number, device in enumerate(DEVICES):
        client.publish("plant/a/sensors", row(number) | {"from": {"device": device}, "id": f"m{number}"})
        client.publish("plant/a/sensors", row(number) | {"from": {"device": device}, "sepal_width": "wide"})
    answers = client.answers(12, "plant/a/prediction")
    assert [answer["id"] for answer in answers] == [f"m{number}" for number in range(12)]
    assert [answer["version"] for answer in answers] == [version_of(device) for device in DEVICES]
    client.wait(12, "appliance/edge/errors")
    assert sorted(running.failures) == sorted(
        (version_of(device), f"{made.id}/{version_of(device)}", device) for device in DEVICES
    )


def test_the_experiments_column_is_the_key_where_the_subscription_has_none(listen, plain, split):
    _, version_of = split(key="column:sepal_width")
    listen(subscriptions=[{**SENSORS}]).connected()
    client = plain("plant/+/prediction")
    for number in range(20):
        client.publish("plant/a/sensors", row(number, width=number / 2))
    assert [one["version"] for one in client.answers(20)] == [version_of(str(number / 2)) for number in range(20)]


def test_rows_from_several_topics_are_routed_by_their_own_key(listen, plain, split):
    _, version_of = split()
    feeds = [
        {"topic": "line/{device}/a", "columns": {"sepal_length": "last", "sepal_width": "mean"}},
        {"topic": "line/{device}/b", "columns": {"petal_length": "last", "petal_width": "mean"}},
    ]
    rows = [{"name": "line", "answer": "line/{device}/prediction", "model": "iris", "feeds": feeds}]
    listen(rows=rows).connected()
    client = plain("line/+/prediction")
    for device in DEVICES:
        client.publish(f"line/{device}/a", b"1")
        client.publish(f"line/{device}/b", b"2")
    found = answers_by_topic(client, 12)
    assert {topic.split("/")[1]: answers[0]["version"] for topic, answers in found.items()} == {
        device: version_of(device) for device in DEVICES
    }


def test_without_a_key_messages_are_split_by_chance_and_keep_their_order_and_ids(listen, plain, split):
    split()
    listen(subscriptions=[SENSORS]).connected()
    client = plain("plant/+/prediction")
    for number in range(80):
        client.publish("plant/a/sensors", row(number))
    answers = client.answers(80)
    assert [answer["n"] for answer in answers] == list(range(80))
    assert {answer["version"] for answer in answers} == {"1.0.0", "2.0.0"}
    assert len({answer["id"] for answer in answers}) == 80
    assert all(len(answer["id"]) == len(message_id("", b"")) for answer in answers)


def test_two_subscriptions_that_name_versions_give_both_answers_whatever_runs(listen, plain, split):
    split()
    both = [
        {**SENSORS, "version": version, "answer": f"plant/{{1}}/prediction/{version[0]}", "key": "{1}"}
        for version in ("1.0.0", "2.0.0")
    ]
    running = listen(subscriptions=both).connected()
    client = plain("plant/+/prediction/+")
    for device in DEVICES:
        client.publish(f"plant/{device}/sensors", row(1))
    found = answers_by_topic(client, 24)
    assert {topic[-1]: {one["version"] for one in answers} for topic, answers in found.items()} == {
        "1": {"1.0.0"}, "2": {"2.0.0"},
    }  # fmt: skip
    assert {prediction.arm for prediction in running.seen} == {""}


@pytest.mark.parametrize(
    ("rest", "found"),
    [({"key": "{2}"}, "is no place"), ({"key": "device", "payload": "value", "echo": []}, "no meaning")],
)
def test_a_key_that_cannot_be_is_refused(listen, rest, found):
    with pytest.raises(ConfigError, match=found):
        listen(subscriptions=[{**SENSORS, **rest}])
