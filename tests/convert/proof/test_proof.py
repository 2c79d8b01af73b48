"""The rows of a proof: on boundaries, far beyond the sample, empty; and what a near-tie is."""

import numpy as np
import onnx
import pandas as pd
import pytest
from catboost import CatBoostRegressor
from onnx import numpy_helper
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import KNNImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBRegressor

from appliance.bundle.manifest import Tolerance
from appliance.errors import InvalidInput
from convert import convert_model
from convert.converters import skl2onnx_graph
from convert.converters.float32_inputs import kept_from
from convert.model.original import Original
from convert.model.schema import Limits, infer
from convert.proof import boundaries, candidate, parity
from convert.proof.limits import probe
from convert.proof.rows import SCALES, WHOLE_NUMBERS, draw


@pytest.fixture(scope="module")
def readings():
    return np.random.default_rng(0).normal(20, 5, (200, 2)).round(1)


def searched(model, sample, limits=None):
    schema = infer(model, sample)
    return {b.kind: b for b in boundaries.search(schema, limits or Limits(), Original(model, schema).answers)}


def test_rows_on_a_decision_boundary_are_one_rounding_apart(readings):
    model = LogisticRegression().fit(readings, readings.sum(axis=1) > 40)
    ties = searched(model, readings)["ties"]
    own, beside = ties.frame.to_numpy(), ties.beside.to_numpy()
    assert len(own) >= 20
    # Which side a row is on may depend on the rows asked with it: some processors sum larger batches in another order.
    rounding = np.abs(model.decision_function(own)) < 1e-12
    assert ((model.predict(own) != model.predict(beside)) | rounding).mean() > 0.9
    assert np.abs(own - beside).max() < 1e-13


def test_rows_beside_a_boundary_lie_on_both_sides_of_it(readings):
    model = LogisticRegression().fit(readings, readings.sum(axis=1) > 40)
    batches = searched(model, readings)
    near = batches["boundaries"].frame.to_numpy()
    assert 0.0 < np.abs(model.decision_function(near)).max() < np.abs(model.decision_function(readings)).max() / 50
    assert set(model.predict(near)) == {False, True}
    rounded = batches["rounded boundaries"].frame.to_numpy()
    assert (rounded == rounded.round(1)).all()


@pytest.mark.parametrize(
    "model", [KBinsDiscretizer(4, encode="ordinal"), make_pipeline(StandardScaler(), DecisionTreeClassifier())], ids=str
)
def test_edges_of_bins_and_scaled_trees_are_found(readings, model):
    model.fit(readings, readings[:, 0] > readings[:, 1])
    ties = searched(model, readings)["ties"]
    ask = model.predict if hasattr(model, "predict") else model.transform
    changed = np.asarray(ask(ties.frame.to_numpy()) != ask(ties.beside.to_numpy())).reshape(len(ties.frame), -1)
    assert changed.any(axis=1).all()


def test_between_whole_numbers_there_is_no_tie():
    table = pd.DataFrame({"n": np.arange(100)})
    model = make_pipeline(ColumnTransformer([("k", "passthrough", ["n"])]), DecisionTreeClassifier())
    batches = searched(model.fit(table, table["n"] > 36), table)
    assert set(batches["steps"].frame["n"]) == {36, 37}
    assert "ties" not in batches


def test_texts_and_listed_categories_are_not_searched(readings):
    texts = pd.DataFrame({"t": ["pump hot", "valve", "all good"] * 5})
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts["t"], [1, 1, 0] * 5)
    assert searched(model, texts) == {}
    forest = DecisionTreeClassifier().fit(readings, readings[:, 0] > 20)
    listed = Limits(categories={"x0": [1.0], "x1": [1.0]})
    assert searched(forest, readings, listed) == {}


def test_search_gives_the_same_rows_again(readings):
    model = KMeans(3, n_init=1, random_state=0).fit(readings)
    one, other = searched(model, readings), searched(model, readings)
    assert one.keys() == other.keys()
    assert all(one[kind].frame.equals(other[kind].frame) for kind in one)


@pytest.mark.parametrize("member", [GradientBoostingRegressor(n_estimators=20), RandomForestRegressor(20)], ids=str)
def test_rows_halfway_between_readings_catch_trees_that_rounded_inputs_lead_astray(member):
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"a": rng.normal(20, 5, 400).round(1), "b": rng.lognormal(2, 1, 400).round(2)})
    forest = make_pipeline(StandardScaler(), clone(member).set_params(random_state=0))
    model = VotingRegressor([("trees", forest), ("line", Ridge())]).fit(x, 2 * x["b"] + x["a"])
    original = Original(model, infer(model, x))
    limits = probe(original)
    answers = original.answers(x[:5])
    reports = {}
    for kind in ("float32", "float64"):
        feeds = candidate.feeds(original.schema, x[:5], kind, limits)
        content = skl2onnx_graph.convert(original, original.schema.inputs(kind, limits), kind, feeds, answers)
        made = candidate.build(content, original, answers, kind)
        reports[kind] = parity.prove(original, made, limits, Tolerance(), {}).report
    off = {kind.kind for kind in reports["float32"].kinds if kind.rows_off}
    assert "midpoints" in off
    assert reports["float64"].passed
    assert convert_model(model, x).manifest.inputs[0].type == "float64"


def test_rows_on_thresholds_come_to_the_split_that_has_them(readings):
    model = RandomForestClassifier(10, random_state=0).fit(readings, readings[:, 0] > readings[:, 1])
    original = Original(model, infer(model, readings))
    (batch,) = [b for b in draw(original.schema, Limits(), original.thresholds()) if b.kind == "thresholds"]
    rows = batch.frame.to_numpy()
    aside = 4 * np.spacing(rows.astype("float32"))
    parted = np.zeros(len(rows), dtype=bool)
    for column in (0, 1):
        step = aside * (np.arange(2) == column)
        parted |= (model.apply(rows - step) != model.apply(rows + step)).any(axis=1)
    assert parted.all()
    assert len(rows) > sum(tree.tree_.node_count for tree in model.estimators_) / 3


def test_trees_that_see_more_than_the_columns_are_left_out(readings):
    labels = np.column_stack([readings[:, 0] > 20, readings[:, 0] > readings[:, 1]]).astype(int)
    model = ClassifierChain(DecisionTreeClassifier(max_depth=3)).fit(readings, labels)
    model.estimators_[1].tree_.feature[0] = 2  # the first label, which is no column
    found = Original(model, infer(model, readings)).thresholds()
    (own,) = found.values()
    assert set(own[0]) <= set(model.estimators_[0].tree_.threshold)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), RandomForestRegressor(10, random_state=0)),
        make_pipeline(KBinsDiscretizer(8, encode="onehot-dense"), Ridge()),
        make_pipeline(StandardScaler(), XGBRegressor(n_estimators=10)),
        CatBoostRegressor(n_estimators=10, verbose=0, allow_writing_files=False),
        make_pipeline(StandardScaler(), CatBoostRegressor(n_estimators=10, verbose=0, allow_writing_files=False)),
    ],
    ids=["scaled forest", "bins", "scaled XGBoost", "CatBoost", "scaled CatBoost"],
)
def test_rows_lie_roundings_aside_of_thresholds_whatever_lies_before_them(readings, model):
    model.fit(readings, readings[:, 0] * readings[:, 1])
    original = Original(model, infer(model, readings))
    assert original.jumps
    (batch,) = boundaries.jumps(original.schema, Limits(), original.last_answer)
    below, above = np.split(batch.frame.to_numpy(), 2)
    assert len(below) > 100
    assert ((below != above).sum(axis=1) == 1).all()
    assert np.abs(below - above).max() < 1e-3
    assert (model.predict(below) != model.predict(above)).all()


def test_trees_inside_a_calibration_are_found(readings):
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0))
    model = CalibratedClassifierCV(forest, cv=2).fit(readings, readings[:, 0] > readings[:, 1])
    original = Original(model, infer(model, readings))
    assert original.jumps
    assert kept_from(model, original.schema.columns) == "RandomForestClassifier"


def test_models_without_thresholds_are_not_searched_for_jumps(readings):
    model = LogisticRegression().fit(readings, readings.sum(axis=1) > 40)
    assert "jumps" not in {kind.kind for kind in convert_model(model, readings).parity.kinds}
    tree = make_pipeline(StandardScaler(), DecisionTreeClassifier()).fit(readings, readings.sum(axis=1) > 40)
    assert "jumps" in {kind.kind for kind in convert_model(tree, readings).parity.kinds}


def test_magnitudes_dates_and_whole_numbers_are_tried(readings):
    schema = infer(LinearRegression().fit(readings, readings[:, 0]), readings)
    (batch,) = [batch for batch in draw(schema, Limits(), {}) if batch.kind == "magnitudes"]
    values = batch.frame.to_numpy().ravel()
    assert set(WHOLE_NUMBERS) <= set(values)
    assert values.max() > 20 / 5 * SCALES[0]
    assert np.abs(values).min() < 50 * SCALES[1]


def test_empty_texts_are_tried_where_the_model_takes_any():
    sample = pd.DataFrame({"t": ["a", "b"]})
    schema = infer(ColumnTransformer([]).fit(sample), sample)
    (batch,) = [batch for batch in draw(schema, Limits(), {}) if batch.kind == "unseen"]
    assert {"", " "} <= set(batch.frame["t"])


def test_rows_that_hang_on_a_tie_are_refused_and_counted(readings, ask):
    gaps = readings.copy()
    gaps[::7, 1] = np.nan
    model = make_pipeline(KNNImputer(n_neighbors=3), LinearRegression()).fit(gaps, readings.sum(axis=1))
    untied = np.sort(np.abs(gaps[::7, 0][:, None] - gaps[~np.isnan(gaps[:, 1]), 0]), axis=1)
    sample = np.concatenate([gaps[1:7], gaps[::7][untied[:, 2] < untied[:, 3] - 1e-6]])
    conversion = convert_model(model, sample)
    refused = {kind.kind: kind.refused_by_graph for kind in conversion.parity.kinds}
    assert conversion.parity.passed
    assert refused.pop("sample") == 0 < sum(refused.values())
    (tied,) = gaps[::7][untied[:, 2] == untied[:, 3]][:1]
    with pytest.raises(InvalidInput, match="as near as the last neighbour"):
        ask(conversion, {"x0": tied[:1], "x1": tied[1:]})


def test_certificate_names_the_boundaries_and_examples_hold_no_ties(readings):
    model = LogisticRegression().fit(readings, readings.sum(axis=1) > 40)
    schema = infer(model, readings)
    original = Original(model, schema)
    conversion = convert_model(model, readings)
    made = candidate.build(conversion.onnx, original, original.answers(schema.frame[:5]), "float32")
    proof = parity.prove(original, made, probe(original), Tolerance(), {})
    assert {"boundaries", "rounded boundaries", "ties", "magnitudes"} <= {kind.kind for kind in proof.report.kinds}
    assert "ties" not in {batch.kind for batch, _ in proof.evidence}
    assert proof.report.passed


def test_moved_threshold_of_a_forest_behind_a_scaler_is_caught(readings):
    model = make_pipeline(StandardScaler(), RandomForestClassifier(1, max_depth=1, bootstrap=False, random_state=0))
    model.fit(readings, readings[:, 0] > 20)
    original = Original(model, infer(model, readings))
    graph = onnx.load_from_string(convert_model(model, readings).onnx)
    moved = 0
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name == "nodes_splits":
                splits = numpy_helper.to_array(attribute.t) + 2e-4
                attribute.t.CopyFrom(numpy_helper.from_array(splits.astype(splits.dtype)))
                moved += 1
    float_type = convert_model(model, readings).manifest.inputs[0].type
    made = candidate.build(graph.SerializeToString(), original, original.answers(original.schema.frame[:5]), float_type)
    assert moved == 1
    assert not parity.prove(original, made, probe(original), Tolerance(), {}).report.passed
