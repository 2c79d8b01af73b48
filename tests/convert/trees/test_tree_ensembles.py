"""Ensembles that are more than a mean of trees answer in the graph as scikit-learn does."""

import numpy as np
import pytest
import sklearn
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
    StackingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

EXACT = 1e-12
SINGLE = 1e-6  # what a float32 output rounds away

VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))
KINDS = (
    "continuous",
    "one decimal",
    "integers",
    *(["missing"] if VERSION >= (1, 6) else []),
)  # older forests take none


def splits(model):
    """Return (column, threshold) of a scikit-learn model's nodes."""
    forest = [model] if hasattr(model, "tree_") else np.ravel(model.estimators_)
    pairs = [pair for one in forest for pair in zip(one.tree_.feature, one.tree_.threshold, strict=True)]
    return [(column, value) for column, value in pairs if column >= 0 and np.isfinite(value)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"contamination": 0.1}, {"contamination": 0.07, "max_features": 0.5}], ids=str)
def test_isolation_forest_is_exact_where_the_border_is_a_training_row(proof, kind, options):
    sample = proof.draw(kind)
    model = IsolationForest(n_estimators=20, random_state=0, **options).fit(sample.x)
    rows = proof.neighbours(sample.x, splits(model) if "max_features" not in options else ())
    proof.check(model, rows)


def test_tree_embedding_is_exact(proof):
    sample = proof.draw("one decimal")
    model = RandomTreesEmbedding(5, max_depth=4, sparse_output=False).fit(sample.x)
    assert proof.compare(model, proof.neighbours(sample.x, splits(model))).numbers == 0.0


@pytest.mark.parametrize(
    "model",
    [
        AdaBoostClassifier(n_estimators=12),
        AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=6),
        AdaBoostClassifier(RandomForestClassifier(3, max_depth=3), n_estimators=3),
        AdaBoostClassifier(LogisticRegression(), n_estimators=3),
        BaggingClassifier(n_estimators=6, max_features=0.5, max_samples=0.3),
        BaggingClassifier(n_estimators=6, max_samples=5),  # too few rows for every class
        BaggingClassifier(GaussianNB(), n_estimators=3, max_features=0.7),
        BaggingClassifier(SGDClassifier(), n_estimators=3),  # has votes only
        BaggingClassifier(RandomForestClassifier(3), n_estimators=3),
        StackingClassifier([("a", RandomForestClassifier(3)), ("b", GradientBoostingClassifier(n_estimators=3))], cv=2),
    ],
    ids=repr,
)
def test_ensemble_of_classifiers_is_exact(proof, model):
    sample = proof.draw("one decimal")
    for target in (sample.two, sample.texts):
        difference = proof.compare(model.fit(sample.x, target), proof.neighbours(sample.x))
        assert difference.labels == 0
        assert difference.numbers <= EXACT


@pytest.mark.parametrize(
    "model",
    [
        AdaBoostRegressor(n_estimators=9),
        AdaBoostRegressor(LinearRegression(), n_estimators=5, loss="square"),
        BaggingRegressor(n_estimators=5, max_features=0.6),
        BaggingRegressor(LinearRegression(), n_estimators=3),
        VotingRegressor([("a", RandomForestRegressor(3)), ("b", HistGradientBoostingRegressor(max_iter=3))]),
    ],
    ids=repr,
)
def test_ensemble_of_regressors_is_exact(proof, model):
    sample = proof.draw("one decimal")
    assert proof.compare(model.fit(sample.x, sample.numbers), proof.neighbours(sample.x)).numbers <= EXACT


def test_regressors_side_by_side_are_exact(proof):
    sample = proof.draw("one decimal")
    model = MultiOutputRegressor(HistGradientBoostingRegressor(max_iter=3))
    model.fit(sample.x, np.column_stack([sample.numbers, -sample.numbers]))
    assert proof.compare(model, proof.neighbours(sample.x)).numbers <= EXACT
