"""Tables as people build them: the original is asked in the sample's own dtypes, and the device answers the same."""

import datetime

import catboost
import lightgbm
import numpy as np
import pandas as pd
import polars
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from appliance.errors import InvalidInput
from convert import convert_model
from convert.model import tables
from convert.model.frames import plain
from convert.model.schema import infer

GAPS = np.arange(300) % 9 == 0
BOOSTERS = {
    "histogram boosting": HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype"),
    "lightgbm": lightgbm.LGBMClassifier(n_estimators=5, verbose=-1),
    "xgboost": xgboost.XGBClassifier(n_estimators=5, enable_categorical=True),
}


@pytest.fixture(scope="module")
def nullable(plant):
    """The plant's table in pandas' nullable dtypes, every column with gaps."""
    table, y = plant
    dtypes = {"temp-C": "Float64", "serial no": "Int64", "größe": "string", "on": "boolean"}
    table = table.astype(dtypes)
    table.loc[GAPS] = pd.NA
    return table, y


def test_nullable_columns_with_gaps_are_imputed_as_by_the_original(nullable, ask, agrees):
    table, y = nullable
    table = table.astype({"größe": "str"})  # scikit-learn takes no NA among texts
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["temp-C", "serial no", "on"]),
            ("sizes", OneHotEncoder(handle_unknown="ignore"), ["größe"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(table, y)
    conversion = convert_model(model, table)
    inputs = {tensor.name: tensor for tensor in conversion.manifest.inputs}
    assert all(tensor.missing for tensor in inputs.values())
    assert inputs["on"].categories == [0.0, 1.0]
    assert agrees(model, conversion, table)
    with pytest.raises(InvalidInput, match="never seen in training"):
        ask(conversion, {"temp-C": [1.0], "serial no": [1], "größe": ["S"], "on": [0.5]})


@pytest.mark.parametrize("dtype", ["boolean", object], ids=str)
def test_booleans_with_gaps_reach_a_model_that_takes_them(plant, agrees, dtype):
    table, y = plant
    table = table[["temp-C", "on"]].astype({"on": object})
    table.loc[GAPS, "on"] = None
    table = table.astype({"on": dtype})
    model = HistGradientBoostingClassifier(max_iter=5).fit(table, y)
    assert agrees(model, convert_model(model, table), table)


def test_nullable_texts_are_known_and_missing_as_by_the_original(nullable, agrees):
    table, y = nullable
    imputer = SimpleImputer(missing_values=pd.NA, strategy="constant", fill_value="none")
    model = make_pipeline(imputer, OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    model.fit(table[["größe"]], y)
    conversion = convert_model(model, table[["größe"]])
    assert conversion.manifest.inputs[0].missing
    assert agrees(model, conversion, table[["größe"]])


@pytest.mark.parametrize("name", BOOSTERS)
@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "with gaps"])
def test_category_dtype_is_rebuilt_for_boosters_that_need_it(plant, agrees, name, gaps):
    table, y = plant
    table = table.astype({"größe": "category", "serial no": "category"})
    if gaps:
        table.loc[GAPS, "größe"] = np.nan
    model = BOOSTERS[name].fit(table, y)
    assert agrees(model, convert_model(model, table), table)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost"])
def test_sample_read_from_csv_serves_for_categories_of_texts(plant, agrees, tmp_path, name):
    table, y = plant
    categories = table.astype({"größe": "category"})
    model = BOOSTERS[name].fit(categories, y)
    table.to_csv(tmp_path / "sample.csv", index=False)
    conversion = convert_model(model, pd.read_csv(tmp_path / "sample.csv"))
    assert agrees(model, conversion, categories)


def test_categories_are_selected_by_dtype_and_encoded(plant, agrees):
    table, y = plant
    table = table.astype({"größe": "category", "serial no": "category"})
    encoded = ("c", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category"))
    model = make_pipeline(ColumnTransformer([encoded], remainder="passthrough"), LogisticRegression()).fit(table, y)
    assert agrees(model, convert_model(model, table), table)


def test_dates_are_refused_with_the_way_to_give_them(plant):
    table, y = plant
    table = table[["temp-C"]].assign(since=pd.date_range("2024-01-01", periods=300))
    model = HistGradientBoostingClassifier(max_iter=5).fit(table.assign(since=table["since"].astype("int64")), y)
    with pytest.raises(InvalidInput, match=r"'since'.*dates \(Timestamp\).*month, weekday.*train the model on those"):
        convert_model(model, table)
    parts = table[["temp-C"]].assign(month=table["since"].dt.month, seconds=table["since"].astype("int64") // 10**9)
    model = HistGradientBoostingClassifier(max_iter=5).fit(parts, y)
    assert [tensor.columns for tensor in convert_model(model, parts).manifest.inputs] == [
        ["temp-C"],
        ["month"],
        ["seconds"],
    ]


@pytest.mark.parametrize(
    "value", [datetime.date(2024, 1, 1), datetime.time(8), datetime.timedelta(hours=1), pd.Period("2024-01")], ids=str
)
def test_every_kind_of_date_is_refused_as_such(value):
    sample = pd.DataFrame({"when": [value, value]})
    with pytest.raises(InvalidInput, match="it holds dates"):
        infer(ColumnTransformer([], remainder="passthrough").fit(sample), sample)


def test_dates_that_the_model_drops_do_no_harm(plant, agrees):
    table, y = plant
    table = table.assign(since=pd.date_range("2024-01-01", periods=300))
    scaled = ("k", StandardScaler(), ["temp-C", "serial no"])
    for columns in (ColumnTransformer([scaled]), ColumnTransformer([scaled, ("d", "drop", ["since"])])):
        model = make_pipeline(columns, LogisticRegression()).fit(table, y)
        conversion = convert_model(model, table)
        assert "since" not in {tensor.name for tensor in conversion.manifest.inputs}
        assert agrees(model, conversion, table)


@pytest.mark.parametrize("output", ["default", "polars"])
def test_polars_table_is_taken_and_given_back_to_the_model(plant, agrees, output):
    table, y = plant
    sample = polars.from_pandas(table)
    columns = ColumnTransformer(
        [("c", OneHotEncoder(sparse_output=False), ["größe"]), ("k", StandardScaler(), ["temp-C"])],
        remainder="passthrough",
    )
    model = make_pipeline(columns, LogisticRegression()).set_output(transform=output).fit(sample, y)
    assert isinstance(infer(model, sample).for_original(infer(model, sample).frame), polars.DataFrame)
    assert agrees(model, convert_model(model, sample), sample, table)


def test_polars_gaps_and_categories_are_given_back(plant, agrees):
    table, y = plant
    gaps = polars.Series(GAPS)
    sample = polars.from_pandas(table).with_columns(
        polars.when(~gaps).then(polars.col("serial no")).alias("serial no"),
        polars.when(~gaps).then(polars.col("on")).alias("on"),
        polars.col("größe").cast(polars.Categorical),
    )
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(sample, y)
    schema = infer(model, sample)
    assert schema.for_original(schema.frame).equals(sample)
    assert agrees(model, convert_model(model, sample), sample, sample.to_pandas())


def test_polars_parquet_reads_as_the_table_it_was(plant, agrees, tmp_path):
    table, y = plant
    polars.from_pandas(table).lazy().collect().write_parquet(tmp_path / "sample.parquet")
    columns = ColumnTransformer([("c", OneHotEncoder(sparse_output=False), ["größe"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(
        polars.scan_parquet(tmp_path / "sample.parquet").collect(), y
    )
    assert agrees(model, convert_model(model, tables.read(tmp_path / "sample.parquet")), table)


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5, random_state=0),
        GradientBoostingRegressor(n_estimators=5),
        HistGradientBoostingRegressor(max_iter=5),
        catboost.CatBoostRegressor(iterations=5, verbose=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_numeric_table_goes_straight_into_trees(plant, agrees, model):
    table, y = plant
    numbers = table[["temp-C", "serial no", "on"]]
    model.fit(numbers, y)
    conversion = convert_model(model, numbers)
    assert [tensor.name for tensor in conversion.manifest.inputs] == list(numbers)
    assert agrees(model, conversion, numbers)


@pytest.mark.parametrize(
    "model",
    [
        RandomForestRegressor(5, random_state=0),
        make_pipeline(StandardScaler(), LinearRegression()),
        HistGradientBoostingRegressor(max_iter=5),
        make_pipeline(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), LinearRegression()),
    ],
    ids=["forest", "scaled", "histograms", "codes"],
)
def test_integers_beyond_float32_keep_their_digits(agrees, model):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "id": 2**24 + rng.integers(0, 60, 200),
            "float": 2.0**24 + rng.integers(0, 60, 200),
            "unix": 1_700_000_000.0 + rng.integers(0, 500, 200),
        }
    )
    model.fit(table, table["id"] % 2 + table["float"] % 3)
    assert agrees(model, convert_model(model, table), table)


def test_large_whole_numbers_are_proved_with_rows_that_fit_int64(agrees):
    table = pd.DataFrame({"id": 2**50 + np.random.default_rng(0).integers(0, 30, 200)})
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(encoder, LinearRegression()).fit(table, table["id"] % 7)
    assert agrees(model, convert_model(model, table), table)


def test_neighbours_impute_every_column_where_the_sample_has_gaps_in_one(ask):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    y = x[:, 0] + x[:, 1] > 0
    x[::7, 1] = np.nan
    model = make_pipeline(KNNImputer(n_neighbors=3), LogisticRegression()).fit(x, y)
    conversion = convert_model(model, x)
    assert conversion.manifest.inputs[0].missing
    rows = [[None, 0.5, 1.0], [0.3, None, None]]
    found = ask(conversion, dict(zip(["x0", "x1", "x2"], zip(*rows, strict=True), strict=True)))
    assert (found["prediction"] == model.predict(np.array(rows, dtype=float))).all()


def same_table(one, other):
    return one.dtypes.equals(other.dtypes) and one.equals(other)


VALUES = {
    "Int64": st.integers(-(2**53), 2**53),
    "UInt8": st.integers(0, 255),
    "boolean": st.booleans(),
    "Float64": st.floats(allow_nan=False),
    "string": st.text(max_size=4),
    "str": st.text(max_size=4),
    "category": st.text(max_size=2),
}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(sorted(VALUES)))
def test_any_column_comes_back_in_its_own_dtype(data, dtype):
    values = data.draw(st.lists(VALUES[dtype] | st.none(), min_size=1, max_size=6).filter(any))
    sample = pd.DataFrame({"c": pd.Series(values, dtype=dtype)})
    schema = infer(ColumnTransformer([]).fit(sample), sample)
    assert same_table(schema.for_original(schema.frame), sample)


def test_values_that_a_dtype_cannot_hold_leave_the_column_plain():
    sample = pd.DataFrame({"n": pd.array([1, None], dtype="Int64"), "small": np.array([1, 2], dtype="uint8")})
    _, form = plain(sample)
    rows = pd.DataFrame({"n": [1.5, np.nan], "small": [300, -1]})
    assert form.restore(rows).dtypes.astype(str).to_dict() == {"n": "float64", "small": "int64"}


def test_text_that_training_never_saw_becomes_one_more_category():
    sample = pd.DataFrame({"c": pd.Categorical(["b", "a"], categories=["b", "a"])})
    _, form = plain(sample)
    restored = form.restore(pd.DataFrame({"c": pd.Series(["new", "a", None], dtype=object)}))["c"]
    assert restored.cat.categories.tolist() == ["b", "a", "new"]
    assert restored.isna().tolist() == [False, False, True]


@pytest.mark.parametrize("unknown", ["ignore", "error"])
@pytest.mark.parametrize("null", [None, np.nan], ids=str)
def test_missing_texts_are_those_of_training_however_the_sample_was_read(plant, agrees, tmp_path, unknown, null):
    table, y = plant
    # To scikit-learn None, as polars and databases give it, and NaN, as CSV gives it, are different categories.
    written = pd.Series([null if gap else size for gap, size in zip(GAPS, table["größe"], strict=True)], dtype=object)
    table = table.assign(größe=written)
    columns = ColumnTransformer([("c", OneHotEncoder(handle_unknown=unknown), ["größe"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(table, y)
    table.to_csv(tmp_path / "sample.csv", index=False)
    for sample in (tables.read(tmp_path / "sample.csv"), polars.from_pandas(table), table[~GAPS]):
        assert agrees(model, convert_model(model, sample), table)


def test_polars_gaps_among_texts_and_booleans_reach_an_encoder(plant, agrees):
    table, y = plant
    gaps = polars.Series(GAPS)
    kept = [polars.when(~gaps).then(polars.col(name)).alias(name) for name in ("größe", "on")]
    for dtype in (polars.String, polars.Categorical):
        sample = polars.from_pandas(table).with_columns(*kept).with_columns(polars.col("größe").cast(dtype))
        model = make_pipeline(ColumnTransformer([("c", OneHotEncoder(), ["größe", "on"])]), LogisticRegression())
        model.fit(sample, y)
        assert agrees(model, convert_model(model, sample), sample, sample.to_pandas())


@pytest.mark.parametrize(
    "kind", [list, pd.Series, lambda texts: pd.DataFrame({"text": texts})], ids=["list", "series", "table"]
)
def test_model_of_texts_takes_a_list_a_series_or_a_table_of_them(ask, kind):
    texts = ["pump leaks oil", "valve stuck", "oil low", "stuck pump", ""] * 6
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0, 0] * 6)
    conversion = convert_model(model, kind(texts))
    (column,) = conversion.manifest.inputs[0].columns
    assert np.allclose(ask(conversion, {column: texts})["probability"], model.predict_proba(texts), atol=1e-5)
