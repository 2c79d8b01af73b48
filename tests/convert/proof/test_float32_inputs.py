"""float32 inputs are given to models that no comparison keeps from it, and there with a margin."""

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier
from sklearn.naive_bayes import BernoulliNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils import all_estimators

from appliance.bundle.manifest import Tolerance
from benchmarks.fresh_rows import asked
from convert import build
from convert.build import convert_model
from convert.converters import float32_inputs
from convert.converters.float32_inputs import kept_from
from convert.model.schema import Limits, infer
from convert.proof import boundaries, candidate, differences, float32_rows, parity
from convert.proof.limits import probe

SCALER = StandardScaler()
FRESH = 2_000


@pytest.fixture(scope="module")
def readings():
    """Three columns measured to two decimals, a number and one of three labels for each row."""
    rng = np.random.default_rng(0)
    x = rng.normal(20, 5, (200, 3)).round(2)
    return x, x[:, 0] - x[:, 1], np.digitize(x[:, 2], [18, 22])


@pytest.fixture
def gaps():
    """The table of an imputer by neighbours, and its target."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(300, 6)).round(2), columns=list("abcdef"))
    table = table.mask(rng.random(table.shape) < 0.1)
    return table, table.a.fillna(0) + table.b.fillna(0)


def kept(model, sample):
    return kept_from(model, infer(model, sample).columns)


COMPARES = {
    "KNeighborsRegressor": make_pipeline(SCALER, KNeighborsRegressor()),
    "HistGradientBoostingRegressor": HistGradientBoostingRegressor(max_iter=3),
    "RandomForestRegressor": make_pipeline(SCALER, RandomForestRegressor(3)),
    "KBinsDiscretizer": make_pipeline(KBinsDiscretizer(4), Ridge()),
    "SplineTransformer": make_pipeline(SplineTransformer(), Ridge()),
    "Binarizer": make_pipeline(Binarizer(threshold=20), Ridge()),
    "OneHotEncoder": make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge()),
    "SimpleImputer": make_pipeline(SimpleImputer(missing_values=0.1), Ridge()),
    "FunctionTransformer": make_pipeline(FunctionTransformer(np.floor), Ridge()),
    "DecisionTreeRegressor": StackingRegressor([("a", Ridge())], DecisionTreeRegressor(max_depth=2)),
}


@pytest.mark.parametrize("step", COMPARES)
def test_what_compares_numbers_of_the_table_has_float64_inputs(readings, step):
    x, y, _ = readings
    assert kept(COMPARES[step].fit(x, y), x) == step


CHOOSES = {
    "NearestCentroid": NearestCentroid(),
    "BernoulliNB": BernoulliNB(),
    "SVC": SVC(),
    "OneVsOneClassifier": OneVsOneClassifier(LogisticRegression()),
    "VotingClassifier": VotingClassifier([("a", LogisticRegression()), ("b", RandomForestClassifier(3))]),
    "CalibratedClassifierCV": CalibratedClassifierCV(LogisticRegression(), method="isotonic", cv=2),
    "KNeighborsClassifier": GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [3]}, cv=2),
    "AdaBoostClassifier": AdaBoostClassifier(LogisticRegression(), n_estimators=3),
}


@pytest.mark.parametrize("step", CHOOSES)
def test_what_counts_votes_or_takes_the_nearest_has_float64_inputs(readings, step):
    x, _, labels = readings
    assert kept(CHOOSES[step].fit(x, labels), x) == step


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5),
        AdaBoostClassifier(n_estimators=5),
        IsolationForest(n_estimators=5),
        OneVsOneClassifier(RandomForestClassifier(3)),
        VotingClassifier([("a", RandomForestClassifier(3)), ("b", RandomForestClassifier(3))]),
        make_pipeline(SimpleImputer(), RandomForestClassifier(5)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_trees_that_round_their_columns_answer_the_same_from_float32(readings, model):
    x, _, labels = readings
    conversion = convert_model(model.fit(x, labels), x)
    assert conversion.parity.float_type == "float32"
    assert all(output.largest_share < 0.01 for output in conversion.parity.outputs)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(max_iter=500),
        make_pipeline(SCALER, SVC()),
        make_pipeline(FunctionTransformer(np.log1p), SCALER, LogisticRegression()),
        VotingClassifier([("a", LogisticRegression()), ("b", RandomForestClassifier(3))], voting="soft"),
        CalibratedClassifierCV(LogisticRegression(max_iter=500), cv=2),
        StackingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=2))], Ridge()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_follows_its_columns_without_a_jump_has_float32_inputs_with_a_margin(readings, model):
    x, _, labels = readings
    conversion = convert_model(model.fit(x, labels > 0), x)
    assert conversion.parity.float_type == "float32"
    assert all(output.largest_share <= parity.MARGIN for output in conversion.parity.outputs)
    assert {"float32 halfway"} <= {kind.kind for kind in conversion.parity.kinds}


def test_encoders_of_texts_flags_and_whole_numbers_compare_what_is_not_rounded(plant):
    table, y = plant
    texts, whole = ["größe", "on"], ["serial no"]
    encoder = OneHotEncoder(handle_unknown="ignore")
    for columns in (
        make_column_transformer((encoder, [*texts, *whole]), (SCALER, ["temp-C"])),
        make_column_transformer((make_pipeline(SimpleImputer(strategy="most_frequent"), encoder), ["größe"])),
    ):
        assert kept(make_pipeline(columns, LogisticRegression()).fit(table, y), table) == ""
    filled = make_column_transformer((make_pipeline(SimpleImputer(), encoder), whole), (SCALER, ["temp-C"]))
    measured = make_column_transformer((encoder, ["temp-C"]))
    for columns in (filled, measured):  # whole numbers behind an imputer are floats too
        assert kept(make_pipeline(columns, LogisticRegression()).fit(table, y), table) == "OneHotEncoder"


def test_what_is_not_known_has_float64_inputs(readings):
    class Own(LinearRegression):
        pass

    x, y, _ = readings
    assert kept(Own().fit(x, y), x) == "Own"


def test_boosting_from_an_estimator_starts_from_rounded_columns(readings):
    x, y, _ = readings
    model = GradientBoostingRegressor(init=KNeighborsRegressor(), n_estimators=3).fit(x, y)
    conversion = convert_model(model, x)
    assert conversion.parity.float_type == "float32"
    assert asked("boosting", model, x, FRESH).beyond == 0


def test_every_name_in_the_tables_is_an_estimator_and_stands_once():
    known = {name for name, _ in all_estimators()} | {"_ConstantPredictor"}
    known |= {
        "HalvingGridSearchCV",
        "HalvingRandomSearchCV",
        "FrozenEstimator",
    }  # experimental, or newer than the least
    tables = [value for value in vars(float32_inputs).values() if isinstance(value, frozenset)]
    listed = [name for table in tables for name in table if name[0].isupper() or name[0] == "_"]
    twice = {name for name in listed if listed.count(name) > 1}
    assert len(listed) > 130
    assert set(listed) - known == set()
    assert twice == {"LabelBinarizer", *float32_inputs._SCALED_BACK}  # of labels a constant, of texts a count


def test_neighbours_that_fill_gaps_have_float64_inputs_and_fresh_rows_within_the_tolerance(gaps):
    table, y = gaps
    model = make_pipeline(KNNImputer(), Ridge()).fit(table, y)
    conversion = convert_model(model, table)
    assert {tensor.type for tensor in conversion.manifest.inputs} == {"float64"}
    assert conversion.parity.why == "float64 inputs: KNNImputer may decide by a reading's last digit"
    found = asked("k15", model, table, 2 * FRESH)
    assert (found.float_type, found.beyond, found.rows > FRESH) == ("float64", 0, True)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(SCALER, KNeighborsRegressor(weights="distance")),
        make_pipeline(SCALER, RandomForestRegressor(10, random_state=0)),
        make_pipeline(KBinsDiscretizer(6, encode="onehot-dense"), Ridge()),
        make_pipeline(SCALER, Ridge()),
    ],
    ids=["neighbours", "scaled forest", "bins", "lines"],
)
def test_fresh_rows_are_within_the_tolerance(readings, model):
    x, y, _ = readings
    found = asked("readings", model.fit(x, y), x, FRESH)
    assert (found.beyond, found.flips, found.rows) == (0, 0, FRESH)


@pytest.fixture
def difference():
    """A model of two columns near 100, whose errors of up to 3.8e-6 each add up to 0.76 of the tolerance."""
    rng = np.random.default_rng(0)
    x = rng.uniform(100, 101, (200, 2))
    model = LinearRegression().fit(x, x[:, 0] - x[:, 1])
    return model, x


def test_float32_inputs_that_take_more_than_half_of_the_tolerance_are_not_chosen(difference):
    conversion = convert_model(*difference)
    assert conversion.parity.float_type == "float64"
    first, last = conversion.parity.attempts
    assert "% of the tolerance, and may take 50%" in first.outcome
    assert (first.float_type, last.float_type) == ("float32", "float64")


def test_without_the_margin_such_inputs_would_be_chosen(difference, monkeypatch):
    monkeypatch.setattr(parity, "MARGIN", 1.0)
    (output,) = convert_model(*difference).parity.outputs
    assert 0.5 < output.largest_share < 1.0


def test_labels_are_asked_within_half_of_the_tolerance_of_their_boundary(readings):
    x, y, _ = readings
    model = LogisticRegression().fit(x, y > 0)
    found = {batch.kind: batch for batch in boundaries.search(infer(model, x), Limits(), labels_of(model))}
    low, high = np.split(found["close boundaries"].frame.to_numpy(), 2)
    assert len(low) > 10
    assert (model.predict(low) != model.predict(high)).all()
    assert np.abs(high - low).max() < 2 * 5e-6 * np.ptp(x)


def labels_of(model):
    return lambda frame: {"prediction": model.predict(frame.to_numpy())}


def test_rows_halfway_between_float32_numbers_are_asked_and_the_costliest_searched_for(gaps):
    table, y = gaps
    sample = table.assign(zero=0.0, whole=np.arange(len(table)), text="a")
    columns = make_column_transformer((SimpleImputer(), [*"abcdef", "zero", "whole"]), ("drop", ["text"]))
    model = make_pipeline(columns, Ridge()).fit(sample, y)
    original = build.original_of(model, sample)
    made = candidate.build(convert_model(model, sample).onnx, original, original.answers(sample[:5]), "float32")
    found = {batch.kind: batch.frame for batch in float32_rows.search(original, made, probe(original), Tolerance())}
    rows = found["float32 halfway"]
    numbers = rows[list("abcdef")].to_numpy()
    single = numbers.astype("float32")
    towards = np.nextafter(single, np.where(numbers > single, np.inf, -np.inf).astype("float32"))
    known = np.isfinite(numbers) & (numbers != 0)
    share = (numbers - single)[known] / (towards.astype("float64") - single)[known]
    assert np.allclose(share, 0.5, atol=1e-5)
    assert (share < 0.5).all()
    assert np.isnan(numbers).any()
    assert (rows["zero"] == 0).all()
    assert rows["whole"].isin(sample["whole"]).all()
    drawn, searched = (apart(original, made, found[kind]) for kind in ("float32 halfway", "float32 search"))
    assert searched > drawn


def apart(original, made, frame):
    """Return how much of the tolerance the farthest row takes."""
    answers = (original.answers(frame)["prediction"], made.answers(frame, probe(original))["prediction"])
    return differences.numbers(*answers, Tolerance()).share.max()


@pytest.mark.parametrize(
    "step",
    [
        make_pipeline(SCALER, KNeighborsRegressor()),
        make_pipeline(SCALER, RandomForestRegressor(10, random_state=0)),
        make_pipeline(SCALER, KBinsDiscretizer(6, encode="onehot-dense"), Ridge()),
        make_pipeline(KNNImputer(), Ridge()),
    ],
    ids=["neighbours", "forest", "bins", "imputer"],
)
@pytest.mark.parametrize("named", [False, True], ids=["array", "table"])
def test_what_compares_is_asked_in_float64_where_it_was_trained_on_float32(readings, step, named):
    x, y, _ = readings
    if type(step[0]) is KNNImputer:  # gaps; and no two rows equally near, which an imputer refuses
        rng = np.random.default_rng(0)
        x = np.where(rng.random(x.shape) < 0.1, np.nan, x + rng.normal(0, 0.001, x.shape))
    sample = pd.DataFrame(x, columns=list("abc")).astype("float32") if named else x.astype("float32")
    model = step.fit(sample, y)
    conversion = convert_model(model, sample)
    assert {tensor.type for tensor in conversion.manifest.inputs} == {"float32"}
    assert any(note.startswith("the original was asked in float64") for note in conversion.parity.notes)
    assert asked("narrow", model, sample, FRESH).beyond == 0


def test_float32_that_fails_says_how_much_of_the_tolerance_it_takes(difference, monkeypatch):
    monkeypatch.setattr(build._Recipe, "_float_types", lambda recipe: ("float32",))
    with pytest.raises(build.ParityFailed, match="of the tolerance, and may take 50%"):
        convert_model(*difference)


@pytest.mark.parametrize("order", [["city", "x"], ["x", "city"]])
def test_a_column_that_is_dropped_before_others_moves_none_of_them(order):
    rng = np.random.default_rng(3)
    dates = pd.date_range("2024-01-01", periods=60)
    table = pd.DataFrame({"when": dates, "city": rng.choice(["a", "b"], 60), "x": rng.normal(size=60)})
    table = table[["when", *order]]
    columns = ColumnTransformer([("x", StandardScaler(), ["x"]), ("o", OneHotEncoder(), ["city"])])
    model = make_pipeline(columns, Ridge()).fit(table, rng.normal(size=60))

    assert float32_inputs.kept_from(model, infer(model, table).columns) == ""
