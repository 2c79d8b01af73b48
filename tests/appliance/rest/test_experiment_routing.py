"""While an experiment runs, each route that names no version is routed by key, and one that names a version is not."""

import json
import struct

import pytest

from appliance.inference.selftest import self_test
from appliance.store import experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm, Plan

ROW = [1, 2, 3, 4]
HALF = (Arm("1.0.0", 0.5), Arm("2.0.0", 0.5))
INFER = "/v2/models/regression/infer"
KEYS = [f"device-{number}" for number in range(40)]
TENSOR = {"name": "features", "datatype": "FP32", "shape": [1, 4]}


@pytest.fixture
def api(make_api, bundle_bytes, tmp_path):
    """Return an api over a model with two versions, 1.0.0 active; a request meets either with the same chance."""
    api = make_api("regression")
    api.install(bundle_bytes("regression", "2.0.0"), tmp_path, activate=False)
    return api


SPLIT = Wish("split", arms=HALF)


def begin(api, wish: Wish = SPLIT) -> str:
    made = experiments.begin(api.store, "regression", wish, self_test)
    api.models.refresh()
    return made.id


def forms() -> list[tuple[str, bytes, dict[str, str]]]:
    """Return (path, body, headers) of one row by each route that names no version."""
    text = json.dumps(ROW)
    sized = json.dumps({"inputs": [TENSOR | {"parameters": {"binary_data_size": 16}}]}).encode()
    content = struct.pack("<4f", *ROW)
    return [
        ("/predict", f'{{"features": {text}}}'.encode(), {}),
        ("/models/regression/predict", f'{{"features": [{text}]}}'.encode(), {}),
        ("/invocations", f'{{"instances": [{text}]}}'.encode(), {}),
        ("/invocations", ",".join(map(str, ROW)).encode(), {"CONTENT_TYPE": "text/csv"}),
        ("/v1/models/regression:predict", f'{{"instances": [{text}]}}'.encode(), {}),
        (INFER, json.dumps({"inputs": [TENSOR | {"data": ROW}]}).encode(), {}),
        (INFER, sized + content, {"INFERENCE_HEADER_CONTENT_LENGTH": str(len(sized))}),
        (INFER, content, {"INFERENCE_HEADER_CONTENT_LENGTH": "0"}),
    ]


def test_a_key_meets_one_version_by_every_route_and_the_answer_says_which_arm(api):
    name = begin(api)
    met = set()
    for key in KEYS:
        got = [api.post(path, body, X_ROUTING_KEY=key, **headers) for path, body, headers in forms()]
        assert {one.status for one in got} == {200}
        arms = {one.headers["X-Experiment"] for one in got}
        assert len(arms) == 1
        version = got[0].json["version"]
        assert arms == {f"{name}/{version}"}
        assert got[2].json["predictions"][0] == 10 + 100 * int(version[0])
        assert got[5].json["model_version"] == version
        met.add(version)
    assert met == {"1.0.0", "2.0.0"}
    assert set(api.recorder.routed) == {
        (arm, key) for arm, key in api.recorder.routed if arm.startswith(name) and key in KEYS
    }


def test_without_a_key_it_is_by_chance_and_without_an_experiment_nothing_is_said(api):
    path, body, _ = forms()[0]
    assert "X-Experiment" not in api.post(path, body, X_ROUTING_KEY="a").headers
    begin(api)
    assert {api.post(path, body).json["version"] for _ in range(60)} == {"1.0.0", "2.0.0"}


def test_a_request_that_names_a_version_is_never_routed(api):
    begin(api)
    for key in KEYS[:10]:
        for version in ("1.0.0", "2.0.0"):
            of = f"models/regression/versions/{version}"
            got = api.post(f"/{of}/predict", {"features": ROW}, X_ROUTING_KEY=key)
            assert (got.json["version"], "X-Experiment" in got.headers) == (version, False)
            got = api.post(f"/v2/{of}/infer", {"inputs": [TENSOR | {"data": ROW}]}, X_ROUTING_KEY=key)
            assert (got.json["model_version"], "X-Experiment" in got.headers) == (version, False)
    assert set(api.recorder.routed) == {("",)}


def test_open_inference_has_the_key_among_its_parameters(api):
    begin(api)
    for key in (*KEYS[:10], 7):
        by_header = api.post("/predict", {"features": ROW}, X_ROUTING_KEY=str(key))
        sent = {"inputs": [TENSOR | {"data": ROW}], "parameters": {"routing_key": key}}
        assert api.post(INFER, sent).headers["X-Experiment"] == by_header.headers["X-Experiment"]
        sized = {"inputs": [TENSOR | {"parameters": {"binary_data_size": 16}}], "parameters": {"routing_key": key}}
        head = json.dumps(sized).encode()
        body = head + struct.pack("<4f", *ROW)
        got = api.post(INFER, body, INFERENCE_HEADER_CONTENT_LENGTH=str(len(head)))
        assert got.headers["X-Experiment"] == by_header.headers["X-Experiment"]
    for bad in (b'{"routing_key"', b'{"parameters": {"routing_key": [1]}, "inputs": []}', b"routing_key"):
        assert api.post(INFER, bad).status == 400


def test_the_column_of_the_first_row_is_the_key_where_the_experiment_says_so(api):
    begin(api, Wish("split", arms=HALF, key="column:sepal_width"))
    met = {}
    for value in range(30):
        rows = [[number, value, 0, 0] for number in range(3)]
        arms = {
            api.post("/predict", {"features": rows}).headers["X-Experiment"],
            api.post("/predict", {"features": [rows[0], [0, value + 1, 0, 0]]}).headers["X-Experiment"],
            api.post("/invocations", {"instances": rows}).headers["X-Experiment"],
            api.post(INFER, {"inputs": [TENSOR | {"data": rows[0]}]}).headers["X-Experiment"],
        }
        assert len(arms) == 1
        met[value] = arms.pop()
    assert len(set(met.values())) == 2
    refused = api.post("/predict", {"features": [["text", 1, 2, 3]]})
    assert (refused.status, "X-Experiment" in refused.headers) == (400, False)  # no row, so no key and no arm
    assert api.recorder.routed[-1] == ("", "")


def test_the_callers_token_is_the_key_where_the_experiment_says_so(api):
    begin(api, Wish("split", arms=HALF, key="caller"))
    of_token = {}
    for number in range(20):
        token = f"Bearer token-{number:020}"
        arms = {api.post("/predict", {"features": ROW}, AUTHORIZATION=token).headers["X-Experiment"] for _ in range(3)}
        assert len(arms) == 1
        of_token[token] = arms.pop()
    assert len(set(of_token.values())) == 2
    assert not [key for _, key in api.recorder.routed if "token" in key]  # no secret leaves the request


def test_a_refused_request_counts_for_the_arm_that_refused_it(api):
    name = begin(api)
    for key in KEYS:
        got = api.post("/predict", b"{", X_ROUTING_KEY=key)
        assert got.status == 400
        version = got.headers["X-Experiment"].removeprefix(f"{name}/")
        assert api.recorder.failures[-1] == ("regression", version, "InvalidInput")
        assert api.recorder.routed[-1] == (f"{name}/{version}", key)


def test_what_is_told_of_a_model_is_told_of_its_active_version(api):
    canary = Wish("canary", shadow=Arm("2.0.0", 1.0), plan=Plan(steps=(1.0,)))
    experiments.advance(api.store, "regression", begin(api, canary), 1)
    api.models.refresh()
    assert api.post("/predict", {"features": ROW}).json["version"] == "2.0.0"
    assert api.get("/v2/models/regression/stats").json["model_stats"][0]["version"] == "1.0.0"
    assert api.get("/v2/models/regression/ready").status == 200
