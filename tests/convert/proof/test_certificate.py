"""What the certificate records of each output, and what a failed one says."""

import msgspec
import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from appliance.bundle.manifest import Output, Tolerance
from appliance.inference.comparison import compare
from convert import convert_model
from convert.model.original import Original
from convert.model.schema import Limits, infer
from convert.proof import candidate, differences, parity
from convert.proof.certificate import Parity
from convert.proof.comparison import WORST_ROWS, ParityComparison
from convert.proof.limits import probe
from convert.proof.rows import Batch

STRICT = Tolerance(1e-5, 1e-5)


@pytest.fixture(scope="module")
def readings():
    return np.random.default_rng(0).normal(20, 5, (200, 2)).round(1)


@given(st.floats(-1e300, 1e300), st.integers(1, 1000))
def test_ulp_counts_the_floats_between_two_numbers_of_one_binade(number, steps):
    start = np.array([np.ldexp(1.0, int(np.frexp(number)[1]))])
    found = start + steps * np.spacing(start)
    assert differences.numbers(start, found, STRICT).ulp == steps


def test_ulp_is_in_the_type_that_the_graph_answers_in():
    expected = np.array([1.0])
    found = np.nextafter(np.float32(1), np.float32(2)).reshape(1)
    assert differences.numbers(expected, found, STRICT).ulp == 1.0
    assert differences.numbers(expected, found.astype("float64"), STRICT).ulp == 2.0**29


def test_what_is_equal_is_nothing_apart_and_what_is_not_a_number_is_infinitely():
    same = np.array([np.nan, np.inf, -0.0])
    apart = differences.numbers(same, same.copy(), STRICT)
    assert (apart.absolute, apart.relative, apart.ulp, apart.off.any()) == (0.0, 0.0, 0.0, False)
    one_sided = differences.numbers(np.array([1.0, np.inf]), np.array([np.nan, 1.0]), STRICT)
    assert one_sided.off.all()


def test_certificate_records_every_difference_and_the_farthest_rows_that_passed(readings):
    model = LogisticRegression().fit(readings, readings.sum(axis=1) > 40)
    conversion = convert_model(model, readings)
    label, shares = conversion.parity.outputs
    assert label.label_flips == 0
    assert 0 < shares.largest_ulp <= 2**24  # no float32 has more beside it in its size
    assert 0 < shares.largest_absolute <= 2e-5
    assert label.near_ties > 10
    assert label.near_ties >= label.near_ties_turned
    assert 1 <= len(conversion.parity.worst) <= WORST_ROWS
    first = conversion.parity.worst[0]
    assert first.output == "probability"
    expected = model.predict_proba(np.array([list(first.row.values())]))[0]
    assert np.allclose(first.original, expected)
    assert 0 < np.abs(np.array(first.onnx) - expected).max() <= shares.largest_absolute
    assert conversion.parity.seed
    assert conversion.parity.libraries["scikit-learn"]


def test_rows_that_the_original_was_not_asked_are_not_said_to_be_refused():
    rng = np.random.default_rng(0)
    sample = pd.DataFrame({name: rng.lognormal(0, 1, 300) for name in "ab"})
    model = make_pipeline(FunctionTransformer(np.log), LinearRegression()).fit(sample, rng.normal(size=300))
    (noise,) = [kind for kind in convert_model(model, sample).parity.kinds if kind.kind == "noise"]
    assert noise.not_asked > 0
    assert noise.rows + noise.not_asked == 1000
    assert 0 < noise.refused_by_original < noise.rows / 3  # a lognormal value moved by noise is seldom below 0


def test_gate_and_device_hold_numbers_to_one_rule():
    expected = np.array([1.0, 0.0, np.nan, np.inf, 1.0, np.inf, 1e308, 5e-324, 1.0])
    found = np.array([1.0 + 3e-5, 1e-5, np.nan, np.inf, np.nan, -np.inf, -1e308, 0.0, 1.0 + 1e-5])
    output = Output(name="score", type="float64", shape=[-1], role="score")
    for tolerance in (STRICT, Tolerance(), Tolerance(absolute=1e-4, relative=0.0)):
        wrong = compare(output, tolerance, found, expected).wrong
        assert differences.numbers(expected, found, tolerance).off.tolist() == wrong.tolist()
        assert wrong.tolist()[2:7] == [False, False, True, True, True]


def test_certificate_of_an_older_bundle_is_still_read(readings):
    written = msgspec.json.encode(convert_model(LinearRegression().fit(readings, readings[:, 0]), readings).parity)
    older = msgspec.json.decode(written)
    for output in older["outputs"]:
        del output["largest_ulp"], output["near_ties_turned"]
    for kind in older["kinds"]:
        del kind["rows_off"], kind["not_asked"]
    assert msgspec.convert(older, Parity).passed


def proved(original, graph, float_type):
    made = candidate.build(graph.SerializeToString(), original, original.answers(original.schema.frame[:5]), float_type)
    return parity.prove(original, made, probe(original), Tolerance(), {}).report


@pytest.mark.parametrize("scaled", [False, True], ids=["tree", "scaled tree"])
def test_thresholds_rounded_to_the_nearest_float32_are_caught(readings, scaled):
    tree = DecisionTreeRegressor(random_state=0)
    model = make_pipeline(StandardScaler(), tree) if scaled else tree
    model.fit(readings, readings[:, 0] * readings[:, 1])
    original = Original(model, infer(model, readings))
    conversion = convert_model(model, readings)
    graph = onnx.load_from_string(conversion.onnx)
    assert proved(original, graph, conversion.parity.float_type).passed
    moved = 0
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name == "nodes_splits":
                splits = numpy_helper.to_array(attribute.t)
                nearest = splits.astype("float32").astype(splits.dtype)
                moved += int((nearest != splits).sum())
                attribute.t.CopyFrom(numpy_helper.from_array(nearest))
    assert moved > 50
    report = proved(original, graph, conversion.parity.float_type)
    assert not report.passed
    assert report.outputs[0].rows_off > 0


def report_of(original_model, other_model, sample, batches):
    schema = infer(original_model, sample)
    original, other = Original(original_model, schema), Original(other_model, schema)

    class Graph:
        float_type = "float64"

        def answers(self, frame, limits):
            return other.answers(frame)

    comparison = ParityComparison(original, Graph(), Tolerance())
    for batch in batches:
        comparison.compare(batch, Limits())
    kinds = [comparison.kind(batch) for batch in batches]
    return Parity(
        comparison.passed, "float64", "", 1, Tolerance(), kinds, comparison.outputs(), comparison.worst(), [], [], {}
    )


def test_failure_that_only_far_rows_show_says_so(readings):
    right = LinearRegression().fit(readings, readings[:, 0])
    wrong = LinearRegression().fit(readings, readings[:, 0])
    wrong.coef_ = right.coef_ + 1e-7
    near = Batch("sample", "", pd.DataFrame({"x0": [20.0], "x1": [20.0]}))
    far = Batch("magnitudes", "", pd.DataFrame({"x0": [0.0], "x1": [2e7]}))
    report = report_of(right, wrong, readings, [near, far])
    assert [kind.rows_off for kind in report.kinds] == [0, 1]
    assert "only rows far beyond the sample are off (magnitudes)" in parity.failure(report).next_step


def test_failure_near_the_sample_points_to_what_converts(readings):
    right = LinearRegression().fit(readings, readings[:, 0])
    wrong = LinearRegression().fit(readings, readings[:, 1])
    rows = [Batch(kind, "", pd.DataFrame(readings[:3], columns=["x0", "x1"])) for kind in ("sample", "magnitudes")]
    failure = parity.failure(report_of(right, wrong, readings, rows))
    assert "docs/coverage.md" in failure.next_step
    assert failure.found.startswith("prediction is off on 6 of 6 rows")
