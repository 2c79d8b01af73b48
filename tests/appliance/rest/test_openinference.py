"""Open Inference under /v2: JSON and binary infer calls, metadata, repository, statistics, every trap of clients."""

import gzip
import json
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.predictor import Counts

ROW = [5.1, 3.5, 1.4, 0.2]
INFER = "/v2/models/{}/infer"
LENGTH = "INFERENCE_HEADER_CONTENT_LENGTH"


def tensor(data: object = (ROW,), shape: object = (1, 4), datatype: str = "FP32", name: str = "features", **parameters):
    made = {"name": name, "shape": shape, "datatype": datatype, "data": data, "parameters": parameters}
    return {key: value for key, value in made.items() if value is not None}


def binary(call: dict, *parts: bytes) -> tuple[bytes, dict[str, str]]:
    """Return a body of JSON and tensors, and its header."""
    header = json.dumps(call).encode()
    return b"".join((header, *parts)), {LENGTH: str(len(header))}


def outputs_of(got) -> dict[str, object]:
    """Return {output name: list or bytes} of an answer."""
    length = int(got.headers.get("Inference-Header-Content-Length", len(got.body)))
    place, outputs = length, {}
    for output in json.loads(got.body[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        outputs[output["name"]] = output["data"] if size is None else got.body[place : place + size]
        place += size or 0
    assert place == len(got.body)
    return outputs


@pytest.mark.parametrize("data", [ROW, [ROW]])
def test_json_infer_answers_flat_tensors_in_the_protocols_words(api, data):
    got = api.post(INFER.format("labels"), {"id": "a-1", "inputs": [tensor(data)]})
    assert got.status == 200
    assert got.headers["Content-Type"] == "application/json"
    answer = got.json
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a-1", "labels", "1.0.0")
    prediction, probability = answer["outputs"]
    assert prediction == {"name": "prediction", "shape": [1], "datatype": "BYTES", "data": ["setosa"]}
    assert (probability["shape"], probability["datatype"]) == ([1, 3], "FP32")
    assert sum(probability["data"]) == pytest.approx(1)


def test_answer_without_id_has_none(api):
    assert "id" not in api.post(INFER.format("labels"), {"inputs": [tensor()]}).json


def test_null_where_nothing_is_meant_is_taken(api):
    call = {"id": None, "parameters": None, "outputs": None, "inputs": [{**tensor(), "parameters": None}]}
    assert api.post(INFER.format("labels"), call).status == 200


def test_version_may_be_named(api):
    assert api.post("/v2/models/labels/versions/1.0.0/infer", {"inputs": [tensor()]}).status == 200
    assert api.post("/v2/models/labels/versions/3.0.0/infer", {"inputs": [tensor()]}).status == 404


def test_content_type_and_query_are_ignored(api):
    for content_type in ("application/x-www-form-urlencoded", "application/octet-stream"):
        got = api.post(INFER.format("labels") + "?test_1=1&test_2=2", {"inputs": [tensor()]}, CONTENT_TYPE=content_type)
        assert got.status == 200


def test_binary_input_and_output(api):
    rows = np.random.default_rng(0).random((50, 4)).astype("<f4")
    sent = tensor(None, rows.shape, binary_data_size=rows.nbytes)
    body, headers = binary({"parameters": {"binary_data_output": True}, "inputs": [sent]}, rows.tobytes())
    got = api.post(INFER.format("regression"), body, **headers)
    assert got.status == 200
    assert got.headers["Content-Type"] == "application/octet-stream"
    answer = np.frombuffer(outputs_of(got)["prediction"], "<f4")
    np.testing.assert_allclose(answer, rows.sum(axis=1) + 100, rtol=1e-6)


def test_json_call_may_ask_for_binary_outputs_one_by_one(api):
    call = {"inputs": [tensor()], "outputs": [{"name": "probability", "parameters": {"binary_data": True}}]}
    got = outputs_of(api.post(INFER.format("labels"), {**call, "outputs": [*call["outputs"], {"name": "prediction"}]}))
    assert list(got) == ["probability", "prediction"]
    assert len(got["probability"]) == 12
    assert got["prediction"] == ["setosa"]


def test_output_may_refuse_the_binary_default(api):
    call = {"inputs": [tensor()], "parameters": {"binary_data_output": True}}
    call["outputs"] = [{"name": "prediction", "parameters": {"binary_data": False}}, {"name": "probability"}]
    got = outputs_of(api.post(INFER.format("labels"), call))
    assert got["prediction"] == ["setosa"]
    assert isinstance(got["probability"], bytes)


def test_text_outputs_are_length_and_utf8(api):
    call = {"inputs": [tensor()], "outputs": [{"name": "prediction", "parameters": {"binary_data": True}}]}
    assert outputs_of(api.post(INFER.format("labels"), call))["prediction"] == struct.pack("<I", 6) + b"setosa"


def test_json_and_binary_inputs_mix(api):
    site = struct.pack("<I", 5) + b"north"
    call = {
        "inputs": [
            tensor([1.5], [1], "FP32", "temp-C"),
            tensor(None, [1, 1], "BYTES", "site", binary_data_size=len(site)),
            tensor([2], [1, 1], "INT64", "count"),
            tensor(None, [1, 1], "BOOL", "on", binary_data_size=1),
        ]
    }
    body, headers = binary(call, site, b"\x01")
    assert outputs_of(api.post(INFER.format("table"), body, **headers)) == {"prediction": [213.5]}


def test_table_by_column_as_mlserver_sends_it(api):
    call = {
        "parameters": {"content_type": "pd"},
        "inputs": [
            tensor([1.5, 2.5], [2, 1], "FP64", "temp-C"),
            tensor([2, 3], [2, 1], "INT64", "count"),
            tensor(["north", "ö"], [2, 1], "BYTES", "site", content_type="str"),
            tensor([True, False], [2], "BOOL", "on"),
        ],
    }
    assert outputs_of(api.post(INFER.format("table"), call)) == {"prediction": [213.5, 105.5]}


def test_columns_of_one_tensor_may_come_apart(api):
    names = ("petal_width", "sepal_length", "sepal_width", "petal_length")
    call = {"inputs": [tensor([value], [1], "FP64", name) for name, value in zip(names, (4, 1, 2, 3), strict=True)]}
    assert outputs_of(api.post(INFER.format("regression"), call)) == {"prediction": [110.0]}


def test_whole_number_tensors_are_taken_by_a_float_model(api):
    call = {"inputs": [tensor([1, 2, 3, 4], [1, 4], "INT32")]}
    assert outputs_of(api.post(INFER.format("regression"), call)) == {"prediction": [110.0]}
    assert api.post(INFER.format("regression"), {"inputs": [tensor([1, 2, 3, 4.5], [1, 4], "INT32")]}).status == 400


def test_raw_body_is_the_one_input(api):
    rows = np.arange(8, dtype="<f4")
    got = api.post(INFER.format("regression"), rows.tobytes(), **{LENGTH: "0"})
    assert got.status == 200
    assert np.frombuffer(outputs_of(got)["prediction"], "<f4").tolist() == [106, 122]
    for wrong in (b"", rows.tobytes()[:-1]):
        assert api.post(INFER.format("regression"), wrong, **{LENGTH: "0"}).status == 400
    assert api.post(INFER.format("table"), rows.tobytes(), **{LENGTH: "0"}).status == 400


ECHO = {
    "BOOL": [True, False], "INT8": [-128, 127], "INT16": [-(2**15), 1], "INT32": [-(2**31), 1],
    "INT64": [-(2**63), 2**63 - 1], "UINT8": [0, 255], "UINT16": [0, 2**16 - 1], "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1], "FP16": [0.5, -65504], "FP32": [1.5, -(2.0**100)], "FP64": [1e300, 0.1],
    "BYTES": ["a\0b", "é☃"],
}  # fmt: skip


def echoes() -> list[dict]:
    from appliance.openinference.tensors import DATATYPES

    return [tensor(data, [2, 1], datatype, DATATYPES[datatype]) for datatype, data in ECHO.items()]


def test_every_datatype_goes_and_comes_back_as_json(api):
    got = api.post(INFER.format("echo"), {"inputs": echoes()})
    assert got.status == 200
    assert [output["data"] for output in got.json["outputs"]] == list(ECHO.values())
    assert [output["datatype"] for output in got.json["outputs"]] == list(ECHO)


def test_every_datatype_goes_and_comes_back_as_binary(api):
    from appliance.openinference.binary import write
    from appliance.openinference.tensors import DATATYPES

    parts = []
    for datatype, data in ECHO.items():
        dtype = object if datatype == "BYTES" else DATATYPES[datatype]
        parts.append(write(np.array(data, dtype)))
    inputs = [
        tensor(None, [2, 1], datatype, DATATYPES[datatype], binary_data_size=len(part))
        for datatype, part in zip(ECHO, parts, strict=True)
    ]
    # One byte first puts every tensor behind it at an odd address.
    body, headers = binary({"inputs": inputs, "parameters": {"binary_data_output": True}}, *parts)
    got = api.post(INFER.format("echo"), body, **headers)
    assert got.status == 200
    assert list(outputs_of(got).values()) == parts


def test_null_is_nan_in_and_out_and_infinity_is_null(api):
    inputs = [entry for entry in echoes() if entry["datatype"] != "FP32"]
    call = {"inputs": [*inputs, tensor([None, math.inf], [2, 1], "FP32", "float32")]}
    got = api.post(INFER.format("echo"), call)  # json.dumps writes Infinity
    assert got.status == 200
    assert outputs_of(got)["out_float32"] == [None, None]
    part = struct.pack("<2f", math.nan, math.inf)
    sent = tensor(None, [2, 1], "FP32", "float32", binary_data_size=8)
    body, headers = binary({"inputs": [*inputs, sent], "parameters": {"binary_data_output": True}}, part)
    assert outputs_of(api.post(INFER.format("echo"), body, **headers))["out_float32"] == part


def test_classification_gives_value_index_label(api):
    call = {"inputs": [tensor([[0, 0, 9, 0], [9, 0, 0, 0]], [2, 4])]}
    call["outputs"] = [{"name": "probability", "parameters": {"classification": 2}}]
    output = api.post(INFER.format("labels"), call).json["outputs"][0]
    assert (output["shape"], output["datatype"]) == ([2, 2], "BYTES")
    value, index, label = output["data"][0].split(":")
    assert (float(value) > 0.9, index, label) == (True, "2", "virginica")
    assert output["data"][2].endswith(":0:setosa")
    call["outputs"][0]["parameters"]["classification"] = 99
    assert api.post(INFER.format("labels"), call).json["outputs"][0]["shape"] == [2, 3]
    call["outputs"] = [{"name": "prediction", "parameters": {"classification": 1}}]
    assert api.post(INFER.format("labels"), call).status == 400


SHAPES = [[-1, 4], [1, -4], [-1, -4], [2**62, 4], [2**64, 2**64], [0, 4], [1, 0], [0, 2**70], [], [3], [4, 1], [2, 4]]


@pytest.mark.parametrize("shape", [*SHAPES, [1] * 1000, [1, 1, 4], [1, 4, 1], [1.5, 4], "4", None])
@pytest.mark.parametrize("form", ["json", "binary"])
def test_shape_that_the_data_does_not_fill_is_refused(api, shape, form):
    sent = tensor(ROW, shape)
    body, headers = json.dumps({"inputs": [sent]}).encode(), {}
    if form == "binary":
        body, headers = binary({"inputs": [tensor(None, shape, binary_data_size=16)]}, bytes(16))
    got = api.post(INFER.format("regression"), body, **headers)
    assert got.status in (400, 413)
    assert got.json["error"]


@pytest.mark.parametrize("data", [[[5.1, 3.5], [1.4, 0.2]], [[5.1], [3.5, 1.4, 0.2]], [5.1, [3.5, 1.4, 0.2]], [[ROW]]])
def test_nesting_that_disagrees_with_the_shape_is_refused(api, data):
    assert api.post(INFER.format("regression"), {"inputs": [tensor(data)]}).status == 400


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ({}, "required field `inputs`"),
        ({"inputs": []}, "the table lacks"),
        ({"inputs": [tensor(ROW[:3], [1, 3], name="x")]}, "its shape is [1, 3]"),
        ({"inputs": [tensor(), tensor()]}, "sent twice"),
        ({"inputs": [tensor(), tensor(name="x")]}, "got features, x"),
        ({"inputs": [tensor(datatype="BF16")]}, "'BF16' is unknown"),
        ({"inputs": [tensor(None)]}, "it has no data"),
        ({"inputs": [tensor(["a", "b", "c", "d"], datatype="BYTES")]}, "texts"),
        ({"inputs": [tensor(["a", "b", "c", "d"])]}, "it holds a text"),
        ({"inputs": [tensor([True] * 4)]}, "it holds a boolean"),
        ({"inputs": [tensor([1, 2, 3, None])]}, "a value is missing"),
        ({"inputs": [tensor(binary_data_size=16)]}, "0 bytes are left"),
        ({"inputs": [tensor()], "outputs": [{"name": "x"}]}, "there is no output 'x'"),
        ({"inputs": [tensor()], "outputs": [{"name": "prediction"}] * 2}, "asked for twice"),
        ({"inputs": [tensor()], "outputs": [{"name": "prediction", "parameters": {"classification": -1}}]}, "is -1"),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": "yes"}}, "is yes"),
        ({"inputs": [tensor()], "parameters": {"nested": {"a": 1}}}, "got `object`"),
        ({"inputs": [tensor(content_type="base64")]}, "'base64' is unknown"),
        ({"inputs": [tensor()], "output": []}, "unknown field `output`"),
        ({"inputs": [tensor([1, 2, 3, 300], datatype="UINT8"), tensor()]}, "sent twice"),
    ],
)
def test_wrong_call_is_refused_with_what_is_wrong(api, call, found):
    got = api.post(INFER.format("regression"), call)
    assert got.status == 400
    assert found in got.json["error"]
    assert got.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("name", ["sequence_id", "sequence_start", "priority", "headers", "triton_x"])
def test_reserved_parameters_are_refused(api, name):
    got = api.post(INFER.format("regression"), {"inputs": [tensor()], "parameters": {name: 1}})
    assert got.status == 400
    assert "reserved" in got.json["error"]


@pytest.mark.parametrize("value", [-1, 1.5, "soon", True])
def test_timeout_that_is_none_is_refused(api, value):
    assert api.post(INFER.format("regression"), {"inputs": [tensor()], "parameters": {"timeout": value}}).status == 400


def test_parameters_that_ask_for_what_is_so_anyway_are_taken(api):
    """tritonclient.http: infer(timeout=5_000_000); other clients write out Triton's defaults."""
    said = {"timeout": 5_000_000, "priority": 0, "sequence_id": 0, "sequence_start": False, "triton_x": False}
    assert api.post(INFER.format("regression"), {"inputs": [tensor()], "parameters": said}).status == 200


def test_other_parameters_are_ignored(api):
    call = {"inputs": [tensor(my_hint="x")], "parameters": {"my_parameter": 1.5, "other": True}}
    assert api.post(INFER.format("regression"), call).status == 200


@pytest.mark.parametrize(
    ("datatype", "value"), [("INT8", 128), ("UINT8", -1), ("INT64", 2**63), ("UINT64", 2**64), ("INT32", 2**100)]
)
def test_whole_number_that_does_not_fit_is_refused(api, datatype, value):
    inputs = [entry if entry["datatype"] != datatype else {**entry, "data": [0, value]} for entry in echoes()]
    got = api.post(INFER.format("echo"), {"inputs": inputs})
    assert got.status == 400
    assert "does not fit" in got.json["error"]


@pytest.mark.parametrize("length", ["-1", "x", "", "99999", "1e2", "٣", "9" * 5000, "1"])
def test_header_length_that_cannot_be_is_refused(api, length):
    got = api.post(INFER.format("regression"), {"inputs": [tensor()]}, **{LENGTH: length})
    assert got.status == 400


@pytest.mark.parametrize("size", [15, 17, -1, 2**70, "16", 16.0, True])
def test_binary_size_that_does_not_fit_is_refused(api, size):
    body, headers = binary({"inputs": [tensor(None, binary_data_size=size)]}, bytes(16))
    assert api.post(INFER.format("regression"), body, **headers).status == 400


@pytest.mark.parametrize(
    "site", [b"\x05\0\0\0nort", b"\xff\xff\xff\xffnorth", b"\x02\0\0\0\xff\xfe", b"\0\0\0", b"\0" * 5]
)
def test_text_that_is_none_is_refused(api, site):
    inputs = [
        tensor([1.5], [1], "FP32", "temp-C"),
        tensor([2], [1], "INT64", "count"),
        tensor([True], [1], "BOOL", "on"),
    ]
    body, headers = binary({"inputs": [*inputs, tensor(None, [1], "BYTES", "site", binary_data_size=len(site))]}, site)
    got = api.post(INFER.format("table"), body, **headers)
    assert got.status == 400
    assert "'site'" in got.json["error"]


def test_data_beside_binary_is_refused(api):
    body, headers = binary({"inputs": [tensor(binary_data_size=16)]}, bytes(16))
    assert "one of them" in api.post(INFER.format("regression"), body, **headers).json["error"]


def test_bytes_left_over_are_refused(api):
    body, headers = binary({"inputs": [tensor()]}, bytes(4))
    assert "4 bytes follow" in api.post(INFER.format("regression"), body, **headers).json["error"]


def test_rows_beyond_the_limit_are_413(make_api):
    api = make_api("regression", max_rows=2)
    assert api.post(INFER.format("regression"), {"inputs": [tensor([ROW] * 2, [2, 4])]}).status == 200
    assert api.post(INFER.format("regression"), {"inputs": [tensor([ROW] * 3, [3, 4])]}).status == 413
    assert api.post(INFER.format("regression"), bytes(48), **{LENGTH: "0"}).status == 413


@pytest.mark.parametrize("start", [b"", b'{"inputs": [', b'{"parameters": ', b'{"x": ', b'{"inputs": [{"data": '])
def test_deep_nesting_is_413(api, start):
    assert api.post(INFER.format("regression"), start + b"[" * 100_000).status == 413


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_request_and_answer(api, encoding, pack):
    rows = np.zeros((500, 4), "<f4")
    call = {
        "inputs": [tensor(None, [500, 4], binary_data_size=rows.nbytes)],
        "parameters": {"binary_data_output": True},
    }
    body, headers = binary(call, rows.tobytes())
    got = api.post(
        INFER.format("regression"), pack(body), CONTENT_ENCODING=encoding, ACCEPT_ENCODING=encoding, **headers
    )
    assert got.status == 200
    assert got.headers["Content-Encoding"] == encoding
    got.body = gzip.decompress(got.body) if encoding == "gzip" else zlib.decompress(got.body)
    assert np.frombuffer(outputs_of(got)["prediction"], "<f4").tolist() == [100] * 500


def test_small_answers_and_metadata_are_not_compressed(api):
    got = api.post(INFER.format("regression"), {"inputs": [tensor()]}, ACCEPT_ENCODING="gzip, deflate")
    assert "Content-Encoding" not in got.headers
    # Triton's asyncio client accepts gzip in every call and unpacks only infer's answers.
    assert "Content-Encoding" not in api.get("/v2/models/echo", ACCEPT_ENCODING="gzip").headers


@pytest.mark.parametrize(
    ("content", "encoding"),
    [(b"x", "gzip"), (gzip.compress(b"{}")[:-1], "gzip"), (b"{}", "br")],
    ids=["no gzip", "cut off", "unknown"],  # gzip writes the time, and xdist's workers must name tests alike
)
def test_broken_or_unknown_compression_is_refused(api, content, encoding):
    assert api.post(INFER.format("regression"), content, CONTENT_ENCODING=encoding).status == 400


def test_decompressed_body_has_the_same_limit(make_api):
    api = make_api("regression", max_body_bytes=1000)
    got = api.post(INFER.format("regression"), gzip.compress(b" " * 100_000), CONTENT_ENCODING="gzip")
    assert got.status == 413


def test_chunked_body_is_taken(send):
    body = json.dumps({"inputs": [tensor()]}).encode()
    headers = {"Transfer-Encoding": "chunked"}
    got = send("POST", INFER.format("regression"), iter([body[:10], body[10:]]), headers, chunked=True)
    assert got.status == 200
    assert outputs_of(got) == {"prediction": [pytest.approx(110.2)]}


def test_quoted_model_name_is_found(send):
    assert send("GET", "/v2/models/%72egression").status == 200


def test_unknown_model_is_404_in_tritons_words(api):
    for got in (api.post(INFER.format("nobody"), {"inputs": [tensor()]}), api.get("/v2/models/nobody")):
        assert got.status == 404
        assert got.json["error"].startswith("Request for unknown model")
        assert got.headers["Content-Type"] == "application/json"


def test_health_bodies_are_json(api, make_api):
    assert api.get("/v2/health/live").json == {"live": True}
    ready = api.get("/v2/health/ready")
    assert (ready.status, ready.json) == (200, {"ready": True})
    empty = make_api().get("/v2/health/ready")
    assert (empty.status, empty.json) == (503, {"ready": False})


def test_server_metadata(api):
    got = api.get("/v2").json
    assert got["name"] == "appliance"
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} <= set(got["extensions"])


def test_model_metadata(api):
    got = api.get("/v2/models/labels").json
    assert got["platform"] == "onnx_onnxv1"
    assert got["versions"] == ["1.0.0"]
    assert got["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}]
    assert {"name": "prediction", "datatype": "BYTES", "shape": [-1]} in got["outputs"]
    assert api.get("/v2/models/labels/versions/1.0.0").json == got
    assert api.get("/v2/models/labels/versions/2.0.0").status == 404
    assert "labels" in api.get("/v2/models").json["models"]


def test_model_config_in_tritons_words(api):
    got = api.get("/v2/models/labels/config").json
    assert (got["name"], got["backend"], got["max_batch_size"]) == ("labels", "onnxruntime", 100_000)
    assert got["input"] == [{"name": "features", "data_type": "TYPE_FP32", "dims": [4]}]
    assert got["output"][0] == {
        "name": "prediction",
        "data_type": "TYPE_STRING",
        "dims": [1],
        "reshape": {"shape": []},
    }


def test_statistics_count_what_was_asked(make_api):
    api = make_api("regression", "labels")
    assert api.get("/v2/models/stats").json == {"model_stats": []}
    for _ in range(2):
        api.post(INFER.format("labels"), {"inputs": [tensor([ROW] * 3, [3, 4])]})
    for path in ("/v2/models/stats", "/v2/models/labels/stats", "/v2/models/labels/versions/1.0.0/stats"):
        (stats,) = api.get(path).json["model_stats"]
        assert (stats["name"], stats["version"]) == ("labels", "1.0.0")
        assert (stats["inference_count"], stats["execution_count"]) == (6, 2)
        assert stats["inference_stats"]["success"]["count"] == 2
        assert stats["inference_stats"]["compute_infer"]["ns"] > 0
        assert stats["last_inference"] == 1_700_000_000_500
    (never,) = api.get("/v2/models/regression/stats").json["model_stats"]
    assert never["inference_stats"]["success"] == {"count": 0, "ns": 0}
    assert api.get("/v2/models/nobody/stats").status == 404
    failed = Counts(failures=3, failure_seconds=0.5)
    api.recorder.counts |= {("labels", ""): failed, ("nobody", ""): failed}
    (stats,) = api.get("/v2/models/stats").json["model_stats"]  # no version is empty
    assert (stats["name"], stats["version"]) == ("labels", "1.0.0")
    assert stats["inference_stats"]["fail"] == {"count": 3, "ns": 500_000_000}
    assert stats["inference_stats"]["success"]["count"] == 2


def test_repository_index_load_and_unload(make_api, bundle_bytes, tmp_path):
    api = make_api("labels", "regression")
    api.install(bundle_bytes("labels", "1.10.0", kind="labels"), tmp_path, activate=False)
    api.install(bundle_bytes("labels", "1.9.0", kind="labels"), tmp_path, activate=False)

    def states() -> dict[str, str]:
        index = api.post("/v2/repository/index").json
        return {entry["version"]: entry["state"] for entry in index if entry["name"] == "labels"}

    assert states() == {"1.0.0": "READY", "1.9.0": "UNAVAILABLE", "1.10.0": "UNAVAILABLE"}
    assert len(api.post("/v2/repository/index", {"ready": True}).json) == 2

    load, unload = "/v2/repository/models/labels/load", "/v2/repository/models/labels/unload"
    assert api.post(load).json == {"name": "labels", "version": "1.0.0"}
    for _ in range(2):
        assert api.post(unload, {"parameters": {"unload_dependents": False}}).json["version"] is None
    assert api.get("/v2/models/labels/ready").status == 503
    assert api.get("/v2/models/labels/ready").json == {"name": "labels", "ready": False}
    assert api.post(INFER.format("labels"), {"inputs": [tensor()]}).status == 503
    assert states()["1.0.0"] == "UNAVAILABLE"
    assert api.post(load, {}).json["version"] == "1.0.0"
    assert api.post(load, {"parameters": {"version": "1.9.0"}}).json["version"] == "1.9.0"
    assert api.get("/v2/models/labels/ready").json == {"name": "labels", "ready": True}
    assert states() == {"1.0.0": "UNAVAILABLE", "1.9.0": "READY", "1.10.0": "UNAVAILABLE"}


def test_model_that_was_never_active_is_loaded_in_its_newest_version(make_api, bundle_bytes, tmp_path):
    api = make_api()
    for version in ("1.10.0", "1.9.0"):
        api.install(bundle_bytes("iris", version), tmp_path, activate=False)
    assert api.post("/v2/repository/models/iris/load").json["version"] == "1.10.0"


def test_load_that_cannot_be_is_refused(make_api, bundle_bytes, tmp_path):
    api = make_api("labels")
    api.install(bundle_bytes("labels", "2.0.0", kind="labels", error=0.5), tmp_path, activate=False)
    load = "/v2/repository/models/labels/load"
    for parameters, status in (
        ({"version": "2.0.0"}, 409),  # its self-test fails
        ({"version": "9.0.0"}, 404),
        ({"version": 1}, 400),
        ({"config": "{}"}, 501),
        ({"file:1/model.onnx": "AAAA"}, 501),
    ):
        got = api.post(load, {"parameters": parameters})
        assert got.status == status
        assert got.json["error"]
    assert api.get("/v2/models/labels/ready").status == 200
    for call in ("load", "unload"):
        got = api.post(f"/v2/repository/models/nobody/{call}")
        assert got.status == 404
        assert got.json["error"].startswith("Request for unknown model")


@pytest.mark.parametrize("path", ["/v2/trace/setting", "/v2/models/labels/trace/setting", "/v2/logging"])
def test_extensions_that_are_not_served_say_so(api, path):
    for got in (api.get(path), api.post(path, {})):
        assert got.status == 501
        assert "not served" in got.json["error"]


@given(st.binary(max_size=100), st.none() | st.integers(-1, 120).map(str) | st.text("0123456789 x", max_size=4))
def test_any_bytes_and_any_header_length_are_answered(api, body, length):
    headers = {} if length is None else {LENGTH: length}
    for model in ("regression", "table"):
        assert api.post(INFER.format(model), body, **headers).status in (200, 400, 413)


NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["features", "site", "on", "count", "temp-C", "petal_width"]),
        "shape": st.lists(st.integers(-1, 5) | st.integers(), max_size=4),
        "datatype": st.sampled_from(["FP32", "BYTES", "BOOL", "INT64", "UINT8", "FP16", "X"]),
        "data": st.none() | st.lists(NUMBERS | st.lists(NUMBERS, max_size=4), max_size=5),
        "parameters": st.none() | st.dictionaries(st.sampled_from(["binary_data_size", "content_type"]), NUMBERS),
    }
)


@given(st.lists(TENSORS, max_size=4), st.binary(max_size=20), st.sampled_from(["regression", "table"]))
def test_any_call_is_answered(api, tensors, content, model):
    body, headers = binary({"inputs": tensors}, content)
    assert api.post(INFER.format(model), body, **headers).status in (200, 400, 413)
