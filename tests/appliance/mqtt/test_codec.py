"""What payloads mean: forms, paths, ids, echo; and that any bytes are a call or a bad message."""

import contextlib
import datetime
import re
from pathlib import Path

import cbor2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import Input
from appliance.config import SubscriptionConfig
from appliance.errors import ConfigError, InvalidInput
from appliance.inference.tensors import InputSchema
from appliance.mqtt import bad_message
from appliance.mqtt import codec as module
from appliance.mqtt.bad_message import BadMessage
from appliance.mqtt.codec import Codec, feeds_of, flagged, message_id
from appliance.response import PredictAnswer

FOUR = InputSchema([Input(name="features", type="float32", shape=[-1, 4], columns=["a", "b", "c", "d"])])
MISSING = InputSchema(
    [Input(name="features", type="float32", shape=[-1, 2], columns=["a", "b"], missing=True, required=False)]
)
TABLE = InputSchema(
    [
        Input(name="temp", type="float32", shape=[-1, 1], columns=["temp"]),
        Input(name="site", type="string", shape=[-1, 1], columns=["site"]),
    ]
)
ANSWER = PredictAnswer(prediction=[1.5], model="m", version="1.0.0")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd.01"), inner, max_size=4),
    max_leaves=10,
)


def codec(*, max_bytes: int = 10_000, max_rows: int = 10, **config) -> Codec:
    return Codec(msgspec.convert({"topic": "t", **config}, SubscriptionConfig), max_bytes=max_bytes, max_rows=max_rows)


def read(payload: object, /, **config):
    content = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return codec(**config).read("t", content)


def features(schema: InputSchema, call, **fields) -> list:
    return next(iter(feeds_of(schema, call.rows, fields).values())).tolist()


@pytest.mark.parametrize(
    "payload",
    [
        {"a": 1, "b": 2.5, "c": 3, "d": 4},
        {"d": 4, "c": 3, "b": 2.5, "a": 1, "site": "x", "more": {"z": []}},
        [1, 2.5, 3, 4],
        [[1, 2.5, 3, 4]],
        {"features": [1, 2.5, 3, 4]},
        {"features": {"a": 1, "b": 2.5, "c": 3, "d": 4}},
    ],
)
def test_every_form_of_a_row_gives_the_same_feeds(payload):
    assert features(FOUR, read(payload)) == [[1, 2.5, 3, 4]]


def test_several_rows_come_in_one_message():
    assert features(FOUR, read([[1, 2, 3, 4], [5, 6, 7, 8]])) == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_an_open_inference_request_is_tensors():
    call = read({"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
    assert FOUR.from_tensors(call.tensors)["features"].tolist() == [[1, 2, 3, 4]]


def test_nested_fields_are_found_by_their_paths():
    payload = {"data": {"temp": 3, "list": [7, {"x": 9}]}, "b": 2, "c": 0}
    assert features(FOUR, read(payload), a="data.temp", d="data.list.1.x") == [[3, 2, 0, 9]]
    dotted = InputSchema([Input(name="f", type="float32", shape=[-1, 1], columns=["data.temp"])])
    assert features(dotted, read(payload)) == [[3]]
    assert features(FOUR, read({"deep": {"rows": [[1, 2, 3, 4]]}}, at="deep.rows")) == [[1, 2, 3, 4]]


def test_a_key_with_dots_is_found_as_it_is():
    assert module.at_path({"a.b": 1, "a": {"b": 2}}, "a.b") == 1


def test_missing_keys_are_missing_values_where_the_model_takes_them():
    row = features(MISSING, read({"a": 1}))[0]
    assert row[0] == 1
    assert np.isnan(row[1])
    taken = InputSchema([Input(name="f", type="float32", shape=[-1, 2], columns=["a", "b"], missing=True)])
    assert np.isnan(features(taken, read({"b": 1}))[0]).tolist() == [True, False]
    assert np.isnan(features(taken, read({"x": {"y": 1}}), b="x.y")[0]).tolist() == [True, False]
    with pytest.raises(InvalidInput, match="lacks 'a', 'b'"):  # a row of something else is no row of missing values
        features(taken, read({"c": 1}))
    with pytest.raises(InvalidInput, match="lacks 'd'"):
        features(FOUR, read({"a": 1, "b": 2, "c": 3}))


@pytest.mark.parametrize("bad", [None, "x", True, [1], {"z": 1}, 10**400])
def test_a_value_that_the_model_cannot_take_is_refused(bad):
    content = (
        b'{"a":1,"b":2,"c":3,"d":'
        + (str(bad).encode() if isinstance(bad, int) and bad is not True else msgspec.json.encode(bad))
        + b"}"
    )
    with pytest.raises(InvalidInput):
        features(FOUR, read(content))


def test_whole_numbers_and_floats_are_the_same_numbers():
    assert features(FOUR, read([1, 2, 3, 4])) == features(FOUR, read([1.0, 2.0, 3.0, 4.0]))


@pytest.mark.parametrize(
    ("text", "value"), [(b"21.5", 21.5), (b" 7\n", 7.0), (b"-1e3", -1000.0), (b"\xef\xbb\xbf7", 7.0)]
)
def test_a_plain_number_is_the_only_column(text, value):
    one = InputSchema([Input(name="f", type="float64", shape=[-1, 1], columns=["t"])])
    assert features(one, read(text, payload="value")) == [[value]]


def test_a_plain_text_means_what_the_column_s_type_says():
    text = InputSchema([Input(name="f", type="string", shape=[-1, 1], columns=["t"])])
    flag = InputSchema([Input(name="f", type="bool", shape=[-1, 1], columns=["t"])])
    number = InputSchema([Input(name="f", type="float32", shape=[-1, 1], columns=["t"])])
    assert features(text, read(b"12", payload="value")) == [["12"]]
    assert features(flag, read(b"ON", payload="value")) == [[True]]
    for other in ("warm", "1_000", "\u0661", "", "1e400", "-" + "9" * 400):
        with pytest.raises(BadMessage, match="number"):
            features(number, read(other.encode(), payload="value"))


@pytest.mark.parametrize(
    ("payload", "config", "reason"),
    [
        (b"not json", {}, "payload"),
        (b"\xff\xfe", {}, "payload"),
        (b"\xff\xfe", {"payload": "value"}, "payload"),
        (b"[" * 5000, {}, "payload"),
        (b'{"a": nan}', {}, "payload"),
        (b'{"a": NaN', {}, "payload"),
        (b'{"a": 1e400}', {}, "payload"),
        (b'{"a": NaN, "b": 1e400}', {}, "payload"),
        (b'{"a": NaN, "b": "\\ud800"}', {}, "payload"),
        (b"[NaN," + b"[" * 5000, {}, "payload"),
        ('{"a": 1}'.encode("utf-16"), {}, "payload"),
        (b"x" * 10_001, {}, "too_large"),
        (b"[]", {}, "form"),
        ([[1]] * 11, {}, "too_large"),
        ({"a": 1}, {"at": "data"}, "field"),
        ({"inputs": [{"datatype": "FP32"}]}, {}, "form"),
        (b"\x82\x01", {"payload": "cbor"}, "payload"),
    ],
)
def test_a_bad_message_has_its_reason(payload, config, reason):
    with pytest.raises(BadMessage) as caught:
        read(payload, **config)
    assert caught.value.reason == reason
    assert caught.value.next_step


def test_unknown_datatypes_and_shapes_are_invalid_input():
    for tensor in (
        {"name": "features", "shape": [1, 4], "datatype": "FP99", "data": [1, 2, 3, 4]},
        {"name": "features", "shape": [-1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]},
    ):
        with pytest.raises(InvalidInput):
            read({"inputs": [tensor]})


def test_ids_come_from_the_payload_or_are_a_digest_of_the_message():
    assert read({"a": 1, "meta": {"seq": 17}}, id="meta.seq").id == "17"
    same = read({"a": 1}, id="meta.seq").id
    assert same == message_id("t", b'{"a":1}') == read({"a": 1}).id
    assert len({same, message_id("u", b'{"a":1}'), message_id("t", b'{"a":2}'), message_id("t", b'{"a":1}', b"c")}) == 4


def test_echoed_fields_stand_in_the_answer():
    config = {"echo": ["sensor", "meta.ts", "absent"]}
    call = read({"a": 1, "sensor": "s1", "meta": {"ts": [1]}}, **config)
    answer = msgspec.json.decode(codec(**config).write(ANSWER, call))
    assert answer == {
        "prediction": [1.5], "model": "m", "version": "1.0.0", "id": call.id, "sensor": "s1", "meta.ts": [1],
    }  # fmt: skip


def test_a_field_of_the_answer_cannot_be_echoed_over():
    with pytest.raises(ConfigError, match="prediction"):
        codec(echo=["prediction"])


def test_cbor_is_answered_in_cbor():
    config = {"payload": "cbor", "echo": ["n"]}
    call = codec(**config).read("t", cbor2.dumps({"a": 1, "b": 2.5, "c": 3, "d": 4, "n": "x"}))
    assert features(FOUR, call) == [[1, 2.5, 3, 4]]
    answer = codec(**config).write(ANSWER, call)
    assert cbor2.loads(answer) == {"prediction": [1.5], "model": "m", "version": "1.0.0", "id": call.id, "n": "x"}
    late = cbor2.loads(flagged(answer, "application/cbor", 0.0))
    assert (late["replayed"], late["predicted_at"]) == (True, "1970-01-01T00:00:00.000Z")


def test_cbor_that_refers_to_itself_or_holds_more_than_json_is_refused():
    cycle: list[object] = []
    cycle.append(cycle)
    for document in (
        cbor2.dumps(cycle, value_sharing=True),
        cbor2.dumps({1: 2}),
        cbor2.dumps({"a": {1, 2}}),
        cbor2.dumps(cbor2.CBORTag(4, [1, 2])),
    ):
        with pytest.raises(BadMessage):
            read(document, payload="cbor")


def test_times_and_bytes_in_cbor_are_no_values_but_fields_that_may_be_echoed():
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    config = {"payload": "cbor", "echo": ["ts", "raw"]}
    row = {"a": 1, "b": 2, "c": 3, "d": 4}
    call = codec(**config).read("t", cbor2.dumps(row | {"ts": now, "raw": b"\0x", "more": [now]}))
    assert features(FOUR, call) == [[1, 2, 3, 4]]
    answer = cbor2.loads(codec(**config).write(ANSWER, call))
    assert (answer["ts"], answer["raw"]) == (now, b"\0x")
    for value, kind in ((now, "datetime"), (b"1", "bytes")):
        with pytest.raises(InvalidInput, match=kind):
            features(FOUR, read(cbor2.dumps(row | {"a": value}), payload="cbor"))
        with pytest.raises(InvalidInput, match=kind):
            feeds_of(TABLE, read(cbor2.dumps({"temp": 1, "site": value}), payload="cbor").rows, {})


def test_a_late_answer_says_so_and_when_it_was_given():
    late = msgspec.json.decode(flagged(codec().write(ANSWER, read({"a": 1})), "application/json", 1_700_000_000.25))
    assert (late["replayed"], late["predicted_at"]) == (True, "2023-11-14T22:13:20.250Z")
    assert late["prediction"] == [1.5]


def test_a_bad_message_is_told_with_its_first_bytes():
    error = BadMessage("payload", "read", "it is none", "send JSON")
    told = msgspec.json.decode(bad_message.error_payload(error, "payload", "t", "i", b"\xff" + b"x" * 1000))
    assert told["error"] == "payload"
    assert told["payload"].startswith("\ufffdxxx")
    assert len(told["payload"]) == 256
    assert told["payload_bytes"] == 1001


@given(st.binary(max_size=60), st.sampled_from(["json", "cbor", "value"]))
def test_any_bytes_are_a_call_or_invalid(payload, form):
    try:
        call = read(payload, payload=form)
    except InvalidInput:
        return
    assert call.rows or call.tensors
    for schema in (FOUR, MISSING, TABLE):
        with contextlib.suppress(InvalidInput):
            assert feeds_of(schema, call.rows, {})


@given(VALUES, st.sampled_from(["json", "cbor"]))
def test_any_document_is_fed_or_refused_and_its_echo_can_be_written(document, form):
    content = msgspec.json.encode(document) if form == "json" else cbor2.dumps(document)
    reader = codec(payload=form, echo=["a", "b.c"], id="d")
    try:
        call = reader.read("t", content)
        feeds_of(FOUR, call.rows, {"a": "b.0"})
    except InvalidInput:
        return
    assert reader.write(ANSWER, call)


@given(
    st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_rows_by_name_and_by_order_are_the_same(rows):
    named = [dict(zip("abcd", row, strict=True)) for row in rows]
    assert features(FOUR, read(named)) == features(FOUR, read(rows)) == rows


def test_the_documentation_has_every_reason_by_which_messages_are_refused():
    root = Path(__file__).parents[3]
    sources = "".join(path.read_text() for path in (root / "appliance" / "mqtt").glob("*.py"))
    used = set(re.findall(r'BadMessage\(\s*"(\w+)"', sources)) | {"rows", "too_large", "form"}
    table = (root / "docs" / "mqtt.md").read_text().split("| Reason |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == used
