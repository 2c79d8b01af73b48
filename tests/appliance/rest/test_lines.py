"""CSV, JSON lines and bare lists, sent and asked for, as SageMaker's containers take them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROWS = [[9.0, 2.0, 3.0, 4.5], [0.0, 6.0, 7.0, 8.25]]
NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
CSV = b"9,2,3,4.5\n0,6,7,8.25\n"
SUMS = [118.5, 121.25]
PATHS = ["/models/regression/predict", "/models/regression/versions/1.0.0/predict", "/models/regression/invoke"]


def lines(*rows: object) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def predictions(got) -> list:
    assert got.status == 200, got.body
    return got.json.get("prediction", got.json.get("predictions"))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("media", ["text/csv", "Text/CSV; charset=utf-8"])
def test_csv_is_read_at_every_route(api, path, media):
    assert predictions(api.post(path, CSV, CONTENT_TYPE=media)) == SUMS
    got = api.post(path, b"9,2,3\n", CONTENT_TYPE=media)
    assert (got.status, b"3 values for 4 columns" in got.body) == (400, True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        lines(*ROWS),
        lines(*ROWS) + b"\r\n\n \n",
        b"\xef\xbb\xbf" + lines(*ROWS),
        lines(*(dict(zip(NAMES, row, strict=True)) for row in ROWS)),
        lines(*({"features": row} for row in ROWS)),
        lines(*({"features": dict(zip(NAMES, row, strict=True))} for row in ROWS)),
    ],
)
@pytest.mark.parametrize("media", ["application/jsonlines", "application/x-ndjson"])
def test_json_lines_are_read_at_every_route(api, path, body, media):
    assert predictions(api.post(path, body, CONTENT_TYPE=media)) == SUMS


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", "there are none"),
        (b"1,2,3,4\n", "line 0"),
        (b"[9,2,3,4.5]\n[0,6,7\n", "line 1"),
        (b"[9,2,3,4.5] [0,6,7,8.25]\n", "1 lines hold 2 values"),
        (b"[9,2,\n3,4.5]\n", "line"),
        (b"[9,2,3,4.5]\n[1]\n", "row 1 has 1 values"),
        (lines({"features": [9, 2, 3, 4], "x": 1}), "row 0 holds a list"),
        (lines(ROWS[0], {"sepal_length": {}}), "row 1 holds an object"),
        (lines(ROWS[0], dict(zip(NAMES, ROWS[1], strict=True))), "not a list"),
        (lines("text"), "row 0 has 1 values"),
        (b"[" * 500, "nests deeper"),
    ],
)
def test_wrong_json_lines_are_refused(api, body, found):
    got = api.post(PATHS[0], body, CONTENT_TYPE="application/jsonlines")
    assert got.status in (400, 413)
    assert found in got.json["detail"]


def test_missing_values_as_python_writes_them(make_api):
    api = make_api("gaps")
    for row in (b"[1, NaN, null, 4]", b'{"features": [1, null, NaN, 4]}'):
        body = row + b"\n[1, 2, 3, 4]"
        assert predictions(api.post("/predict", body, CONTENT_TYPE="application/jsonlines")) == [2105.0, 110.0]


@pytest.mark.parametrize("rows", [ROWS, [dict(zip(NAMES, row, strict=True)) for row in ROWS]])
def test_bare_list_is_rows(api_of, rows):
    api = api_of("regression")
    assert api.post("/invocations", rows, CONTENT_TYPE="application/json").json == {"predictions": SUMS}
    body = b"\xef\xbb\xbf \n" + json.dumps(rows).encode()
    assert api.post("/models/regression/invoke", body).json == {"predictions": SUMS}


def test_bare_list_of_values_is_one_row(api_of):
    assert api_of("regression").post("/invocations", ROWS[0]).json == {"predictions": SUMS[:1]}


@pytest.mark.parametrize(("rows", "found"), [([], "there are none"), ([[1]], "row 0 has 1"), ([[[1]]], "array")])
def test_wrong_bare_list_is_refused(api_of, rows, found):
    got = api_of("regression").post("/invocations", rows)
    assert (got.status, found in got.json["message"]) == (400, True)


@pytest.mark.parametrize("path", ["/models/labels/predict", "/models/labels/invoke"])
def test_answer_as_csv_and_json_lines(api, path):
    own = api.post("/models/labels/predict", {"features": ROWS}).json
    sent = {"features": ROWS} if path.endswith("predict") else ROWS
    got = api.post(path, sent, ACCEPT="text/csv")
    assert (got.headers["Content-Type"], got.body) == ("text/csv; charset=utf-8", b"setosa\nversicolor\n")
    got = api.post(f"{path}?probability=true&header=true", sent, ACCEPT="text/csv")
    first, *rest = got.body.decode().splitlines()
    assert first == "prediction,probability_setosa,probability_versicolor,probability_virginica"
    for line, label, probability in zip(rest, own["prediction"], own["probability"], strict=True):
        assert line.split(",")[0] == label
        assert [float(cell) for cell in line.split(",")[1:]] == list(probability.values())
    got = api.post(path, sent, ACCEPT="application/jsonlines")
    assert got.headers["Content-Type"] == "application/jsonlines"
    assert got.body == b'{"prediction":"setosa"}\n{"prediction":"versicolor"}\n'
    got = api.post(f"{path}?probability=true", CSV, CONTENT_TYPE="text/csv", ACCEPT="application/jsonlines")
    answers = [json.loads(line) for line in got.body.splitlines()]
    assert [one["prediction"] for one in answers] == own["prediction"]
    assert [one["probability"] for one in answers] == own["probability"]


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/html", "application/json"),
        ("application/json, text/csv;q=0.9", "application/json"),
        ("application/json;q=0.5, text/csv", "text/csv; charset=utf-8"),
        ("text/csv;q=0", "application/json"),
        ("text/csv;q=x", "application/json"),
        ("text/csv, */*;q=0.1", "text/csv; charset=utf-8"),
        ("APPLICATION/JSONLINES", "application/jsonlines"),
    ],
)
@pytest.mark.parametrize("path", ["/models/regression/predict", "/models/regression/invoke"])
def test_accept_chooses_the_form(api, accept, media, path):
    assert api.post(path, CSV, CONTENT_TYPE="text/csv", ACCEPT=accept).headers["Content-Type"] == media


def test_query_that_is_no_flag_is_refused(api):
    got = api.post("/models/labels/predict?probability=yes", CSV, CONTENT_TYPE="text/csv", ACCEPT="text/csv")
    assert (got.status, "probability is 'yes'" in got.json["detail"]) == (400, True)


def test_csv_answer_of_numbers_texts_and_gaps_is_read_back(api):
    from appliance.rest.lines import _csv, _csv_text, _header

    arrays = [np.array([[1, 2], [3, 4]]), np.array([[0.1, np.nan], [np.inf, -np.inf]], np.float32)]
    assert b"".join(_csv(arrays)) == b"1,2,0.10000000149011612,nan\n3,4,inf,-inf\n"
    assert _csv_text([['a "b"', "c,d", "e\nf", " g"]]) == b'"a ""b""","c,d","e\nf", g\n'
    assert b"".join(_csv([np.array([True, False])])) == b"true\nfalse\n"

    class Shape:
        labels = ("x", "y,z")

    names = b'prediction_0,prediction_1,probability_x,"probability_y,z"'
    assert _header(arrays, Shape, quality=False) == names + b"\n"
    assert _header(arrays, Shape, quality=True) == names + b",quality\n"


def test_large_answer_in_lines_is_whole(api):
    rows = np.random.default_rng(0).random((30_000, 4)).astype(np.float32).astype(float).tolist()
    own = api.post("/models/labels/predict", {"features": rows}).json
    got = api.post("/models/labels/predict?probability=true", {"features": rows}, ACCEPT="text/csv").body.splitlines()
    assert [line.split(b",")[0].decode() for line in got] == own["prediction"]
    assert [float(got[i].split(b",")[2]) for i in (0, 15_000, -1)] == [
        own["probability"][i]["versicolor"] for i in (0, 15_000, -1)
    ]


def test_rows_in_lines_have_the_limit(make_api):
    api = make_api("regression", max_rows=2)
    for count, status in ((2, 200), (3, 413)):
        for body, media in ((b"1,2,3,4\n", "text/csv"), (b"[1,2,3,4]\n", "application/jsonlines")):
            assert api.post("/predict", body * count, CONTENT_TYPE=media).status == status


@given(
    st.lists(st.binary(max_size=12) | st.sampled_from([b"[1,2,3,4]", b"{}", b'{"features":[]}', b"1", b"\n", b"NaN"]))
)
def test_any_lines_are_answered_or_refused(api, parts):
    for media in ("application/jsonlines", "text/csv", "application/json"):
        got = api.post("/models/regression/invoke", b"\n".join(parts), CONTENT_TYPE=media, ACCEPT="text/csv")
        assert got.status in (200, 400, 413)
        if got.status == 200:
            assert all(float(line) == pytest.approx(110) for line in got.body.split())


def test_multi_model_container(make_api, bundle_bytes, tmp_path):
    """The calls of SageMaker's multi-model endpoints, in the order that the platform makes them."""
    api = make_api("labels")
    api.install(bundle_bytes("regression", "1.0.0", kind="regression"), tmp_path, activate=False)
    assert api.post("/models/regression/invoke", CSV, CONTENT_TYPE="text/csv").status == 503
    loaded = {"model_name": "regression", "url": "/opt/ml/models/regression/model"}
    assert api.post("/models", loaded).json["modelName"] == "regression"
    assert api.post("/models", loaded).status == 409
    assert api.post("/models/regression/invoke", CSV, CONTENT_TYPE="text/csv").json == {"predictions": SUMS}
    assert api.get("/models/regression").json["modelUrl"] == str(api.store.folder("regression", "1.0.0"))
    assert [one.get("modelName") for one in api.get("/models").json["models"]] == ["labels", "regression"]
    gone = api.call("DELETE", "/models/regression")
    assert (gone.status, gone.json["serving"], "modelName" in gone.json) == (200, None, False)
    assert [one.get("modelName") for one in api.get("/models").json["models"]] == ["labels", None]
    assert api.post("/models/regression/invoke", CSV, CONTENT_TYPE="text/csv").status == 503
    for got, status in (
        (api.post("/models", {"model_name": "nobody"}), 404),
        (api.post("/models", {"name": "labels"}), 400),
        (api.call("DELETE", "/models/nobody"), 404),
        (api.post("/models/nobody/invoke", ROWS), 404),
    ):
        assert got.status == status
