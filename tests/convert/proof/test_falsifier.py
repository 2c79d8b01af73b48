"""The falsifier alone finds each planted fault: no other row of the proof is asked, beside some of the sample."""

import contextlib
import datetime
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import KNNImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from xgboost import XGBClassifier

from appliance.bundle.manifest import Tolerance
from appliance.errors import ParityFailed
from convert import convert_model
from convert.converters import float32_inputs, reads, rehearsal
from convert.model import sparse_input
from convert.model.original import Original
from convert.model.schema import infer
from convert.proof import both_sides, boundaries, falsifier, float32_rows, moves, parity, searched_rows
from convert.proof.both_sides import BothSides
from convert.proof.comparison import ParityComparison
from convert.proof.falsifier import Asked
from convert.proof.limits import probe
from convert.proof.rows import Batch

ROWS = 2_000
FEW = 20  # rows of the sample that the proof asks beside the falsifier's


@pytest.fixture
def alone(monkeypatch):
    """Let the proof ask nothing but some rows of the sample and what the falsifier searches for."""

    def few(schema, *arguments):
        return [Batch("sample", "", schema.frame.iloc[:FEW].reset_index(drop=True))]

    monkeypatch.setattr(both_sides, "draw", few)
    for module, name in ((boundaries, "search"), (boundaries, "jumps"), (float32_rows, "search")):
        monkeypatch.setattr(module, name, lambda *arguments: [])


@pytest.fixture
def without_splits(monkeypatch):
    """Leave out the rows on either side of the graph's splits too."""
    monkeypatch.setattr(both_sides.splits, "of", lambda candidate, limits: None)


def kinds_off(conversion_of):
    """Return the kinds of rows that were off in each proof of a conversion."""
    reports = []
    with contextlib.suppress(ParityFailed):
        conversion_of(reports.append)
    return [{kind.kind for kind in report.kinds if kind.rows_off} for report in reports]


def test_zeros_of_a_sparse_step_that_a_graph_takes_as_zeros(alone, without_splits, monkeypatch):
    rng = np.random.default_rng(0)
    temp = rng.normal(20, 4, 200).round(1)
    temp[np.abs(temp) < 2] = 2.0
    table = pd.DataFrame({"c": rng.choice(list("abcdefgh"), 200), "temp": temp})
    encoded = ColumnTransformer([("code", OneHotEncoder(), ["c"])], remainder="passthrough")
    model = make_pipeline(encoded, XGBClassifier(n_estimators=4, max_depth=2)).fit(table, (temp > 20).astype(int))
    monkeypatch.setattr(sparse_input, "gets_sparse", lambda model: False)
    found = kinds_off(lambda reports: convert_model(model, table, reports=reports))
    assert found == [{"searched"}] * len(found)
    assert found


@pytest.mark.parametrize(
    "model",
    [KNeighborsRegressor(), KNeighborsClassifier(), make_pipeline(KNNImputer(), Ridge())],
    ids=["neighbours", "votes", "imputer"],
)
def test_float32_inputs_by_which_another_neighbour_is_the_nearest(alone, monkeypatch, model):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(300, 6)), columns=list("abcdef"))
    if type(model).__name__ == "Pipeline":
        table = table.mask(rng.random(table.shape) < 0.1)
    target = table.a.fillna(0) + table.b.fillna(0)
    model.fit(table, (target > 0) if isinstance(model, KNeighborsClassifier) else target)
    monkeypatch.setattr(float32_inputs, "kept_from", lambda model, columns: "")
    monkeypatch.setattr(parity, "MARGIN", 1.0)
    reports = []
    conversion = convert_model(model, table, reports=reports.append)
    narrow, wide = reports
    assert (narrow.float_type, narrow.search.stopped, narrow.search.rows <= ROWS) == ("float32", "found", True)
    assert {kind.kind for kind in narrow.kinds if kind.rows_off} == {"searched"}
    assert (wide.search.stopped, conversion.parity.float_type) == ("rows", "float64")


class Other:
    """A graph that answers as another model does."""

    tie_checks = ()

    def __init__(self, original, float_type="float64"):
        self.original, self.float_type = original, float_type

    def answers(self, frame, limits):
        return self.original.answers(frame)


def searched(model, other, sample, rows=ROWS):
    """Return what the falsifier comes to where the graph answers as `other` does."""
    schema = infer(model, sample)
    original = Original(model, schema)
    graph = Other(Original(other, schema))
    limits = probe(original)
    sides = BothSides(original, graph, limits, Tolerance())
    sides.__dict__["splits"] = None
    comparison = ParityComparison(original, graph, Tolerance())
    return searched_rows.search(sides, comparison, schema.frame.iloc[:0], 1.0, rows)[0]


def above(x):
    return (x > 0) * 1.0


def from_zero(x):
    return (x >= 0) * 1.0


def test_a_graph_that_takes_exact_zeros_otherwise():
    sample = pd.DataFrame(np.random.default_rng(0).uniform(1, 9, (60, 12)), columns=list("abcdefghijkl"))
    target = sample.sum(axis=1)
    one, other = (
        make_pipeline(FunctionTransformer(f), LinearRegression()).fit(sample, target) for f in (above, from_zero)
    )
    for model in (one, other):
        model[-1].coef_ = np.arange(12.0)
        model[-1].intercept_ = 0.0
    assert searched(one, other, sample).stopped == "found"
    assert searched(one, one, sample).stopped == "rows"


@pytest.mark.parametrize("column", ["c", "n"], ids=["texts", "whole numbers"])
def test_a_category_swapped_that_the_sample_has_once(column):
    rng = np.random.default_rng(0)
    texts = [f"kind {i:02}" for i in range(40)]
    sample = pd.DataFrame({"c": rng.choice(texts[:-1], 400), "n": rng.integers(0, 39, 400), "x": rng.normal(size=400)})
    sample.loc[399, ["c", "n"]] = [texts[-1], 39]
    encoded = ColumnTransformer([("o", OneHotEncoder(handle_unknown="ignore"), ["c", "n"])], remainder="passthrough")
    target = rng.normal(size=400)
    right, swapped = (make_pipeline(encoded, Ridge()).fit(sample, target) for _ in range(2))
    weights = swapped[-1].coef_
    last = 39 if column == "c" else 79
    weights[[last - 1, last]] = weights[[last, last - 1]]
    sample = sample.iloc[:399]  # as if the one row were not asked
    assert searched(right, swapped, sample).stopped == "found"


def this_year(built):
    return datetime.date.today().year - built


def local_time(built):
    return built - time.timezone / 3600


@pytest.mark.parametrize("function", [this_year, local_time])
def test_a_function_that_reads_the_clock_or_the_time_zone(alone, monkeypatch, function):
    monkeypatch.setattr(reads, "outside", lambda function, arguments: None)
    monkeypatch.setattr(rehearsal, "outside", lambda trace, function, arguments: None)
    table = pd.DataFrame({"built": np.arange(1950.0, 2020.0)})
    model = make_pipeline(FunctionTransformer(function), Ridge()).fit(table, table.built * 3)
    found = kinds_off(lambda reports: convert_model(model, table, reports=reports))
    assert found == [{"another time"}] * len(found)
    assert found


def test_what_was_replaced_for_another_time_is_as_before(iris):
    x, _ = iris
    table = pd.DataFrame(x, columns=list("abcd"))
    model = make_pipeline(FunctionTransformer(above), LinearRegression()).fit(table, x[:, 0])
    state = np.random.get_state()[1].copy()
    kinds = convert_model(model, table).parity.kinds
    assert next(kind.rows for kind in kinds if kind.kind == "another time") > 0
    assert (np.random.get_state()[1] == state).all()
    assert abs(datetime.datetime.now().timestamp() - time.time()) < 60


def test_the_same_model_and_sample_give_the_same_bytes(iris):
    x, y = iris
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    first, second = (convert_model(model, x) for _ in range(2))
    assert first.parity.search == second.parity.search
    assert first.bundle() == second.bundle()


def test_the_certificate_counts_what_was_searched_for(iris):
    x, y = iris
    report = convert_model(LogisticRegression(max_iter=500).fit(x, y), x).parity
    kind = next(kind for kind in report.kinds if kind.kind == "searched")
    assert report.search.rows == kind.rows - kind.refused_by_original - kind.refused_by_graph
    assert report.search.most_rows <= kind.rows < 2 * report.search.most_rows
    assert report.search.stopped == "rows"
    largest = max(output.largest_share for output in report.outputs)
    assert 0 < report.search.largest_share <= largest


def ask_of(f, refuses=lambda rows: np.zeros(len(rows), dtype=bool)):
    """Return how rows are asked of which the original answers `f`, and the share is f / 1000."""

    def ask(rows):
        taken = ~refuses(rows)
        answer = f(rows[taken]).to_numpy(dtype=float)
        return Asked(taken, np.abs(answer) / 1000, answer[:, None])

    return ask


@pytest.fixture
def square():
    """A table of two columns, and the moves of their values."""
    sample = pd.DataFrame(np.random.default_rng(0).normal(10, 2, (50, 2)), columns=["a", "b"])
    schema = infer(LinearRegression().fit(sample, sample.a), sample)
    return sample, moves.of(
        schema, probe(Original(LinearRegression().fit(sample, sample.a), schema)), "float64", {}, {}
    )


def test_climbers_come_to_the_corner_where_the_share_is_largest(square):
    sample, own = square
    found = falsifier.search(ask_of(lambda rows: rows.a * rows.b), own, sample, sample.iloc[:0], ROWS)
    reach = [(sample[n].max() - sample[n].min()) / 2 + sample[n].max() for n in "ab"]
    assert found.largest_share > 0.95 * reach[0] * reach[1] / 1000
    assert found.largest_share > 1.5 * (sample.a * sample.b).max() / 1000


def test_jumps_are_narrowed_down_to_less_than_a_rounding_of_float32(square):
    sample, own = square
    seen = []

    def stairs(rows):
        seen.append(rows.a.to_numpy())
        return (rows.a > 10.123456789) * 1.0

    found = falsifier.search(ask_of(stairs), own, sample, sample.iloc[:0], ROWS)
    assert found.jumps > 0
    assert np.abs(np.concatenate(seen) - 10.123456789).min() < 10 * 2.0**-24


def test_moves_that_are_always_refused_are_not_made_again(square):
    sample, own = square
    refused = []

    def refuses(rows):
        refused.append(int((rows.b < 1.5).sum()))
        return (rows.b < 1.5).to_numpy()

    found = falsifier.search(ask_of(lambda rows: rows.a, refuses), own, sample, sample.iloc[:0], ROWS)
    assert sum(refused[:4]) > 0
    assert sum(refused[-4:]) == 0
    assert found.rows < ROWS + 200


def test_a_search_that_takes_too_long_ends_with_a_note(iris, monkeypatch):
    x, y = iris
    monkeypatch.setattr(falsifier, "MOST_SECONDS", 0.0)
    report = convert_model(LogisticRegression(max_iter=500).fit(x, y), x).parity
    assert report.search.stopped == "seconds"
    assert any("depends on the machine" in note for note in report.notes)


def test_only_values_that_the_model_takes_are_drawn():
    sample = pd.DataFrame({"n": np.arange(20), "x": np.r_[np.nan, np.arange(1.0, 20)], "t": list("ab") * 10})
    sample["flag"] = sample["n"] > 9
    encoded = ColumnTransformer([("o", OneHotEncoder(), ["t"])], remainder="passthrough")
    model = make_pipeline(encoded, DecisionTreeRegressor(max_depth=2)).fit(sample, sample.n)
    original = Original(model, infer(model, sample))
    seen = []

    def ask(rows):
        seen.append(rows)
        return Asked(np.ones(len(rows), dtype=bool), np.zeros(len(rows)), np.zeros((len(rows), 1)))

    own = moves.of(original.schema, probe(original), "float64", {"x": [3.25]}, {"n": np.array([4.5])})
    falsifier.search(ask, own, original.schema.frame, original.schema.frame.iloc[:0], ROWS)
    rows = pd.concat(seen)
    assert rows.dtypes.equals(original.schema.frame.dtypes)
    assert set(rows.t) == {"a", "b"}
    assert set(rows.flag) == {True, False}
    assert rows.x.isna().any()
    assert {3.25, 0.0, 1.0, -1.0} <= set(rows.x)
    assert set(np.signbit(rows.x[rows.x == 0])) == {True, False}
    assert {0, 4, 5} <= set(rows.n)
    assert rows.x.between(-9, 29).sum() == rows.x.notna().sum()
