"""NaN, infinities and a byte order mark mean over MQTT what they mean over HTTP: see lenient_json."""

import cbor2
import msgspec
import pytest

BOM = b"\xef\xbb\xbf"
GIVEN = {"sepal_length": 1, "sepal_width": 2, "petal_length": 3}
FILLED = [100.0 + 6 + 1000]
"""The answer where petal_width is missing."""
ROW = b'{"sepal_length": 1, "sepal_width": 2, "petal_length": 3, "petal_width": %s}'
TENSOR = (
    b'{"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, %s]}]}'  # as the protocol
)
SUBSCRIPTION = {"topic": "in", "model": "gaps", "answer": "out"}


@pytest.mark.parametrize(
    "payload",
    [
        ROW % b"null", ROW % b"NaN", BOM + ROW % b"NaN", BOM + ROW % b"null", b"[1, 2, 3, NaN]",
        b"[[1, 2, 3, NaN], [1, 2, 3, NaN]]", b'{"features": [[1, 2, 3, NaN]]}',
        BOM + b'{"features": %s}' % (ROW % b"NaN"), TENSOR % b"NaN", BOM + TENSOR % b"NaN",
    ],
)  # fmt: skip
def test_nan_is_a_missing_value_and_a_byte_order_mark_nothing(listen, plain, payload):
    listen(subscriptions=[SUBSCRIPTION]).connected()
    client = plain("out", "appliance/edge/errors")
    client.publish("in", payload)
    assert set(client.answers(1)[0]["prediction"]) == set(FILLED)


@pytest.mark.parametrize("value", [b"Infinity", b"-Infinity", b"1e400", b"1e39", b"nan", b"-NaN", b'"NaN"', b"9" * 400])
def test_what_http_refuses_mqtt_refuses(listen, plain, value):
    listen(subscriptions=[SUBSCRIPTION]).connected()
    client = plain("out", "appliance/edge/errors")
    for payload in (ROW % value, TENSOR % value, BOM + ROW % value):
        client.publish("in", payload)
    assert {told["error"] for told in client.answers(3, "appliance/edge/errors")} <= {"payload", "rows", "form"}
    assert {message.topic for message in client.heard} == {"appliance/edge/errors"}


def test_nan_deep_in_a_message_and_in_an_echo_stops_nothing(listen, plain):
    subscription = {**SUBSCRIPTION, "at": "data.row", "echo": ["more", "data.limit"], "id": "n"}
    listen(subscriptions=[subscription]).connected()
    client = plain("out")
    client.publish(
        "in", b'{"n": 7, "more": [NaN, {"x": Infinity}], "data": {"limit": -Infinity, "row": [1, 2, 3, NaN]}}'
    )
    answer = client.answers(1)[0]
    assert (answer["prediction"], answer["id"]) == (FILLED, "7")
    assert (answer["more"], answer["data.limit"]) == ([None, {"x": None}], None)


def test_cbor_has_its_own_nan_and_infinity(listen, plain):
    listen(subscriptions=[{**SUBSCRIPTION, "payload": "cbor"}]).connected()
    client = plain("out", "appliance/edge/errors")
    client.publish("in", cbor2.dumps(GIVEN | {"petal_width": float("nan")}))
    assert cbor2.loads(client.wait(1, "out")[0].payload)["prediction"] == FILLED
    client.publish("in", cbor2.dumps(GIVEN | {"petal_width": float("inf")}))
    assert client.answers(1, "appliance/edge/errors")[0]["error"] == "rows"


def test_a_feed_takes_a_number_behind_a_mark_and_no_missing_value(listen, plain, until):
    feeds = [{"topic": "in/{d}", "columns": {"sepal_length": "mean"}}]
    rows = {"name": "r", "model": "gaps", "answer": "out/{d}", "when": "each", "feeds": feeds}
    listen(rows=[rows]).connected()
    client = plain("out/#", "appliance/edge/errors")
    client.publish("in/x", BOM + b"7")
    assert client.answers(1, "out/x")[0]["prediction"] == [100.0 + 7 + 3000]
    for payload in (b"NaN", b"Infinity", b"null", BOM + b"NaN"):
        client.publish("in/x", payload)
    assert {told["error"] for told in client.answers(4, "appliance/edge/errors")} == {"form"}
    assert len(client.wait(1, "out/x")) == 1


def test_infinity_in_a_window_of_the_last_value_survives_a_restart(listen, plain):
    """Whether the model takes it, the model's schema says, as over HTTP."""
    feeds = [
        {"topic": "in/{d}/a", "columns": {"sepal_length": "last"}},
        {"topic": "in/{d}/b", "columns": {"sepal_width": "count"}},
    ]
    rows = {"name": "r", "model": "gaps", "answer": "out/{d}", "when": "complete", "feeds": feeds}
    listen(rows=[rows]).connected().stop()
    client = plain("out/#", "appliance/edge/errors")
    client.publish("in/x/a", b"-Infinity")
    one = listen(rows=[rows]).connected()
    client.publish("in/x/b", b"1")
    (told,) = client.answers(1, "appliance/edge/errors")
    assert (told["error"], msgspec.json.decode(told["payload"])) == ("rows", {"sepal_length": None, "sepal_width": 1.0})
    assert one.listener.state().problems == []


def test_a_feed_reads_a_number_alone_in_any_spelling_as_a_plain_value_is_read(listen, plain):
    feeds = [
        {"topic": "in/{d}/a", "columns": {"sepal_length": "last"}},
        {"topic": "in/{d}/b", "columns": {"sepal_width": "max"}},
    ]
    rows = {"name": "r", "model": "gaps", "answer": "out/{d}", "when": "each", "feeds": feeds}
    listen(rows=[rows]).connected()
    client = plain("out/#", "appliance/edge/errors")
    for count, payload in enumerate((b"-inf", b"inf", b"+inf"), 1):
        client.publish("in/x/a", payload)
        told = client.answers(count, "appliance/edge/errors")[-1]
        assert (told["error"], "infinite" in told["found"]) == ("rows", True)
    for count, payload in enumerate((b"1e400", b"-1e400", b"9" * 400), 4):
        client.publish("in/x/a", payload)
        told = client.answers(count, "appliance/edge/errors")[-1]
        assert (told["topic"], "float64" in told["found"]) == ("in/x/a", True)
    client.publish("in/x/a", b"nan")
    assert client.answers(7, "appliance/edge/errors")[-1]["error"] == "form"
    for payload in (b"+3", b".5"):
        client.publish("in/y/b", payload)
    assert [answer["prediction"] for answer in client.answers(2, "out/y")] == [[100.0 + 3 + 3000]] * 2
