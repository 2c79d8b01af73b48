import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from convert.build import convert_model

OPTIONS = [
    {},
    {"drop": "first"},
    {"drop": "if_binary"},
    {"min_frequency": 20},
    {"max_categories": 3},
    {"drop": "first", "min_frequency": 20},
]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"whole": rng.integers(0, 5, 200), "number": rng.choice([1.5, 2.5, np.nan], 200)})
    table["flag"] = rng.random(200) < 0.5
    texts = rng.choice(list("xyzüw"), 200, p=[0.4, 0.3, 0.2, 0.06, 0.04])
    return table.assign(text=pd.Series(texts, dtype=object))


@pytest.fixture(scope="module")
def unseen(table):
    changed = table.copy()
    changed.loc[:20, "text"] = "new"
    changed.loc[30:50, "whole"] = 99
    return changed


@pytest.fixture(scope="module")
def gaps(table):
    """Tables with gaps among the texts, written as NaN and as None."""
    tables = []
    for gap in (np.nan, None):
        texts = [gap if place % 7 == 0 else text for place, text in enumerate(table["text"])]
        tables.append(table.assign(text=pd.Series(texts, dtype=object)))
    return tables


@pytest.fixture
def assert_encodes(graph, ask):
    def assert_encodes(model, rows):
        expected = model.transform(rows)
        expected = expected.toarray() if hasattr(expected, "toarray") else expected
        np.testing.assert_allclose(ask(graph(model, rows), rows)[0], expected, rtol=1e-9)

    return assert_encodes


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_one_hot_columns_are_those_of_scikit_learn(assert_encodes, table, gaps, options):
    for rows in (table, *gaps):
        assert_encodes(OneHotEncoder(**options).fit(rows), rows)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("handling", ["ignore", "infrequent_if_exist"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_unknown_categories_are_encoded_by_the_policy(assert_encodes, table, unseen, handling, options):
    assert_encodes(OneHotEncoder(handle_unknown=handling, **options).fit(table), unseen)


@pytest.mark.parametrize("options", [{}, {"min_frequency": 20}, {"encoded_missing_value": -1}], ids=str)
def test_ordinal_codes_are_those_of_scikit_learn(assert_encodes, table, gaps, unseen, options):
    for rows in (table, *gaps):
        assert_encodes(OrdinalEncoder(**options).fit(rows), rows)
    assert_encodes(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-5, **options).fit(table), unseen)


@pytest.mark.parametrize("model", [OneHotEncoder(), OrdinalEncoder()], ids=str)
def test_unknown_categories_are_refused_where_scikit_learn_refuses_them(graph, ask, table, unseen, model):
    session = graph(model.fit(table), table)
    with pytest.raises(ValueError, match="unknown categories"):
        model.transform(unseen)
    with pytest.raises(Exception, match="out of data bounds"):
        ask(session, unseen)


@pytest.mark.parametrize("classes", [2, 3])
def test_target_encodings_are_those_of_scikit_learn(assert_encodes, table, unseen, gaps, classes):
    target = np.arange(200) % classes
    assert_encodes(TargetEncoder(cv=2).fit(table, target), unseen)
    assert_encodes(TargetEncoder(cv=2).fit(gaps[0], target), gaps[0])


def test_encoders_stand_beside_numbers_in_a_pipeline(graph, ask, table, unseen):
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["text", "flag"]),
        (KBinsDiscretizer(3, strategy="uniform"), ["whole"]),
        (StandardScaler(), ["whole"]),
        remainder="drop",
    )
    model = make_pipeline(columns, LogisticRegression()).fit(table, table["whole"] > 2)
    labels, probabilities = ask(graph(model, table), unseen)
    assert (labels.astype(bool) == model.predict(unseen)).all()
    np.testing.assert_allclose(probabilities, model.predict_proba(unseen), atol=1e-6)


@pytest.mark.parametrize(
    "encoder", [OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder(), TargetEncoder()], ids=str
)
def test_whole_numbers_that_float64_cannot_tell_apart_are_compared_as_such(encoder):
    ids = pd.DataFrame({"id": 10**17 + np.arange(90) % 30, "k": np.arange(90) % 3})
    model = make_pipeline(encoder, Ridge()).fit(ids, ids["id"] % 7)
    assert convert_model(model, ids).parity.passed
