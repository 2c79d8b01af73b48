"""Labels over HTTP, MQTT and from a file are kept in the log, joined within seconds, and shown with their coverage."""

import json

import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.config import MqttConfig, SubscriptionConfig
from appliance.errors import ConfigError, NotLogged
from appliance.labels import GivenLabel
from appliance.monitoring.prediction_log import lines
from appliance.monitoring.prediction_log.segments import writers
from appliance.monitoring.prediction_log.verify import verify
from appliance.mqtt.answering import Answerer, BatchOutcome
from appliance.mqtt.messages import Message
from appliance.mqtt.topic_table import TopicTable

LABELS = ("iris", "1.0.0", "labels")


def matched(service) -> int:
    return service.ask("GET", "/models/iris/quality")[1]["labels"].get("matched", 0)


def test_labels_over_http_and_from_a_file_are_joined_and_shown(start_logged, until, tmp_path):
    service = start_logged(LABELS)
    answers = service.predict([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0], [9, 0, 0, 0]], X_Request_Id="order")
    assert answers["prediction"] == ["setosa", "versicolor", "virginica", "setosa"]
    told = {"labels": [{"id": "order.0", "label": "setosa"}, {"id": "order.1", "label": "virginica"}]}
    status, answer, _ = service.ask("POST", "/models/iris/feedback", told)
    assert (status, answer) == (202, {"taken": 2})
    assert [(line["id"], line["label"], line["from"]) for line in service.lines(lines.LABEL)] == [
        ("order.0", "setosa", "http"), ("order.1", "virginica", "http"),
    ]  # fmt: skip
    until(lambda: matched(service) == 2, "two labels matched")
    file = tmp_path / "truth.csv"
    file.write_text("id,label\norder.2,virginica\norder.9,setosa\n")
    run = CliRunner().invoke(command, ["labels", "iris", str(file), "--json", "--state-dir", str(service.state)])
    assert json.loads(run.stdout) == {"model": "iris", "taken": 2, "changed": True}, run.output
    until(lambda: matched(service) == 3, "three labels matched")
    found = service.ask("GET", "/models/iris/quality")[1]
    (window,) = [one for one in found["windows"] if one["window"] == "all"]
    assert (window["coverage"]["rows"], window["coverage"]["labelled"]) == (4, 3)
    assert window["accuracy"] == pytest.approx(2 / 3, abs=0.15)
    until(
        lambda: 'appliance_labels_total{model="iris",outcome="matched"} 3.0' in service.ask("GET", "/metrics")[1],
        "shown",
    )
    service.stop()
    assert [problem for one in writers(service.state, "iris") for problem in verify(one).problems] == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"labels": []}', b'{"labels": [{"id": "a"}]}', b"[" * 100_000, b'{"id": 5, "label": 1}\n{}']
)
def test_what_is_no_label_is_refused_and_nothing_is_kept(start_logged, body):
    service = start_logged(LABELS)
    service.predict([1, 2, 3, 4])
    assert service.ask("POST", "/models/iris/feedback", body)[0] == 400
    assert service.ask("POST", "/models/never/feedback", {"labels": [{"id": "a", "label": 1}]})[0] == 404
    assert service.lines(lines.LABEL) == []


def test_without_a_log_labels_are_refused_with_what_to_do(start_logged):
    service = start_logged(LABELS, enabled=False)
    status, answer, _ = service.ask("POST", "/models/iris/feedback", {"id": "a", "label": 1})
    assert status == 503
    assert "[log.predictions] enabled" in answer["detail"]


class Taken:
    """Where labels go in these tests."""

    def __init__(self) -> None:
        self.found: list[tuple] = []
        self.full = False

    def __call__(self, model: str, labels: list[GivenLabel], source: str) -> None:
        if self.full:
            raise NotLogged("write the prediction log", "No space left on device")
        self.found.append((model, labels, source))


class NoPredictor:
    """Nothing is predicted here."""

    def failed(self, *_: object, **__: object) -> None:
        """Take no note."""


def answerer(taken, **settings) -> tuple:
    config = MqttConfig(subscriptions=(SubscriptionConfig(topic="truth/+", kind="labels", model="iris", **settings),))
    table = TopicTable(config, "me", way=0)
    return Answerer(NoPredictor(), table.errors, table.rights, taken), table.subscriptions[0]


@pytest.mark.parametrize(
    ("settings", "payload"),
    [
        ({}, {"id": "a.0", "label": "x", "time": 5}),
        ({}, {"labels": [{"id": "a.0", "label": "x", "time": 5}]}),
        ({"at": "data"}, {"data": [{"id": "a.0", "label": "x", "time": 5}]}),
        ({"id": "part.id", "fields": {"label": "is", "time": "at"}}, {"part": {"id": "a.0"}, "is": "x", "at": 5}),
    ],
)
def test_labels_of_messages_are_taken(settings, payload):
    taken = Taken()
    by, subscription = answerer(taken, **settings)
    outcome = BatchOutcome()
    assert by.job(subscription, "", Message("truth/1", json.dumps(payload).encode()), outcome) is None
    assert taken.found == [("iris", [GivenLabel("a.0", "x", 5.0)], "mqtt")]
    assert (outcome.answered, outcome.answers, outcome.unready) == (1, [], [])


def test_labels_that_cannot_be_kept_wait_and_bad_ones_go_to_the_error_topic():
    taken = Taken()
    by, subscription = answerer(taken)
    outcome = BatchOutcome()
    taken.full = True
    by.job(subscription, "", Message("truth/1", b'{"id": "a.0", "label": 1}'), outcome)
    assert [job.subscription for job in outcome.unready] == [subscription.key]
    for payload in (b"", b"{", b"[]", b'{"id": "a.0"}', b'{"id": 1, "label": 2}'):
        outcome = BatchOutcome()
        by.job(subscription, "", Message("truth/1", payload), outcome)
        assert len(outcome.answers) == 1
        assert outcome.answers[0].topic.endswith("/errors")
        assert outcome.unready == []


@pytest.mark.parametrize("settings", [{"answer": "a"}, {"payload": "value"}, {"model": ""}, {"echo": ("a",)}])
def test_a_subscription_of_labels_that_means_nothing_is_refused(settings):
    subscription = SubscriptionConfig(**({"topic": "truth/+", "kind": "labels", "model": "iris"} | settings))
    config = MqttConfig(subscriptions=(subscription,))
    with pytest.raises(ConfigError, match="labels"):
        TopicTable(config, "me", way=0)
