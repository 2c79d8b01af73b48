"""The bundle that a conversion writes."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import catboost
import msgspec
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from appliance.bundle import archive, baseline, examples, keys, signature
from appliance.errors import Misuse
from appliance.inference import selftest
from convert import convert_model

SAME_MODEL = """
import hashlib, numpy as np, pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from convert import convert_model
table = pd.DataFrame({"temp-C": np.arange(60) / 10, "size": list("SML") * 20})
sizes = OneHotEncoder(handle_unknown="ignore")
columns = ColumnTransformer([("n", StandardScaler(), ["temp-C"]), ("c", sizes, ["size"])])
model = make_pipeline(columns, RandomForestClassifier(3, random_state=0)).fit(table, table["temp-C"] > 3)
print(hashlib.sha256(convert_model(model, table).bundle()).hexdigest())
"""


@pytest.fixture(scope="module")
def conversion(plant):
    table, y = plant
    table = table.astype({"größe": object})
    columns = ColumnTransformer(
        [("n", StandardScaler(), ["temp-C"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["größe", "serial no"])]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(table, y)
    return convert_model(model, table, name="plant", version="1.2.3")


def test_bundle_reads_back_and_passes_its_self_test(conversion, tmp_path):
    path = conversion.write(tmp_path / "out")
    assert path.name == "plant-1.2.3.bundle"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    bundle = archive.open_bundle(path)
    assert bundle.manifest.columns == ["temp-C", "serial no", "größe", "on"]
    tested = selftest.try_bundle(bundle)
    assert tested.label_flips == 0
    assert 30 < tested.rows <= 64


def test_certificate_in_the_bundle_is_the_report(conversion):
    members = archive.read(conversion.bundle()).members
    certificate = json.loads(members["parity.json"])
    assert certificate == json.loads(msgspec.json.encode(conversion.parity))
    assert certificate["passed"] is True


def test_examples_hold_the_originals_answers_in_the_manifests_types(conversion):
    inputs, outputs = examples.read(conversion.examples)
    types = [tensor.type for tensor in conversion.manifest.inputs]
    assert ["string" if array.dtype == object else str(array.dtype) for array in inputs] == types
    assert [str(array.dtype) for array in outputs] == [output.type for output in conversion.manifest.outputs]
    assert {len(array) for array in (*inputs, *outputs)} == {len(inputs[0])}


def test_provenance_names_the_model_and_no_folder(conversion):
    origin = conversion.manifest.provenance
    assert origin.source == "memory"
    assert origin.model_type == "sklearn.pipeline.Pipeline"
    assert {"scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy"} <= set(origin.libraries)
    assert conversion.manifest.least_onnxruntime == "1.18.0"
    assert os.sep not in origin.source


@pytest.mark.parametrize("place", [lambda booster: booster, lambda booster: make_pipeline(StandardScaler(), booster)])
def test_provenance_has_the_version_of_the_booster_wherever_it_stands(iris, place):
    model = place(catboost.CatBoostClassifier(n_estimators=2, verbose=0, allow_writing_files=False)).fit(*iris)
    assert convert_model(model, iris[0]).manifest.provenance.libraries["catboost"] == catboost.__version__


def test_same_model_and_sample_give_the_same_bytes_in_every_process():
    digests = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ran = subprocess.run(
            [sys.executable, "-c", SAME_MODEL], env=environment, capture_output=True, text=True, check=True
        )
        digests.append(ran.stdout)
    assert digests[0] == digests[1]


def test_writing_again_replaces_the_bundle_whole(conversion, tmp_path):
    first = conversion.write(tmp_path).read_bytes()
    (tmp_path / conversion.file_name).write_bytes(b"half")
    again = conversion.write(tmp_path).read_bytes()
    assert hashlib.sha256(first).digest() == hashlib.sha256(again).digest()


def test_a_bundle_with_other_content_is_replaced_with_force_alone(conversion, tmp_path):
    path = conversion.write(tmp_path)
    first = path.read_bytes()
    other = dataclasses.replace(
        conversion, manifest=msgspec.structs.replace(conversion.manifest, least_onnxruntime="9.9")
    )
    with pytest.raises(Misuse, match="other content"):
        other.write(tmp_path)
    assert path.read_bytes() == first
    assert other.write(tmp_path, force=True).read_bytes() != first
    with pytest.raises(Misuse):
        conversion.write(tmp_path)


@pytest.mark.parametrize(("name", "version"), [("Iris", "1.0.0"), ("iris", "one")])
def test_names_and_versions_out_of_form_are_misuse(iris, name, version):
    x, y = iris
    with pytest.raises(Misuse):
        convert_model(LogisticRegression(max_iter=500).fit(x, y), x, name=name, version=version)


def test_outputs_that_the_model_lacks_are_misuse(iris):
    x, y = iris
    with pytest.raises(Misuse, match="choose from prediction, probability"):
        convert_model(LogisticRegression(max_iter=500).fit(x, y), x, outputs=["score"])


def test_baseline_in_the_bundle_sums_up_the_sample_and_the_originals_answers(conversion, plant):
    found = baseline.read(archive.read(conversion.bundle()).members["baseline.json"])
    table, _ = plant
    assert found.rows == len(table)
    assert set(found.inputs) == {"temp-C", "serial no", "größe", "on"}
    assert sum(found.inputs["größe"].counts.values()) + found.inputs["größe"].others == len(table)
    assert set(found.outputs) == {
        "prediction",
        *(f"probability[{label}]" for label in conversion.manifest.class_labels),
    }


def test_bundle_signed_at_conversion_verifies_with_the_public_key(conversion):
    private, public = keys.generate_key(b"plant password")
    signed = archive.read(conversion.bundle(private, b"plant password"))
    fingerprint = keys.fingerprint(keys.load_public_key(public))
    assert signature.verify(signed.members, signed.members["model.sig"], [public]).fingerprint == fingerprint
    with pytest.raises(Misuse):
        conversion.bundle(private, b"another")
