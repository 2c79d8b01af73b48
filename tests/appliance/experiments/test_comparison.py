"""Two versions' answers beside each other: agreement, table, quantiles, and sums that add up over processes."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import Manifest, Output, Policy, Provenance, Tolerance
from appliance.experiments import comparison
from appliance.experiments.comparison import Comparer, WorstRow, add, report, worst_of

LABELS = ["no", "yes"]
NUMBERS = Manifest(
    format=1, name="iris", version="1.0.0", task="regression", inputs=[], opset={"": 18}, ir_version=9,
    outputs=[Output(name="prediction", type="float32", shape=[-1], role="prediction")], least_onnxruntime="1.20.0",
    provenance=Provenance(source="test", sha256="0" * 64, model_type="t"), members={},
    policy=Policy(tolerance=Tolerance(absolute=1e-3, relative=0)),
)  # fmt: skip
CLASSES = msgspec.structs.replace(
    NUMBERS,
    task="classification",
    outputs=[
        Output(name="prediction", type="string", shape=[-1], role="prediction"),
        Output(name="probability", type="float32", shape=[-1, 2], role="probability"),
    ],
    class_labels=LABELS,
)


def compared(ours, theirs, manifest=NUMBERS):
    cells = np.zeros(comparison.CELLS)
    comparer = Comparer(manifest, manifest)
    found = comparer.compare(ours, theirs)
    add(cells, found, len(comparer.labels))
    return cells


def numbers(*values):
    return {"prediction": np.array(values, np.float32)}


def test_numbers_agree_within_the_tolerance_of_the_manifest():
    told = report(compared(numbers(1, 2, 3, 4), numbers(1.0005, 2.5, 3, np.nan)), [])
    assert told["agreement"] == 0.5
    assert told["nan"] == {"active": 0, "challenger": 1}
    assert told["difference"]["0.5"] == pytest.approx(0.0005, rel=0.02)
    assert told["difference"]["1"] is None  # one of the two is no number: beyond all bounds


def test_classes_have_a_table_and_the_distance_of_their_probabilities():
    ours = {"prediction": np.array(["no", "no", "yes"], object), "probability": np.array([[0.9, 0.1]] * 3, np.float32)}
    theirs = {
        "prediction": np.array(["no", "yes", "yes"], object),
        "probability": np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]], np.float32),
    }
    told = report(compared(ours, theirs, CLASSES), LABELS)
    assert told["table"] == [[1, 1], [0, 1]]
    assert told["agreement"] == pytest.approx(2 / 3)
    assert told["difference"]["1"] == pytest.approx(0.5, rel=0.02)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_within_one_percent(values, level):
    zeros = {"prediction": np.zeros(len(values))}
    told = report(compared(zeros, {"prediction": np.array(values)}), [])
    true = np.quantile(values, level, method="inverted_cdf")
    assert told["difference"][f"{level:g}"] == pytest.approx(true, rel=0.0101)


@given(st.lists(st.floats(allow_infinity=True, allow_nan=True), min_size=2, max_size=30), st.data())
def test_sums_of_two_processes_are_those_of_one(values, data):
    cut = data.draw(st.integers(1, len(values) - 1))
    ours, theirs = np.array(values), np.array(values[::-1])
    whole = compared({"prediction": ours}, {"prediction": theirs})
    parts = [compared({"prediction": ours[cut]}, {"prediction": theirs[cut]}) for cut in (slice(cut), slice(cut, None))]
    assert np.array_equal(whole, parts[0] + parts[1])


def test_the_worst_rows_are_the_farthest_first_and_few():
    rows = [WorstRow(float(n), f"r{n}", {}, 0, 1) for n in range(30)] + [WorstRow(None, "nan", {}, 0, None)]
    worst = worst_of(rows)
    assert [row.id for row in worst[:2]] == ["nan", "r29"]
    assert len(worst) == comparison.WORST
