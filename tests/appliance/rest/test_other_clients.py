"""What clients too heavy for the tests send and read, as seen on the wire; each line once broke one of them."""

import pytest


def test_mlflow_client_writes_nan_for_a_missing_value(api_of):
    """mlflow.pyfunc.scoring_server.client: json.dumps of a table, `ScoringServerClient.invoke`."""
    body = b'{"dataframe_split": {"columns": ["sepal_length", "sepal_width", "petal_length", "petal_width"], '
    got = api_of("regression").post("/invocations", body + b'"index": [0], "data": [[1.0, 2.0, NaN, 4.0]]}}')
    assert got.status == 400
    assert "'petal_length'" in got.json["message"]
    assert "missing" in got.json["message"]
    got = api_of("regression").post("/invocations", body + b'"index": [0], "data": [[1.0, 2.0, 3.0, 4.0]]}}')
    assert got.json == {"predictions": [110.0]}


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_kserve_v1_client_asks_the_root_whether_the_server_lives(start_service, accept):
    """kserve.InferenceRESTClient(RESTConfig(protocol="v1")).is_server_live reads `status`."""
    service = start_service()
    assert service.ask("GET", "/", headers={"Accept": accept}) == (200, {"status": "alive"})
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    _, headers, content = service.send("GET", "/", headers=browser)
    assert headers["Vary"] == "Accept"
    assert content.startswith(b"<!doctype html>")


def test_mlserver_client_writes_null_for_what_it_does_not_say(api):
    """mlserver.types.RepositoryIndexRequest, InferenceRequest: pydantic's JSON of what is None."""
    assert api.post("/v2/repository/index", {"ready": None}).json == api.post("/v2/repository/index").json
    tensor = {"name": "features", "shape": [1, 4], "datatype": "FP32", "parameters": None, "data": [1.0, 2.0, 3.0, 4.0]}
    sent = {"id": None, "parameters": {"content_type": "np"}, "inputs": [tensor], "outputs": None}
    got = api.post("/v2/models/regression/infer", sent)
    assert got.json["outputs"][0]["data"] == [110.0]
    assert None not in got.json.values()
