"""What a service answers is in its log, as it was sent, under the id that the answer has."""

import math
import os
import threading

import msgspec
import numpy as np
import pytest

from appliance import trace_context
from appliance.config import PredictionLogConfig
from appliance.errors import ConfigError, InvalidInput, NotLogged
from appliance.inference.sent import SentRows
from appliance.inference.version import LoadedVersion
from appliance.monitoring.prediction_log import find, lines, log, segments
from appliance.monitoring.prediction_log.log import PredictionLog
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.verify import verify
from appliance.mqtt.codec import feeds_of
from appliance.predictor import Predictor
from appliance.store.versions import Store

LABELS = ("iris", "1.0.0", "labels")


class OneVersion:
    """A repository of one version."""

    def __init__(self, loaded: LoadedVersion) -> None:
        self.loaded = loaded

    def get(self, model: str | None = None, version: str | None = None) -> LoadedVersion:
        return self.loaded

    def arms(self, model: str | None = None) -> None:
        return None


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, bundle_bytes):
    """Return the version of a kind."""
    folder = tmp_path_factory.mktemp("versions")

    def load(kind: str) -> LoadedVersion:
        store = Store(folder / kind)
        if not store.versions("iris"):
            (folder / f"{kind}.bundle").write_bytes(bundle_bytes("iris", "1.0.0", kind=kind))
            store.install(folder / f"{kind}.bundle")
        return LoadedVersion(store.models_dir / "iris" / "1.0.0")

    return load


def rows_of(state, kind: bytes = lines.ROW) -> list[dict]:
    return [
        msgspec.json.decode(line)
        for segment in segments.all_of(state, "iris")
        for line in find.lines_of(segment)
        if line.startswith(kind)
    ]


@pytest.fixture
def logged(tmp_path, loaded):
    """Return start(kind, **settings) -> (log, predictor); all are stopped at the end."""
    started = []

    def start(kind: str = "regression", **settings) -> tuple[PredictionLog, Predictor]:
        models = OneVersion(loaded(kind))
        counted = {}
        settings = PredictionLogConfig(enabled=True, **settings)
        own = PredictionLog(settings, tmp_path, models, count=lambda *what: counted.update({what[2]: what[3]}))
        own.counted = counted
        own.start()
        started.append(own)
        return own, Predictor(models, [own], listener="test", recorder=own)

    yield start
    for one in started:
        one.stop()


def ask(predictor: Predictor, rows: list, request: str = "a", outputs=None):
    version = predictor.route()
    version.schema.keeps_rows = True  # as the repository has it
    return predictor.run(version, version.schema.from_rows(rows), outputs, request=request)


def test_rows_are_kept_as_they_were_sent_with_answer_id_and_listener(start_logged):
    service = start_logged(LABELS)
    answer = service.predict([[20.05, 1, 2, 3], [0, 9.1, 0, 0]], X_Request_Id="order-7")
    named = dict(zip(["petal_width", "petal_length", "sepal_width", "sepal_length"], [4, 3, 2, 1.5], strict=True))
    service.predict(named)
    assert answer["id"] == "order-7"
    service.stop()
    rows = service.lines()
    assert [row["id"] for row in rows[:2]] == ["order-7.0", "order-7.1"]
    assert [row["x"] for row in rows] == [[20.05, 1, 2, 3], [0, 9.1, 0, 0], [1.5, 2, 3, 4]]
    assert [row["y"] for row in rows[:2]] == answer["prediction"]
    for row, told in zip(rows, answer["probability"], strict=False):
        assert [np.float32(one) for one in row["p"]] == [np.float32(one) for one in told.values()]
    assert {row["listener"] for row in rows} == {"http"}
    assert len({row["n"] for row in rows}) == 3
    header = service.lines(lines.HEADER)[0]
    assert header["columns"] == ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    assert (header["model"], header["version"], header["classes"]) == ("iris", "1.0.0", answer["probability"][0] and [
        "setosa", "versicolor", "virginica"
    ])  # fmt: skip
    assert verify(Writer(service.state, "iris", "1.0.0", 0)).problems == []


def test_every_protocol_tells_the_id_and_is_logged(start_logged):
    service = start_logged(LABELS)
    row = [5.0, 3.0, 1.0, 0.5]
    tensor = {"name": "features", "shape": [1, 4], "datatype": "FP64", "data": row}
    answers = [
        service.ask("POST", "/v2/models/iris/infer", {"inputs": [tensor]}),
        service.ask("POST", "/v2/models/iris/infer", {"id": "mine", "inputs": [tensor]}),
        service.ask("POST", "/invocations", {"instances": [row]}),
        service.ask("POST", "/v1/models/iris:predict", {"instances": [row]}),
        service.ask("POST", "/invocations", b"5.0,3.0,1.0,0.5\n", Content_Type="text/csv"),
    ]
    assert [status for status, _, _ in answers] == [200] * 5
    told = [answers[0][1]["id"], answers[1][1]["id"], *(headers["X-Request-Id"] for _, _, headers in answers[2:])]
    assert told[1] == "mine"
    service.stop()
    found = service.lines()
    assert [row["id"] for row in found] == [f"{one}.0" for one in told]
    assert [one["x"] for one in found] == [row] * 5


def test_a_refused_request_is_a_line_too(start_logged):
    service = start_logged(LABELS)
    assert service.ask("POST", "/predict", {"features": [[1, 2, None, 4]]}, X_Request_Id="bad")[0] == 400
    assert service.ask("POST", "/models/unknown/predict", {"features": [[1, 2, 3, 4]]})[0] == 404
    service.stop()
    (line,) = service.lines()
    assert line["id"] == "bad"
    assert line["error"]
    assert not (service.state / "log" / "unknown").exists()


def test_rows_and_refusals_name_the_trace_of_their_caller(start_logged):
    service = start_logged(LABELS)
    for trace, row in (("a" * 32, [1, 2, 3, 4]), ("b" * 32, [1, 2, None, 4]), ("", [4, 3, 2, 1])):
        parent = f"00-{trace}-{'1' * 16}-01" if trace else "none"
        service.ask("POST", "/predict", {"features": [row]}, traceparent=parent)
    service.stop()
    assert [line.get("trace") for line in service.lines()] == ["a" * 32, "b" * 32, None]


def test_rows_of_messages_that_share_a_run_name_their_own_traces(tmp_path, logged):
    own, predictor = logged("regression")
    version = predictor.route()
    version.schema.keeps_rows = True
    trace_context.begin_batch({"first": trace_context.read(f"00-{'a' * 32}-{'1' * 16}-01")})
    try:
        rows = version.schema.from_rows([[1, 2, 3, 4], [2, 2, 3, 4]])
        predictor.run(version, rows, shared_by=[("first", 1), ("second", 1)])
    finally:
        trace_context.end()
    own.stop()
    assert [row.get("trace") for row in rows_of(tmp_path)] == ["a" * 32, None]


def test_off_answers_bear_no_id_and_nothing_is_written(start_logged):
    service = start_logged(LABELS, enabled=False)
    status, answer, headers = service.ask("POST", "/predict", {"features": [1, 2, 3, 4]})
    assert status == 200
    assert "id" not in answer
    assert "X-Request-Id" not in headers
    assert not (service.state / "log").exists()


def test_values_that_json_has_no_word_for_and_long_texts_come_back(tmp_path, logged):
    own, predictor = logged("table")
    rows = [
        {"temp-C": 1.5, "count": 2**62 + 1, "site": "n" * 5000, "on": True},
        {"temp-C": -0.0, "count": -(2**63), "site": "inf", "on": False},
    ]
    ask(predictor, rows)
    own.stop()
    first, second = rows_of(tmp_path)
    assert first["x"] == [1.5, 2**62 + 1, "n" * lines.LONGEST, True]
    assert first["cut"] == [2]
    assert second["x"] == [-0.0, -(2**63), "inf", False]
    assert "cut" not in second


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_infinities_and_nan_are_written_and_read_as_such(value):
    (written,), _ = lines.written_row([value], texts=False)
    line = lines.line_of(lines.Row("a.0", 1.0, x=[written]))
    (read,) = lines.read_row(line).x
    assert repr(lines.number(read)) == repr(value)


def test_half_a_pair_of_surrogates_does_not_end_the_log():
    line = lines.line_of(lines.Row("a\ud800.0", 1.0, x=["\ud800", 1.5]))
    assert lines.read_row(line).x == ["?", 1.5]


def test_columns_are_dropped_hashed_and_rounded_and_the_header_says_so(tmp_path, logged):
    own, predictor = logged("table", columns={"temp-C": "round:0.5", "site": "hash", "on": "drop"})
    ask(predictor, [{"temp-C": 20.26, "count": 1, "site": "north", "on": True}] * 2)
    own.stop()
    one, other = rows_of(tmp_path)
    assert one["x"][:2] == [20.5, 1]
    assert one["x"][3] is None
    assert one["x"][2] == other["x"][2] != "north"
    assert len(bytes.fromhex(one["x"][2])) == 8
    assert rows_of(tmp_path, lines.HEADER)[0]["policy"] == {"temp-C": "round:0.5", "site": "hash", "on": "drop"}
    key = tmp_path / "log" / "hash.key"
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("word", ["", "keep it", "round", "round:0", "round:x", "round:-1"])
def test_a_policy_that_means_nothing_is_refused(tmp_path, word):
    with pytest.raises(ConfigError, match="round:STEP"):
        PredictionLog(PredictionLogConfig(columns={"temp": word}), tmp_path, OneVersion(None))


def test_without_inputs_the_answers_alone_are_kept(tmp_path, logged):
    own, predictor = logged(inputs=False)
    ask(predictor, [[1.0, 2, 3, 4]])
    own.stop()
    (row,) = rows_of(tmp_path)
    assert "x" not in row
    assert row["y"] == 110.0


def test_a_large_request_is_kept_by_a_stride_whose_ids_and_answers_match(tmp_path, logged):
    own, predictor = logged()
    rows = [[float(number), 0, 0, 0] for number in range(100_000)]
    ask(predictor, rows, "big")
    own.stop()
    found = rows_of(tmp_path)
    assert 100 < len(found) <= log.STRIDE
    assert {row["of"] for row in found} == {100_000}
    for row in found:
        number = int(row["id"].removeprefix("big."))
        assert row["x"][0] == number
        assert row["y"] == number + 100


def test_half_the_requests_are_sampled_whole_and_the_same_ones_everywhere(tmp_path, logged):
    own, predictor = logged(sample=0.5)
    for number in range(200):
        ask(predictor, [[1.0, 2, 3, 4]] * 2, f"request-{number}")
    own.stop()
    kept = {row["id"].partition(".")[0] for row in rows_of(tmp_path)}
    assert 60 < len(kept) < 140
    assert len(rows_of(tmp_path)) == 2 * len(kept)
    assert all(log._share(one) < 0.5 for one in kept)


def test_what_the_queue_cannot_take_is_a_gap_and_counted(tmp_path, logged, monkeypatch):
    monkeypatch.setattr(log, "MOST_ROWS", 10)
    own, predictor = logged()
    with own._lock:
        own._waiting.clear()
        own._rows = 10  # as if ten rows waited
    ask(predictor, [[1.0, 2, 3, 4]] * 3)
    with own._lock:
        own._rows = 0
    own.stop()
    (gap,) = rows_of(tmp_path, lines.GAP)
    assert (gap["gap"], gap["reason"]) == (3, "queue full")
    assert own.counted == {"queue full": 3}


def test_an_answer_that_must_be_logged_waits_for_its_line_and_is_refused_without(tmp_path, logged, monkeypatch):
    _, predictor = logged(required=True, sync="always")
    ask(predictor, [[1.0, 2, 3, 4]], "kept")
    assert [row["id"] for row in rows_of(tmp_path)] == ["kept.0"]
    real = os.write

    def full(descriptor, content):
        if threading.current_thread().name == "prediction-log":
            raise OSError(28, "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NotLogged, match="No space left"):
        ask(predictor, [[1.0, 2, 3, 4]], "lost")
    monkeypatch.setattr(os, "write", real)
    ask(predictor, [[1.0, 2, 3, 4]], "kept again")
    assert [row["id"] for row in rows_of(tmp_path)] == ["kept.0", "kept again.0"]


def test_a_full_disk_fails_no_prediction_and_leaves_a_gap(tmp_path, logged, monkeypatch, until):
    own, predictor = logged()
    ask(predictor, [[1.0, 2, 3, 4]], "first")
    until(lambda: segments.writers(tmp_path, "iris") and rows_of(tmp_path), "a row on disk")
    real = os.write

    def full(descriptor, content):
        if threading.current_thread().name == "prediction-log":
            raise OSError(28, "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    assert ask(predictor, [[1.0, 2, 3, 4]] * 4, "lost").rows == 4
    until(lambda: own.counted.get("disk"), "counted")
    monkeypatch.setattr(os, "write", real)
    ask(predictor, [[1.0, 2, 3, 4]], "last")
    own.stop()
    assert [row["id"] for row in rows_of(tmp_path)] == ["first.0", "last.0"]
    (gap,) = rows_of(tmp_path, lines.GAP)
    assert (gap["gap"], gap["reason"]) == (4, "disk")
    assert verify(Writer(tmp_path, "iris", "1.0.0", 0)).problems == []


def test_the_quota_holds_and_what_was_deleted_is_told_and_verified(tmp_path, logged):
    own, predictor = logged(max_bytes=1024 * 1024, segment_bytes=64 * 1024)
    rng = np.random.default_rng(0)
    most = 0
    for number in range(500):
        ask(predictor, rng.normal(size=(100, 4)).tolist(), f"{number}")
        if number % 20 == 19:
            most = max(most, segments.bytes_of(tmp_path))
    own.stop()
    place = Writer(tmp_path, "iris", "1.0.0", 0)
    found = segments.of_writer(place)
    assert found[0].number > 1
    assert max(most, segments.bytes_of(tmp_path)) <= 1024 * 1024
    assert verify(place).problems == []
    for receipt in (tmp_path / "receipts").iterdir():
        receipt.unlink()
    assert "they are missing, and no receipt says" in verify(place).problems[0]


def test_failures_are_told_with_reason_and_column_where_the_error_has_them(tmp_path, logged):
    own, _ = logged()
    error = InvalidInput("read", "it lacks a value", "send one")
    error.reason, error.column = "missing", "temp"
    own.failed("iris", "1.0.0", error, 0.1)
    own.stop()
    (line,) = rows_of(tmp_path)
    assert (line["error"], line["column"]) == ("missing", "temp")


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ([{"b": 2, "a": 1}, {"a": 3}], [[1, 2], [3, None]]),
        ({"b": [2, 4], "a": [1, 3]}, [[1, 2], [3, 4]]),
        ({"a": np.array([[1], [3]])}, [[1, None], [3, None]]),
        ({"x": np.array([[1, 2], [3, 4]])}, [[1, 2], [3, 4]]),
        ({"x": np.array([1, 2])}, [[1, 2]]),
        ({"u": np.array([[1.0]]), "v": np.array([["t"]], object)}, [[1.0, "t"]]),
        ({"u": np.array([[1.0]]), "w": np.array([[2.0]])}, None),
    ],
)
def test_rows_of_every_form_are_put_into_the_columns_order(values, rows):
    assert SentRows(values, 2).in_order(["a", "b"], [("u", 1), ("v", 1)]) == rows


def test_rows_of_messages_that_share_a_run_are_kept_under_their_messages_ids(tmp_path, logged):
    own, predictor = logged("table")
    version = predictor.route()
    version.schema.keeps_rows = True
    one = {"data": {"t": 20.05}, "count": 3, "site": "north", "on": True, "more": [1]}
    other = {"data": {"t": 1}, "count": 2**53 + 1, "site": "south", "on": False}
    feeds = feeds_of(version.schema, [one, other, one], {"temp-C": "data.t"})
    predictor.run(version, feeds, shared_by=[("first", 2), ("second", 1)])
    own.stop()
    found = rows_of(tmp_path)
    assert [row["id"] for row in found] == ["first.0", "first.1", "second.0"]
    assert [row["x"] for row in found] == [
        [20.05, 3, "north", True], [1, 2**53 + 1, "south", False], [20.05, 3, "north", True],
    ]  # fmt: skip
    assert found[0]["y"] == found[2]["y"]
