"""Columns, types and what a sample may look like."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from appliance.errors import InvalidInput, NotFound
from convert.model import tables
from convert.model.schema import Limits, infer
from convert.proof.rows import draw


def fitted(sample):
    return StandardScaler().fit(sample)


def kinds(sample, model=None):
    return {c.name: c.kind for c in infer(model or ColumnTransformer([]).fit(sample), sample).columns}


def test_the_model_decides_order_and_choice_of_columns():
    trained = pd.DataFrame({"b": [1.0, 2.0], "a b": [3.0, 4.0]})
    schema = infer(fitted(trained), pd.DataFrame({"a b": [1.0], "extra": ["x"], "b": [2.0]}))
    assert schema.style == "table"
    assert [column.name for column in schema.columns] == ["b", "a b"]
    assert schema.frame.to_dict("records") == [{"b": 2.0, "a b": 1.0}]


def test_missing_column_is_refused_by_name():
    trained = pd.DataFrame({"größe": [1.0], "b": [2.0]})
    with pytest.raises(InvalidInput, match="it lacks 'größe'; it has 'b'"):
        infer(fitted(trained), trained[["b"]])


def test_wrong_column_count_names_both_counts_and_the_target_option():
    with pytest.raises(InvalidInput, match=r"takes 2 and the sample has 3: a, b, c; .*--target"):
        infer(fitted(np.ones((3, 2))), pd.DataFrame(np.ones((3, 3)), columns=["a", "b", "c"]))


def test_texts_among_numbers_for_an_array_model_are_refused_by_name():
    model = LogisticRegression().fit(np.eye(2), [0, 1])
    with pytest.raises(InvalidInput, match="'species' are texts"):
        infer(model, pd.DataFrame({"x": [1.0], "species": ["a"]}))


def test_types_come_from_the_sample():
    sample = pd.DataFrame(
        {
            "float": [0.5, None],
            "narrow": np.array([1, 2], dtype="float32"),
            "int": [1, 2],
            "nullable": pd.array([1, None], dtype="Int64"),
            "bool": [True, False],
            "text": ["a", None],
            "category": pd.Categorical(["x", "y"]),
        }
    )
    assert kinds(sample) == {
        "float": "float",
        "narrow": "float",
        "int": "int64",
        "nullable": "float",
        "bool": "bool",
        "text": "string",
        "category": "string",
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), "Timestamp"),
        (pd.Series(["a", 1], dtype=object), "int"),
        (pd.Series([2**63 + 1, 1], dtype="uint64"), "do not fit int64"),
    ],
    ids=["dates", "texts and numbers", "huge integers"],
)
def test_columns_without_a_tensor_type_are_refused_in_words(values, words):
    sample = pd.DataFrame({"odd": values})
    model = ColumnTransformer([], remainder="passthrough").fit(sample)
    with pytest.raises(InvalidInput, match=words) as refused:
        infer(model, sample)
    assert "'odd'" in str(refused.value)


@pytest.mark.parametrize("sample", [pd.DataFrame({"a": []}), np.empty((0, 2))], ids=["table", "array"])
def test_sample_without_rows_is_refused(sample):
    with pytest.raises(InvalidInput, match="no rows"):
        infer(fitted(np.ones((2, 1))), sample)


def test_columns_of_one_name_are_refused():
    with pytest.raises(InvalidInput, match="appear twice: a"):
        infer(fitted(np.ones((2, 2))), pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]))


@pytest.mark.parametrize("line", ["1,2,3", "1"], ids=["too many", "too few"])
def test_ragged_csv_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "sample.csv"
    path.write_text(f"a,b\n1,2\n{line}\n")
    with pytest.raises(InvalidInput, match=r"line 3 has \d fields and the header 2"):
        tables.read(path)


def test_csv_and_parquet_read_alike(tmp_path, plant):
    table, _ = plant
    table.to_csv(tmp_path / "sample.csv", index=False)
    table.to_parquet(tmp_path / "sample.parquet")
    one, other = tables.read(tmp_path / "sample.csv"), tables.read(tmp_path / "sample.parquet")
    assert kinds(one) == kinds(other) == {"temp-C": "float", "serial no": "int64", "größe": "string", "on": "bool"}
    assert one["größe"].tolist() == other["größe"].tolist()


def test_sample_that_is_not_there_or_of_another_kind_is_refused(tmp_path):
    with pytest.raises(NotFound):
        tables.read(tmp_path / "none.csv")
    (tmp_path / "sample.xls").write_bytes(b"x")
    with pytest.raises(InvalidInput, match=r"neither \.csv nor \.parquet"):
        tables.read(tmp_path / "sample.xls")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200) | st.text(alphabet='ab1.,"\n\r\x00é', max_size=60).map(str.encode))
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_any_bytes_are_a_table_or_a_clear_refusal(tmp_path_factory, content, ending):
    path = tmp_path_factory.getbasetemp() / f"any.{ending}"
    path.write_bytes(content)
    outcome = None
    try:
        outcome = tables.read(path)
    except InvalidInput as error:
        outcome = error.found
    assert isinstance(outcome, (pd.DataFrame, str))


def test_rows_of_a_proof_keep_none_and_nan_apart():
    sample = pd.DataFrame({"text": pd.Series(["a", None, "b"], dtype=object), "x": [1.0, 2.0, 3.0]})
    schema = infer(ColumnTransformer([]).fit(sample), sample)
    limits = Limits(missing=frozenset({"text", "x"}))
    for batch in draw(schema, limits, {}):
        gaps = [value for value in batch.frame["text"] if not isinstance(value, str)]
        assert batch.frame.dtypes.astype(str).tolist() == ["object", "float64"]
        assert all(gap is None for gap in gaps)
