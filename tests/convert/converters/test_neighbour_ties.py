"""Rows with equally near training points: the graph takes those that scikit-learn's tree takes, or refuses the row."""

import numpy as np
import pytest
from sklearn.impute import KNNImputer
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor
from threadpoolctl import threadpool_limits


def whole_numbers(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 6, (rows, columns)).astype(float)


@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree", "brute"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "chebyshev"])
@pytest.mark.parametrize(("count", "k", "leaf"), [(20, 3, 30), (200, 1, 5), (200, 6, 30), (150, 7, 3)])
def test_tied_neighbours_are_those_of_the_tree(graph, ask, algorithm, metric, count, k, leaf):
    rows, asked = whole_numbers(count, 3), whole_numbers(60, 3, seed=1)
    numbers = np.random.default_rng(2).normal(size=count)
    model = KNeighborsRegressor(k, algorithm=algorithm, metric=metric, leaf_size=leaf).fit(rows, numbers)
    first = np.sort(np.linalg.norm(rows[None] - asked[:, None], axis=2), axis=1)
    assert (first[:, k - 1] == first[:, k]).mean() > 0.2  # else nothing is tried here
    with threadpool_limits(1):
        expected = model.predict(asked)
    np.testing.assert_allclose(ask(graph(model, rows), asked)[0].ravel(), expected, atol=1e-12)


def test_votes_of_tied_neighbours_are_right_alone_and_weighed(graph, ask):
    rows, asked = whole_numbers(120, 2), whole_numbers(80, 2, seed=1)
    labels = np.random.default_rng(2).choice(["a", "b", "c"], len(rows))
    for weights in ("uniform", "distance"):
        model = KNeighborsClassifier(4, weights=weights).fit(rows, labels)
        found, proba = ask(graph(model, rows), asked)
        assert (found == model.predict(asked)).all()
        np.testing.assert_allclose(proba, model.predict_proba(asked), atol=1e-12)


def test_batch_with_and_without_ties_answers_row_by_row_alike(graph, ask):
    rows = whole_numbers(100, 2)
    asked = np.concatenate([whole_numbers(5, 2, seed=1), np.random.default_rng(3).normal(3, 1, (5, 2))])
    model = KNeighborsRegressor(3).fit(rows, np.random.default_rng(2).normal(size=100))
    session = graph(model, rows)
    alone = [ask(session, asked[i : i + 1])[0].ravel()[0] for i in range(len(asked))]
    np.testing.assert_array_equal(alone, ask(session, asked)[0].ravel())


def test_outlier_factor_takes_the_same_tied_neighbours(graph, ask):
    rows, asked = whole_numbers(120, 2), whole_numbers(40, 2, seed=1) + 0.5
    model = LocalOutlierFactor(5, novelty=True).fit(rows)
    score = ask(graph(model, rows), asked)[1].ravel()
    np.testing.assert_allclose(score, model.decision_function(asked), rtol=1e-9)


def test_imputation_that_hangs_on_a_tie_is_refused_with_the_reason(graph, ask):
    rows = np.array([[0.0, 1.0], [2.0, 5.0], [9.0, 7.0]])
    session = graph(KNNImputer(n_neighbors=1).fit(rows), rows)
    with pytest.raises(Exception, match="as near as the last neighbour"):
        ask(session, np.array([[1.0, np.nan]]))
    assert ask(session, np.array([[1.0, 3.0], [0.5, np.nan]]))[0].tolist() == [[1.0, 3.0], [0.5, 1.0]]


def test_imputation_is_refused_where_only_rounding_parts_the_neighbours(graph, ask):
    rows = np.array([[0.1 + 0.2, 1.0], [0.1, 5.0], [0.9, 7.0]])
    session = graph(KNNImputer(n_neighbors=1).fit(rows), rows)
    assert 0.2 - 0.1 != (0.1 + 0.2) - 0.2
    with pytest.raises(Exception, match="as near as the last neighbour"):
        ask(session, np.array([[0.2, np.nan]]))
    assert ask(session, np.array([[0.21, np.nan]]))[0][0, 1] == 1.0


def test_imputation_from_equal_values_does_not_hang_on_a_tie(graph, ask):
    rows = np.array([[0.0, 4.0], [2.0, 4.0], [9.0, 7.0]])
    session = graph(KNNImputer(n_neighbors=1).fit(rows), rows)
    assert ask(session, np.array([[1.0, np.nan]]))[0].tolist() == [[1.0, 4.0]]
