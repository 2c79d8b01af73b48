import numpy as np
import pytest
import sklearn
from sklearn.manifold import Isomap, LocallyLinearEmbedding
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    KNeighborsTransformer,
    LocalOutlierFactor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
    RadiusNeighborsTransformer,
)
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from appliance.errors import ConversionRefused

VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))
WEIGHTS = ("uniform", "distance")
METRICS = ("manhattan", "cosine", "chebyshev", "canberra", "braycurtis", "correlation", "sqeuclidean")
CASES = [
    *[(KNeighborsClassifier(weights=w), "three") for w in WEIGHTS],
    *[(KNeighborsClassifier(weights=w, algorithm="brute", n_neighbors=4), "two") for w in WEIGHTS],
    *[(KNeighborsRegressor(weights=w), "two numbers") for w in WEIGHTS],
    *[(KNeighborsClassifier(weights="distance", metric=m), "positive") for m in METRICS],
    *[(KNeighborsRegressor(weights="distance", p=p), "numbers") for p in (1, 3, 1.5)],
    (KNeighborsClassifier(metric="minkowski", metric_params={"w": [1, 2, 3, 1, 1]}), "three"),
    (
        KNeighborsClassifier(metric="seuclidean", metric_params={"V": np.arange(1.0, 6)}, algorithm="brute"),
        "zero or one",
    ),
    (KNeighborsClassifier(metric="mahalanobis", metric_params={"VI": np.diag([1.0, 2, 3, 4, 5])}), "three"),
    *[(RadiusNeighborsClassifier(2.0, weights=w, outlier_label="a"), "three") for w in WEIGHTS],
    (RadiusNeighborsClassifier(20.0), "three"),
    *[(RadiusNeighborsRegressor(2.0, weights=w), "numbers") for w in WEIGHTS],
    *[(KNeighborsTransformer(mode=m), "rows") for m in ("distance", "connectivity")],
    *[(RadiusNeighborsTransformer(radius=2.0, mode=m), "rows") for m in ("distance", "connectivity")],
    (NearestCentroid(), "three"),
    (NearestCentroid(metric="manhattan"), "three"),
    *([(NearestCentroid(shrink_threshold=0.2, priors="empirical"), "two")] if VERSION >= (1, 6) else []),
    (LocalOutlierFactor(novelty=True), "rows"),
    (Isomap(), "rows"),
    (LocallyLinearEmbedding(n_neighbors=6, random_state=0), "rows"),
    *[(LabelPropagation(kernel=k, gamma=0.5), "unlabelled") for k in ("rbf", "knn")],
    *[(LabelSpreading(kernel=k, gamma=0.5), "unlabelled") for k in ("rbf", "knn")],
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("model", "kind"), CASES, ids=lambda value: str(value).replace("\n", ""))
def test_neighbours_vote_as_in_scikit_learn(data, fresh, assert_same, model, kind):
    rows, answers = data[kind]
    assert_same(model.fit(rows, answers), fresh(rows))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("metric", METRICS)
def test_metrics_measure_numbers_of_either_sign(data, fresh, assert_same, metric):
    rows, answers = data["three"]
    assert_same(KNeighborsClassifier(weights="distance", metric=metric).fit(rows, answers), fresh(rows))


@pytest.mark.parametrize("metric", ["minkowski", "cosine", "correlation"])
def test_training_rows_themselves_decide_alone_when_weighed_by_distance(data, assert_same, metric):
    rows, answers = data["three"]
    assert_same(KNeighborsClassifier(weights="distance", metric=metric).fit(rows, answers), rows, dtypes=("float64",))


def test_a_row_without_neighbours_is_refused_where_scikit_learn_refuses_it(data, graph, ask):
    rows, answers = data["three"]
    model = RadiusNeighborsClassifier(0.5).fit(rows, answers)
    far = rows[:1] + 100
    with pytest.raises(ValueError, match="No neighbors"):
        model.predict(far)
    with pytest.raises(Exception, match="out of data bounds"):
        ask(graph(model, rows), far)


@pytest.mark.parametrize(
    "model",
    [KNeighborsClassifier(weights=lambda d: 1 / (d + 1)), KNeighborsClassifier(metric=lambda a, b: abs(a - b).sum())],
    ids=["weights", "metric"],
)
def test_functions_as_weights_or_metric_are_refused(data, graph, model):
    rows, answers = data["three"]
    with pytest.raises(ConversionRefused, match="function"):
        graph(model.fit(rows, answers), rows)
