import numpy as np
import pytest
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import RFE, RFECV, SequentialFeatureSelector
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import CategoricalNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MinMaxScaler, PowerTransformer, QuantileTransformer, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, SVR, LinearSVC

from appliance.errors import ConversionRefused

SCALED = make_pipeline(StandardScaler(), LogisticRegression())
FOREST = RandomForestClassifier(5, random_state=0)
KINDS = [("line", LogisticRegression()), ("bayes", GaussianNB()), ("near", KNeighborsClassifier())]
NUMBERS = [("ridge", Ridge()), ("near", KNeighborsRegressor()), ("vectors", SVR())]
CENTRES = KMeans(3, n_init=1, random_state=0)
VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))
METHODS = ("sigmoid", "isotonic", "temperature") if VERSION >= (1, 8) else ("sigmoid", "isotonic")
CALIBRATED = [
    *[(CalibratedClassifierCV(SCALED, method=m, cv=3), "three") for m in METHODS],
    *[(CalibratedClassifierCV(LinearSVC(), method=m, cv=3), "two") for m in METHODS],
    *[(CalibratedClassifierCV(FOREST, method=m, cv=3), k) for m in METHODS for k in ("two", "three")],
    *[(CalibratedClassifierCV(GaussianNB(), method=m, cv=3, ensemble=False), "two") for m in METHODS],
    (CalibratedClassifierCV(), "three"),
    *[(IsotonicRegression(out_of_bounds=o), "one column") for o in ("clip", "nan")],
]
THRESHOLDS = [
    *[(FixedThresholdClassifier(LogisticRegression(), threshold=t), "zero or one") for t in ("auto", 0.3)],
    (FixedThresholdClassifier(LinearSVC(), threshold=0.3, pos_label=0), "zero or one"),
    (FixedThresholdClassifier(LogisticRegression(), threshold=0.3, pos_label=0), "zero or one"),
    (FixedThresholdClassifier(LogisticRegression(), threshold=0.7, pos_label="no"), "two"),
    (TunedThresholdClassifierCV(SCALED), "zero or one"),
    (TunedThresholdClassifierCV(FOREST, scoring="f1"), "zero or one"),
]
WRAPPED = [
    (RandomizedSearchCV(LogisticRegression(), {"C": [0.1, 1]}, n_iter=1, cv=2, random_state=0), "three"),
    (GridSearchCV(SVC(), {"C": [0.1, 10]}, cv=2), "three"),
    (RandomizedSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [1]}, n_iter=1, cv=2), "numbers"),
    (SelfTrainingClassifier(SCALED), "unlabelled"),
    (RFE(Ridge(), n_features_to_select=2), "numbers"),
    (RFECV(LogisticRegression(), cv=2), "three"),
    (SequentialFeatureSelector(Ridge(), n_features_to_select=2, cv=2), "numbers"),
    (TransformedTargetRegressor(Ridge(), transformer=StandardScaler()), "numbers"),
    (TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1), "positive numbers"),
    (TransformedTargetRegressor(Ridge(), func=np.arcsinh, inverse_func=np.sinh), "numbers"),
    (TransformedTargetRegressor(Ridge(), transformer=MinMaxScaler()), "two numbers"),
    (TransformedTargetRegressor(Ridge(), transformer=PowerTransformer()), "two numbers"),
    *[
        (
            TransformedTargetRegressor(Ridge(), transformer=QuantileTransformer(n_quantiles=20, output_distribution=d)),
            "numbers",
        )
        for d in ("uniform", "normal")
    ],
]
SEVERAL = [
    *[(VotingClassifier(KINDS, voting="soft", weights=w), k) for k in ("two", "three") for w in (None, [1, 2, 0.5])],
    (VotingRegressor(NUMBERS, weights=[1, 2, 3]), "numbers"),
    *[(StackingClassifier(KINDS, stack_method=m, cv=2), "three") for m in ("auto", "predict", "predict_proba")],
    (StackingClassifier(KINDS, passthrough=True, cv=2), "two"),
    (StackingClassifier([("a", LinearSVC()), ("b", SCALED)], final_estimator=LinearSVC(), cv=2), "two"),
    (StackingRegressor(NUMBERS, passthrough=True, final_estimator=KNeighborsRegressor(), cv=2), "numbers"),
    (OneVsRestClassifier(LogisticRegression()), "three"),
    (OneVsRestClassifier(KNeighborsClassifier()), "three"),
    (OneVsRestClassifier(SVC()), "two"),
    (OneVsOneClassifier(SCALED), "three"),
    (OneVsOneClassifier(GaussianNB()), "two"),
    (OutputCodeClassifier(LogisticRegression(), random_state=0), "three"),
    (ClassifierChain(LogisticRegression(), order=[2, 0, 1]), "labels"),
    (ClassifierChain(LogisticRegression(), chain_method="predict_proba"), "labels"),
    (ClassifierChain(LinearSVC(), chain_method="decision_function"), "labels"),
    (RegressorChain(Ridge(), order=[1, 0]), "two numbers"),
    (MultiOutputRegressor(SVR()), "two numbers"),
]
PIPELINES = [
    (make_pipeline(StandardScaler(), CENTRES, LogisticRegression()), "three"),
    (make_pipeline(LinearDiscriminantAnalysis(), KNeighborsClassifier()), "three"),
    (make_pipeline(RFE(Ridge(), n_features_to_select=3), KNeighborsRegressor()), "numbers"),
    (make_pipeline(FeatureUnion([("a", PCA(2)), ("b", make_pipeline(StandardScaler(), CENTRES))]), Ridge()), "numbers"),
    (make_pipeline(ColumnTransformer([("a", CENTRES, [0, 1]), ("b", "passthrough", [2])]), Ridge()), "numbers"),
]
OTHERS = [
    *[(DummyClassifier(strategy=s), "three") for s in ("prior", "most_frequent")],
    (DummyClassifier(strategy="constant", constant="a"), "three"),
    *[(DummyRegressor(strategy=s, quantile=0.3), "two numbers") for s in ("mean", "median", "quantile")],
    (CategoricalNB(), "few values"),
    *[(RidgeClassifier(), k) for k in ("two", "three")],
    *[
        (SGDClassifier(loss=loss, random_state=0), k)
        for loss in ("hinge", "log_loss", "modified_huber")
        for k in ("two", "three")
    ],
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "kind"),
    [*CALIBRATED, *THRESHOLDS, *WRAPPED, *SEVERAL, *PIPELINES, *OTHERS],
    ids=lambda value: str(value).replace("\n", ""),
)
def test_estimators_made_of_others_answer_as_in_scikit_learn(data, fresh, assert_same, model, kind):
    rows, answers = data[kind]
    assert_same(model.fit(rows, answers), fresh(rows))


@pytest.mark.parametrize("kind", ["two", "three"])
def test_hard_votes_are_counted_and_the_first_class_wins_a_tie(data, fresh, graph, ask, kind):
    rows, answers = data[kind]
    model = VotingClassifier(KINDS[:2], voting="hard").fit(rows, answers)
    asked = fresh(rows)
    assert (ask(graph(model, rows), asked)[0] == model.predict(asked)).all()


def test_calibration_of_a_trained_estimator_is_right(data, fresh, assert_same):
    rows, answers = data["three"]
    trained = GaussianNB().fit(rows, answers)
    if VERSION < (1, 6):  # the older spelling of the same
        calibrated = CalibratedClassifierCV(trained, cv="prefit")
    else:
        from sklearn.frozen import FrozenEstimator

        assert_same(FrozenEstimator(trained), fresh(rows))
        calibrated = CalibratedClassifierCV(FrozenEstimator(trained))
    assert_same(calibrated.fit(rows, answers), fresh(rows))


def test_rows_beyond_the_training_range_are_refused_where_isotonic_regression_raises(data, graph, ask):
    rows, answers = data["one column"]
    session = graph(IsotonicRegression(out_of_bounds="raise").fit(rows, answers), rows)
    with pytest.raises(Exception, match="out of data bounds"):
        ask(session, np.full((1, 1), 1e3))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (DummyClassifier(strategy="stratified"), "random"),
        (GridSearchCV(Ridge(), {"alpha": [1]}, refit=False, cv=2), "refit"),
        (TransformedTargetRegressor(Ridge(), func=lambda y: y, inverse_func=lambda y: y.sort() or y), "traced"),
    ],
    ids=["random", "refit", "traced"],
)
def test_what_cannot_be_written_is_refused_with_the_reason(data, graph, model, reason):
    rows, answers = data["zero or one"]
    with pytest.raises(ConversionRefused, match=reason):
        graph(model.fit(rows, answers), rows)
