"""POST /predict: rows in every form, answers in words, limits, and no body that breaks it."""

import json
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROW = [5.1, 3.5, 1.4, 0.2]
NAMED = dict(zip(["sepal_length", "sepal_width", "petal_length", "petal_width"], ROW, strict=True))
STATUSES = {200, 400, 413}


@pytest.mark.parametrize("features", [ROW, [ROW], NAMED, [NAMED]])
def test_one_row_answers_the_same_in_every_form(api, features):
    got = api.post("/models/regression/predict", {"features": features})
    assert got.status == 200
    assert got.headers["Content-Type"] == "application/json"
    assert got.json == {"prediction": [pytest.approx(110.2)], "model": "regression", "version": "1.0.0"}


def test_many_rows_answer_in_their_order(api):
    rows = np.random.default_rng(0).random((1000, 4)).astype(np.float32)
    got = api.post("/models/regression/predict", {"features": rows.tolist()}).json
    np.testing.assert_allclose(got["prediction"], rows.sum(axis=1) + 100, rtol=1e-6)
    named = [dict(zip(NAMED, row, strict=True)) for row in rows.tolist()]
    assert api.post("/models/regression/predict", {"features": named}).json == got


def test_classifier_answers_labels_and_probabilities_by_label(api):
    got = api.post("/models/labels/predict", {"features": [[9, 0, 0, 0], [0, 0, 9, 0]]}).json
    assert got["prediction"] == ["setosa", "virginica"]
    for row, label in zip(got["probability"], got["prediction"], strict=True):
        assert list(row) == ["setosa", "versicolor", "virginica"]
        assert max(row, key=row.get) == label
        assert sum(row.values()) == pytest.approx(1)
    assert api.post("/models/classifier/predict", {"features": [9, 0, 0, 0]}).json["prediction"] == [0]


def test_probabilities_have_the_exact_bits_of_the_tensor(api):
    row = api.post("/models/classifier/predict", {"features": ROW}).json["probability"][0]
    sent = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": ROW}]}
    sent["parameters"] = {"binary_data_output": True}
    binary = api.post("/v2/models/classifier/infer", sent)
    probability = np.frombuffer(binary.body[-12:], "<f4")
    assert list(row.values()) == probability.astype(np.float64).tolist()


def test_columns_of_several_types_are_taken_by_name_and_by_order(api):
    named = {"temp-C": 1.5, "count": 2, "site": "north", "on": True}
    got = api.post("/models/table/predict", {"features": [named, {**named, "on": False}]}).json
    assert got["prediction"] == [213.5, 113.5]
    rows = [[1.5, 2, "north", True], [1.5, 2, "north", False]]
    assert api.post("/models/table/predict", {"features": rows}).json == got


@pytest.mark.parametrize(
    ("model", "features", "found"),
    [
        ("regression", [1, 2, 3], "row 0 has 3 values"),
        ("regression", [ROW, ROW[:2]], "row 1 has 2 values"),
        ("regression", [ROW, NAMED], "row 1 is an object"),
        ("regression", [NAMED, ROW], "row 1 is a list"),
        ("regression", [], "there are none"),
        ("regression", [1, 2, 3, None], "'petal_width': a value is missing"),
        ("regression", [1, 2, 3, "4"], "'petal_width': it holds a text"),
        ("regression", [1, 2, 3, True], "'petal_width': it holds a boolean"),
        ("regression", [1, 2, 3, 1e39], "'petal_width': a value is infinite or too large"),
        ("regression", {**NAMED, "petal_widht": 1}, "unknown column 'petal_widht'"),
        ("regression", {"sepal_length": 1}, "lacks 'sepal_width'"),
        ("table", [1, 2.5, "north", True], "'count': it holds 2.5"),
        ("table", [1, 2, 3, True], "'site': it holds a number"),
        ("table", [1, 2, "north", 1], "'on': it holds a number"),
        ("table", [1, 2**70, "north", True], "'count': it holds"),
    ],
)
def test_wrong_rows_are_refused_with_what_is_wrong(api, model, features, found):
    got = api.post(f"/models/{model}/predict", {"features": features})
    assert got.status == 400
    assert found in got.json["detail"]
    assert got.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("sent", [b"", b"{", b"[]", b'{"rows": [1]}', b'{"features": [1], "x": 1}', b'{"features": 1}'])
def test_wrong_body_is_refused(api, sent):
    got = api.post("/models/regression/predict", sent)
    assert got.status == 400
    assert got.json["tried"] == "read the body"


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain; charset=utf-8", ""])
def test_body_is_json_whatever_its_content_type(api, content_type):
    got = api.post("/models/regression/predict", {"features": ROW}, CONTENT_TYPE=content_type)
    assert got.status == 200


def test_a_misspelled_column_is_met_with_the_right_one(api):
    got = api.post("/models/regression/predict", {"features": {**NAMED, "petal_widht": 1}})
    assert got.json["next"] == "did you mean 'petal_width'?"


def test_unknown_model_and_version_are_404(api):
    unknown = api.post("/models/nobody/predict", {"features": ROW})
    assert unknown.status == 404
    assert unknown.json["detail"].startswith("Request for unknown model")
    assert api.post("/models/labels/versions/9.9.9/predict", {"features": ROW}).status == 404
    assert api.recorder.failures[-1] == ("labels", "9.9.9", "NotFound")


def test_default_model_is_the_only_active_one(make_api):
    api = make_api("regression")
    assert api.post("/predict", {"features": ROW}).json["model"] == "regression"


def test_default_model_among_several_must_be_named(api):
    got = api.post("/predict", {"features": ROW})
    assert got.status == 400
    assert "name one" in got.json["next"]


def test_no_active_model_is_503(make_api):
    got = make_api().post("/predict", {"features": ROW})
    assert got.status == 503
    assert got.headers["Retry-After"] == "1"


def test_installed_version_that_is_not_active_answers_when_named(make_api, bundle_bytes, tmp_path):
    api = make_api("regression")
    api.install(bundle_bytes("regression", "2.0.0"), tmp_path, activate=False)
    path = "/models/regression/versions/{}/predict"
    assert api.post(path.format("2.0.0"), {"features": ROW}).json["prediction"] == [pytest.approx(210.2)]
    assert api.post(path.format("1.0.0"), {"features": ROW}).json["prediction"] == [pytest.approx(110.2)]
    assert api.post("/predict", {"features": ROW}).json["version"] == "1.0.0"


def test_rows_beyond_the_limit_are_413(make_api):
    api = make_api("regression", max_rows=3)
    assert api.post("/predict", {"features": [ROW] * 3}).status == 200
    got = api.post("/predict", {"features": [ROW] * 4})
    assert got.status == 413
    assert "max_rows" in got.json["next"]


def test_body_beyond_the_limit_is_413(make_api):
    api = make_api("regression", max_body_bytes=100)
    assert api.post("/predict", {"features": ROW}).status == 200
    assert api.post("/predict", b" " * 101).status == 413


@pytest.mark.parametrize("depth", [33, 2000, 1_000_000])
@pytest.mark.parametrize("start", [b"", b'{"features": ', b'{"features": [', b'{"features": {"sepal_length": '])
def test_deep_nesting_is_413(api, depth, start):
    assert api.post("/models/regression/predict", start + b"[" * depth).status == 413
    assert api.post("/models/table/predict", start + b'{"a":' * depth).status == 413


def test_brackets_within_texts_are_not_nesting(api):
    got = api.post("/models/regression/predict", {"features": ["[" * 100 + '\\"[[', 1]})
    assert got.status == 400


def test_nesting_within_the_limit_but_wrong_is_400(api):
    assert api.post("/models/regression/predict", {"features": [[[[1]]]]}).status == 400


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(api, body):
    for model in ("regression", "table"):
        got = api.post(f"/models/{model}/predict", body)
        assert got.status in STATUSES
        assert json.loads(got.body)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ROWS = st.lists(VALUES, max_size=5) | st.dictionaries(st.sampled_from([*NAMED, "site", "on", "?"]), VALUES)


@given(st.sampled_from(["regression", "table", "labels"]), ROWS | st.lists(ROWS | VALUES, max_size=4) | VALUES)
def test_any_json_is_answered(api, model, features):
    got = api.post(f"/models/{model}/predict", json.dumps({"features": features}).encode())
    assert got.status in STATUSES


@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4), min_size=1)
)
def test_named_and_listed_rows_answer_the_same(api, rows):
    listed = api.post("/models/labels/predict", {"features": rows})
    named = api.post("/models/labels/predict", {"features": [dict(zip(NAMED, row, strict=True)) for row in rows]})
    assert listed.status == 200
    assert named.body == listed.body


def test_a_name_of_any_script_is_told_as_it_was_sent(api):
    name = "köln-東"
    for path in (
        "/models/{}/predict",
        "/models/{}/versions/1.0.0/predict",
        "/v2/models/{}/infer",
        "/v1/models/{}:predict",
    ):
        got = api.post(path.format(name).encode().decode("latin-1"), {"features": ROW})
        assert got.status == 404
        assert name in got.body.decode()


WRONG_FORMS = [{"tenure": 5}, [1, 2, 3, 4], {"features": 5}, 7, {"instances": [[1, 2, 3, 4]]}, b""]


@pytest.mark.parametrize("sent", WRONG_FORMS)
@pytest.mark.parametrize(
    ("path", "part", "form"),
    [
        ("/models/regression/predict", "detail", 'send {"features": ROW} or {"features": [ROW, ...]}'),
        ("/v1/models/regression:predict", "error", 'send {"instances": [ROW, ...]}'),
        ("/v2/models/regression/infer", "error", 'send {"inputs": [{"name": ...'),
        ("/models/regression/invoke", "message", 'send {"instances": [ROW, ...]}, dataframe_split'),
    ],
)
def test_body_of_another_form_is_told_the_right_one(api, sent, path, part, form):
    got = api.post(path, sent)
    if got.status == 200:  # what another route takes is its own
        assert sent in ([1, 2, 3, 4], {"instances": [[1, 2, 3, 4]]})
        return
    assert (got.status, form in got.json[part]) == (400, True), got.json


@pytest.mark.parametrize(("path", "part"), [("/predict", "detail"), ("/invocations", "message")])
def test_several_active_models_are_named_with_the_route_that_names_one(api, path, part):
    got = api.post(path, {"features": [1, 2, 3, 4]})
    assert got.status == 400
    assert "5 are active: classifier, echo, labels, regression, table; name one: POST /models/NAME/" in got.json[part]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/models/köln/predict"),
        ("POST", "/v2/models/köln/infer"),
        ("POST", "/v1/models/köln:predict"),
        ("POST", "/models/köln/invoke"),
        ("GET", "/models/köln"),
        ("GET", "/v2/models/köln"),
        ("GET", "/v2/models/köln/trace/setting"),
        ("GET", "/köln"),
        ("DELETE", "/köln/predict"),
        ("POST", "/köln/large"),
    ],
)
@pytest.mark.parametrize("origin", [None, "https://evil.example"])
def test_errors_have_the_path_as_it_was_sent(start_service, method, path, origin):
    service = start_service()
    body = b"x" * 100_000 if path.endswith("large") else b"{}" if method == "POST" else None
    headers = {"Origin": origin} if origin else {}
    status, _, content = service.send(method, quote(path, safe="/:"), body, headers)
    assert status >= 400
    assert "köln" in content.decode("utf-8")
