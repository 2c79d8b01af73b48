"""Boosters as they are handed over: native ones, and those trained on categories that come back as plain values."""

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from convert import convert_model

LIGHT = {"n_estimators": 5, "verbose": -1, "min_child_samples": 5, "n_jobs": 1}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(20, 5, 300).round(1), "line": rng.choice([3, 7, 12], 300)})
    table["shift"] = rng.choice(["early", "late"], 300).astype(object)
    return table, (table["x"] + table["line"] + 3 * (table["shift"] == "late") > 28).astype(int)


def by_column(x):
    return {f"x{i}": x[:, i] for i in range(x.shape[1])}


def test_native_lightgbm_booster_gives_labels_beside_its_shares(iris, ask):
    x, y = iris
    booster = lightgbm.train({"objective": "multiclass", "num_class": 3, "verbose": -1}, lightgbm.Dataset(x, y), 3)
    conversion = convert_model(booster, x)
    found = ask(conversion, by_column(x))
    assert conversion.manifest.class_labels == [0, 1, 2]
    assert np.allclose(found["probability"], booster.predict(x), atol=1e-5)
    assert (found["prediction"] == booster.predict(x).argmax(axis=1)).all()


def test_native_xgboost_booster_answers_with_all_of_its_trees(iris, ask):
    x, y = iris
    train, held = xgboost.DMatrix(x[::2], y[::2] == 1), xgboost.DMatrix(x[1::2], y[1::2] == 2)
    settings = {"objective": "binary:logistic", "nthread": 1}
    booster = xgboost.train(settings, train, 8, evals=[(held, "held")], early_stopping_rounds=3, verbose_eval=False)
    assert booster.best_iteration + 1 < booster.num_boosted_rounds()
    conversion = convert_model(booster, x)
    shares = ask(conversion, by_column(x))["probability"][:, 1]
    assert np.allclose(shares, booster.predict(xgboost.DMatrix(x)), atol=1e-5)


def test_native_regression_booster_is_a_regression(iris, ask):
    x, _ = iris
    booster = xgboost.train({"objective": "reg:squarederror", "nthread": 1}, xgboost.DMatrix(x, x[:, 0]), 4)
    conversion = convert_model(booster, x)
    assert conversion.manifest.task == "regression"
    assert np.allclose(ask(conversion, by_column(x))["prediction"], booster.predict(xgboost.DMatrix(x)), atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        lightgbm.LGBMClassifier(min_data_per_group=2, cat_smooth=1, **LIGHT),
        xgboost.XGBClassifier(n_estimators=5, n_jobs=1, enable_categorical=True, max_cat_to_onehot=2),
    ],
    ids=["lightgbm", "xgboost"],
)
def test_categories_that_come_from_csv_as_plain_values_are_those_of_training(table, ask, tmp_path, model):
    plain, y = table
    trained = plain.astype({"line": "category", "shift": "category"})
    model.fit(trained, y)
    plain.head(250).to_csv(tmp_path / "sample.csv", index=False)
    conversion = convert_model(model, pd.read_csv(tmp_path / "sample.csv"))
    assert {tensor.name: tensor.type for tensor in conversion.manifest.inputs}["line"] == "int64"
    found = ask(conversion, {name: plain[name].tolist() for name in plain})
    assert (found["prediction"] == model.predict(trained)).all()
    assert np.allclose(found["probability"], model.predict_proba(trained), atol=1e-5)


def test_xgboosts_unknown_categories_are_refused_whatever_their_spelling(table):
    rows, answers = table
    trained = rows[["x"]].assign(shift=pd.Categorical(rows["shift"]))
    model = xgboost.XGBClassifier(n_estimators=9, n_jobs=1, enable_categorical=True, early_stopping_rounds=2)
    model.fit(trained, answers, eval_set=[(trained, answers)], verbose=False)
    inputs = {one.name: one for one in convert_model(model, trained).manifest.inputs}
    assert inputs["shift"].categories == ["early", "late"]
    assert inputs["x"].categories is None
