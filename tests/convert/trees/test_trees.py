"""Trees, forests and boosting of scikit-learn answer in the graph as they do themselves."""

import numpy as np
import onnx
import pytest
import sklearn
from sklearn.ensemble import (
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))
EXACT = 1e-12
SINGLE = 1e-6  # what a float32 output rounds away

CLASSIFIERS = (
    DecisionTreeClassifier(max_depth=5),
    ExtraTreeClassifier(max_depth=6),
    RandomForestClassifier(8, max_depth=5),  # leaves that hold several classes
    ExtraTreesClassifier(8),  # leaves that hold one
)
REGRESSORS = (
    DecisionTreeRegressor(max_depth=6),
    ExtraTreeRegressor(max_depth=6),
    RandomForestRegressor(8),
    ExtraTreesRegressor(6),
)
FINITE_KINDS = ("continuous", "one decimal", "integers")
KINDS = (*FINITE_KINDS, "missing")


def splits(model):
    """Return (column, threshold) of a scikit-learn model's nodes."""
    forest = [model] if hasattr(model, "tree_") else np.ravel(model.estimators_)
    pairs = [pair for one in forest for pair in zip(one.tree_.feature, one.tree_.threshold, strict=True)]
    return [(column, value) for column, value in pairs if column >= 0 and np.isfinite(value)]


def drawn(proof, model, kind):
    """Return a sample of this kind; one without gaps for an estimator of an older scikit-learn that takes none."""
    takes_gaps = VERSION >= (1, 6) or not name(model).startswith("Extra")
    return proof.draw(kind if takes_gaps or kind != "missing" else "continuous")


def name(value):
    return type(value).__name__


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", CLASSIFIERS, ids=name)
def test_classifier_is_exact_on_and_beside_thresholds(proof, model, kind):
    sample = drawn(proof, model, kind)
    for target in (sample.two, sample.texts):
        model.fit(sample.x, target)
        rows = proof.neighbours(sample.x, splits(model))
        proof.check(model, rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", REGRESSORS, ids=name)
def test_regressor_is_exact_on_and_beside_thresholds(proof, model, kind):
    sample = drawn(proof, model, kind)
    model.fit(sample.x, sample.numbers)
    rows = proof.neighbours(sample.x, splits(model))
    assert proof.compare(model, rows).numbers <= EXACT
    assert proof.compare(model, rows, "float32").numbers <= SINGLE


@pytest.mark.parametrize("model", [*CLASSIFIERS, GradientBoostingClassifier(n_estimators=5)], ids=name)
def test_classifier_is_exact_behind_a_scaler(proof, model):
    sample = proof.draw("one decimal")
    pipeline = make_pipeline(StandardScaler(), model).fit(sample.x, sample.texts)
    difference = proof.compare(pipeline, proof.neighbours(sample.x))
    assert difference.labels == 0
    assert difference.numbers <= EXACT


@pytest.mark.parametrize("model", [RandomForestRegressor(5), ExtraTreeRegressor(), BaggingRegressor(n_estimators=3)])
def test_several_targets_at_once_are_exact(proof, model):
    sample = proof.draw("continuous")
    model.fit(sample.x, np.column_stack([sample.numbers, -sample.numbers]))
    assert proof.compare(model, proof.neighbours(sample.x)).numbers <= EXACT


def test_even_votes_go_to_the_class_that_scikit_learn_picks(proof):
    sample = proof.draw("integers")
    for model in (RandomForestClassifier(6, random_state=0), RandomForestClassifier(6, max_depth=3, random_state=0)):
        model.fit(np.sign(sample.x), sample.three)
        rows = np.array(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 5)).reshape(5, -1).T
        answers = proof.compare(model, rows)
        assert answers.labels == 0
    ordered = np.sort(
        RandomForestClassifier(6, random_state=0).fit(np.sign(sample.x), sample.three).predict_proba(rows)
    )
    assert (ordered[:, -1] == ordered[:, -2]).any()  # such rows are among them


def test_tree_that_is_one_leaf_answers_it(proof):
    model = DecisionTreeRegressor().fit(np.zeros((4, 2)), [1.0, 1.0, 1.0, 4.0])
    assert proof.compare(model, np.array([[0.0, 1.0], [5.0, -5.0]])).numbers == 0.0


def test_forest_is_one_node_of_opset_five(proof):
    sample = proof.draw("continuous")
    content = proof.graph(RandomForestRegressor(4).fit(sample.x, sample.numbers), 5)
    model = onnx.load_from_string(content)
    assert [node.op_type for node in model.graph.node].count("TreeEnsemble") == 1
    assert {entry.domain: entry.version for entry in model.opset_import}["ai.onnx.ml"] == 5


BOOSTED = (
    GradientBoostingClassifier(n_estimators=6),
    GradientBoostingClassifier(n_estimators=6, init="zero"),
    GradientBoostingRegressor(n_estimators=6),
    GradientBoostingRegressor(n_estimators=6, loss="huber"),
    GradientBoostingRegressor(n_estimators=6, loss="quantile"),
)


@pytest.mark.parametrize("kind", FINITE_KINDS)
@pytest.mark.parametrize("model", BOOSTED, ids=repr)
def test_gradient_boosting_is_exact_on_and_beside_thresholds(proof, model, kind):
    sample = proof.draw(kind)
    model.fit(sample.x, sample.texts if "Classifier" in name(model) else sample.numbers)
    rows = proof.neighbours(sample.x, splits(model))
    proof.check(model, rows)


@pytest.mark.parametrize("loss", ["log_loss", "exponential"])
@pytest.mark.parametrize("init", [None, LogisticRegression(), RandomForestClassifier(3)], ids=name)
def test_gradient_boosting_starts_where_its_estimator_says(proof, loss, init):
    sample = proof.draw("one decimal")
    model = GradientBoostingClassifier(n_estimators=4, loss=loss, init=init).fit(sample.x, sample.two)
    difference = proof.compare(model, proof.neighbours(sample.x))
    assert difference.labels == 0
    assert difference.numbers <= SINGLE  # scikit-learn asks the estimator in float32
