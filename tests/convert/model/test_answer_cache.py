"""The original is asked once for the same rows, and the answers that are kept stay within bounds."""

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import KNNImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from appliance.inference.session import Session
from convert.build import convert_model
from convert.model.answer_cache import AnswerCache
from convert.model.original import Original
from convert.model.schema import infer


def table(**columns):
    """Return a table whose texts and gaps are objects, as the schema's."""
    objects = {name for name, values in columns.items() if isinstance(values[0], str)}
    return pd.DataFrame({n: pd.Series(v, dtype=object if n in objects else None) for n, v in columns.items()})


def test_the_same_rows_are_asked_once_whatever_table_holds_them():
    cache, calls = AnswerCache(), []

    def ask():
        calls.append(1)
        return {"prediction": np.arange(2.0)}

    for rows in (table(a=[1.0, 2.0], b=["x", None]), table(a=[9.0, 1.0, 2.0], b=["-", "x", None])[1:]):
        assert cache.of(rows, ask)["prediction"].tolist() == [0.0, 1.0]
    assert len(calls) == 1


@pytest.mark.parametrize(
    "other",
    [
        table(a=[0.0, 2.0], b=["x", ""]),
        table(a=[-0.0, 2.0], b=["x", None]),
        table(a=[0.0, 2.0], b=["x", float("nan")]),
        table(a=np.array([0.0, 2.0], np.float32), b=["x", None]),
        table(a=[0, 2], b=["x", None]),
        table(c=[0.0, 2.0], b=["x", None]),
        table(a=[0.0], b=["x"]),
        table(b=["x", None], a=[0.0, 2.0]),
    ],
)
def test_rows_that_differ_in_a_bit_a_type_or_a_name_are_others(other):
    cache = AnswerCache()
    cache.of(table(a=[0.0, 2.0], b=["x", None]), lambda: {"p": np.zeros(2)})

    assert cache.of(other, lambda: {"p": np.ones(2)})["p"].tolist() == [1.0, 1.0]


def test_what_is_asked_under_other_limits_is_another_question():
    cache, rows, one, other = AnswerCache(), table(a=[1.0]), object(), object()

    assert cache.of(rows, lambda: {"p": np.zeros(1)}, one)["p"] == 0
    assert cache.of(rows, lambda: {"p": np.ones(1)}, other)["p"] == 1
    assert cache.of(rows, lambda: {"p": np.ones(1)}, one)["p"] == 0


def test_a_refusal_is_not_kept_and_the_longest_unused_answers_go_first():
    cache = AnswerCache(most_bytes=16)
    with pytest.raises(ValueError, match="no"):
        cache.of(table(a=[1]), lambda: (_ for _ in ()).throw(ValueError("no")))
    for value in (1, 2, 1, 3):  # 8 bytes each: the third answer puts 2 out, which was used before 1
        cache.of(table(a=[value]), lambda value=value: {"p": np.array([float(value)])})

    assert cache.of(table(a=[1]), lambda: {"p": np.array([-1.0])})["p"] == 1.0
    assert cache.of(table(a=[2]), lambda: {"p": np.array([-1.0])})["p"] == -1.0


def counted(monkeypatch, owner, name):
    """Return the list to which each call of a method adds the digest of what it was given."""
    calls, own = [], getattr(owner, name)

    def call(self, rows, *args, **kwargs):
        calls.append(rows.tobytes() if isinstance(rows, np.ndarray) else str(rows))
        return own(self, rows, *args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return calls


def test_a_conversion_asks_the_original_once_a_batch(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).round(2)
    model = LogisticRegression().fit(x, x[:, 0] > 0)
    asked = counted(monkeypatch, LogisticRegression, "predict_proba")
    made = convert_model(model, x)

    proved = {kind.kind for kind in made.parity.kinds}
    assert {"sample", "noise", "thresholds", "boundaries", "float32 search"} - proved <= {"thresholds"}
    asked = asked[1:]  # one row of the sample, before anything else: does the model have probabilities at all?
    assert len(asked) > len(proved)
    assert len(set(asked)) == len(asked)


def test_a_graph_that_refuses_ties_runs_each_batch_once(monkeypatch):
    x = np.random.default_rng(0).normal(20, 5, (200, 2)).round(1)
    gaps = x.copy()
    gaps[::7, 1] = np.nan
    model = make_pipeline(KNNImputer(n_neighbors=3), LinearRegression()).fit(gaps, x.sum(axis=1))
    apart = np.sort(np.abs(gaps[::7, 0][:, None] - gaps[~np.isnan(gaps[:, 1]), 0]), axis=1)
    sample = np.concatenate([gaps[1:7], gaps[::7][apart[:, 2] < apart[:, 3] - 1e-6]])
    runs, own = [], Session.run

    def run(self, feeds, *args, **kwargs):
        answers = own(self, feeds, *args, **kwargs)  # what it refuses it is asked again, by halves
        if len(next(iter(feeds.values()))) > 1:
            runs.append((id(self), *(array.tobytes() for array in feeds.values())))
        return answers

    monkeypatch.setattr(Session, "run", run)
    made = convert_model(model, sample)

    assert any(kind.refused_by_graph for kind in made.parity.kinds)
    assert len(set(runs)) >= len(runs) - 1  # the first rows were asked for the graph's shapes too


def test_a_caller_may_change_the_table_of_answers_it_is_given():
    x = np.random.default_rng(0).normal(size=(20, 2))
    model = LogisticRegression().fit(x, x[:, 0] > 0)
    original = Original(model, infer(model, x))
    first = original.answers(original.schema.frame)
    first["prediction"] = None

    assert original.answers(original.schema.frame)["prediction"].shape == (20,)
