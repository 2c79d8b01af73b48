"""Models fetched from a real MLflow server."""

import subprocess
import sys

import mlflow
import numpy as np
import pytest
import xgboost
import yaml
from mlflow import MlflowClient
from mlflow.models import Model, infer_signature

from appliance.bundle import archive
from appliance.errors import ConversionRefused, InvalidInput, Misuse, NotFound
from convert.sources import check_trust, fetch, mlflow_model


@pytest.fixture(scope="module")
def logged(mlflow_server, tmp_path_factory, iris, model):
    """{name: run id} of models logged as the library logs them, all as version 1; `skops` has the alias `prod`."""
    x, y = iris
    folder = tmp_path_factory.mktemp("logged")
    mlflow.set_tracking_uri(mlflow_server)
    signature = infer_signature(x.head(30), y.head(30))
    example = {"signature": signature, "input_example": x.iloc[::5], "pip_requirements": []}
    mlflow.sklearn.save_model(model, folder / "skops", serialization_format="skops", **example)
    mlflow.sklearn.save_model(model, folder / "pickle", serialization_format="cloudpickle", **example)
    booster = xgboost.XGBClassifier(n_estimators=2).fit(x, y)
    mlflow.xgboost.save_model(booster, folder / "xgboost", model_format="ubj", **example)
    mlflow.sklearn.save_model(model, folder / "bare", serialization_format="skops", pip_requirements=[])
    array = {"input_example": x.to_numpy()[:3].astype("float32"), "pip_requirements": []}
    mlflow.sklearn.save_model(model, folder / "array", serialization_format="skops", **array)
    client, runs = MlflowClient(), {}
    with mlflow.start_run() as run:
        for path in folder.iterdir():
            mlflow.log_artifacts(str(path), artifact_path=path.name)
            client.create_registered_model(path.name)
            client.create_model_version(path.name, f"{run.info.artifact_uri}/{path.name}", run_id=run.info.run_id)
            runs[path.name] = run.info.run_id
    client.set_registered_model_alias("skops", "prod", "1")
    return runs


def test_a_models_signature_and_example_are_its_schema_and_sample(logged, convert, tmp_path):
    ran = convert("models:/skops@prod")
    assert (ran.returncode, ran.stderr) == (0, "")
    manifest = archive.open_bundle(tmp_path / "iris-1.0.0.bundle").manifest
    assert manifest.provenance.source == "models:/skops/1"
    assert manifest.provenance.run == logged["skops"]
    assert set(manifest.provenance.trained_with) == {"scikit-learn"}
    assert manifest.columns == ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]


def test_a_pickle_of_the_registry_needs_trust(logged, tmp_path):
    fetched = fetch("models:/pickle/1", tmp_path)
    with pytest.raises(ConversionRefused, match="--trust models:/pickle/1"):
        check_trust(fetched, "models:/pickle/1", ["models:/skops"], print)
    told = []
    check_trust(fetched, "models:/pickle@prod", ["models:/pickle"], told.append)
    assert told == ["loading model.pkl runs the code in it, with your rights"]


def test_a_runs_model_is_found_by_its_path(logged, tmp_path):
    url = f"runs:/{logged['skops']}/skops"
    fetched = fetch(url, tmp_path)
    assert (fetched.source, fetched.run, fetched.format) == (url, logged["skops"], "skops")
    assert not fetched.local


def test_a_boosters_own_file_needs_no_trust(logged, tmp_path):
    fetched = fetch("models:/xgboost/1", tmp_path)
    assert (fetched.format, fetched.runs_code) == ("xgboost", False)
    assert fetched.libraries == {"xgboost": xgboost.__version__}


def test_a_model_without_an_example_asks_for_a_sample(logged, convert):
    ran = convert("models:/bare/1")
    assert ran.returncode == 2
    assert "--sample" in ran.stderr


def test_an_example_has_the_signatures_types(logged, tmp_path):
    folder = fetch("models:/array/1", tmp_path).example
    rows = mlflow_model.example(folder)
    assert rows.dtypes.tolist() == [np.float32] * 4
    assert list(rows.columns) == ["x0", "x1", "x2", "x3"]


@pytest.mark.parametrize("url", ["models:/skops/99", "models:/nobody/1", "models:/skops@nobody", "runs:/0/model"])
def test_what_the_registry_lacks_is_not_found(logged, tmp_path, url):
    with pytest.raises(NotFound):
        fetch(url, tmp_path)


@pytest.mark.parametrize("url", ["models:/skops", "models:skops/1", "models:/skops/latest", "runs:/1"])
def test_a_url_that_names_no_version_is_misuse(logged, tmp_path, url):
    with pytest.raises(Misuse, match="models:/pump/3"):
        fetch(url, tmp_path)


def test_a_server_that_is_away_is_not_ready(tmp_path):
    code = (
        "import sys; from pathlib import Path; from convert.sources import fetch\n"
        "from appliance.errors import NotReady\n"
        "try:\n  fetch('models:/a/1', Path(sys.argv[1]))\nexcept NotReady as error:\n  print(error.found)"
    )
    environment = {"MLFLOW_TRACKING_URI": "http://user:secret@127.0.0.1:1", "PYTHONPATH": ":".join(sys.path)}
    environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment)
    assert "127.0.0.1" in ran.stdout, ran.stderr
    assert "secret" not in ran.stdout + ran.stderr


def test_a_folder_that_mlflow_wrote_is_a_local_source(tmp_path, model):
    mlflow.sklearn.save_model(model, tmp_path / "saved", serialization_format="skops", pip_requirements=[])
    fetched = fetch(str(tmp_path / "saved"), tmp_path)
    assert (fetched.source, fetched.local, fetched.example) == ("saved", True, None)


def damaged(folder, **changes):
    story = {"flavors": {"sklearn": {"pickled_model": "model.pkl"}}, "saved_input_example_info": {"type": "dataframe"}}
    story.update(changes)
    (folder / "MLmodel").write_text(yaml.safe_dump(story))
    (folder / "model.pkl").write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    "flavors",
    [
        {},
        None,
        {"python_function": {"loader_module": "mine"}},
        {"sklearn": {"pickled_model": "../model.pkl"}},
        {"sklearn": {"pickled_model": "/etc/passwd"}},
        {"sklearn": {"pickled_model": "absent.pkl"}},
        {"sklearn": {}},
        {"sklearn": {"pickled_model": "model.pkl", "code": "../.."}},
    ],
    ids=str,
)
def test_a_damaged_or_unknown_mlflow_model_is_refused(tmp_path, flavors):
    with pytest.raises(ConversionRefused):
        mlflow_model.read(damaged(tmp_path, flavors=flavors), source="saved", run="", local=True)


@pytest.mark.parametrize("content", ["[1, 2]", "- a: b", "{", "a: !!python/object:os.system {}"])
def test_a_story_that_is_no_mapping_is_refused(tmp_path, content):
    (tmp_path / "MLmodel").write_text(content)
    with pytest.raises(ConversionRefused):
        mlflow_model.read(tmp_path, source="saved", run="", local=True)


@pytest.mark.parametrize(
    "content", ["{", '{"columns": ["a"], "data": [[1, 2]]}', '{"index": []}', "[[1], [2, 3, [4]]]"]
)
def test_a_damaged_example_is_told(tmp_path, content):
    kind = "ndarray" if content.startswith("[") else "dataframe"
    about = {"type": kind, "artifact_path": "e.json"}
    signature = {"inputs": '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 1]}}]'}
    damaged(tmp_path, saved_input_example_info=about, signature=signature)
    (tmp_path / "e.json").write_text(content)
    with pytest.raises(InvalidInput, match="--sample"):
        mlflow_model.example(tmp_path)


def test_what_mlflow_writes_is_what_we_read(tmp_path, iris, model):
    example = {"input_example": iris[0].head(3), "pip_requirements": []}
    mlflow.sklearn.save_model(model, tmp_path / "m", serialization_format="skops", **example)
    assert mlflow_model.example(tmp_path / "m").equals(iris[0].head(3))
    assert (
        Model.load(tmp_path / "m").flavors["sklearn"]["pickled_model"]
        == mlflow_model.read(tmp_path / "m", source="m", run="", local=True).path.name
    )
