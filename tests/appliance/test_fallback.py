"""What stands in for a prediction whose row is not good, and that every way in tells the same quality."""

import csv
import io
import json

import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from appliance.bundle import baseline
from appliance.bundle.baseline import Conformal
from appliance.cli import appliance as command
from appliance.errors import InvalidInput, NotReady
from appliance.fallback import QualityPolicy
from appliance.inference import selftest
from appliance.inference.version import LoadedVersion
from appliance.predictor import Predictor
from appliance.repository import ModelRepository
from appliance.response import response_format
from appliance.rest.instances import quality_of
from appliance.store import activation
from appliance.store.versions import Store
from convert import baseline as converted

COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
GOOD, OUTSIDE = [0.1, 0.2, 0.3, 0.4], [0.1, 99.0, 0.3, 0.4]


@pytest.fixture(scope="module")
def content():
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(2000, 4)), columns=COLUMNS)
    conformal = Conformal("absolute", 0.9, 2000, [1.5])
    types = dict.fromkeys(COLUMNS, "float32")
    return baseline.write(converted.of(rows, {}, [], types, unseen=True, conformal=conformal))


@pytest.fixture
def store(tmp_path, make_bundle, content):
    store = Store(tmp_path / "state")
    store.install(make_bundle(tmp_path, baseline=content))
    activation.activate(store, "iris", "1.0.0", selftest.self_test)
    return store


@pytest.fixture
def loaded(store):
    return LoadedVersion(store.folder("iris", "1.0.0"))


class Kept:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.seen = []

    def predicted(self, prediction):
        self.seen.append(prediction)


def answer(store, loaded, policy, rows=(GOOD, OUTSIDE), observers=()):
    predictor = Predictor(ModelRepository(store), observers, quality=policy)
    form = response_format(loaded)
    return form.answer(predictor.run(loaded, loaded.schema.from_rows(list(rows)), form.outputs))


def test_quality_is_not_told_unless_asked(store, loaded):
    assert answer(store, loaded, None).quality is msgspec.UNSET
    assert answer(store, loaded, QualityPolicy()).quality is msgspec.UNSET


def test_a_value_stands_in_for_rows_that_are_not_good(store, loaded):
    kept = Kept()
    found = answer(store, loaded, QualityPolicy(fallback={"iris": -1.0}), observers=[kept])
    assert found.prediction == [pytest.approx(101.0), -1.0]
    assert [(one.flag, one.column, one.fallback) for one in found.quality] == [
        ("good", "", False),
        ("outside", COLUMNS[1], True),
    ]
    (told,) = kept.seen
    assert told.outputs["prediction"].tolist() == found.prediction  # what was answered
    assert told.of_graph["prediction"][1] == pytest.approx(199.8)  # what drift is counted of


def test_a_refusal_names_the_row_and_the_column(store, loaded):
    with pytest.raises(InvalidInput, match=f"row 1 is outside: column '{COLUMNS[1]}'"):
        answer(store, loaded, QualityPolicy(fallback={"iris": "refuse"}))
    assert answer(store, loaded, QualityPolicy(fallback={"iris": "refuse"}), [GOOD]).prediction


def test_drift_alone_falls_back_only_where_it_is_said(store, loaded):
    drifted = QualityPolicy(fallback={"iris": -1}, drifted=lambda model, version: COLUMNS[0])
    found = answer(store, loaded, drifted, [GOOD])
    assert (found.prediction, found.quality[0].flag) == ([pytest.approx(101.0)], "drifted")
    falls_back = QualityPolicy(fallback={"iris": -1}, drift_falls_back=True, drifted=drifted.drifted)
    assert answer(store, loaded, falls_back, [GOOD]).prediction == [-1.0]


def test_a_fallback_that_does_not_fit_is_told_and_one_of_the_environment_does(store, loaded):
    with pytest.raises(NotReady, match="'nothing' is no float32"):
        answer(store, loaded, QualityPolicy(fallback={"iris": "nothing"}))
    assert answer(store, loaded, QualityPolicy(fallback={"iris": "2.5"})).prediction[1] == 2.5


def test_every_way_in_tells_the_same_quality(store, loaded, content, open_http):
    expected = [
        {"flag": "good", "interval": [pytest.approx(99.5), pytest.approx(102.5)]},
        {"flag": "outside", "column": COLUMNS[1], "interval": [pytest.approx(198.3), pytest.approx(201.3)]},
    ]
    ask = open_http(store)
    body = {"features": [GOOD, OUTSIDE]}
    assert ask("/predict", {**body, "quality": True})["quality"] == expected
    assert "quality" not in ask("/predict", body)
    tensor = {"name": "features", "datatype": "FP32", "shape": [2, 4], "data": [GOOD, OUTSIDE]}
    infer = ask("/v2/models/iris/infer", {"inputs": [tensor], "parameters": {"quality": True}})
    (found,) = [one for one in infer["outputs"] if one["name"] == "quality"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [2])
    assert [json.loads(text) for text in found["data"]] == expected
    lines = ask("/predict?quality=true", body, HTTP_ACCEPT="application/jsonlines")
    assert [json.loads(line)["quality"] for line in lines.splitlines()] == expected
    table = ask("/predict?quality=true&header=true", body, HTTP_ACCEPT="text/csv")
    assert [row[-1] for row in csv.reader(io.StringIO(table))] == ["quality", "good", "outside"]
    instances, of_json = {"instances": [GOOD, OUTSIDE]}, {"CONTENT_TYPE": "application/json"}
    assert ask("/invocations", {**instances, "params": {"quality": True}}, **of_json)["quality"] == expected
    assert ask("/invocations", {**instances, "parameters": {"quality": True}}, **of_json)["quality"] == expected
    assert ask("/invocations?quality=true", [GOOD, OUTSIDE], **of_json)["quality"] == expected
    assert "quality" not in ask("/invocations", instances, **of_json)
    v1 = "/v1/models/iris:predict"
    assert ask(v1, {**instances, "parameters": {"quality": True}})["quality"] == expected
    assert "quality" not in ask(v1, {**instances, "parameters": {"quality": False}})
    asked = ask("/predict", {**body, "quality": True}, HTTP_ACCEPT="text/csv")  # no header, and the flag alone
    assert [row[-1] for row in csv.reader(io.StringIO(asked))] == ["good", "outside"]
    always = open_http(store, QualityPolicy(enabled=True))
    assert always("/invocations", instances, **of_json)["quality"] == expected
    assert always(v1, instances)["quality"] == expected
    done = CliRunner().invoke(
        command,
        ["predict", "iris", json.dumps([GOOD, OUTSIDE]), "--quality"],
        env={"APPLIANCE_STATE_DIR": str(store.state_dir)},
    )
    assert json.loads(done.stdout)["quality"] == expected
    source = store.state_dir.parent / "rows.csv"
    write_rows(source, GOOD, OUTSIDE)
    assert [one["quality"] for one in score(store, source, "--quality", output="out.jsonl")] == expected
    assert [one["quality"] for one in score(store, source, "--quality", "--provenance")] == ["good", "outside"]
    assert [one["quality"] for one in score(store, source, "--quality", output="out.parquet")] == ["good", "outside"]


def write_rows(path, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def score(store, source, *arguments, config="", output="out.csv", code=0):
    """Score a file with iris, and return the rows of the output."""
    folder = source.parent
    (folder / "appliance.toml").write_text(config)
    path = folder / output
    done = CliRunner().invoke(
        command,
        ["score", "iris", str(source), "-o", str(path), "--config", str(folder / "appliance.toml"), *arguments],
        env={"APPLIANCE_STATE_DIR": str(store.state_dir)},
    )
    assert done.exit_code == code, done.output
    if code:
        return done.output
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_dict("records")
    lines = path.read_text().splitlines()
    return list(csv.DictReader(lines)) if path.suffix == ".csv" else [json.loads(line) for line in lines]


def test_score_tells_quality_where_it_is_configured_or_asked_for(store, tmp_path):
    source = tmp_path / "rows.csv"
    write_rows(source, GOOD, OUTSIDE)
    assert "quality" not in score(store, source)[0]
    enabled = "[quality]\nenabled = true\n"
    assert [one["quality"] for one in score(store, source, config=enabled)] == ["good", "outside"]
    assert "quality" not in score(store, source, "--no-quality", config=enabled)[0]


def test_score_answers_as_predict_does_where_a_fallback_stands_in(store, loaded, tmp_path):
    source = tmp_path / "rows.csv"
    write_rows(source, GOOD, OUTSIDE)
    found = score(store, source, config="[quality.fallback]\niris = -1.0\n", output="out.jsonl")
    expected = answer(store, loaded, QualityPolicy(fallback={"iris": -1.0}))
    assert [one["prediction"] for one in found] == expected.prediction
    assert [one["quality"] for one in found] == msgspec.to_builtins(expected.quality)


def test_a_refused_quality_is_a_bad_row_of_score(store, tmp_path):
    source = tmp_path / "rows.csv"
    write_rows(source, GOOD, OUTSIDE, [1, "x", 3, 4], GOOD)
    refuse = "[quality.fallback]\niris = 'refuse'\n"
    bad = ("--bad-rows", "quarantine", "--max-bad", "2")
    found = score(store, source, *bad, config=refuse)
    assert [one["quality"] for one in found] == ["good", "", "", "good"]
    assert [one["prediction"] != "" for one in found] == [True, False, False, True]
    told = [json.loads(line) for line in (tmp_path / "out.csv.rejected.jsonl").read_text().splitlines()]
    assert [(one["row"], one["column"], one["reason"]) for one in told] == [
        (1, COLUMNS[1], "its quality is outside"),
        (2, COLUMNS[1], "it holds a text ('x')"),
    ]
    assert "its quality is outside" in score(store, source, config=refuse, output="stopped.csv", code=1)


def test_a_column_named_quality_is_not_overwritten(store, tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text(",".join([*COLUMNS, "quality"]) + "\n0.1,0.2,0.3,0.4,mine\n")
    assert score(store, source)[0]["quality"] == "mine"
    assert "'quality', and so has the answer" in score(store, source, "--quality", code=2)


@pytest.mark.parametrize(
    ("parameters", "found"),
    [({"quality": "yes"}, "quality is 'yes'"), ({"temperature": 0.1}, "'temperature' is unknown")],
)
def test_other_parameters_are_refused(parameters, found):
    with pytest.raises(InvalidInput, match=found):
        quality_of(parameters)


@pytest.fixture
def open_http():
    """Return a function that gives ask(path, body, **headers) -> JSON, or text, of a store's HTTP application."""
    from appliance.config import HttpConfig
    from appliance.readiness import Readiness
    from appliance.rest import invocations, kserve_v1, openinference, predict
    from appliance.rest.app import create_app
    from appliance.rest.http_types import Context

    def make(store, policy=None):
        models = ModelRepository(store)
        models.refresh()
        predictor = Predictor(models, quality=policy)
        context = Context(predictor, models, store, Readiness(models, store), HttpConfig())
        routes = (*predict.ROUTES, *openinference.ROUTES, *invocations.ROUTES, *kserve_v1.ROUTES)
        app = create_app(context, routes, lambda request, scope: None)

        def ask(path, body, **headers):
            content = json.dumps(body).encode()
            path, _, query = path.partition("?")
            environ = {
                "REQUEST_METHOD": "POST", "PATH_INFO": path, "QUERY_STRING": query, "SERVER_NAME": "test",
                "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content)), **headers,
            }  # fmt: skip
            told = []
            got = b"".join(app(environ, lambda status, fields: told.append(status)))
            assert told[0].startswith("200"), got
            return got.decode() if "HTTP_ACCEPT" in headers else json.loads(got)

        return ask

    return make
