"""Requests in the forms of the files that KServe's and MLServer's repositories test their own servers with.

Sources: kserve test/e2e/data and docs/samples, MLServer runtimes/*/tests/testdata and benchmarking/data; other numbers.
"""

import json

import pytest

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
SUMS = [115.8, 115.5]


def tensor(name: str, shape: list[int], datatype: str, data: list) -> dict:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


MATRIX = tensor("input-0", [2, 4], "FP32", ROWS)
TABLE = {
    "temp-C": ("FP64", [1.5, 2]), "count": ("INT32", [3, 4]), "site": ("BYTES", ["north", ""]),
    "on": ("BOOL", [True, False]),
}  # fmt: skip
COLUMNS = [tensor(name, [2], datatype, data) for name, (datatype, data) in TABLE.items()]


@pytest.mark.parametrize(
    ("model", "sent", "expected"),
    [
        ("regression", {"inputs": [MATRIX]}, SUMS),  # iris_input_v2.json, pmml-input-v2.json
        ("regression", {"inputs": [tensor("predict", [1, 4], "INT32", [1, 2, 3, 4])]}, [110.0]),  # rest-requests.json
        ("regression", {"inputs": [tensor("input-0", [4], "INT32", [[5, 2, 8, 7]])]}, [122.0]),  # catboost
        ("regression", {"inputs": [tensor("foo", [4], "FP64", [1, 2, 3, 4])], "parameters": {"content_type": "dict"}},
         [110.0]),  # mlflow
        ("table", {"inputs": COLUMNS, "parameters": {"content_type": "pd"}}, [214.5, 106.0]),  # sklearn_mixed_v2.json
        ("table", {"inputs": COLUMNS}, [214.5, 106.0]),  # autogluon_titanic_input_v2.json
    ],
)  # fmt: skip
@pytest.mark.parametrize("output", [None, "output-0", "predict", "predictions"])
def test_payload_is_answered_and_outputs_bear_the_name_asked_for(api, model, sent, expected, output):
    if output:
        sent = {**sent, "outputs": [{"name": output}]}
    got = api.post(f"/v2/models/{model}/infer", sent)
    assert got.status == 200, got.body
    (answer,) = got.json["outputs"]
    assert answer["name"] == (output or "prediction")
    assert answer["data"] == pytest.approx(expected, rel=1e-6)


def test_predict_and_predict_proba(api):
    """MLServer's lightgbm and sklearn runtimes."""
    sent = {"inputs": [tensor("input-0", [1, 4], "INT32", [[9, 2, 3, 4]])]}
    got = api.post("/v2/models/labels/infer", {**sent, "outputs": [{"name": "predict"}, {"name": "predict_proba"}]})
    label, probability = got.json["outputs"]
    assert (label["name"], label["data"]) == ("predict", ["setosa"])
    assert (probability["name"], probability["shape"]) == ("predict_proba", [1, 3])
    own = api.post("/v2/models/labels/infer", sent).json["outputs"]
    assert [one["data"] for one in own] == [label["data"], probability["data"]]
    none = api.post("/v2/models/regression/infer", {**sent, "outputs": [{"name": "predict_proba"}]})
    assert (none.status, "no output 'predict_proba'" in none.json["error"]) == (400, True)
    twice = api.post("/v2/models/labels/infer", {**sent, "outputs": [{"name": "predict"}, {"name": "prediction"}]})
    assert (twice.status, "asked for twice" in twice.json["error"]) == (400, True)


BINARY = {"binary_data": True}


@pytest.mark.parametrize(
    "asked", [{"parameters": {"binary_data_output": True}}, {"outputs": [{"name": "output-0", "parameters": BINARY}]}]
)
def test_binary_output_by_kserves_name(api, asked):
    """iris_input_v2_all_binary.json, iris_input_v2_binary.json."""
    got = api.post("/v2/models/regression/infer", {"inputs": [MATRIX], **asked})
    length = int(got.headers["Inference-Header-Content-Length"])
    (answer,) = json.loads(got.body[:length])["outputs"]
    assert answer["name"] == ("output-0" if "outputs" in asked else "prediction")
    assert len(got.body) - length == answer["parameters"]["binary_data_size"] == 8


def test_what_the_server_is_told_with_and_without_a_slash(api):
    assert api.get("/v2/").json == api.get("/v2").json
    assert api.get("/v2/").json["name"] == "appliance"
