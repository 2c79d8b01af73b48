"""What a file's reader changes is read as the model was trained: codes as texts, gaps as None."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from appliance.errors import InvalidInput
from convert.build import convert_model
from convert.job import Job, run
from convert.model import tables
from convert.model.original import Original
from convert.model.schema import infer
from convert.model.trained_on import text_columns
from convert.sources.fetched import Fetched

CODES = pd.DataFrame({"plant": ["001", "007", "123"] * 20, "n": range(60), "flag": ["True", "False"] * 30})
KNOW_TEXTS = [
    OneHotEncoder(),
    OrdinalEncoder(),
    make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()),
    SimpleImputer(strategy="most_frequent"),
]


@pytest.mark.parametrize("step", KNOW_TEXTS, ids=str)
def test_columns_of_which_the_model_knows_texts_are_read_as_texts(tmp_path, step):
    columns = ColumnTransformer([("texts", step, ["flag", "plant"])], remainder=StandardScaler()).fit(CODES)
    CODES.to_csv(tmp_path / "s.csv", index=False)
    frame = tables.read(tmp_path / "s.csv")
    assert frame["plant"].tolist()[:3] == [1, 7, 123]
    names = [list(CODES)[position] for position in text_columns(columns, 3)]
    read = tables.with_texts(tmp_path / "s.csv", frame, names)
    assert read["plant"].tolist() == CODES["plant"].tolist()
    assert read["flag"].tolist() == CODES["flag"].tolist()
    assert read["n"].tolist() == CODES["n"].tolist()


def test_a_bag_of_words_knows_texts_and_a_scaler_none():
    columns = ColumnTransformer([("words", CountVectorizer(analyzer="char"), "plant"), ("n", StandardScaler(), ["n"])])
    assert text_columns(columns.fit(CODES), 3) == {0}


def test_codes_with_leading_zeros_convert_from_csv(tmp_path):
    encoder = ColumnTransformer([("o", OneHotEncoder(), ["plant"])], remainder="passthrough")
    model = make_pipeline(encoder, LogisticRegression()).fit(CODES[["plant", "n"]], CODES["plant"] == "007")
    CODES.to_csv(tmp_path / "s.csv", index=False)
    sample = tables.with_texts(tmp_path / "s.csv", tables.read(tmp_path / "s.csv"), ["plant"])
    plant = convert_model(model, sample).manifest.inputs[0]
    assert (plant.name, plant.type, plant.categories) == ("plant", "string", ["001", "007", "123"])


@pytest.mark.parametrize("missing", [None, np.nan], ids=str)
def test_gaps_are_written_as_the_imputer_looks_for_them(missing):
    trained = pd.DataFrame({"c": pd.Series(["x", "y", missing] * 20, dtype=object)})
    imputer = SimpleImputer(missing_values=missing, strategy="constant", fill_value="?")
    model = make_pipeline(imputer, OneHotEncoder(), LogisticRegression()).fit(trained, trained["c"] == "x")
    for gap in (None, np.nan):  # polars and Parquet give one, CSV the other
        sample = pd.DataFrame({"c": pd.Series(["x", "y", gap] * 20, dtype=object)})
        original = Original(model, infer(model, sample))
        assert original.refusal(original.schema.frame) is None


@pytest.mark.parametrize(
    ("text", "found", "next_step"),
    [
        ("a;b\n1,5;2\n", "separated by semicolons", r"sep=';', decimal=','"),
        ("a\tb\n1\t2\n", "separated by tabs", r"sep='\\t'"),
        ('a,b\n"1,5",2\n', "'a' has decimal commas", r"decimal=','\)"),
    ],
)
def test_other_separators_are_named_with_the_line_that_rewrites_them(tmp_path, text, found, next_step):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InvalidInput, match=found) as caught:
        tables.read(tmp_path / "s.csv")
    assert next_step.replace("\\", "") in caught.value.next_step.replace("\\", "")


def test_a_column_of_texts_may_hold_semicolons(tmp_path):
    (tmp_path / "s.csv").write_text("note,b\na;b,1\n")
    assert tables.read(tmp_path / "s.csv")["note"].tolist() == ["a;b"]


def test_columns_of_the_sample_that_the_model_does_not_take_are_named(tmp_path):
    joblib.dump(LogisticRegression().fit(CODES[["n"]], CODES["n"] > 30), tmp_path / "model.joblib")
    CODES.to_csv(tmp_path / "s.csv", index=False)
    fetched = Fetched(tmp_path / "model.joblib", "model.joblib", "pickle", local=True)
    job = Job(fetched, "m", "1.0.0", tmp_path / "s.csv")
    _, notes = run(job, lambda message, loads=False: None, lambda report: None)
    assert "columns of the sample that the model does not take: plant, flag" in notes
