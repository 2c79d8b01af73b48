"""NaN, infinity, overflow, a BOM and blanks mean the same over every route and in every form."""

import gzip
import json
import struct
import zlib

import pytest

INFER = "/v2/models/regression/infer"
HUGE = [3e38, 3e38, 1, 1]


def binary(call: dict, content: bytes) -> tuple[bytes, dict[str, str]]:
    header = json.dumps(call).encode()
    return header + content, {"INFERENCE_HEADER_CONTENT_LENGTH": str(len(header))}


def forms(row: list[float]) -> list[tuple[str, bytes, dict[str, str]]]:
    """Return (path, body, headers) of one row in every form that HTTP takes for `regression`."""
    text = json.dumps(row)
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 4]}
    wanted = {"parameters": {"binary_data_output": True}}
    content = struct.pack("<4f", *row)
    sized = tensor | {"parameters": {"binary_data_size": 16}}
    made = [
        ("/predict", f'{{"features": {text}}}'.encode(), {}),
        ("/models/regression/predict", f'\ufeff{{"features": [{text}]}}'.encode(), {}),
        ("/invocations", f'{{"instances": [{text}]}}'.encode(), {}),
        ("/invocations", f'{{"dataframe_split": {{"data": [{text}]}}}}'.encode(), {}),
        ("/invocations", ",".join(map(str, row)).encode(), {"CONTENT_TYPE": "text/csv"}),
        ("/v1/models/regression:predict", f'{{"instances": [{text}]}}'.encode(), {}),
        (INFER, f'{{"inputs": [{json.dumps(tensor | {"data": row})}]}}'.encode(), {}),
        (INFER, json.dumps({"inputs": [tensor | {"data": row}]} | wanted).encode(), {}),
        (INFER, *binary({"inputs": [sized]}, content)),
        (INFER, *binary({"inputs": [sized]} | wanted, content)),
        (INFER, content, {"INFERENCE_HEADER_CONTENT_LENGTH": "0"}),
    ]
    return [*made, *((path, gzip.compress(body), head | {"CONTENT_ENCODING": "gzip"}) for path, body, head in made)]


@pytest.fixture(scope="module")
def plain(api_of):
    return api_of("regression")


def test_an_answer_that_overflows_is_refused_in_every_form(plain):
    for path, body, headers in forms(HUGE):
        got = plain.post(path, body, **headers)
        assert got.status == 400, (path, got.body)
        assert b"to row 0 is infinite" in got.body
    for path, body, headers in forms([1, 2, 3, 4]):
        assert plain.post(path, body, **headers).status == 200, path


def test_a_number_beyond_the_input_is_refused_in_every_form(plain):
    bodies = [
        ("/predict", b'{"features": [%s, 1, 1, 1]}', {}),
        ("/predict", b'{"features": [[%s, NaN, 1, 1]]}', {}),
        ("/invocations", b'{"instances": [[%s, 1, 1, 1]]}', {}),
        ("/invocations", b"%s,1,1,1\n", {"CONTENT_TYPE": "text/csv"}),
        ("/v1/models/regression:predict", b'{"instances": [[%s, 1, 1, 1]]}', {}),
        (INFER, b'{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP64","data":[%s,1,1,1]}]}', {}),
    ]
    for number in (b"1e39", b"-1e39", b"1e400", b"9" * 320, b"9" * 5000):
        for path, body, headers in bodies:
            got = plain.post(path, body % number, **headers)
            assert got.status == 400, (path, number[:9])
            assert any(word in got.body for word in (b"too large", b"out of range")), got.body
    double = {"name": "features", "shape": [1, 4], "datatype": "FP64", "parameters": {"binary_data_size": 32}}
    body, headers = binary({"inputs": [double]}, struct.pack("<4d", 1e39, 1, 1, 1))
    assert b"too large" in plain.post(INFER, body, **headers).body


def test_nan_and_infinity_of_a_row_are_refused_in_every_form_by_a_model_that_takes_neither(plain):
    for value, word in ((float("nan"), b"missing"), (float("inf"), b"infinite"), (float("-inf"), b"infinite")):
        for path, body, headers in forms([value, 1, 1, 1]):
            got = plain.post(path, body, **headers)
            assert got.status == 400, (path, value)
            assert word in got.body, (path, got.body)


def test_csv_says_in_its_error_how_to_decide(plain):
    body = b"1,2,3,4\n5,6,7,8\n"
    for header, rows in (("; header=absent", 2), ("", 2)):
        got = plain.post("/invocations", body, CONTENT_TYPE=f"text/csv{header}")
        assert len(got.json["predictions"]) == rows
    assert plain.post("/invocations", body, CONTENT_TYPE="text/csv; header=maybe").status == 400


def test_blanks_of_texts_reach_the_model(api_of):
    for body, answer in ((b"1,1,north,true\n", 212), (b"1,1, north,true\n", 202), (b'1,1,"north",true\n', 212)):
        got = api_of("table").post("/invocations", body, CONTENT_TYPE="text/csv")
        assert got.json["predictions"] == [answer]


def test_gzip_members_are_read_one_behind_the_other(plain):
    body = b'{"features": [1, 2, 3, 4]}'
    for cut in (0, 1, 10, len(body)):
        content = gzip.compress(body[:cut]) + gzip.compress(body[cut:])
        assert plain.post("/predict", content, CONTENT_ENCODING="gzip").json["prediction"] == [110.0]
    whole = gzip.compress(body)
    for wrong in (whole + b"x", whole[:-1], whole + whole[:5], zlib.compress(body) * 2):
        assert plain.post("/predict", wrong, CONTENT_ENCODING="gzip").status == 400
    assert plain.post("/predict", zlib.compress(body) * 2, CONTENT_ENCODING="deflate").status == 400
    many = gzip.compress(b"") * 5000 + whole
    assert plain.post("/predict", many, CONTENT_ENCODING="gzip").status == 400
