"""Which columns a step takes and as what: by name, position, slice, mask; after other steps, in unions, of any type."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    StandardScaler,
    TargetEncoder,
)

from appliance.errors import ConversionRefused
from convert import convert_model


def test_columns_found_by_name_after_set_output_are_the_right_ones(plant, agrees):
    table, y = plant
    first = ColumnTransformer(
        [("k", StandardScaler(), ["temp-C", "serial no"])], remainder="passthrough", verbose_feature_names_out=False
    )
    second = ColumnTransformer([("q", PowerTransformer(), ["serial no"])], remainder="passthrough")
    numbers = table[["on", "temp-C", "serial no"]]
    model = make_pipeline(first, second, LogisticRegression()).set_output(transform="pandas").fit(numbers, y)
    assert agrees(model, convert_model(model, numbers), numbers)


def test_union_with_passthrough_and_dropped_columns(plant, agrees):
    table, y = plant
    taken = ColumnTransformer([("k", "passthrough", ["temp-C", "on"]), ("d", "drop", ["größe"])])
    union = FeatureUnion([("a", StandardScaler()), ("b", PolynomialFeatures(2)), ("c", "passthrough"), ("d", "drop")])
    model = make_pipeline(taken, union, LogisticRegression(max_iter=1000)).fit(table, y)
    assert agrees(model, convert_model(model, table), table)


def test_union_of_column_transformers(plant, agrees):
    table, y = plant
    numbers = ColumnTransformer([("k", StandardScaler(), ["temp-C"])])
    names = ColumnTransformer([("c", OneHotEncoder(), ["größe"])])
    model = make_pipeline(FeatureUnion([("a", numbers), ("b", names)]), LogisticRegression()).fit(table, y)
    assert agrees(model, convert_model(model, table), table)


BY_NAME = {"slice of names": slice("temp-C", "serial no")}
BY_POSITION = {
    "from the end": [-1, 0],
    "slice": slice(-2, None),
    "mask": [True, False, True],
    "mask of numpy": np.array([False, True, True]),
    "positions of numpy": np.array([2, 0]),
    "all in another order": [2, 0, 1],
}


@pytest.mark.parametrize(
    ("columns", "array"),
    [
        *(pytest.param(columns, False, id=f"{name}-table") for name, columns in {**BY_NAME, **BY_POSITION}.items()),
        *(pytest.param(columns, True, id=f"{name}-array") for name, columns in BY_POSITION.items()),
    ],
)
def test_columns_are_those_of_scikit_learn_however_they_are_named(plant, agrees, columns, array):
    table, y = plant
    table = table.drop(columns="größe").astype(float)
    rows = table.to_numpy() if array else table
    scaled = ColumnTransformer([("k", StandardScaler(), columns)], remainder="passthrough")
    model = make_pipeline(scaled, LogisticRegression()).fit(rows, y)
    assert agrees(model, convert_model(model, table), rows, table)


def test_columns_are_found_by_position_after_another_column_transformer(plant, agrees):
    table, y = plant
    first = ColumnTransformer([("k", StandardScaler(), ["serial no"]), ("c", OneHotEncoder(), ["größe"])])
    second = ColumnTransformer([("q", StandardScaler(), [3, 0]), ("p", "passthrough", slice(1, 3))])
    model = make_pipeline(first, second, LogisticRegression()).fit(table, y)
    assert agrees(model, convert_model(model, table), table)


ONE_HOT = OneHotEncoder(handle_unknown="ignore")
ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
IMPUTED = make_pipeline(SimpleImputer(strategy="most_frequent"), ONE_HOT)
MIXED = {
    "imputed, one hot": IMPUTED,
    "imputed, codes": make_pipeline(SimpleImputer(strategy="most_frequent"), ORDINAL),
    "imputed twice, one hot": make_pipeline(SimpleImputer(strategy="most_frequent"), IMPUTED),
    "identity, one hot": make_pipeline(FunctionTransformer(), ONE_HOT),
    "indicator": MissingIndicator(features="all"),
    "target": TargetEncoder(random_state=0),
    "union": FeatureUnion([("a", ONE_HOT), ("b", ORDINAL)]),
    "union of imputed": FeatureUnion([("a", IMPUTED), ("b", MissingIndicator(features="all"))]),
}


@pytest.fixture
def mixed(plant):
    """The plant's table with tenths, whole floats, and gaps among texts and numbers."""
    table, y = plant
    table = table.assign(tenths=table["serial no"] / 10, whole=(table["serial no"] % 3).astype(float))
    table["größe"] = table["größe"].astype(object)  # scikit-learn 1.5 takes no categories there
    for name, every in {"größe": 7, "tenths": 9, "whole": 11}.items():
        table.loc[::every, name] = np.nan
    return table, y


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("text_first", [True, False], ids=["text first", "text last"])
def test_texts_and_numbers_reach_a_step_in_their_own_types(mixed, agrees, name, text_first):
    table, y = mixed
    columns = ["größe", "tenths", "whole", "serial no", "on"][:: 1 if text_first else -1]
    model = make_pipeline(ColumnTransformer([("c", clone(MIXED[name]), columns)]), LogisticRegression(max_iter=500))
    model.fit(table, y)
    assert agrees(model, convert_model(model, table), table)


def test_texts_and_numbers_of_a_whole_table_are_imputed_and_encoded(mixed, agrees):
    table, y = mixed
    model = make_pipeline(SimpleImputer(strategy="most_frequent"), ONE_HOT, LogisticRegression()).fit(table, y)
    assert agrees(model, convert_model(model, table), table)


@pytest.mark.parametrize("other", ["serial no", "on"])
def test_texts_beside_whole_numbers_or_booleans_are_encoded_after_the_part_that_imputes(mixed, agrees, other):
    table, y = mixed
    imputed = ColumnTransformer([("c", SimpleImputer(strategy="most_frequent"), ["größe", other])])
    model = make_pipeline(imputed, ONE_HOT, LogisticRegression()).fit(table, y)
    assert agrees(model, convert_model(model, table), table)


def test_an_imputer_that_would_make_texts_of_decimals_is_refused_by_name(mixed):
    table, y = mixed
    imputed = ColumnTransformer([("c", SimpleImputer(strategy="most_frequent"), ["größe", "tenths"])])
    model = make_pipeline(imputed, ONE_HOT, LogisticRegression()).fit(table, y)
    with pytest.raises(ConversionRefused, match="SimpleImputer: it makes one table of texts and decimals"):
        convert_model(model, table)
