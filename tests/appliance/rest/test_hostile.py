"""Bodies, paths and names that only an attacker or a broken client sends: a clear answer, soon, and never a 500."""

import gzip
import http.client
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config import HttpConfig
from appliance.errors import ApplianceError, InvalidInput
from appliance.inference.values import Scalar
from appliance.limits import Limits
from appliance.rest import json_body
from appliance.rest.invocations import InvocationOf
from appliance.rest.json_body import decode_values
from appliance.rest.predict import Rows

PREDICT = "/models/regression/predict"
ROW = [1, 2, 3, 4]
LIMITS = Limits.of_http(HttpConfig())


@pytest.mark.parametrize("offset", [0, 1])
def test_text_cut_off_in_the_search_for_nesting_is_passed_over_at_once(api, offset):
    body = b'{"features":"' + b" " * offset + b'\\"' * 1_000_000
    for end in (60_001, 60_000):  # a search that starts again at each quote took 16 s
        assert [match[0][:1] for match in json_body._BRACKETS.finditer(body[12:end])] == [b'"']
    assert api.post(PREDICT, body).status == 400


def test_brackets_in_texts_are_no_nesting_and_others_are(api):
    assert "unknown column" in api.post(PREDICT, {"features": {"[" * 1000 + '\\"': 1}}).json["detail"]
    assert api.post(PREDICT, b'{"features":' + b"[" * 100_000).status == 413
    assert api.post(PREDICT, b'{"features":["\\\\", ' + b"[" * 100).status == 413


@settings(max_examples=150)
@given(
    st.text(max_size=40) | st.sampled_from(['{"features":', "NaN", "-Infinity", "\\", '"', "[[", "\ufeff"]), st.data()
)
def test_any_text_is_decoded_or_refused(text, data):
    body = (text + data.draw(st.text(alphabet='{}[]":,\\ NaInfity-1e9\ufeff', max_size=60))).encode(
        "utf-8", "surrogatepass"
    )
    for kind in (Rows, InvocationOf):
        for value_type in (float, float | None, Scalar):
            try:
                found: object = decode_values(body, kind, value_type, LIMITS)[0]
            except ApplianceError as error:
                found = error
            assert isinstance(found, (kind, InvalidInput))


def test_python_words_for_missing_and_infinite_are_read_as_such_outside_of_texts(api):
    assert "missing" in api.post(PREDICT, b'{"features": [NaN, 2, 3, 4]}').json["found"]
    for word in (b"Infinity", b"-Infinity"):
        assert "infinite" in api.post(PREDICT, b'{"features": [%s, 2, 3, 4]}' % word).json["found"]
    got = api.post(PREDICT, b'{"features": {"NaN": NaN}}')
    assert "unknown column 'NaN'" in got.json["detail"]
    for wrong in (b"NaNa", b"nan", b"1NaN", b"Infinitys", b"--Infinity"):
        assert api.post(PREDICT, b'{"features": [%s, 2, 3, 4]}' % wrong).status == 400


def test_missing_value_and_infinity_reach_a_model_that_takes_them(api):
    kinds = {"bool": "BOOL", "string": "BYTES", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
    sizes = ("8", "16", "32", "64")
    kinds |= {f"{sign}int{size}": f"{sign}int{size}".upper() for sign in ("", "u") for size in sizes}
    values = {"bool": "true", "string": '"NaN"', "float32": "NaN", "float64": "-Infinity"}
    inputs = ",".join(
        f'{{"name": "{name}", "datatype": "{kind}", "shape": [1], "data": [{values.get(name, "1")}]}}'
        for name, kind in kinds.items()
    )
    got = api.post("/v2/models/echo/infer", f'{{"inputs": [{inputs}]}}'.encode())
    data = {output["name"]: output["data"] for output in got.json["outputs"]}
    assert (data["out_float32"], data["out_string"]) == ([None], ["NaN"])
    assert data["out_float64"] == [None]  # infinity too is null in JSON
    assert data["out_int64"] == [1]


def test_byte_order_mark_before_json_is_passed_over(api):
    assert api.post(PREDICT, b"\xef\xbb\xbf" + json.dumps({"features": ROW}).encode()).json["prediction"] == [110.0]
    assert api.post(PREDICT, b"\xef\xbb\xbf").status == 400


def test_megabytes_of_one_name_are_not_sent_back(api):
    for path, body in (
        (PREDICT, {"features": {"k" * 1_000_000: 1}}),
        ("/v2/models/regression/infer", {"k" * 1_000_000: 1}),
    ):
        got = api.post(path, body)
        assert got.status == 400
        assert len(got.body) < 10_000


@pytest.mark.parametrize("name", ["a%00b", "..", "%2e%2e", "a" * 300, "%ff%fe", "a\nb", "A", "%20", "-"])
def test_name_that_no_model_can_have_is_not_found(start_service, name):
    service = start_service(("plant", "1.0.0", "regression"))
    name = name.replace("\n", "%0a")
    for path in (
        "/models/{}/rollback", "/models/{}/mark-good", "/models/{}/versions/1.0.0/activate", "/models/{}/predict",
        "/v2/models/{}/infer", "/v2/repository/models/{}/load", "/v2/repository/models/{}/unload",
        "/models/plant/versions/{}/activate", "/models/plant/versions/{}/predict",
    ):  # fmt: skip
        status, found = service.ask("POST", path.format(name), b"")
        assert status in (400, 404), (path, found)
    for path in (
        "/models/{}",
        "/v2/models/{}",
        "/v2/models/{}/config",
        "/v1/models/{}",
        "/v2/models/plant/versions/{}",
    ):
        assert service.ask("GET", path.format(name))[0] == 404, path


def test_double_slash_is_no_redirection(api):
    got = api.get("/v2//health/live", HOST="evil.example")
    assert got.status == 404
    assert b"evil" not in got.body
    assert "Location" not in got.headers


def test_request_id_comes_back_as_one_header(send):
    got = send("POST", PREDICT, b"{}", {"X-Request-Id": "a\x85b\xff" + "c" * 300})
    assert got.headers["X-Request-Id"] == ("a\x85b\xff" + "c" * 300)[:128]


def test_compressed_body_is_not_unpacked_on_the_loop(make_api, listen):
    api = make_api("regression")
    threads = set()
    predict = api.models.get("regression").session.run
    api.models.get("regression").session.run = lambda *given: threads.add(threading.get_ident()) or predict(*given)
    with listen(api) as address:
        connection = http.client.HTTPConnection(address, timeout=20)
        packed = gzip.compress(json.dumps({"features": [ROW] * 1000}).encode())
        assert len(packed) < 1024
        connection.request("POST", PREDICT, packed, {"Content-Encoding": "gzip"})
        assert len(json.loads(connection.getresponse().read())["prediction"]) == 1000
        connection.request("POST", PREDICT, json.dumps({"features": ROW}))
        assert connection.getresponse().status == 200
        assert len(threads) == 2
        connection.close()
