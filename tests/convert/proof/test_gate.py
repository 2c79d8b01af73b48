"""The gate: faults planted in graphs, and models that plain skl2onnx converts wrongly, are caught."""

import json
import subprocess
import sys
import time

import numpy as np
import onnx
import pandas as pd
import pytest
import skl2onnx
from onnx import numpy_helper
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression, LogisticRegression

from appliance.bundle.manifest import Tolerance
from appliance.errors import ConversionRefused, Misuse, ParityFailed
from convert import assemble, convert_model
from convert.converters import isolation
from convert.converters import skl2onnx_graph as converter
from convert.model.original import Original
from convert.model.schema import infer
from convert.prebuilt_onnx import convert_graph
from convert.proof import candidate, parity
from convert.proof.limits import probe

PLAIN_SKL2ONNX = """
import json, sys, warnings
import numpy as np, pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from convert import Refused, convert_model
from convert.converters import skl2onnx_graph
skl2onnx_graph.OWN_CONVERTERS = ()
x, y = load_breast_cancer(return_X_y=True)
x, y = x[:300, :5], y[:300]
readings = np.random.default_rng(0).normal(20, 5, (400, 3)).round(1)
gaps = np.where(np.random.default_rng(1).random(readings.shape) < 0.1, np.nan, readings)
texts = ["pump pump pump hot", "valve stuck open valve", "all good here"] * 10
scaled = make_pipeline(StandardScaler(), LogisticRegression())
cases = {
    "kNN by distance": (KNeighborsClassifier(weights="distance"), x, y),
    "LDA of two classes": (LinearDiscriminantAnalysis(), x, y),
    "calibrated pipeline": (CalibratedClassifierCV(scaled, cv=2), x, y),
    "sublinear tf": (make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression()), texts, [1, 1, 0] * 10),
    "forest of tied votes": (RandomForestClassifier(20, random_state=0), readings, readings[:, 0] > readings[:, 1]),
    "forest with gaps": (RandomForestClassifier(5, random_state=0), gaps, readings[:, 0] > 20),
}
for name, (model, rows, answers) in cases.items():
    reports = []
    sample = pd.DataFrame({"remark": rows}) if rows is texts else rows
    try:
        convert_model(model.fit(rows, answers), sample, reports=reports.append, time_limit=3)
        found = "converted"
    except Refused as error:
        found = f"{type(error).__name__}: {error}"
    print(json.dumps([name, found, len(reports[-1].worst)]))
"""


@pytest.fixture(scope="module")
def plain_skl2onnx():
    """What becomes of models when only skl2onnx's own converters are there: a process that registered no others."""
    ran = subprocess.run([sys.executable, "-c", PLAIN_SKL2ONNX], capture_output=True, text=True, check=True)
    return {name: (found, worst) for name, found, worst in map(json.loads, ran.stdout.splitlines())}


@pytest.mark.parametrize(
    "name",
    [
        "kNN by distance",
        "LDA of two classes",
        "calibrated pipeline",
        "sublinear tf",
        "forest of tied votes",
        "forest with gaps",
    ],
)
def test_models_that_skl2onnx_converts_wrongly_are_refused_with_their_worst_rows(plain_skl2onnx, name):
    found, worst = plain_skl2onnx[name]
    assert found.startswith("ParityFailed")
    assert "is off on" in found
    assert worst > 0


@pytest.fixture
def classifier(iris):
    x, y = iris
    return Original(LogisticRegression(max_iter=500).fit(x, y), infer(LogisticRegression(max_iter=500).fit(x, y), x))


def proved_after(original, tamper):
    """Convert rightly, tamper with the graph, and return the report on it."""
    model = onnx.load_from_string(convert_model(original.model, original.schema.frame.to_numpy()).onnx)
    tamper(model.graph)
    answers = original.answers(original.schema.frame.iloc[:5])
    made = candidate.build(model.SerializeToString(), original, answers, "float32")
    return parity.prove(original, made, probe(original), Tolerance(), {}).report


def linear(graph):
    (node,) = [node for node in graph.node if node.op_type == "LinearClassifier"]
    return {attribute.name: attribute for attribute in node.attribute}


def test_untouched_graph_passes(classifier):
    assert proved_after(classifier, lambda graph: None).passed


def test_flipped_class_order_is_caught(classifier):
    def flip(graph):
        labels = linear(graph)["classlabels_ints"].ints
        labels[:] = list(reversed(labels))

    report = proved_after(classifier, flip)
    assert not report.passed
    assert report.outputs[0].label_flips > 1000


def test_dropped_column_is_caught(classifier):
    def drop(graph):
        coefficients = linear(graph)["coefficients"].floats
        coefficients[2::4] = [0.0] * 3

    report = proved_after(classifier, drop)
    assert not report.passed
    assert {worst.output for worst in report.worst} <= {"prediction", "probability"}
    assert report.worst[0].row.keys() == {"x0", "x1", "x2", "x3"}


def test_number_off_by_more_than_the_tolerance_is_caught():
    x = np.random.default_rng(0).normal(size=(100, 3))
    original = Original(LinearRegression().fit(x, x @ [1, 2, 3]), infer(LinearRegression().fit(x, x[:, 0]), x))

    def nudge(graph):
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name == "intercepts":
                    attribute.floats[0] += 5e-5
        for initializer in graph.initializer:
            if initializer.name.startswith("intercept"):
                initializer.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(initializer) + np.float32(5e-5), initializer.name)
                )

    report = proved_after(original, nudge)
    assert not report.passed
    shown = [abs(worst.original - worst.onnx) for worst in report.worst if worst.kind == "sample"]
    assert shown
    assert all(4e-5 < difference < 6e-5 for difference in shown)


class Doubler(RegressorMixin, BaseEstimator):
    """A regressor of our own, for which somebody registers a converter that copies the input."""

    def fit(self, x, y):
        self.n_features_in_ = x.shape[1]
        return self

    def predict(self, x):
        return 2.0 * np.asarray(x)[:, 0]


def test_identity_converter_registered_for_a_regressor_is_caught():
    def shapes(operator):
        operator.outputs[0].type.shape = [None, 1]

    def copy(scope, operator, container):
        container.add_node("Identity", operator.inputs[0].full_name, operator.outputs[0].full_name)

    skl2onnx.update_registered_converter(Doubler, "TestsDoubler", shapes, copy)
    x = np.linspace(1.0, 2.0, 50)[:, None]
    with pytest.raises(ParityFailed, match="prediction is off on"):
        convert_model(Doubler().fit(x, None), x)


def test_zipmap_left_on_is_refused(iris, monkeypatch):
    def with_zipmap(model, parts):
        types = [(part.name, skl2onnx.common.data_types.FloatTensorType([None, 4])) for part in parts]
        return skl2onnx.convert_sklearn(model, initial_types=types, target_opset=18).SerializeToString()

    monkeypatch.setattr(converter, "_skl2onnx", with_zipmap)
    x, y = iris
    with pytest.raises(ConversionRefused, match="ZipMap"):
        convert_model(LogisticRegression(max_iter=500).fit(x, y), x)


def test_graph_that_answers_only_whole_batches_is_caught(classifier):
    def fix_batch(graph):
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 20

    with pytest.raises(ConversionRefused):
        proved_after(classifier, fix_batch)


def test_conversion_that_never_ends_is_ended():
    with pytest.raises(ConversionRefused, match="did not end within"):
        isolation.run(lambda: time.sleep(60) or b"", time_limit=0.2)


def test_converter_process_that_dies_is_a_refusal():
    import os

    with pytest.raises(ConversionRefused, match="process died"):
        isolation.run(lambda: os._exit(9))


def test_wider_tolerance_is_kept_in_the_manifest(iris):
    x, y = iris
    model = LogisticRegression(max_iter=500).fit(x, y)
    conversion = convert_model(model, x, tolerance=Tolerance(absolute=1e-3, relative=1e-3))
    assert conversion.manifest.policy.tolerance == Tolerance(absolute=1e-3, relative=1e-3)


@pytest.mark.parametrize("wide", [np.nan, np.inf, 1e9, 1.0, -1e-5])
@pytest.mark.parametrize("side", ["absolute", "relative"])
def test_tolerance_under_which_anything_would_pass_is_misuse(iris, tmp_path, side, wide):
    model = LogisticRegression(max_iter=500).fit(*iris)
    tolerance = Tolerance(**{side: wide})
    with pytest.raises(Misuse, match="not both from 0 to below 1"):
        convert_model(model, iris[0], tolerance=tolerance)
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(b"")
    with pytest.raises(Misuse, match="not both from 0 to below 1"):
        convert_graph(graph, pd.DataFrame(iris[0]), ["y"], name="a", version="1.0.0", tolerance=tolerance)


def test_model_that_refuses_its_own_sample_is_refused(iris):
    x, y = iris
    gaps = x.copy()
    gaps[0, 0] = np.nan
    with pytest.raises(ConversionRefused, match=r"ask the original model with the sample.*NaN"):
        convert_model(LogisticRegression(max_iter=500).fit(x, y), gaps)


def test_report_counts_the_rows_of_every_kind(plant):
    table, y = plant
    numbers = table[["temp-C", "serial no"]]
    report = convert_model(LogisticRegression().fit(numbers, y), numbers).parity
    kinds = {kind.kind: kind for kind in report.kinds}
    assert {"sample", "noise", "rounded", "float32 neighbours", "float64 neighbours", "edges", "alone"} <= set(kinds)
    assert kinds["sample"].rows == len(table)
    assert report.rows == sum(kind.rows for kind in report.kinds)
    assert tuple(report.libraries) == assemble.LIBRARIES
