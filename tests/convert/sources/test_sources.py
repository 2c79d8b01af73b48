"""Which source a URL names, and whose pickles may run."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ConversionRefused, Misuse, NotFound
from convert.sources import check_trust, fetch, is_trusted
from convert.sources.fetched import Fetched, without_secrets


def fetched(name="model.pkl", source="s3://models/pump/model.pkl", form="pickle", local=False):
    return Fetched(Path(name), source, form, local)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("m.joblib", "pickle"),
        ("m.PKL", "pickle"),
        ("m.skops", "skops"),
        ("m.onnx", "onnx"),
        ("m.txt", "lightgbm"),
        ("m.ubj", "xgboost"),
        ("m.cbm", "catboost"),
        ("a:b.pkl", "pickle"),
    ],
)
def test_a_path_is_read_by_its_ending_and_told_without_its_folders(tmp_path, monkeypatch, name, form):
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    found = fetch(name, tmp_path)
    assert (found.format, found.source, found.local) == (form, name, True)
    assert fetch(str(tmp_path / name), tmp_path).source == name


def test_unknown_scheme_names_those_known(tmp_path):
    with pytest.raises(Misuse, match=r"models:, runs:, dvc:, s3:, sagemaker:"):
        fetch("ftp://host/model.pkl", tmp_path)


def test_a_file_that_is_absent_or_of_another_ending_is_told(tmp_path):
    with pytest.raises(NotFound):
        fetch(str(tmp_path / "model.pkl"), tmp_path)
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(Misuse, match=r"\.h5"):
        fetch(str(tmp_path / "model.h5"), tmp_path)


@pytest.mark.parametrize("url", ["s3://models/../others/m.pkl", "runs:/1/../2/model", "dvc:../m.pkl", "dvc:a#../b@v1"])
def test_a_registry_path_that_climbs_is_misuse(tmp_path, url):
    with pytest.raises(Misuse, match="contains"):
        fetch(url, tmp_path)


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [
        ("models:/pump/1", "mlflow", "mlflow"),
        ("runs:/1/model", "mlflow", "mlflow"),
        ("dvc:model.pkl@v1", "dvc", "dvc"),
        ("s3://models/m.pkl", "boto3", "s3"),
        ("sagemaker:pumps/1", "boto3", "s3"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path, url, library, extra):
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.modules[{library!r}] = None\nfrom appliance.cli import main; main()",
    ]
    options = ["convert", url, "--name", "pump", "--version", "1.0.0", "--sample", "s.csv"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True)
    assert ran.returncode == 2
    assert f"{library} is not installed" in ran.stderr
    assert f"pip install 'edge-inference-appliance[{extra}]'" in ran.stderr


def test_a_registrys_pickle_is_refused_unless_trusted():
    told = []
    with pytest.raises(ConversionRefused, match=r"--trust s3://models/pump/model\.pkl"):
        check_trust(fetched(), "s3://models/pump/model.pkl", ["s3://others"], told.append)
    assert told == []
    check_trust(fetched(), "s3://models/pump/model.pkl", ["s3://models/pump"], told.append)
    assert told == ["loading model.pkl runs the code in it, with your rights"]


def test_a_local_pickle_is_loaded_with_a_notice_and_other_formats_without():
    told = []
    check_trust(fetched(local=True), "model.pkl", [], told.append)
    assert len(told) == 1
    for form in ("skops", "onnx", "lightgbm", "xgboost", "catboost"):
        check_trust(fetched(form=form), "s3://models/model", [], told.append)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("url", "prefix", "trusted"),
    [
        ("s3://models/a.pkl", "s3://models", True),
        ("s3://models/a.pkl", "s3://models/", True),
        ("s3://models/a.pkl", "s3:", True),
        ("s3://models-of-others/a.pkl", "s3://models", False),
        ("models:/pump@prod", "models:/pump", True),
        ("models:/pumps/1", "models:/pump", False),
        ("dvc:https://git.example/m.git#a.pkl@v1", "dvc:https://git.example", True),
        ("dvc:https://git.example.evil/m.git#a.pkl@v1", "dvc:https://git.example", False),
        ("s3://models/a.pkl", "", False),
    ],
)
def test_a_trusted_prefix_ends_where_a_part_ends(url, prefix, trusted):
    assert is_trusted(fetched(source="elsewhere"), url, [prefix]) is trusted


def test_an_alias_is_trusted_by_the_version_it_stands_for():
    assert is_trusted(fetched(source="models:/pump/3"), "models:/pump@prod", ["models:/pump/3"])


@given(prefix=st.text(min_size=1), more=st.text())
def test_what_is_trusted_begins_with_the_prefix(prefix, more):
    assert is_trusted(fetched(source=""), prefix, [prefix])
    if is_trusted(fetched(source=""), more, [prefix]):
        assert more.startswith(prefix)


def test_credentials_in_a_url_are_not_told():
    told = without_secrets("cannot reach https://user:word@git.example/models.git")
    assert told == "cannot reach https://git.example/models.git"
