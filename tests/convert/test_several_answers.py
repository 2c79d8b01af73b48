"""Models of several targets: numbers and labels stand side by side, labels each in their own classes."""

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from appliance.errors import ConversionRefused, Misuse
from convert import convert_model


def answers(ask, model, table):
    """Return the device's labels and the model's, for the table's rows."""
    conversion = convert_model(model, table)
    found = ask(conversion, {name: table[name].tolist() for name in table})
    assert [output.name for output in conversion.manifest.outputs] == ["prediction"]
    return found["prediction"], model.predict(table)


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5, random_state=0),
        make_pipeline(StandardScaler(), ExtraTreesClassifier(5, random_state=0)),
        DecisionTreeClassifier(max_depth=4),
        OneVsRestClassifier(LogisticRegression()),
        OneVsRestClassifier(DecisionTreeClassifier(max_depth=3)),
    ],
    ids=["forest", "scaled", "tree", "rest", "rest by trees"],
)
def test_labels_of_several_targets_are_the_models(plant, ask, model):
    table, y = plant
    numbers = table[["temp-C", "serial no"]]
    model.fit(numbers, np.column_stack([y, numbers["temp-C"] > 20]).astype(int))
    found, expected = answers(ask, model, numbers)
    assert (found == expected).all()


@pytest.mark.parametrize("inner", [LogisticRegression(), RandomForestClassifier(5, random_state=0)], ids=str)
def test_texts_are_predicted_by_a_pipeline_for_each_target(plant, ask, inner):
    table, y = plant
    columns = ColumnTransformer(
        [("k", StandardScaler(), ["temp-C"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["größe"])],
        remainder="passthrough",
    )
    model = MultiOutputClassifier(make_pipeline(columns, inner))
    model.fit(table, np.column_stack([np.where(y, "gut", "schlecht"), table["größe"]]))
    found, expected = answers(ask, model, table)
    assert (found == expected).all()


def test_targets_of_different_numbers_of_classes_keep_their_own(plant, ask):
    table, y = plant
    numbers = table[["temp-C", "serial no"]]
    model = RandomForestClassifier(5, random_state=0).fit(numbers, np.column_stack([y, numbers["serial no"] * 3]))
    found, expected = answers(ask, model, numbers)
    assert (found == expected).all()


def test_texts_beside_numbers_are_refused(plant):
    table, y = plant
    numbers = table[["temp-C", "serial no"]]
    targets = np.column_stack([np.where(y, "yes", "no"), table["größe"]])
    model = MultiOutputClassifier(LogisticRegression()).fit(numbers, targets)
    model.estimators_[0].classes_ = np.array([0, 1])
    model.classes_ = [estimator.classes_ for estimator in model.estimators_]
    with pytest.raises(ConversionRefused, match="some of its outputs are texts"):
        convert_model(model, numbers)


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        MultiOutputRegressor(GradientBoostingRegressor(n_estimators=4)),
        RegressorChain(Ridge()),
        RandomForestRegressor(5, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_several_numbers_are_predicted_side_by_side(plant, agrees, model):
    table, _ = plant
    numbers = table[["temp-C", "serial no"]]
    model.fit(numbers, np.column_stack([numbers.sum(axis=1), numbers["temp-C"] ** 2]))
    conversion = convert_model(model, numbers)
    assert [output.shape for output in conversion.manifest.outputs] == [[-1, 2]]
    assert agrees(model, conversion, numbers)


@pytest.mark.parametrize(
    "model",
    [
        MultiOutputClassifier(LogisticRegression()),
        MultiOutputClassifier(RandomForestClassifier(5, random_state=0)),
        ClassifierChain(LogisticRegression()),
        MLPClassifier((5,), max_iter=30, random_state=0),
    ],
    ids=["each", "forests", "chain", "network"],
)
def test_several_labels_are_predicted_side_by_side(plant, agrees, model):
    table, y = plant
    numbers = table[["temp-C", "serial no"]]
    model.fit(numbers, np.column_stack([y, numbers["temp-C"] > 20]).astype(int))
    conversion = convert_model(model, numbers)
    assert [(output.name, output.shape) for output in conversion.manifest.outputs] == [("prediction", [-1, 2])]
    assert conversion.manifest.class_labels == []
    assert agrees(model, conversion, numbers)
    with pytest.raises(Misuse, match="choose from prediction"):
        convert_model(model, numbers, outputs=["probability"])


@pytest.mark.parametrize("model", [KNeighborsClassifier()], ids=str)
def test_classifiers_that_cannot_give_several_labels_are_refused_by_name(plant, model):
    table, y = plant
    numbers = table[["temp-C", "serial no"]]
    model.fit(numbers, np.column_stack([y, ~y]).astype(int))
    with pytest.raises(ConversionRefused, match=type(model).__name__):
        convert_model(model, numbers)
