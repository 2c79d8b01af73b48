"""What the dashboard asks: status with alarms, history, columns and examples, distributions, receipts, last answers."""

import json

import pytest

from appliance.bundle import baseline
from appliance.bundle.baseline import PROBABILITIES, Baseline, Categories, Numbers
from appliance.config import LogConfig, PredictionLogConfig
from appliance.monitoring import history_ring

IRIS = ("iris", "1.0.0", "labels")
OVEN = ("oven", "1.0.0", "table")
ROW = {"features": [5.1, 3.5, 1.4, 0.2]}


def test_status_tells_counts_by_fault_and_the_last_failure_without_what_was_sent(start_service):
    service = start_service(IRIS)
    service.ask("POST", "/predict", ROW)
    service.ask("POST", "/predict", {"features": {"secret-name": 1}})
    service.ask("POST", "/predict", {"features": [5.1, 3.5, "secret", 0.2]})
    status, told = service.ask("GET", "/status")
    assert status == 200
    assert (told["tokens"], told["logged"], told["models"][0]["serving"]) == (False, False, "1.0.0")
    (counts,) = [one for one in told["counts"] if one["model"] == "iris"]
    assert (counts["requests"], counts["caller_failures"], counts["service_failures"]) == (3, 2, 0)
    assert 0 < counts["p50_seconds"] <= counts["p99_seconds"] <= 10
    (failure,) = told["last_failures"]
    assert (failure["model"], failure["fault"], failure["reason"]) == ("iris", "caller", "type")
    assert failure["column"] == "petal_length"
    assert "secret" not in json.dumps(told)


def test_status_raises_alarms_and_names_the_worst(start_service):
    told = start_service().ask("GET", "/status")[1]
    assert told["ready"] is False
    assert [one["kind"] for one in told["alarms"] if one["kind"] != "disk short"] == ["nothing active"]
    assert told["level"] == told["alarms"][0]["level"]


def test_history_is_written_when_the_service_stops_and_read_by_the_next(start_service):
    service = start_service(IRIS)
    for _ in range(3):
        service.ask("POST", "/predict", ROW)
    service.ask("POST", "/predict", {})
    service.service.overview.stop()
    for span, steps in (("hour", 60), ("day", 144), ("month", 186)):
        status, told = service.ask("GET", f"/models/iris/history?span={span}")
        assert status == 200
        assert len(told["requests"]) == len(told["p99_seconds"]) == steps
        assert (sum(told["requests"]), sum(told["caller_failures"])) == (4, 1)
    assert service.ask("GET", "/history")[1]["models"][0]["span"] == "hour"
    assert (service.store.state_dir / "history" / "iris.ring").stat().st_size == history_ring.SIZE


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models/iris/history?span=year", 400),
        ("/history?span=", 400),
        ("/models/nobody/history", 404),
        ("/models/nobody/receipts", 404),
        ("/models/nobody/columns", 404),
        ("/models/iris/distribution", 404),
        ("/models/iris/answers", 503),
        ("/models/iris/answers?limit=0", 400),
        ("/models/iris/answers?limit=x", 400),
        ("/models/nobody/answers", 404),
    ],
)
def test_what_is_not_there_is_told(start_service, path, status):
    found, told = start_service(IRIS).ask("GET", path)
    assert found == status
    assert told["next"]


def test_columns_have_hints_and_a_typical_value_that_the_model_takes(start_service, tmp_path, make_bundle):
    numbers = Numbers(0.0, [float(n) for n in range(13)], 6.0, 1.0, [0.0, 1.0], [0, 100, 0])
    texts = Categories(0.1, {"south": 60, "north": 30}, 10)
    inputs = {"temp-C": numbers, "site": texts}
    content = baseline.write(Baseline(2, 100, PROBABILITIES, inputs, {}))
    service = start_service()
    service.install(make_bundle(tmp_path, name="oven", version="1.1.0", kind="table", baseline=content))
    assert service.ask("POST", "/models/oven/versions/1.1.0/activate")[0] == 200
    status, told = service.ask("GET", "/models/oven/columns")
    assert status == 200
    by_name = {one["name"]: one for one in told["columns"]}
    assert (by_name["temp-C"]["low"], by_name["temp-C"]["high"], by_name["temp-C"]["typical"]) == (0.0, 12.0, "6.0")
    assert by_name["site"]["categories"] == ["south", "north"]
    assert by_name["site"]["typical"] == '"south"'
    row = "[" + ",".join(one["typical"] for one in told["columns"]) + "]"
    assert service.ask("POST", "/models/oven/predict", f'{{"features": {row}}}'.encode())[0] == 200


def test_examples_are_rows_that_the_model_answers(start_service):
    service = start_service(OVEN, ("iris", "1.0.0", "labels"))
    for name in ("oven", "iris"):
        status, told = service.ask("GET", f"/models/{name}/examples")
        assert status == 200
        assert told["rows"]
        for row in told["rows"]:
            body = f'{{"features": [{",".join(row)}]}}'.encode()
            assert service.ask("POST", f"/models/{name}/predict", body)[0] == 200


def test_rows_of_others_need_the_admin_token(start_service, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("predict reader-0123456789abcdef\nadmin master-0123456789abcdef\n")
    tokens.chmod(0o600)
    service = start_service(IRIS, tokens_file=str(tokens))
    for path in ("/models/iris/examples", "/models/iris/answers"):
        reader = {"Authorization": "Bearer reader-0123456789abcdef"}
        assert service.ask("GET", path, None, reader)[0] == 403
    admin = {"Authorization": "Bearer master-0123456789abcdef"}
    assert service.ask("GET", "/models/iris/examples", None, admin)[0] == 200
    assert service.ask("GET", "/status", None, admin)[1]["tokens"] is True


def test_receipts_are_the_latest_first(start_service):
    service = start_service(IRIS)
    service.ask("POST", "/models/iris/mark-good")
    told = service.ask("GET", "/models/iris/receipts")[1]["receipts"]
    assert [one["what"] for one in told] == ["mark good", "activate", "install"]
    assert told[1]["self_test"]["rows"] > 0


def test_distribution_is_beside_training_and_the_furthest_come_first(start_service, tmp_path, make_bundle, until):
    near = Numbers(0.0, [0.0] * 13, 0.0, 1.0, [0.0, 3.0, 9.0], [0, 50, 50, 0])
    far = Numbers(0.0, [0.0] * 13, 0.0, 1.0, [0.0, 1.0, 1000.0], [0, 50, 0, 50])
    inputs = {"petal_length": near, "petal_width": far}
    outputs = {"prediction": Categories(0.0, {"setosa": 90, "virginica": 10}, 0)}
    content = baseline.write(Baseline(2, 100, PROBABILITIES, inputs, outputs))
    service = start_service()
    service.install(make_bundle(tmp_path, version="1.1.0", kind="labels", baseline=content))
    assert service.ask("POST", "/models/iris/versions/1.1.0/activate")[0] == 200

    def told():
        service.ask("POST", "/predict", {"features": [[9, 1, 1, 5], [9, 1, 5, 5]]})
        status, found = service.ask("GET", "/models/iris/distribution")
        return found if status == 200 and found["rows"] >= 4 else None

    found = until(told, "rows counted")
    assert found["until"] == ""
    assert [one["column"] for one in found["columns"]] == ["prediction", "petal_width", "petal_length"]
    prediction, width, length = found["columns"]
    assert prediction["labels"][:2] == ["setosa", "virginica"]
    assert sum(prediction["now"]) == pytest.approx(1, abs=0.01)
    assert width["now"] == [0, 0, 1, 0]
    assert length["training"] == length["now"] == [0, 0.5, 0.5, 0]
    assert width["psi"] > length["psi"]


def test_last_answers_are_as_the_column_policy_keeps_them(start_service, until):
    columns = {"petal_width": "drop", "petal_length": "hash", "sepal_width": "round:1"}
    log = LogConfig(predictions=PredictionLogConfig(enabled=True, columns=columns))
    service = start_service(IRIS, log=log)
    service.ask("POST", "/predict", {"features": [[5.1, 3.4, 1.25, 0.2], [5.2, 3.6, 1.25, 0.3]]})
    service.ask("POST", "/predict", {"features": [5.1, 3.5, "no number", 0.2]})

    def told():
        found = service.ask("GET", "/models/iris/answers")[1]
        return found if len(found["answers"]) == 3 else None

    found = until(told, "three lines in the log")
    assert found["policy"] == columns
    refused, last, first = found["answers"]
    assert (refused["error"], refused["column"]) == ("type", "petal_length")
    assert last["row"]["petal_width"] is None
    assert last["row"]["sepal_width"] == 4
    assert last["row"]["petal_length"] == first["row"]["petal_length"] != 1.25
    assert last["prediction"] in ("setosa", "versicolor", "virginica")
    assert set(last["probability"]) == {"setosa", "versicolor", "virginica"}
    assert "1.25" not in json.dumps(found)
    assert len(service.ask("GET", "/models/iris/answers?limit=1")[1]["answers"]) == 1
