"""What the manifest says of missing values, infinity and categories, and that the device holds to it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from appliance.errors import InvalidInput
from convert import convert_model


@pytest.fixture
def strict(plant):
    """A pipeline that refuses missing numbers and unknown sizes."""
    table, y = plant
    columns = ColumnTransformer([("n", StandardScaler(), ["temp-C"]), ("c", OneHotEncoder(), ["größe"])])
    model = make_pipeline(columns, LogisticRegression()).fit(table[["temp-C", "größe"]], y)
    return model, table[["temp-C", "größe"]]


def test_what_the_original_refuses_is_refused_on_the_device(strict, ask):
    model, table = strict
    conversion = convert_model(model, table)
    temperature, size = conversion.manifest.inputs
    assert (temperature.missing, temperature.finite) == (False, True)
    assert (size.categories, size.missing) == (["L", "M", "S"], False)
    for row in (
        {"temp-C": [None], "größe": ["S"]},
        {"temp-C": [1.0], "größe": ["XL"]},
        {"temp-C": [1.0], "größe": [None]},
    ):
        with pytest.raises(InvalidInput):
            ask(conversion, row)
        with pytest.raises(ValueError, match=r".+"):
            model.predict(pd.DataFrame(row).astype({"temp-C": float}))


def test_unknown_texts_pass_where_the_original_ignores_them(plant, ask):
    table, y = plant
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(table[["größe"]], y)
    conversion = convert_model(model, table[["größe"]])
    (size,) = conversion.manifest.inputs
    assert size.categories is None
    assert size.missing
    found = ask(conversion, {"größe": ["XL", None, "M"]})["probability"]
    expected = model.predict_proba(pd.DataFrame({"größe": ["XL", np.nan, "M"]}, dtype=object))
    assert np.allclose(found, expected, atol=1e-5)


def test_missing_texts_of_the_sample_keep_their_own_category(plant, ask):
    table, y = plant
    sizes = table[["größe"]].astype(object)
    sizes.loc[::10, "größe"] = np.nan
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(sizes, y)
    conversion = convert_model(model, sizes)
    (size,) = conversion.manifest.inputs
    assert size.missing
    found = ask(conversion, {"größe": [None, "L"]})["probability"]
    expected = model.predict_proba(pd.DataFrame({"größe": [np.nan, "L"]}, dtype=object))
    assert np.allclose(found, expected, atol=1e-5)


def test_imputer_on_an_array_takes_missing_values_in_every_column(iris, ask):
    x, y = iris
    gaps = x.copy()
    gaps[::8, 1] = np.nan
    model = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=500)).fit(gaps, y)
    conversion = convert_model(model, gaps)
    assert conversion.manifest.inputs[0].missing
    rows = [[None, 3.0, 1.4, 0.2], [6.0, None, None, 2.0]]
    found = ask(conversion, dict(zip(["x0", "x1", "x2", "x3"], zip(*rows, strict=True), strict=True)))
    assert (found["prediction"] == model.predict(np.array(rows, dtype=float))).all()


def test_infinity_passes_where_the_original_takes_it(iris, ask):
    x, _ = iris
    model = IsolationForest(n_estimators=5, random_state=0).fit(x)
    conversion = convert_model(model, x)
    assert conversion.manifest.inputs[0].finite is model_refuses_infinity(model)


def model_refuses_infinity(model):
    try:
        model.predict([[np.inf, 0.0, 0.0, 0.0]])
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("null", [None, np.nan])
@pytest.mark.parametrize("imputed", [None, np.nan], ids=["imputes None", "imputes NaN"])
def test_empty_texts_and_texts_that_look_missing_are_no_gaps(plant, ask, null, imputed):
    table, y = plant
    sizes = pd.Series(np.where(np.arange(len(y)) % 9 == 0, null, table["größe"]), dtype=object).to_frame("größe")
    encoder = OneHotEncoder(handle_unknown="ignore")
    if (null is None) == (imputed is None):
        encoder = make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=imputed), encoder)
    model = make_pipeline(ColumnTransformer([("c", encoder, ["größe"])]), LogisticRegression()).fit(sizes, y)
    asked = [*"SML", "", "nan", "None", "new", null]
    expected = model.predict_proba(pd.DataFrame({"größe": pd.Series(asked, dtype=object)}))
    rows = {"größe": [*asked[:-1], None]}
    assert np.allclose(ask(convert_model(model, sizes), rows)["probability"], expected, atol=1e-5)


def test_imputer_of_nan_leaves_none_as_scikit_learn_does(plant, ask):
    table, y = plant
    sizes = pd.Series(np.where(np.arange(len(y)) % 9 == 0, None, table["größe"]), dtype=object).to_frame("größe")
    encoder = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    model = make_pipeline(ColumnTransformer([("c", encoder, ["größe"])]), LogisticRegression()).fit(sizes, y)
    found = ask(convert_model(model, sizes), {"größe": [None, "S"]})["probability"]
    expected = model.predict_proba(pd.DataFrame({"größe": pd.Series([None, "S"], dtype=object)}))
    assert np.allclose(found, expected, atol=1e-5)


def test_na_among_texts_is_a_gap(plant, ask):
    table, y = plant
    sizes = pd.Series(np.where(np.arange(len(y)) % 9 == 0, pd.NA, table["größe"]), dtype=object).to_frame("größe")
    imputer = SimpleImputer(strategy="most_frequent", missing_values=pd.NA)
    columns = ColumnTransformer([("c", make_pipeline(imputer, OneHotEncoder(handle_unknown="ignore")), ["größe"])])
    model = make_pipeline(columns, LogisticRegression()).fit(sizes, y)
    found = ask(convert_model(model, sizes), {"größe": [None, "S"]})["probability"]
    expected = model.predict_proba(pd.DataFrame({"größe": pd.Series([pd.NA, "S"], dtype=object)}))
    assert np.allclose(found, expected, atol=1e-5)


def test_values_of_the_sample_that_stand_for_missing_are_left_alone(plant, ask):
    table, y = plant
    sizes = table[["größe"]].replace({"S": "nan"})
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(sizes, y)
    conversion = convert_model(model, sizes)
    assert conversion.manifest.inputs[0].missing_text != "nan"
    assert np.allclose(
        ask(conversion, {"größe": ["nan"]})["probability"],
        model.predict_proba(pd.DataFrame({"größe": ["nan"]})),
        atol=1e-5,
    )


def test_columns_of_many_categories_each_keep_their_own():
    rng = np.random.default_rng(0)
    names = [[f"{number:06d}{ending}" for number in rng.choice(10**6, 300, replace=False)] for ending in "ab"]
    table = pd.DataFrame({"site": np.resize(names[0], 900), "part": np.resize(names[1], 900)})
    columns = ColumnTransformer([("c", OneHotEncoder(), ["site", "part"])])
    model = make_pipeline(columns, LogisticRegression()).fit(table, np.arange(900) % 2)
    site, part = convert_model(model, table.iloc[:200]).manifest.inputs  # the encoders know more than the sample
    assert site.categories == sorted(names[0])
    assert part.categories == sorted(names[1])
