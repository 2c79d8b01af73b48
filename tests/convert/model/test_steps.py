"""One walk knows how estimators nest: every trained estimator with its path, and the columns that reach it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RANSACRegressor, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, PolynomialFeatures, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from convert.build import convert_model
from convert.converters import float32_inputs
from convert.converters.skl2onnx_graph import first_encodes
from convert.model.original import Original
from convert.model.schema import infer
from convert.model.steps import Sees, asked_parts, dropped_columns, first_step, first_steps, parts, steps, walk

FrozenEstimator = pytest.importorskip("sklearn.frozen").FrozenEstimator
LINE = LinearRegression()
TREE = DecisionTreeClassifier(random_state=0)
PIPE = make_pipeline(StandardScaler(), LogisticRegression())


@pytest.fixture(scope="module")
def readings():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).round(2)
    return x, rng.integers(0, 3, 90)


class Duck:
    """A transformer that derives from nothing of scikit-learn's."""

    def fit(self, x, y=None):
        return self

    def transform(self, x):
        return x[:, :2]

    def get_params(self, deep=True):
        return {}


# A model of each class that holds others -> the classes that it asks for an answer, however deep.
HOLDERS = [
    (PIPE, {"StandardScaler", "LogisticRegression"}),
    (make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", "passthrough")]), TREE), {"StandardScaler"}),
    (VotingClassifier([("a", PIPE), ("b", TREE)]), {"LogisticRegression", "DecisionTreeClassifier"}),
    (StackingClassifier([("a", TREE)], PIPE), {"DecisionTreeClassifier", "StandardScaler", "LogisticRegression"}),
    (BaggingClassifier(SVC(), n_estimators=2), {"SVC"}),
    (AdaBoostClassifier(TREE, n_estimators=2), {"DecisionTreeClassifier"}),
    (GradientBoostingClassifier(n_estimators=2), {"DecisionTreeRegressor"}),
    (CalibratedClassifierCV(PIPE, cv=2), {"StandardScaler", "LogisticRegression"}),
    (OneVsRestClassifier(PIPE), {"StandardScaler", "LogisticRegression"}),
    (OneVsOneClassifier(PIPE), {"StandardScaler", "LogisticRegression"}),
    (OutputCodeClassifier(TREE, random_state=0), {"DecisionTreeClassifier"}),
    (GridSearchCV(PIPE, {"logisticregression__C": [1.0]}, cv=2), {"StandardScaler", "LogisticRegression"}),
    (TransformedTargetRegressor(LINE, transformer=StandardScaler()), {"LinearRegression"}),
    (RFE(TREE, n_features_to_select=2), {"DecisionTreeClassifier"}),
    (make_pipeline(SelectFromModel(TREE), LogisticRegression()), {"SelectFromModel", "LogisticRegression"}),
    (SelfTrainingClassifier(PIPE), {"StandardScaler", "LogisticRegression"}),
    (RANSACRegressor(LINE, random_state=0), {"LinearRegression"}),
]
SEVERAL_TARGETS = [MultiOutputClassifier(TREE), ClassifierChain(TREE), MultiOutputRegressor(LINE), RegressorChain(LINE)]
TWO_CLASSES = [FixedThresholdClassifier(PIPE), TunedThresholdClassifierCV(PIPE, cv=2)]


def asked(model):
    """Return the trained estimators below a model."""
    return [step for part in asked_parts(model) if isinstance(part.estimator, BaseEstimator) for step in _deep(part)]


def _deep(part):
    return [part.estimator, *asked(part.estimator)]


@pytest.mark.parametrize(("model", "classes"), HOLDERS, ids=lambda value: type(value).__name__)
def test_every_holder_gives_its_trained_estimators(readings, model, classes):
    model = model.fit(*readings)
    trained = asked(model)

    assert {type(step).__name__ for step in trained} >= classes
    assert all(getattr(step, "n_features_in_", None) is not None for step in trained)  # none is a copy's original
    assert {id(step) for step in trained} <= {id(step) for _, step in steps(model)}


@pytest.mark.parametrize("model", [*SEVERAL_TARGETS, *TWO_CLASSES], ids=lambda model: type(model).__name__)
def test_chains_and_thresholds_give_their_trained_estimators_too(readings, model):
    x, y = readings
    model = model.fit(x, np.stack([y > 1, y > 0], 1).astype(int) if model in SEVERAL_TARGETS else y > 0)

    assert len([step for step in asked(model) if hasattr(step, "predict")]) == 2
    assert all(hasattr(step, "n_features_in_") for step in asked(model))


def test_a_frozen_estimator_is_asked_itself(readings):
    tree = DecisionTreeClassifier().fit(*readings)

    assert asked(FrozenEstimator(tree)) == [tree]
    assert asked(CalibratedClassifierCV(FrozenEstimator(tree)).fit(*readings))[-1] is tree


def test_paths_say_where_an_estimator_stands(readings):
    union = FeatureUnion([("wide", PolynomialFeatures(2)), ("own", make_pipeline(StandardScaler(), MinMaxScaler()))])
    model = Pipeline([("u", union), ("vote", VotingClassifier([("a", TREE)]))]).fit(*readings)
    found = {path: type(step).__name__ for path, step in steps(model)}

    assert found["u__own__minmaxscaler"] == "MinMaxScaler"
    assert found["vote__0"] == "DecisionTreeClassifier"
    assert next(iter(found)) == ""


def test_columns_are_followed_through_scalers_and_lost_where_they_are_mixed(readings):
    x, y = readings
    table = pd.DataFrame(x, columns=list("abcd"))
    picked = ColumnTransformer(
        [("n", make_pipeline(SimpleImputer(), StandardScaler(), MinMaxScaler()), ["d", "a"])], remainder="passthrough"
    )
    model = make_pipeline(picked, LogisticRegression()).fit(table, y)
    found = {step.path: step for step in walk(model, 4)}

    assert found["columntransformer"].columns == (0, 1, 2, 3)
    assert found["columntransformer__n__minmaxscaler"].columns == (3, 0)
    assert [type(s).__name__ for s in found["columntransformer__n__minmaxscaler"].scalers] == ["StandardScaler"]
    assert found["logisticregression"].columns is None


def test_bagging_and_elimination_say_which_columns_they_picked(readings):
    x, y = readings
    bag = BaggingRegressor(LINE, n_estimators=2, max_features=2, random_state=1).fit(x, y)
    rfe = RFE(LINE, n_features_to_select=3).fit(x, y)

    columns = [step.columns for step in walk(bag, 4) if step.path in ("0", "1")]
    assert columns == [tuple(features) for features in bag.estimators_features_]
    (inner,) = [step for step in walk(rfe, 4) if step.path == "estimator_"]
    assert inner.columns == tuple(np.flatnonzero(rfe.support_))


def test_a_final_estimator_sees_answers_and_the_target_scaler_the_target(readings):
    stack = StackingClassifier([("a", TREE)], LogisticRegression()).fit(*readings)
    target = TransformedTargetRegressor(LINE, transformer=StandardScaler()).fit(*readings)

    assert {part.name: part.sees for part in parts(stack)}["final_estimator_"] is Sees.ANSWERS
    assert {part.name: part.sees for part in parts(target)}["transformer_"] is Sees.TARGET
    assert all(step.columns is None for step in walk(stack, 4) if step.path == "final_estimator_")


def test_what_derives_from_nothing_of_scikit_learn_ends_the_columns_too(readings):
    x, y = readings
    model = Pipeline([("two", Duck()), ("scale", StandardScaler()), ("m", LogisticRegression())]).fit(x, y)

    assert {step.path: step.columns for step in walk(model, 4)}["scale"] is None


@pytest.mark.parametrize(
    "model",
    [
        Pipeline([("p", "passthrough"), ("o", OneHotEncoder(handle_unknown="ignore")), ("m", Ridge())]),
        GridSearchCV(make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge()), {"ridge__alpha": [1.0]}, cv=2),
        TransformedTargetRegressor(make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge())),
    ],
    ids=["after passthrough", "in a search", "for a scaled target"],
)
def test_the_step_that_sees_the_table_is_the_same_for_every_caller(whole_numbers, model):
    rows, y = whole_numbers
    model.fit(rows, y)

    assert [type(step).__name__ for step in first_steps(model)] == ["OneHotEncoder"]
    assert first_step(model) is first_steps(model)[0]
    assert first_encodes(model)


@pytest.fixture(scope="module")
def whole_numbers():
    rng = np.random.default_rng(3)
    rows = pd.DataFrame(rng.integers(2**24, 2**24 + 5, (60, 2)), columns=["a", "b"])
    return rows, rng.normal(size=60)


def test_whole_numbers_beyond_float32_stay_apart_where_the_target_is_scaled(whole_numbers, ask):
    rows, y = whole_numbers
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = TransformedTargetRegressor(make_pipeline(encoder, DecisionTreeRegressor()), transformer=StandardScaler())
    model.fit(rows, y)
    made = convert_model(model, rows)
    answers = ask(made, {name: rows[name].tolist() for name in rows})
    assert np.allclose(answers["prediction"], model.predict(rows))


def test_a_union_of_several_is_no_one_step_and_a_dropped_part_is_none(readings):
    x, y = readings
    union = FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler()), ("d", "drop"), ("p", "passthrough")])
    model = make_pipeline(union, LogisticRegression()).fit(x, y)

    # A union that is trained keeps a FunctionTransformer for "passthrough".
    assert [type(step).__name__ for step in first_steps(model)] == [
        "StandardScaler",
        "MinMaxScaler",
        "FunctionTransformer",
    ]
    assert first_step(model) is model


def test_a_search_over_a_column_transformer_leaves_its_dropped_columns_out(readings):
    x, y = readings
    table = pd.DataFrame(x, columns=list("abcd")).assign(note="free text")
    columns = ColumnTransformer([("n", StandardScaler(), ["a", "b"]), ("c", "drop", ["note"])], remainder="drop")
    model = GridSearchCV(make_pipeline(columns, Ridge()), {"ridge__alpha": [1.0]}, cv=2).fit(table, y)

    assert dropped_columns(model) == {"c", "d", "note"}


def test_thresholds_behind_a_scaler_are_not_taken_for_the_columns_own(readings):
    x, y = readings
    behind = GridSearchCV(make_pipeline(StandardScaler(), TREE), {}, cv=2).fit(x, y)
    before = Pipeline([("p", "passthrough"), ("m", TREE)]).fit(x, y)

    assert Original(behind, infer(behind, x)).thresholds() == {}
    assert len(Original(before, infer(before, x)).thresholds()) == 4


def test_bagged_support_vectors_convert(readings):
    """The estimator that bagging copies has no classes: asked for them, conversion would end in an AttributeError."""
    x, y = readings
    model = BaggingClassifier(SVC(), n_estimators=2).fit(x, y)

    assert float32_inputs.kept_from(model, infer(model, x).columns) == "SVC"
