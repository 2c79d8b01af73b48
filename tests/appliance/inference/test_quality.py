"""The quality flag: what is outside, imputed, drifted or good, and intervals that hold as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_classification, make_friedman1
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from appliance.bundle.baseline import PROBABILITIES, Baseline, Categories, Conformal, Numbers
from appliance.bundle.manifest import Input, Manifest, Output, Provenance
from appliance.inference.quality import GOOD, QualityJudge, RowQuality
from convert import baseline

FENCED = Numbers(0.0, [0.0] * 13, 0.0, 1.0, [-10.0, 0.0, 10.0], [0, 50, 50, 0])
CODES = Categories(0.0, {"1": 50, "2": 50}, 0)


def manifest(inputs, outputs=None, labels=()):
    return Manifest(
        format=1,
        name="m",
        version="1.0.0",
        task="classification" if labels else "regression",
        inputs=inputs,
        outputs=outputs or [Output(name="prediction", type="float32", shape=[-1], role="prediction")],
        opset={"": 18},
        ir_version=9,
        least_onnxruntime="1.20.0",
        provenance=Provenance(source="test", sha256="0" * 64, model_type="t"),
        members={},
        class_labels=list(labels),
    )


def judge(inputs, summaries, conformal=None, **rest):
    made = Baseline(2, 100, PROBABILITIES, summaries, {}, True, [], conformal)
    return QualityJudge(manifest(inputs, **rest), made)


ONE = [Input(name="features", type="float32", shape=[-1, 3], columns=["a", "b", "code"], missing=True)]
SUMMARIES = {"a": FENCED, "b": FENCED, "code": CODES}


@pytest.mark.parametrize("times", [1, 50])  # Python compares a few rows, NumPy many
def test_each_row_has_the_worst_flag_that_applies_and_its_column(times):
    rows = np.array(
        [[1, 2, 1], [1, 11, 1], [-10, 1, 1], [np.nan, 1, 2], [np.nan, -11, 2], [1, 1, 3], [1, 10, np.nan]], np.float32
    )
    found = judge(ONE, SUMMARIES).judged({"features": np.tile(rows, (times, 1))}, {}, 7 * times)
    expected = [
        GOOD,
        RowQuality("outside", "b"),
        RowQuality("outside", "a"),
        RowQuality("imputed", "a"),
        RowQuality("outside", "b"),
        RowQuality("outside", "code"),
        RowQuality("imputed", "code"),
    ]
    assert found == expected * times


def test_drift_is_of_every_row_that_is_not_worse():
    rows = np.array([[1, 2, 1], [1, 11, 1], [1, np.nan, 1]], np.float32)
    found = judge(ONE, SUMMARIES).judged({"features": rows}, {}, 3, "b")
    assert found == [RowQuality("drifted", "b"), RowQuality("outside", "b"), RowQuality("imputed", "b")]


def test_texts_booleans_and_whole_numbers():
    inputs = [
        Input(name="site", type="string", shape=[-1, 1], columns=["site"], missing=True, missing_text="\ufdd0"),
        Input(name="on", type="bool", shape=[-1, 1], columns=["on"]),
        Input(name="count", type="int64", shape=[-1, 1], columns=["count"]),
    ]
    summaries = {
        "site": Categories(0.0, {"north": 50, "south": 50}, 0),
        "on": Categories(0.0, {"true": 100}, 0),
        "count": FENCED,
    }
    feeds = {
        "site": np.array([["north"], ["east"], ["\ufdd0"], ["south"], ["south"]], object),
        "on": np.array([[True], [True], [True], [False], [True]]),
        "count": np.array([[1], [1], [1], [1], [11]], np.int64),
    }
    found = judge(inputs, summaries).judged(feeds, {}, 5)
    flags = [(one.flag, one.column) for one in found]
    assert flags == [("good", ""), ("outside", "site"), ("imputed", "site"), ("outside", "on"), ("outside", "count")]


def test_a_category_is_outside_only_where_training_had_no_others():
    inputs = [Input(name="site", type="string", shape=[-1, 1], columns=["site"])]
    made = judge(inputs, {"site": Categories(0.0, {"north": 50}, 10)})
    assert made.judged({"site": np.array([["east"]], object)}, {}, 1) == [GOOD]


@pytest.mark.parametrize("made", [None, Baseline(1, 100, PROBABILITIES, {"a": Numbers(0.0, [0.0] * 13, 0, 1)}, {})])
def test_without_fences_only_gaps_are_seen(made):
    found = QualityJudge(manifest(ONE), made).judged({"features": np.array([[1e9, np.nan, 1]], np.float32)}, {}, 1)
    assert found == [RowQuality("imputed", "b")]


@given(st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=12))
def test_few_rows_and_many_are_judged_alike(rows):
    made, array = judge(ONE, SUMMARIES), np.array(rows, np.float32)
    alone = [made.judged({"features": array[row : row + 1]}, {}, 1)[0] for row in range(len(array))]
    assert made.judged({"features": np.repeat(array, 5, axis=0)}, {}, 5 * len(array))[::5] == alone


def test_intervals_of_unseen_rows_cover_nine_of_ten():
    x, y = make_friedman1(6000, noise=1.0, random_state=0)
    model = RandomForestRegressor(30, random_state=0, n_jobs=1).fit(x[:2000], y[:2000])
    found = baseline.conformal("absolute", np.abs(model.predict(x[2000:4000]) - y[2000:4000])[:, None])
    inputs = [Input(name="features", type="float32", shape=[-1, 10], columns=list("abcdefghij"))]
    made = judge(inputs, {}, found)
    assert made.needed([]) == ["prediction"]
    answers = model.predict(x[4000:]).astype(np.float32)
    quality = made.judged({"features": x[4000:].astype(np.float32)}, {"prediction": answers}, 2000)
    intervals = np.array([one.interval for one in quality])
    covered = (intervals[:, 0] <= y[4000:]) & (y[4000:] <= intervals[:, 1])
    assert covered.mean() == pytest.approx(0.9, abs=0.02)


def test_label_sets_of_unseen_rows_cover_nine_of_ten():
    x, y = make_classification(6000, 8, n_informative=5, n_classes=3, flip_y=0.1, random_state=0)
    model = RandomForestClassifier(30, random_state=0, n_jobs=1).fit(x[:2000], y[:2000])
    own = model.predict_proba(x[2000:4000])[np.arange(2000), y[2000:4000]]
    found = baseline.conformal("label", 1 - own[:, None])
    outputs = [
        Output(name="label", type="int64", shape=[-1], role="prediction"),
        Output(name="p", type="float32", shape=[-1, 3], role="probability"),
    ]
    inputs = [Input(name="features", type="float32", shape=[-1, 8], columns=list("abcdefgh"))]
    made = judge(inputs, {}, found, outputs=outputs, labels=[0, 1, 2])
    assert made.needed(["label"]) == ["label", "p"]
    answers = {"label": model.predict(x[4000:]), "p": model.predict_proba(x[4000:]).astype(np.float32)}
    quality = made.judged({"features": x[4000:].astype(np.float32)}, answers, 2000)
    covered = [truth in one.labels for truth, one in zip(y[4000:].tolist(), quality, strict=True)]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)
    assert all(one.labels for one in quality)


def test_intervals_of_several_columns_and_quantiles_of_another_shape():
    outputs = [Output(name="prediction", type="float32", shape=[-1, 2], role="prediction")]
    answers = {"prediction": np.array([[1.0, 2.0]], np.float32)}
    feeds = {"features": np.array([[1, 1, 1]], np.float32)}
    both = judge(ONE, {}, Conformal("absolute", 0.9, 100, [1.0, 0.5]), outputs=outputs)
    assert both.judged(feeds, answers, 1)[0].interval == [[0.0, 2.0], [1.5, 2.5]]
    other = judge(ONE, {}, Conformal("absolute", 0.9, 100, [1.0]), outputs=outputs)
    assert other.judged(feeds, answers, 1) == [GOOD]
