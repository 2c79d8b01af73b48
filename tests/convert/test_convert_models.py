"""Which models are converted, what the bundle then says of them, and which are refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.decomposition import NMF
from sklearn.ensemble import (
    GradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from appliance.errors import ConversionRefused
from convert import convert_model


def outputs(conversion):
    return {output.name: (output.type, output.shape, output.role) for output in conversion.manifest.outputs}


@pytest.mark.parametrize("labels", [[0, 1, 2], ["a", "b", "c"], [0.0, 1.0, 2.0], [False, True, True]], ids=str)
def test_labels_come_back_in_the_type_they_were_trained_with(iris, ask, labels):
    x, y = iris
    named = np.array(labels)[y]
    conversion = convert_model(LogisticRegression(max_iter=500).fit(x, named), x)
    found = ask(conversion, {f"x{i}": x[:, i] for i in range(4)})["prediction"]
    assert conversion.manifest.class_labels == sorted(set(labels))
    assert [type(value) for value in found[:1].tolist()] == [type(labels[0])]
    assert (found == LogisticRegression(max_iter=500).fit(x, named).predict(x)).all()


def test_array_model_takes_one_features_tensor_with_the_samples_column_names(iris):
    x, y = iris
    sample = pd.DataFrame(x, columns=["a", "b-1", "c d", "é"])
    conversion = convert_model(LogisticRegression(max_iter=500).fit(x, y), sample)
    (features,) = conversion.manifest.inputs
    assert (features.name, features.type, features.shape) == ("features", "float32", [-1, 4])
    assert features.columns == ["a", "b-1", "c d", "é"]
    assert outputs(conversion) == {
        "prediction": ("int64", [-1], "prediction"),
        "probability": ("float32", [-1, 3], "probability"),
    }


@pytest.mark.parametrize(
    ("final", "numbers"),
    [
        (LogisticRegression(), "float32"),
        (RandomForestClassifier(10, random_state=0), "float32"),
        (GradientBoostingClassifier(n_estimators=5), "float32"),
    ],
    ids=str,
)
def test_table_model_takes_a_typed_tensor_for_each_column_under_its_own_name(plant, ask, final, numbers):
    table, y = plant
    columns = ColumnTransformer(
        [
            ("numbers", "passthrough", ["temp-C"]),
            ("names", OneHotEncoder(handle_unknown="ignore"), ["größe", "serial no", "on"]),
        ]
    )
    model = make_pipeline(columns, final).fit(table, y)
    conversion = convert_model(model, table.assign(unused=1)[["on", "unused", "größe", "serial no", "temp-C"]])
    types = {tensor.name: tensor.type for tensor in conversion.manifest.inputs}
    assert types == {"temp-C": numbers, "serial no": "int64", "größe": "string", "on": "bool"}
    rows = {name: table[name].tolist() for name in types}
    assert (ask(conversion, rows)["prediction"] == model.predict(table)).all()


@pytest.mark.parametrize(
    "model", [LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())], ids=str
)
def test_numbers_of_several_types_reach_a_model_without_column_transformer(plant, ask, model):
    table, y = plant
    table = table.drop(columns="größe")
    model.fit(table, y)
    conversion = convert_model(model, table)
    assert [tensor.type for tensor in conversion.manifest.inputs] == ["float32", "int64", "bool"]
    rows = {name: table[name].tolist() for name in table}
    assert np.allclose(ask(conversion, rows)["probability"], model.predict_proba(table), atol=1e-5)


def test_column_called_as_an_output_keeps_its_name(iris, ask):
    x, y = iris
    table = pd.DataFrame(x[:, :2], columns=["prediction", "probability"])
    model = LogisticRegression().fit(table, y)
    conversion = convert_model(model, table)
    assert [tensor.name for tensor in conversion.manifest.inputs] == ["prediction", "probability"]
    assert [(o.name, o.role) for o in conversion.manifest.outputs] == [
        ("prediction_", "prediction"),
        ("probability_", "probability"),
    ]
    assert (ask(conversion, {n: table[n].tolist() for n in table})["prediction_"] == model.predict(table)).all()


@pytest.mark.parametrize(
    ("model", "task", "expected"),
    [
        (RandomForestRegressor(10, random_state=0), "regression", {"prediction": [-1]}),
        (make_pipeline(StandardScaler(), Ridge()), "regression", {"prediction": [-1]}),
        (KMeans(3, n_init=1, random_state=0), "clustering", {"prediction": [-1]}),
        (IsolationForest(n_estimators=10, random_state=0), "outlier", {"prediction": [-1], "score": [-1]}),
        (StandardScaler(), "transformation", {"prediction": [-1, 10]}),
    ],
    ids=str,
)
def test_each_task_has_its_outputs_in_the_originals_shapes(model, task, expected):
    x, y = load_diabetes(return_X_y=True)
    conversion = convert_model(model.fit(x, y), x)
    assert conversion.manifest.task == task
    assert {output.name: output.shape for output in conversion.manifest.outputs} == expected


@pytest.mark.parametrize("model", [SVC(), LinearSVC(), RidgeClassifier()], ids=str)
def test_two_class_scores_have_the_originals_sign_and_shape(model, ask):
    x, y = load_breast_cancer(return_X_y=True)
    x = x[:, :4]
    conversion = convert_model(model.fit(x, y), x)
    score = ask(conversion, {f"x{i}": x[:, i] for i in range(4)})["score"]
    assert np.allclose(score, model.decision_function(x), rtol=1e-4, atol=1e-4)


def test_search_is_converted_as_its_best_model(iris):
    x, y = iris
    grid = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1, 2]})
    assert convert_model(grid.fit(x, y), x).parity.passed


def test_random_forest_is_exact_on_its_own_thresholds():
    rng = np.random.default_rng(0)
    x = rng.normal(20, 5, (400, 4)).round(1)
    conversion = convert_model(RandomForestClassifier(20, random_state=0).fit(x, x[:, 0] + x[:, 1] > 40), x)
    kinds = {kind.kind: kind.rows for kind in conversion.parity.kinds}
    assert kinds["thresholds"] > 400  # a row for each split that the sample comes to
    assert conversion.parity.float_type == "float32"


def test_double_graph_is_taken_where_float32_fails_and_the_report_says_so():
    seconds = np.linspace(1.7e9, 1.7e9 + 600, 200)  # float32 has steps of 128 s there
    model = LinearRegression().fit(seconds[:, None], np.sin(seconds / 50))
    conversion = convert_model(model, seconds[:, None])
    assert conversion.manifest.inputs[0].type == "float64"
    assert conversion.parity.why.startswith("float32 inputs fail and float64 inputs pass")
    assert [attempt.float_type for attempt in conversion.parity.attempts] == ["float32", "float64"]


def test_outputs_can_be_chosen(iris):
    x, y = iris
    model = LogisticRegression(max_iter=500).fit(x, y)
    assert list(outputs(convert_model(model, x, outputs=["prediction"]))) == ["prediction"]


def test_text_model_is_converted_when_it_answers_alike(ask):
    texts = ["the pump is hot", "valve stuck open", "pump noise high", "all good here", "valve leaks oil"] * 8
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 1, 1, 0, 0] * 8)
    conversion = convert_model(model, pd.DataFrame({"remark": texts}))
    assert conversion.manifest.inputs[0].name == "remark"
    assert (ask(conversion, {"remark": texts})["prediction"] == model.predict(texts)).all()


def test_forest_after_a_scaler_is_proved_in_double():
    rng = np.random.default_rng(0)
    x = rng.normal(20, 5, (400, 4)).round(1)
    model = make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)).fit(x, x[:, 0] + x[:, 1] > 40)
    conversion = convert_model(model, x)
    assert conversion.parity.float_type == "float64"
    assert "RandomForestClassifier may decide by a reading's last digit" in conversion.parity.why
    assert [attempt.float_type for attempt in conversion.parity.attempts] == ["float64"]


@pytest.mark.parametrize("model", [LogisticRegression(), RandomForestClassifier(5, random_state=0)], ids=str)
def test_columns_of_float32_stay_so_whatever_the_others_are(plant, ask, model):
    table, y = plant
    numbers = table[["temp-C", "serial no"]].assign(narrow=table["temp-C"].astype("float32") / 3)
    steps = make_pipeline(StandardScaler(), model).fit(numbers, y)
    conversion = convert_model(steps, numbers)
    assert {tensor.name: tensor.type for tensor in conversion.manifest.inputs}["narrow"] == "float32"
    rows = {name: numbers[name].tolist() for name in numbers}
    assert (ask(conversion, rows)["prediction"] == steps.predict(numbers)).all()


def test_forest_trained_with_gaps_takes_them(iris, ask):
    x, y = iris
    gaps = x.copy()
    gaps[::7, 0] = gaps[::5, 2] = np.nan
    forest = RandomForestClassifier(20, random_state=0).fit(gaps, y)
    conversion = convert_model(forest, gaps)
    assert conversion.manifest.inputs[0].missing
    assert (ask(conversion, {f"x{i}": gaps[:, i] for i in range(4)})["prediction"] == forest.predict(gaps)).all()


@pytest.mark.parametrize(
    ("model", "y", "words"),
    [
        (NMF(2, max_iter=20, tol=1.0), None, "NMF"),
        (KNeighborsClassifier(3), [[0, 1], [1, 0]] * 20, "several outputs"),
    ],
    ids=str,
)
def test_models_that_cannot_be_converted_are_refused_in_words(model, y, words):
    x = np.arange(80.0).reshape(40, 2)
    with pytest.raises(ConversionRefused) as refused:
        convert_model(model.fit(x, y), x)
    assert words in str(refused.value)


def test_step_at_fault_is_named(iris):
    x, y = iris
    model = make_pipeline(NMF(2, max_iter=20, tol=1.0), LogisticRegression()).fit(x, y)
    with pytest.raises(ConversionRefused, match=r"step 'nmf' \(NMF\)"):
        convert_model(model, x)


def test_encoder_over_integers_and_texts_keeps_its_categories(plant, ask):
    table, _ = plant
    table = table[["größe", "serial no"]]
    encoder = OrdinalEncoder().fit(table)
    conversion = convert_model(encoder, table)
    assert {i.name: i.categories for i in conversion.manifest.inputs} == {
        "größe": ["L", "M", "S"],
        "serial no": [0, 1, 2, 3, 4],
    }
    rows = {name: table[name].tolist() for name in table}
    assert (ask(conversion, rows)["prediction"] == encoder.transform(table)).all()


def test_imputer_in_a_table_takes_missing_numbers(plant, ask):
    table, y = plant
    table = table[["temp-C", "serial no"]].astype({"serial no": float})
    table.loc[::9, "temp-C"] = np.nan
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(table, y)
    conversion = convert_model(model, table)
    assert [tensor.missing for tensor in conversion.manifest.inputs] == [True, True]
    found = ask(conversion, {"temp-C": [None, 21.0], "serial no": [1.0, None]})["prediction"]
    expected = model.predict(pd.DataFrame({"temp-C": [np.nan, 21.0], "serial no": [1.0, np.nan]}))
    assert (found == expected).all()
