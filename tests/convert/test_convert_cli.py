"""`appliance convert` as a person runs it."""

import json
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import PowerTransformer

from appliance.bundle import archive, keys, signature

NOTICE = "notice: loading model.joblib runs the code in it, with your rights\n"
TRAIN = Path(__file__).parents[2] / "examples" / "iris" / "train.py"


@pytest.fixture(scope="module")
def iris_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("iris")
    subprocess.run([sys.executable, str(TRAIN), str(folder)], check=True, capture_output=True)
    return folder


def run(*arguments):
    command = [sys.executable, "-c", "from appliance.cli import main; main()", "convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def complaints(ran):
    """What a command wrote on standard error, without the lines that come every half minute on a busy machine."""
    lines = ran.stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.endswith((" s so far\n", " rows proved\n", " s left\n")))


def convert(folder, *more, version="1.0.0", out="out"):
    sample = folder / "sample.csv"
    model = folder / "model.joblib"
    return run(model, "--name", "iris", "--version", version, "--sample", sample, "-o", folder / out, *more)


def test_iris_example_becomes_a_bundle_with_exit_code_0(iris_folder):
    ran = convert(iris_folder, "--target", "species")
    assert (ran.returncode, complaints(ran)) == (0, NOTICE)
    assert "rows gave the same answer" in ran.stdout
    manifest = archive.open_bundle(iris_folder / "out" / "iris-1.0.0.bundle").manifest
    assert manifest.class_labels == ["setosa", "versicolor", "virginica"]
    assert manifest.provenance.source == "model.joblib"


def test_names_are_checked_before_anything_is_loaded(tmp_path):
    (tmp_path / "model.joblib").write_bytes(b"no pickle")
    ran = convert(tmp_path, version="one")
    assert ran.returncode == 2
    assert "is not SemVer" in ran.stderr
    assert NOTICE not in ran.stderr


def test_json_is_one_document_with_the_report_and_the_bundle(iris_folder):
    ran = convert(iris_folder, "--target", "species", "--json", version="1.0.1")
    document = json.loads(ran.stdout)
    assert document["bundle"].endswith("iris-1.0.1.bundle")
    assert document["parity"]["passed"] is True
    assert complaints(ran) == NOTICE


def test_sample_with_its_answers_left_in_is_misuse_with_exit_code_2(iris_folder):
    ran = convert(iris_folder, out="none")
    assert ran.returncode == 2
    assert "takes 4 and the sample has 5" in ran.stderr
    assert "--target" in ran.stderr
    assert not (iris_folder / "none").exists()


def test_target_that_the_sample_lacks_is_misuse(iris_folder):
    ran = convert(iris_folder, "--target", "kind")
    assert ran.returncode == 2
    assert "no such column" in ran.stderr


def test_model_that_is_not_there_has_exit_code_4(tmp_path):
    (tmp_path / "sample.csv").write_text("a\n1\n")
    assert convert(tmp_path).returncode == 4


def test_refusal_has_exit_code_3_a_report_and_no_bundle(tmp_path):
    # A tolerance of nothing at all: no float32 or float64 graph of this transformer is exact to the last bit.
    x = np.random.default_rng(0).exponential(size=(60, 2))
    joblib.dump(PowerTransformer().fit(x), tmp_path / "model.joblib")
    pd.DataFrame(x, columns=["a", "b"]).to_csv(tmp_path / "sample.csv", index=False)
    ran = convert(tmp_path, "--json", "--tolerance", "0")
    assert ran.returncode == 3
    assert "prediction is off on" in ran.stderr
    document = json.loads(ran.stdout)
    assert document["bundle"] is None
    assert document["parity"]["worst"]
    assert not list(tmp_path.glob("out/*"))


def test_help_says_that_pickles_run_code_and_skops_files_do_not():
    ran = run("--help")
    words = " ".join(ran.stdout.split())
    assert "LOADING A PICKLE RUNS CODE" in words
    assert "A .skops file, a booster's own and an .onnx file are read without running code" in words


def test_signing_key_is_looked_at_before_the_long_work_and_signs_the_bundle(iris_folder):
    private, public = keys.generate_key()
    (iris_folder / "plant.key").write_bytes(private)
    refused = convert(iris_folder, "--target", "species", "--sign", iris_folder / "plant.pub", out="none")
    assert refused.returncode == 4
    ran = convert(iris_folder, "--target", "species", "--sign", iris_folder / "plant.key", version="2.0.0")
    assert ran.returncode == 0, ran.stderr
    members = archive.open_bundle(iris_folder / "out" / "iris-2.0.0.bundle").members
    assert signature.verify(members, members["model.sig"], [public]).fingerprint
