"""Steps that give sparse matrices before estimators to which an entry that is not stored is no 0; special values."""

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import IsolationForest, StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    OneHotEncoder,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
)
from xgboost import XGBClassifier, XGBRegressor

from appliance.errors import ConversionRefused, ParityFailed
from convert import convert_model
from convert.model import sparse_input
from convert.model.original import Original
from convert.model.schema import Limits, infer
from convert.proof import specials
from convert.proof.rows import draw


@pytest.fixture(scope="module")
def table():
    """Return a table without a reading near 0: what XGBoost does with a 0 is then seen in no row of the sample."""
    rng = np.random.default_rng(0)
    temp = rng.normal(20, 4, 200).round(1)
    temp[np.abs(temp) < 2] = 2.0
    return pd.DataFrame({"c": rng.choice(list("abcdefgh"), 200), "temp": temp})


def encoded(**options):
    return ColumnTransformer([("code", OneHotEncoder(), ["c"])], remainder="passthrough", **options)


def classifier():
    return XGBClassifier(n_estimators=4, max_depth=2)


def regressor():
    return XGBRegressor(n_estimators=4, max_depth=2)


def dense(matrix):
    return matrix.toarray()


def zeros(table):
    return table.assign(temp=np.where(np.arange(len(table)) % 2, 0.0, -0.0))


def assert_answers(conversion, model, rows, ask):
    found = ask(conversion, {name: values.to_numpy() for name, values in rows.items()})["prediction"]
    np.testing.assert_allclose(np.asarray(found, dtype=float), model.predict(rows).astype(float), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(encoded(), classifier()),
        make_pipeline(encoded(sparse_threshold=0), classifier()),
        make_pipeline(encoded(), LGBMClassifier(n_estimators=3, min_child_samples=5, verbose=-1)),
        make_pipeline(encoded(), LGBMClassifier(n_estimators=3, min_child_samples=5, verbose=-1, zero_as_missing=True)),
        make_pipeline(encoded(), CatBoostClassifier(n_estimators=3, verbose=0, allow_writing_files=False)),
        make_pipeline(encoded(), VotingClassifier([("x", classifier()), ("l", LogisticRegression())])),
        make_pipeline(encoded(), StackingClassifier([("x", classifier())], classifier(), cv=2, passthrough=True)),
        CalibratedClassifierCV(make_pipeline(encoded(), classifier()), cv=2),
        make_pipeline(encoded(), OneVsRestClassifier(classifier())),
        GridSearchCV(make_pipeline(encoded(), classifier()), {"xgbclassifier__max_depth": [2]}, cv=2),
        make_pipeline(encoded(), StandardScaler(with_mean=False), classifier()),
        make_pipeline(encoded(), classifier().set_params(missing=-1.0)),
        make_pipeline(
            make_column_transformer((TfidfVectorizer(analyzer="char"), "c"), ("passthrough", ["temp"])), classifier()
        ),
    ],
    ids=[
        "encoder",
        "dense",
        "LightGBM",
        "LightGBM, zero as missing",
        "CatBoost",
        "voting",
        "stack",
        "calibrated",
        "one against rest",
        "search",
        "scaler",
        "value for missing",
        "texts",
    ],
)
def test_zeros_of_a_sparse_step_are_what_they_are_to_the_original(table, ask, model):
    model.fit(table, (table["temp"] > 20).astype(int))
    conversion = convert_model(model, table)
    rows = zeros(table)
    assert_answers(conversion, model, rows, ask)


def test_models_that_would_answer_in_processes_of_their_own_are_watched_too(table, ask):
    targets = np.column_stack([table["temp"], table["temp"] ** 2])
    model = make_pipeline(encoded(), MultiOutputRegressor(regressor(), n_jobs=2)).fit(table, targets)
    assert_answers(convert_model(model, table), model, zeros(table), ask)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array], ids=lambda f: f.__name__)
def test_a_sample_may_be_a_sparse_matrix(form, ask):
    dense = np.random.default_rng(0).integers(0, 3, (150, 3)).astype(float)
    sample = form(dense)
    model = make_pipeline(MaxAbsScaler(), regressor()).fit(sample, dense.sum(axis=1))
    assert np.abs(model.predict(sample) - model.predict(dense)).max() > 0.1
    found = ask(convert_model(model, sample), {f"x{i}": dense[:, i] for i in range(dense.shape[1])})["prediction"]
    np.testing.assert_allclose(np.ravel(found), model.predict(sample), rtol=1e-5)


def test_quantiles_of_a_sparse_matrix_leave_its_zeros(ask):
    dense = np.abs(np.random.default_rng(0).normal(size=(150, 2)).round(1))
    dense[dense < 0.6] = 0.0
    sample = sparse.csr_matrix(dense)
    model = make_pipeline(
        QuantileTransformer(n_quantiles=20, output_distribution="normal", ignore_implicit_zeros=True), Ridge()
    )
    model.fit(sample, dense[:, 0])
    found = ask(convert_model(model, sample), {f"x{i}": dense[:, i] for i in range(dense.shape[1])})["prediction"]
    np.testing.assert_allclose(np.ravel(found), model.predict(sample), rtol=1e-5, atol=1e-5)


def test_gaps_of_a_sparse_matrix_go_right_in_an_isolation_forest(table, ask):
    gaps = table.assign(temp=table["temp"].where(np.arange(len(table)) % 5 > 0))
    model = make_pipeline(encoded(), IsolationForest(n_estimators=10, random_state=0)).fit(gaps)
    assert_answers(convert_model(model, gaps), model, gaps, ask)


STORED = r"sparse matrix that reaches it holds zeros.*sparse_threshold=0"


def test_zeros_that_an_imputer_puts_into_a_sparse_matrix_are_refused_before_xgboost(table):
    gaps = table.assign(temp=table["temp"].where(np.arange(len(table)) % 5 > 0))
    model = make_pipeline(encoded(), SimpleImputer(strategy="constant", fill_value=0), regressor())
    with pytest.raises(ConversionRefused, match=STORED):
        convert_model(model.fit(gaps, table["temp"]), gaps)


def test_zeros_at_the_ends_of_sparse_splines_are_refused_before_xgboost(table):
    model = make_pipeline(SplineTransformer(sparse_output=True), regressor())
    with pytest.raises(ConversionRefused, match=STORED):
        convert_model(model.fit(table[["temp"]], table["temp"]), table[["temp"]])


def test_a_dense_step_before_xgboost_keeps_its_zeros(table, ask):
    to_dense = FunctionTransformer(dense, accept_sparse=True)
    model = make_pipeline(encoded(), to_dense, regressor()).fit(table, table["temp"])
    assert_answers(convert_model(model, table), model, zeros(table), ask)


def test_the_proof_alone_finds_zeros_that_the_sample_lacks(table, monkeypatch):
    model = make_pipeline(encoded(), classifier()).fit(table, (table["temp"] > 20).astype(int))
    monkeypatch.setattr(sparse_input, "gets_sparse", lambda model: False)
    with pytest.raises(ParityFailed, match=r"special values row .*temp=-?0.0"):
        convert_model(model, table)


def asked(model, sample, limits=None):
    original = Original(model, infer(model, sample))
    drawn = draw(original.schema, limits or Limits(), {}, specials.of(original))
    return {batch.kind: batch.frame for batch in drawn}


def test_zeros_and_ones_of_every_column_are_asked_alone_and_together(table):
    model = make_pipeline(encoded(), Ridge()).fit(table, table["temp"])
    frames = asked(model, table)
    alone = frames["special values"]["temp"]
    assert {0.0, 1.0, -1.0} <= set(alone)
    assert set(np.signbit(alone[alone == 0])) == {True, False}
    whole = pd.DataFrame({"n": np.arange(5, 9), "x": [2.5, 3.5, 4.5, 5.5]})
    together = asked(Ridge().fit(whole, whole["x"]), whole)["special combinations"]
    assert {(0, 0.0), (1, 1.0), (-1, -1.0)} <= set(together.itertuples(index=False, name=None))
    assert together["n"].dtype == np.int64


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([SimpleImputer(strategy="constant", fill_value=-7.0), StandardScaler()], [-7.0]),
        ([SimpleImputer(missing_values=-999.0)], [-999.0]),
        ([Binarizer(threshold=3.25)], [3.25]),
        ([KBinsDiscretizer(4, encode="ordinal", strategy="uniform")], [10.0, 17.5, 25.0, 32.5, 40.0]),
        ([SplineTransformer(3)], [10.0, 40.0]),
        ([StandardScaler(), Binarizer(threshold=0.0)], [25.0]),
        ([StandardScaler()], [25.0]),
        ([FunctionTransformer(lambda x: np.where(x > 12.75, x, 0.5))], [12.75, 0.5]),
        ([FunctionTransformer(np.clip, kw_args={"a_min": 11.5, "a_max": 39.5})], [11.5, 39.5]),
        ([make_column_transformer((SimpleImputer(strategy="constant", fill_value=-3.5), [0]))], [-3.5]),
        ([FeatureUnion([("a", StandardScaler()), ("b", KBinsDiscretizer(2))])], [25.0]),
        ([regressor().set_params(missing=-99.0)], [-99.0]),
    ],
    ids=lambda value: None if isinstance(value, list) and isinstance(value[0], float) else str(value)[:40],
)
def test_what_a_step_treats_specially_is_asked(steps, expected):
    sample = np.linspace(10, 40, 31).reshape(-1, 1)
    model = make_pipeline(*steps).fit(sample, sample[:, 0])
    frame = asked(model, sample)["special values"]
    for value in expected:
        assert np.abs(frame["x0"] - value).min() < 1e-9


def test_categories_and_fill_values_that_the_sample_lacks_are_asked(table):
    encoder = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore")
    )
    model = make_pipeline(ColumnTransformer([("code", encoder, ["c"])]), Ridge()).fit(table, table["temp"])
    few = table[table["c"] == "a"]
    assert {"b", "h", "none"} <= set(asked(model, few)["special values"]["c"])


def test_columns_of_listed_values_keep_to_them(table):
    model = make_pipeline(encoded(), Ridge()).fit(table, table["temp"])
    frames = asked(model, table, Limits(categories={"c": ["a", "b"], "temp": [5.0, 6.0]}))
    assert set(frames["special values"]["temp"]) <= {5.0, 6.0} | set(table["temp"])
    assert not {0.0, 1.0, -1.0} & set(frames["special combinations"]["temp"])


def test_long_lists_of_allowed_values_are_asked_in_part(table):
    model = make_pipeline(encoded(), Ridge()).fit(table, table["temp"])
    listed = [float(value) for value in range(10_000)]
    frame = asked(model, table, Limits(categories={"c": ["a"], "temp": listed}))["special values"]
    assert 256 <= len(set(frame["temp"])) <= 1_000
