"""Messages answered over a real broker: where answers go, what is refused, and what a broker is told of us."""

import signal
import socket

import cbor2
import msgspec
import pytest

from appliance.errors import ConfigError, Misuse
from appliance.store import activation

ROW = [5.1, 3.5, 1.4, 0.2]
NAMED = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
PLANT = {"topic": "plant/+/sensors", "model": "iris", "answer": "plant/{1}/prediction", "echo": ["ts"]}
EXPECTED = [110.19999694824219]


def test_a_message_is_answered_at_the_topic_built_from_its_own(listen, plain):
    listen(subscriptions=[PLANT]).connected()
    client = plain("plant/+/prediction")
    client.publish("plant/north/sensors", NAMED | {"ts": 17})
    (answer,) = client.answers(1, "plant/north/prediction")
    assert answer["prediction"] == EXPECTED
    assert (answer["model"], answer["version"], answer["ts"]) == ("iris", "1.0.0", 17)
    assert len(answer["id"]) == 32
    properties = client.heard[0].properties
    assert dict(properties.UserProperty) == {"model": "iris", "version": "1.0.0"}
    assert properties.ContentType == "application/json"
    assert not client.heard[0].retain


def test_many_messages_are_answered_in_order_each_with_its_own_rows(listen, plain):
    running = listen(subscriptions=[PLANT | {"echo": ["n"]}]).connected()
    client = plain("plant/+/prediction")
    for number in range(300):
        client.client.publish("plant/a/sensors", msgspec.json.encode({**NAMED, "sepal_length": number, "n": number}), 1)
    answers = client.answers(300)
    assert [answer["n"] for answer in answers] == list(range(300))
    assert [answer["prediction"][0] for answer in answers] == pytest.approx([105.1 + number for number in range(300)])
    state = running.listener.state()
    assert (state.received, state.answered, state.problems) == (300, 300, [])


@pytest.mark.parametrize("five", [True, False])
def test_both_versions_of_the_protocol_are_answered(listen, plain, five):
    listen(subscriptions=[PLANT], protocol="5" if five else "3.1.1").connected()
    client = plain("plant/+/prediction", five=five)
    client.publish("plant/a/sensors", ROW)
    assert client.answers(1)[0]["prediction"] == EXPECTED


def test_a_response_topic_is_answered_with_its_correlation_data(listen, plain):
    listen(subscriptions=[{"topic": "ask", "model": "iris", "respond": ["replies/#"]}]).connected()
    client = plain("replies/me")
    client.publish("ask", ROW, ResponseTopic="replies/me", CorrelationData=b"\x00\xff17")
    (message,) = client.wait()
    assert message.properties.CorrelationData == b"\x00\xff17"
    assert msgspec.json.decode(message.payload)["prediction"] == EXPECTED


def test_labels_and_probabilities_are_those_of_http(listen, plain):
    listen(subscriptions=[{"topic": "in", "model": "flower", "answer": "out"}]).connected()
    client = plain("out")
    client.publish("in", [ROW, [0, 9, 0, 0]])
    answer = client.answers(1)[0]
    assert answer["prediction"] == ["setosa", "versicolor"]
    assert set(answer["probability"][0]) == {"setosa", "versicolor", "virginica"}


BAD = [
    (b"not json", "payload"),
    (b"", "payload"),
    (b'{"sepal_length": "long"}', "rows"),
    ([1, 2, "x", 4], "rows"),
    ([1, 2, None, 4], "rows"),
    ({"inputs": [{"name": "unknown", "shape": [1], "datatype": "FP32", "data": [1]}]}, "rows"),
    (b"[" + b"1," * 2000 + b"1]", "too_large"),
]


def test_bad_messages_are_told_and_counted_and_neither_stop_the_flow_nor_return(listen, plain):
    running = listen(subscriptions=[PLANT], max_payload_bytes=2000).connected()
    client = plain("appliance/edge/errors", "plant/+/prediction")
    for payload, _ in BAD:
        client.publish("plant/a/sensors", payload)
    client.publish("plant/a/sensors", ROW)
    told = client.answers(len(BAD), "appliance/edge/errors")
    assert sorted(one["error"] for one in told) == sorted(reason for _, reason in BAD)
    assert all(one["topic"] == "plant/a/sensors" and one["found"] for one in told)
    assert client.answers(1, "plant/a/prediction")[0]["prediction"] == EXPECTED
    assert running.listener.state().refused == {"payload": 2, "rows": 4, "too_large": 1}
    running.stop()
    again = listen(subscriptions=[PLANT], max_payload_bytes=2000).connected()
    client.publish("plant/a/sensors", ROW)
    assert len(client.wait(2, "plant/a/prediction")) == 2
    assert again.listener.state().received == 1


def test_one_bad_message_among_many_is_the_only_one_refused(listen, plain):
    listen(subscriptions=[PLANT | {"echo": ["n"]}]).connected()
    client = plain("plant/+/prediction", "appliance/edge/errors")
    for number in range(100):
        row = {**NAMED, "n": number} | ({"sepal_width": "bad"} if number in (13, 77) else {})
        client.client.publish("plant/a/sensors", msgspec.json.encode(row), 1)
    answers = client.answers(98, "plant/a/prediction")
    assert [answer["n"] for answer in answers] == [number for number in range(100) if number not in (13, 77)]
    assert len(client.wait(2, "appliance/edge/errors")) == 2


def test_a_response_topic_that_would_come_back_or_cannot_be_is_refused(listen, plain):
    listen(subscriptions=[{"topic": "ask/#", "model": "iris", "respond": ["#"]}]).connected()
    client = plain("appliance/edge/errors")
    for response in ("ask/again", "$SYS/x"):
        client.publish("ask/me", ROW, ResponseTopic=response)
    client.publish("ask/me", ROW)
    assert [told["error"] for told in client.answers(3)] == ["answer_topic"] * 3


def test_cbor_is_answered_in_cbor(listen, plain):
    listen(subscriptions=[{"topic": "in", "model": "iris", "answer": "out", "payload": "cbor"}]).connected()
    client = plain("out")
    client.publish("in", cbor2.dumps(NAMED))
    assert cbor2.loads(client.wait()[0].payload)["prediction"] == EXPECTED


def test_retained_answers_and_their_expiry_are_as_configured(listen, plain, until):
    state = listen(subscriptions=[PLANT | {"retain": True, "expiry": 60}]).connected().listener.state
    plain().publish("plant/a/sensors", ROW)
    until(lambda: state().answered == 1 and state().waiting == 0, "given to the broker")
    (message,) = plain("plant/a/prediction").wait()
    assert message.retain
    assert 0 < message.properties.MessageExpiryInterval <= 60


def test_who_is_there_and_what_is_served_is_retained(listen, plain):
    running = listen(subscriptions=[PLANT], status_seconds=0.2).connected()
    client = plain("appliance/edge/#")
    assert client.wait(1, "appliance/edge/online")[0].payload == b"online"
    status = client.answers(1, "appliance/edge/status")[-1]
    assert (status["client_id"], status["connected"], status["problems"]) == ("edge", {"local": True}, [])
    running.stop()
    assert client.wait(2, "appliance/edge/online")[-1].payload == b"offline"


def test_drift_is_retained_below_its_own_topic_and_published_on_change_alone(listen, plain, until):
    running = listen(subscriptions=[PLANT], status_seconds=0.05).connected()
    client = plain("appliance/edge/#")
    fine = {"state": "fine", "since": "2026-01-01T00:00:00+00:00", "columns": []}
    drift = fine | {"state": "drift", "columns": [{"column": "temp-C", "state": "drift", "because": ["..."]}]}
    for number, told in enumerate((fine, drift), 1):
        running.served = [{"model": "iris", "version": "1.0.0", "since": "", "drift": told}]
        found = client.answers(number, "appliance/edge/drift/iris")
        assert found == [{"model": "iris", "version": "1.0.0", **one} for one in (fine, drift)[:number]]
    statuses = len(client.wait(1, "appliance/edge/status"))
    client.wait(statuses + 3, "appliance/edge/status")
    assert len(client.wait(2, "appliance/edge/drift/iris")) == 2
    assert client.answers(1, "appliance/edge/status")[-1]["models"][0]["drift"] == drift
    late = plain("appliance/edge/drift/+")
    assert late.wait(1)[0].retain
    running.served = []
    assert client.wait(3, "appliance/edge/drift/iris")[-1].payload == b""  # nobody is told of a model that is gone


def test_the_will_says_offline_when_the_connection_is_lost(listen, plain, broker):
    running = listen(subscriptions=[PLANT]).connected()
    client = plain("appliance/edge/online")
    client.wait(1)
    running.listener._source.client._paho.buffer._socket.shutdown(socket.SHUT_RDWR)  # no DISCONNECT is sent
    assert [message.payload for message in client.wait(2)][:2] == [b"online", b"offline"]
    assert client.wait(3)[-1].payload == b"online"


def test_what_came_while_the_appliance_was_down_is_answered_after(listen, plain):
    listen(subscriptions=[PLANT]).connected().stop()
    client = plain("plant/+/prediction")
    for number in range(5):
        client.publish("plant/a/sensors", [number, 0, 0, 0])
    listen(subscriptions=[PLANT])
    assert [answer["prediction"] for answer in client.answers(5)] == [[100 + number] for number in range(5)]


def test_a_broker_that_is_absent_at_the_start_is_waited_for(listen, plain, broker, until):
    broker.stop()
    running = listen(subscriptions=[PLANT])
    until(lambda: "refused" in "".join(running.listener.state().problems[:1]), "said so")
    broker.start()
    running.connected()
    client = plain("plant/+/prediction")
    client.publish("plant/a/sensors", ROW)
    assert client.answers(1)[0]["prediction"] == EXPECTED


def test_messages_wait_on_disk_while_no_model_is_ready_and_keep_their_order(
    listen, plain, store, tmp_path, bundle_bytes
):
    settings = {"subscriptions": [PLANT | {"model": "late"}, {"topic": "other", "model": "iris", "answer": "out"}]}
    running = listen(**settings).connected()
    client = plain("plant/+/prediction", "out")
    for number in range(40):
        client.publish("plant/a/sensors", [number, 0, 0, 0])
    client.publish("other", ROW)
    assert client.answers(1, "out")  # the others go on
    assert running.listener.state().parked == 40
    assert "not ready" in running.listener.state().problems[0]
    running.stop()
    path = tmp_path / "late.bundle"
    path.write_bytes(bundle_bytes("late", "2.0.0"))
    store.install(path)
    again = listen(**settings).connected()
    again.activate("late", "2.0.0")
    for number in range(40, 60):
        client.publish("plant/a/sensors", [number, 0, 0, 0])
    answers = client.answers(60, "plant/a/prediction")
    assert [answer["prediction"][0] for answer in answers] == [200.0 + number for number in range(60)]
    assert again.listener.state().parked == 0


def test_a_new_version_answers_from_one_message_to_the_next(listen, plain, store, tmp_path, bundle_bytes):
    path = tmp_path / "new.bundle"
    path.write_bytes(bundle_bytes("iris", "2.0.0"))
    store.install(path)
    running = listen(subscriptions=[PLANT]).connected()
    client = plain("plant/+/prediction")
    client.publish("plant/a/sensors", [0, 0, 0, 0])
    client.wait(1)
    running.activate("iris", "2.0.0")
    client.publish("plant/a/sensors", [0, 0, 0, 0])
    assert [(answer["version"], answer["prediction"]) for answer in client.answers(2)] == [
        ("1.0.0", [100.0]),
        ("2.0.0", [200.0]),
    ]


def test_shared_subscriptions_spread_one_stream_over_appliances(listen, plain, tmp_path):
    shared = [PLANT | {"topic": "$share/edge/plant/+/sensors", "echo": ["n"]}]
    one = listen(subscriptions=shared).connected()
    other = listen(subscriptions=shared, client_id="other", folder=tmp_path / "other").connected()
    client = plain("plant/+/prediction")
    for number in range(40):
        client.publish("plant/a/sensors", {**NAMED, "n": number})
    assert sorted(answer["n"] for answer in client.answers(40)) == list(range(40))
    assert one.listener.state().answered > 0
    assert other.listener.state().answered > 0


def test_a_subscription_that_the_configuration_dropped_is_ended_at_the_broker(listen, plain):
    listen(subscriptions=[PLANT, {"topic": "old", "model": "iris", "answer": "out"}]).connected().stop()
    running = listen(subscriptions=[PLANT]).connected()
    client = plain("plant/+/prediction")
    client.publish("old", ROW)
    client.publish("plant/a/sensors", ROW)
    client.wait(1)
    assert running.listener.state().received == 1


def test_a_key_or_a_feed_that_is_lacking_is_a_missing_value_where_the_model_takes_it(listen, plain):
    columns = list(NAMED)
    feeds = [{"topic": f"bed/{{bed}}/{column}", "columns": {column: "last"}} for column in columns]
    rows = {"name": "bed", "model": "gaps", "answer": "bed/{bed}/prediction", "when": "each", "feeds": feeds}
    listen(subscriptions=[PLANT | {"model": "gaps"}], rows=[rows]).connected()
    client = plain("plant/+/prediction", "bed/+/prediction", "appliance/edge/errors")
    client.publish("plant/a/sensors", {"sepal_length": 5, "petal_width": 2})
    assert client.answers(1, "plant/a/prediction")[0]["prediction"] == [2107]
    client.publish("plant/a/sensors", {"length": 5})
    assert "lacks" in client.answers(1, "appliance/edge/errors")[0]["found"]
    client.publish(f"bed/7/{columns[1]}", "3")
    client.publish(f"bed/7/{columns[3]}", "4")
    assert [one["prediction"] for one in client.answers(2, "bed/7/prediction")] == [[3103], [2107]]


def test_rows_come_together_from_several_topics(listen, plain):
    columns = list(NAMED)
    rows = {
        "name": "flower",
        "model": "iris",
        "answer": "bed/{bed}/prediction",
        "feeds": [{"topic": f"bed/{{bed}}/{column}", "columns": {column: "last"}} for column in columns],
    }
    running = listen(rows=[rows]).connected()
    client = plain("bed/+/prediction", "appliance/edge/errors")
    for column, value in zip(columns, ROW, strict=True):
        client.publish(f"bed/7/{column}", str(value))
    (answer,) = client.answers(1, "bed/7/prediction")
    assert (answer["prediction"], answer["bed"]) == (EXPECTED, "7")
    client.publish(f"bed/7/{columns[0]}", "wet")  # a text in a column of numbers: told when the row is complete
    for column in columns[1:]:
        client.publish(f"bed/7/{column}", "1")
    assert client.answers(1, "appliance/edge/errors")[0]["error"] == "rows"
    running.stop()


def test_home_assistant_is_told_of_each_topic_that_answers_go_to(listen, plain):
    listen(subscriptions=[PLANT], discovery=True).connected()
    client = plain("homeassistant/sensor/#")
    client.publish("plant/a/sensors", ROW)
    client.publish("plant/a/sensors", ROW)
    client.publish("plant/b/sensors", ROW)
    told = client.answers(2)
    assert {one["state_topic"] for one in told} == {"plant/a/prediction", "plant/b/prediction"}
    assert all(one["availability_topic"] == "appliance/edge/online" for one in told)
    assert len({one["unique_id"] for one in told}) == 2
    client.publish("homeassistant/status", b"online")
    client.publish("plant/a/sensors", ROW)
    assert len(client.wait(3)) == 3


def test_home_assistant_is_told_the_unit_of_a_measurement_alone(listen, plain, make_bundle, tmp_path):
    names = ("iris", "classes")
    asked = [{"topic": f"in/{name}", "model": name, "answer": f"out/{name}", "unit": "°C"} for name in names]
    running = listen(subscriptions=asked, discovery=True).connected()
    running.store.install(make_bundle(tmp_path, "classes", kind="labels"))
    running.activate("classes", "1.0.0")
    client = plain("homeassistant/sensor/#")
    client.publish("in/iris", ROW)
    client.publish("in/classes", ROW)
    told = {one["state_topic"]: one for one in client.answers(2)}
    assert told["out/iris"]["unit_of_measurement"] == "°C"
    assert told["out/iris"]["state_class"] == "measurement"
    assert told["out/classes"].keys().isdisjoint({"unit_of_measurement", "state_class"})  # a class is no measurement


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_retained_messages_can_be_ignored(listen, plain, protocol):
    client = plain("out/#")
    client.publish("old/a", ROW, retain=True)
    client.publish("kept/a", ROW, retain=True)
    asked = [{"topic": f"{name}/+", "model": "iris", "answer": f"out/{name}/{{1}}"} for name in ("old", "kept")]
    listen(subscriptions=[asked[0] | {"retained": False}, asked[1]], protocol=protocol).connected()
    client.wait(1, "out/kept/a")
    client.publish("old/b", ROW, retain=True)  # published now: it is answered, though the broker keeps it too
    client.wait(1, "out/old/b")
    assert {message.topic for message in client.heard} == {"out/kept/a", "out/old/b"}


def test_user_properties_go_back_with_the_answer(listen, plain, until):
    sent = [("traceparent", "00-ab"), ("traceparent", "00-cd"), ("größe", "ä"), ("model", "mine"), ("replayed", "x")]
    running = listen(subscriptions=[PLANT]).connected()
    client = plain("plant/+/prediction", "appliance/edge/errors")
    client.publish("plant/a/sensors", ROW, UserProperty=sent)
    (message,) = client.wait(1, "plant/a/prediction")
    assert message.properties.UserProperty == [*sent[:3], ("model", "iris"), ("version", "1.0.0")]
    activation.deactivate(running.store, "iris")
    running.models.refresh()
    client.publish("plant/b/sensors", ROW, UserProperty=sent[:1])
    until(lambda: running.listener.state().parked == 1, "parked")
    running.activate("iris", "1.0.0")
    (message,) = client.wait(1, "plant/b/prediction")
    assert message.properties.UserProperty == [*sent[:1], ("model", "iris"), ("version", "1.0.0")]
    client.publish("plant/c/sensors", ROW, UserProperty=[("long", "x" * 4097)])
    assert client.answers(1, "appliance/edge/errors")[0]["error"] == "too_large"


def test_a_report_of_a_bad_message_names_its_trace(listen, plain):
    listen(subscriptions=[PLANT]).connected()
    client = plain("appliance/edge/errors")
    parent = f"00-{'a' * 32}-{'1' * 16}-01"
    for given in ([("traceparent", parent), ("tracestate", "a=1"), ("x", "y")], [("traceparent", "00-ab")]):
        client.publish("plant/a/sensors", "{", UserProperty=given)
        client.publish("plant/a/sensors", "[1]", UserProperty=given)
    told = [getattr(one.properties, "UserProperty", []) for one in client.wait(4, "appliance/edge/errors")]
    assert sorted(told) == [[]] * 2 + [[("traceparent", parent), ("tracestate", "a=1")]] * 2


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"subscriptions": [{"topic": "a/#", "answer": "a/out"}]},
        {"subscriptions": [{"topic": "a/+", "answer": "{topic}"}]},
        {"subscriptions": [{"topic": "#", "answer": "x"}]},
        {"subscriptions": [{"topic": "a"}]},
        {"subscriptions": [{"topic": "a", "respond": False}]},
        {"subscriptions": [{"topic": "a", "answer": "x", "respond": True}]},
        {"subscriptions": [{"topic": "a", "respond": ["b"]}], "protocol": "3.1.1"},
        {"subscriptions": [{"topic": "a", "respond": ["$share/g/b"]}]},
        {"subscriptions": [{"topic": "a", "respond": ["appliance/#"]}]},
        {"subscriptions": [{"topic": "a", "respond": ["homeassistant/+/x/config"]}]},
        {"subscriptions": [{"topic": "+/a", "answer": "appliance/edge/{1}"}]},
        {"subscriptions": [{"topic": "a", "answer": "homeassistant/sensor/x/config"}]},
        {"subscriptions": [{"topic": "a#", "answer": "x"}]},
        {"subscriptions": [PLANT], "topic": "x/{name}"},
        {"subscriptions": [PLANT], "discovery": True, "discovery_prefix": "a/#"},
        {"subscriptions": [PLANT], "tls": True, "ca_file": "/nowhere/ca.pem"},
    ],
)
def test_a_configuration_that_cannot_be_stops_the_start(listen, settings):
    with pytest.raises(ConfigError):
        listen(**settings)


def test_a_second_service_cannot_use_the_same_folder(listen):
    listen(subscriptions=[PLANT])
    with pytest.raises(Misuse, match="another service"):
        listen(subscriptions=[PLANT])


def test_the_client_id_is_made_once_and_kept(listen):
    first = listen(subscriptions=[PLANT], client_id="")
    made = first.listener.client_id
    first.stop()
    assert made.startswith("appliance-")
    assert listen(subscriptions=[PLANT], client_id="").listener.client_id == made


def test_a_fault_in_the_loop_does_not_end_the_listener(listen, plain, monkeypatch):
    running = listen(subscriptions=[PLANT]).connected()
    client = plain("plant/+/prediction")
    flow = running.listener._flow
    answer = flow.answer
    faults = iter([RuntimeError("a fault that nobody thought of")])

    def faulty(messages):
        for fault in faults:
            raise fault
        return answer(messages)

    monkeypatch.setattr(flow, "answer", faulty)
    client.publish("plant/a/sensors", ROW)
    assert client.answers(1)[0]["prediction"] == EXPECTED


def test_the_state_is_reported_every_second(listen, broker, until):
    running = listen(subscriptions=[PLANT]).connected()
    broker.stop(signal.SIGKILL)
    until(lambda: any(state.problems for state in running.states), "reported")
    assert running.states[0].updated > 0
