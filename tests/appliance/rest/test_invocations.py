"""/invocations, /ping and the v1 routes, as MLflow, SageMaker, Vertex AI and KServe v1 call them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = [[1, 2, 3, 4], [5, 6, 7, 8.5]]
NAMED = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
ANSWER = {"predictions": [110.0, 126.5]}
TABLE = [
    {"temp-C": 1.5, "count": 2, "site": "north", "on": True},
    {"temp-C": 2.5, "count": 3, "site": "ö", "on": False},
]
TABLE_ANSWER = {"predictions": [213.5, 105.5]}


@pytest.fixture
def plain(make_api):
    """An api with the one model `regression`."""
    return make_api("regression")


@pytest.fixture
def table(make_api):
    """An api with the one model `table`."""
    return make_api("table")


@pytest.mark.parametrize(
    "sent",
    [
        {"dataframe_split": {"columns": COLUMNS, "data": ROWS}},
        {"dataframe_split": {"index": [0, 1], "columns": COLUMNS[::-1], "data": [row[::-1] for row in ROWS]}},
        {"dataframe_split": {"columns": [0, 1, 2, 3], "data": ROWS}},
        {"dataframe_split": {"data": ROWS}},
        {"dataframe_records": NAMED},
        {"dataframe_records": [{str(index): value for index, value in enumerate(row)} for row in ROWS]},
        {"instances": ROWS},
        {"instances": NAMED},
        {"instances": ROWS, "parameters": {}},
        {"inputs": ROWS},
        {"inputs": NAMED},
        {"inputs": {name: [row[index] for row in ROWS] for index, name in enumerate(COLUMNS)}},
        {"inputs": {name: [[row[index]] for row in ROWS] for index, name in enumerate(COLUMNS)}},
        {"inputs": {"features": ROWS}, "params": None},
    ],
)
def test_every_form_of_a_table_answers_the_same(plain, sent):
    got = plain.post("/invocations", sent, CONTENT_TYPE="application/json")
    assert (got.status, got.json) == (200, ANSWER)


def test_table_of_several_types(table):
    columns = list(TABLE[0])
    split = {"columns": columns, "data": [list(row.values()) for row in TABLE]}
    by_column = {name: [row[name] for row in TABLE] for name in columns}
    for sent in ({"dataframe_split": split}, {"dataframe_records": TABLE}, {"instances": TABLE}, {"inputs": by_column}):
        assert table.post("/invocations", sent).json == TABLE_ANSWER


def test_classifier_answers_its_labels(make_api):
    got = make_api("labels").post("/invocations", {"instances": [[9, 0, 0, 0], [0, 0, 9, 0]]})
    assert got.json == {"predictions": ["setosa", "virginica"]}


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ({}, "none of them"),
        ({"instances": ROWS, "inputs": ROWS}, "instances and inputs"),
        ({"instances": []}, "there are none"),
        ({"instances": [1, 2]}, "row 0 is a number"),
        ({"instances": ROWS, "params": {"x": 1}}, "'x' is unknown"),
        ({"instances": ROWS, "parameters": {"confidence": 0.5}}, "'confidence' is unknown"),
        ({"data": ROWS}, "unknown field `data`"),
        ({"dataframe_split": {"columns": COLUMNS, "data": []}}, "there are none"),
        ({"dataframe_split": {"columns": COLUMNS[:3], "data": ROWS}}, "row 0 has 4 values for 3 columns"),
        ({"dataframe_split": {"columns": [*COLUMNS[:3], "x"], "data": ROWS}}, "unknown column 'x'"),
        ({"dataframe_split": {"columns": [COLUMNS[0]] * 4, "data": ROWS}}, "a name stands twice"),
        ({"dataframe_split": {"columns": [], "data": []}}, "the table lacks"),
        ({"inputs": {**{name: [1, 2] for name in COLUMNS}, "sepal_width": [1]}}, "they differ in length"),
        ({"inputs": {name: [[1, 2]] for name in COLUMNS}}, "a row has 2 values"),
        ({"inputs": {}}, "the table lacks"),
    ],
)
def test_wrong_invocation_is_refused_in_mlflows_words(plain, sent, found):
    got = plain.post("/invocations", sent)
    assert got.status == 400
    assert got.json["error_code"] == "BAD_REQUEST"
    assert found in got.json["message"]


@pytest.mark.parametrize("content_type", ["", "application/json", "Application/JSON; charset=UTF-8"])
def test_json_content_types(plain, content_type):
    assert plain.post("/invocations", {"instances": ROWS}, CONTENT_TYPE=content_type).json == ANSWER


def test_json_in_another_charset(table):
    body = json.dumps({"dataframe_records": TABLE}, ensure_ascii=False).encode("latin-1")
    assert table.post("/invocations", body, CONTENT_TYPE="application/json; charset=latin-1").json == TABLE_ANSWER
    assert table.post("/invocations", body, CONTENT_TYPE="application/json").status == 400
    for charset in ("nonsense", "utf-16", "base64", "punycode"):
        assert table.post("/invocations", body, CONTENT_TYPE=f"application/json; charset={charset}").status == 400


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "csv"])
def test_unknown_content_type_is_415(plain, content_type):
    got = plain.post("/invocations", {"instances": ROWS}, CONTENT_TYPE=content_type)
    assert got.status == 415
    assert "application/json or text/csv" in got.json["message"]


@pytest.mark.parametrize(
    "body",
    [
        "1,2,3,4\n5,6,7,8.5\n",
        "1,2,3,4\r\n5,6,7,8.5",
        '"1", 2 ,3,4e0\n\n5,6,7,8.5\n\n',
        "sepal_length,sepal_width,petal_length,petal_width\n1,2,3,4\n5,6,7,8.5\n",
        "\ufeffpetal_width,petal_length,sepal_width,sepal_length\n4,3,2,1\n8.5,7,6,5\n",
    ],
)
def test_csv_with_and_without_header(plain, body):
    for content_type in ("text/csv", "text/csv; charset=utf-8"):
        got = plain.post("/invocations", body.encode(), CONTENT_TYPE=content_type)
        assert (got.status, got.json) == (200, ANSWER)


def test_csv_may_say_whether_it_has_a_header(plain):
    body = b"0,1,2,3\n1,2,3,4\n5,6,7,8.5\n"
    assert len(plain.post("/invocations", body, CONTENT_TYPE="text/csv").json["predictions"]) == 3
    assert len(plain.post("/invocations", body, CONTENT_TYPE="text/csv; header=absent").json["predictions"]) == 3
    got = plain.post("/invocations", body, CONTENT_TYPE="text/csv; header=present")
    assert "unknown column '0'" in got.json["message"]


def test_csv_of_several_types(table):
    header = "temp-C,count,site,on\n"
    for body in (header + "1.5,2,north,True\n2.5,3,ö,false\n", '1.5,2,"north",true\n2.5,3,ö,FALSE\n'):
        assert table.post("/invocations", body.encode(), CONTENT_TYPE="text/csv").json == TABLE_ANSWER
    body = (header + "1.5,2,north,True\n2.5,3,ö,false\n").encode("latin-1")
    assert table.post("/invocations", body, CONTENT_TYPE="text/csv; charset=latin-1").json == TABLE_ANSWER


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"sepal_length,sepal_width,petal_length,petal_width\n", "there are none"),
        (b"1,2,3\n", "row 0 has 3 values for 4 columns"),
        (b"1,2,3,4\n1,2,3,4,5\n", "row 1 has 5 values"),
        (b"1,2,3,x\n", "unknown column '1'"),
        (b"1,2,3,4\n1,2,3,x\n", "'petal_width': it holds a text ('x')"),
        (b"1,2,3,4\n1,2,3,1_0\n", "it holds a text ('1_0')"),
        (b"1,2,3,4\n1,2,3,\n", "'petal_width': a value is missing"),
        (b"1,2,3,inf\n", "'petal_width': a value is infinite"),
        (b"1,2,3," + b"9" * 5000 + b"\n", "'petal_width': a value is infinite"),
        (b"sepal_length,sepal_length,petal_length,petal_width\n1,2,3,4\n", "stands twice"),
        (b'1,2,3,"4\n', "after row 0"),
        (b"1,2,3,\xff\n", "it is no utf-8"),
        (b"1,2,3," + b"4" * 200_000, "field larger than field limit"),
    ],
)
def test_wrong_csv_is_refused(plain, body, found):
    got = plain.post("/invocations", body, CONTENT_TYPE="text/csv")
    assert got.status == 400
    assert found in got.json["message"]


def test_rows_beyond_the_limit_are_413(make_api):
    api = make_api("regression", max_rows=2)
    for count, status in ((2, 200), (3, 413)):
        assert api.post("/invocations", {"instances": ROWS[:1] * count}).status == status
        assert api.post("/invocations", {"dataframe_split": {"data": ROWS[:1] * count}}).status == status
        assert api.post("/invocations", {"inputs": dict.fromkeys(COLUMNS, [1] * count)}).status == status
        header = b"sepal_length,sepal_width,petal_length,petal_width\n"
        for start in (b"", header):
            got = api.post("/invocations", start + b"1,2,3,4\n" * count, CONTENT_TYPE="text/csv")
            assert got.status == status


def test_model_of_one_column_takes_plain_values(api):
    from appliance.bundle.manifest import Input
    from appliance.inference.tensors import InputSchema
    from appliance.rest.instances import from_instances

    class One:
        schema = InputSchema([Input(name="x", type="float32", shape=[-1, 1], columns=["x"])])

    for instances in ([1.0, 2.0], [[1.0], [2.0]], [{"x": 1.0}, {"x": 2.0}]):
        feeds = from_instances(api.context, One, instances, True)
        np.testing.assert_array_equal(feeds["x"], [[1], [2]])


def test_kserve_v1(api):
    form = "application/x-www-form-urlencoded"
    got = api.post("/v1/models/regression:predict", {"instances": ROWS}, CONTENT_TYPE=form)
    assert (got.status, got.json) == (200, ANSWER)
    assert api.post("/v1/models/table:predict", {"instances": TABLE}).json == TABLE_ANSWER
    assert "regression" in api.get("/v1/models").json["models"]
    assert api.get("/v1/models/regression").json == {"name": "regression", "ready": True}


@pytest.mark.parametrize(
    "inputs",
    [
        ROWS,
        [dict(zip(COLUMNS, row, strict=True)) for row in ROWS],
        [{name: [row[place] for row in ROWS] for place, name in enumerate(COLUMNS)}],
        [{name: [row[place]] for place, name in enumerate(COLUMNS)} for row in ROWS],
        [[dict(zip(COLUMNS, row, strict=True)) for row in ROWS]],
        [[dict(zip(COLUMNS, ROWS[0], strict=True))], {name: [ROWS[1][place]] for place, name in enumerate(COLUMNS)}],
    ],
)
def test_kserve_v1_takes_inputs_as_rows_and_as_tables(api, inputs):
    """KServe's get_predict_input(): what is sent as `inputs` may be what pandas.DataFrame takes."""
    assert api.post("/v1/models/regression:predict", {"inputs": inputs}).json == ANSWER


def test_column_that_a_kserve_table_lacks_is_missing_where_the_model_takes_that(api, make_api):
    """KServe's iris_input_v4.json: each column in an object of its own, which pandas joins to rows with gaps."""
    inputs = [[{COLUMNS[0]: 1.0}, {COLUMNS[1]: 2.0}], {COLUMNS[3]: [4.0, 5.0]}]
    got = make_api("gaps").post("/v1/models/gaps:predict", {"inputs": inputs})
    assert got.json == {"predictions": [3101.0, 3102.0, 3104.0, 3105.0]}
    got = api.post("/v1/models/regression:predict", {"inputs": inputs})
    assert (got.status, got.json["error"].startswith("read the columns: ")) == (400, True)


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ([{"sepal_length": [1, 2], "sepal_width": [1]}], "differ in length"),
        ([{"sepal_length": [1, 2], "sepal_width": 1}], "differ in length"),
        ([{"sepal_length": [1]}, 5], "input 1 is no table"),
        ([{"sepal_length": [1]}, [{"sepal_length": 1}, 2]], "input 1 is no table"),
        ([{"sepal_length": [1], "sepal_with": [1]}], "did you mean 'sepal_width'"),
        ([{"sepal_length": []}], "lacks"),
        ([{}, [{}]], "lacks"),
    ],
)
def test_kserve_table_that_is_none_is_refused(api, inputs, found):
    got = api.post("/v1/models/regression:predict", {"inputs": inputs})
    assert got.status == 400
    assert found in got.json["error"]


def test_rows_of_kserve_tables_have_the_limit(make_api):
    api = make_api("regression", max_rows=2)
    for count, status in ((2, 200), (3, 413)):
        for inputs in ([{name: [1.0] * count for name in COLUMNS}], [{name: [1.0] for name in COLUMNS}] * count):
            assert api.post("/v1/models/regression:predict", {"inputs": inputs}).status == status


def test_tensorflow_servings_path_names_the_version(api):
    path = "/v1/models/regression/versions/1.0.0"
    got = api.post(f"{path}:predict", {"signature_name": "serving_default", "instances": ROWS})
    assert (got.status, got.json) == (200, ANSWER)
    assert api.get(path).json == {"name": "regression", "ready": True}


def test_kserve_v1_errors_are_in_its_words(api):
    for got, status in (
        (api.post("/v1/models/nobody:predict", {"instances": ROWS}), 404),
        (api.get("/v1/models/nobody"), 404),
        (api.post("/v1/models/regression:predict", {"rows": ROWS}), 400),
        (api.post("/v1/models/regression:predict", {}), 400),
        (api.post("/v1/models/regression:predict", {"inputs": ROWS, "instances": ROWS}), 400),
        (api.post("/v1/models/regression:predict", {"inputs": ROWS, "signature_name": "other"}), 400),
        (api.post("/v1/models/regression/versions/9.9.9:predict", {"instances": ROWS}), 404),
        (api.post("/v1/models/regression:predict", {"instances": [[1]]}), 400),
        (api.post("/v1/models/regression:explain", {"instances": ROWS}), 405),
    ):
        assert got.status == status
        assert got.headers["Content-Type"] == "application/json"
        assert list(got.json) == ["error"]


def test_model_without_an_active_version_is_not_ready(make_api, bundle_bytes, tmp_path):
    api = make_api()
    api.install(bundle_bytes("iris"), tmp_path, activate=False)
    got = api.get("/v1/models/iris")
    assert (got.status, got.json) == (503, {"name": "iris", "ready": False})
    assert api.get("/v1/models").json == {"models": []}
    assert api.post("/invocations", {"instances": ROWS}).status == 503


def test_ping_and_health_say_whether_predictions_are_answered(plain):
    for path in ("/ping", "/health"):
        assert plain.get(path).status == 200
    plain.post("/v2/repository/models/regression/unload")
    for path in ("/ping", "/health"):
        assert plain.get(path).status == 503


def test_version_is_text(plain):
    from appliance import __version__

    got = plain.get("/version")
    assert got.body.decode() == __version__
    assert got.headers["Content-Type"].startswith("text/plain")


def test_vertex_predicts_at_its_own_path(make_api):
    api = make_api("regression", predict_route="/vertex/predict")
    assert api.post("/vertex/predict", {"instances": ROWS, "parameters": {}}).json == ANSWER


@pytest.mark.parametrize("start", [b"", b'{"instances": ', b'{"dataframe_split": {"data": [', b'{"parameters": '])
def test_deep_nesting_is_413(plain, start):
    assert plain.post("/invocations", start + b"[" * 100_000).status == 413


CONTENT_TYPES = ["", "application/json", "text/csv", "text/csv; header=present", "text/csv; charset=utf-16", "x"]


TEXTS = st.text('0123456789.,\n\r" aeINn_-', max_size=60).map(str.encode)


@given(st.binary(max_size=100) | TEXTS, st.sampled_from(CONTENT_TYPES))
def test_any_bytes_are_answered(api_of, body, content_type):
    for model in ("regression", "table"):
        got = api_of(model).post("/invocations", body, CONTENT_TYPE=content_type)
        assert got.status in (200, 400, 413, 415)
        assert json.loads(got.body)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2)
NAMES = st.sampled_from([*COLUMNS, *TABLE[0], "features", "0", "1", "x"])
ROWS_SENT = st.lists(VALUES | st.lists(VALUES, max_size=5) | st.dictionaries(NAMES, VALUES, max_size=5), max_size=3)
SPLIT = st.fixed_dictionaries({"data": ROWS_SENT}, optional={"columns": st.none() | st.lists(NAMES, max_size=5)})
FORMS = st.dictionaries(
    st.sampled_from(["instances", "inputs", "dataframe_records", "dataframe_split", "params"]),
    ROWS_SENT | SPLIT | st.dictionaries(NAMES, ROWS_SENT, max_size=5),
    max_size=2,
)


@given(FORMS, st.sampled_from(["regression", "table", "labels"]))
def test_any_json_is_answered(api_of, sent, model):
    for path in ("/invocations", f"/v1/models/{model}:predict"):
        assert api_of(model).post(path, sent).status in (200, 400)
