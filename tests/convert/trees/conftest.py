"""Rows that find a wrong tree, and the comparison of a model with its graph on them."""

from dataclasses import dataclass

import numpy as np
import pytest
import skl2onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from threadpoolctl import threadpool_limits

from appliance.inference.session import Session
from convert.converters import adaboost, bagging, boosting, hist_gradient_boosting, isolation_forest, trees
from convert.model.steps import last_step

FAMILIES = (trees, hist_gradient_boosting, isolation_forest, adaboost, bagging, boosting)
TARGET_OPSET = {"": 21, "ai.onnx.ml": 5}
EXACT = 1e-12  # of float64 answers
SINGLE = 1e-6  # what a float32 output rounds away
KINDS = ("continuous", "one decimal", "integers", "missing")


@dataclass(frozen=True)
class Difference:
    """Rows whose labels differ, and the largest difference of numbers, relative where they are above 1."""

    labels: int
    numbers: float


@dataclass(frozen=True)
class Sample:
    """A training set of one kind: `x` [300, 5]; targets of two and three classes, texts, and positive numbers."""

    x: np.ndarray
    two: np.ndarray
    three: np.ndarray
    texts: np.ndarray
    numbers: np.ndarray


def draw(kind):
    """Return a training set whose columns are of one of KINDS."""
    rng = np.random.default_rng(KINDS.index(kind))
    x = rng.normal(size=(300, 5)) * 4
    x = {"one decimal": np.round(x, 1), "integers": np.round(x)}.get(kind, x)
    score = x[:, 0] + 0.5 * x[:, 1] + rng.normal(size=300)
    three = np.digitize(score, [-2, 2])
    if kind == "missing":
        x[rng.random(x.shape) < 0.15] = np.nan
    return Sample(x, (three > 0).astype(int), three, np.array(["b", "a", "c"])[three], np.abs(score) + 0.1)


def neighbours(x, thresholds=()):
    """Return `x`, rows around it, and rows with a column on a threshold (column, value) or the next float beside it."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=x.shape) * 0.3
    single = x.astype("float32")
    around = [x, x + noise, np.round(x + noise, 1), np.nextafter(x, np.inf), np.nextafter(x, -np.inf)]
    around += [np.nextafter(single, np.float32(side)).astype("float64") for side in (np.inf, -np.inf)]
    for column, value in [thresholds[i] for i in rng.permutation(len(thresholds))[:300]]:
        at = np.float64(value)
        values = [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf)]
        narrow = np.float32(at)
        with np.errstate(over="ignore"):
            values += [narrow, np.nextafter(narrow, np.float32(np.inf)), np.nextafter(narrow, np.float32(-np.inf))]
        rows = x[rng.integers(0, len(x), len(values))].copy()
        rows[:, column] = values
        around.append(rows)
    return np.concatenate(around)


def graph(model, width, dtype="float64", inputs=None):
    """Return the model's graph, for one input of `width` columns or for `inputs` [(name, type)]."""
    tensor = {"float64": DoubleTensorType, "float32": FloatTensorType}[dtype]
    last = last_step(model)
    options = {id(step): {"zipmap": False} for step in (model, last)} if hasattr(last, "predict_proba") else None
    types = inputs or [("x", tensor([None, width]))]
    made = skl2onnx.convert_sklearn(model, initial_types=types, target_opset=TARGET_OPSET, options=options)
    return made.SerializeToString()


def compare(model, rows, dtype="float64", feeds=None):
    """Return how the graph's answers differ from the model's for `rows`; `feeds` are the same rows for the graph."""
    if feeds is None:
        rows = rows.astype(dtype)
        feeds, inputs = {"x": rows}, None
    else:
        inputs = [(name, _TYPES[array.dtype.kind]([None, 1])) for name, array in feeds.items()]
    answers = Session(graph(model, rows.shape[1], dtype, inputs)).run(feeds)
    return difference(model, rows, answers)


def difference(model, rows, answers):
    """Return how `answers` differ from the model's."""
    given = np.asarray(getattr(model, "predict", getattr(model, "transform", None))(rows))
    if not hasattr(model, "predict_proba") and not hasattr(model, "decision_function"):
        return Difference(0, _apart(answers[0], given))
    flips = int((np.asarray(answers[0]).reshape(given.shape) != given).sum())
    score = model.predict_proba if hasattr(model, "predict_proba") else model.decision_function
    return Difference(flips, _apart(answers[1], score(rows)))


def _apart(ours, theirs):
    theirs = np.asarray(theirs, dtype="float64")
    ours = np.asarray(ours, dtype="float64").reshape(theirs.shape)
    return float((np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))).max())


_TYPES = {
    "f": DoubleTensorType,
    "i": skl2onnx.common.data_types.Int64TensorType,
    "O": skl2onnx.common.data_types.StringTensorType,
}


@pytest.fixture(scope="session")
def proof():
    """The functions above, for test modules; our converters are registered."""
    for family in FAMILIES:
        family.register()
    with threadpool_limits(limits=1):  # models this small lose more by waiting for threads than they win
        yield Proof


def check(model, rows, double=EXACT, single=SINGLE):
    """Assert that graphs of both types give every label, and numbers that differ by `double` and `single` at most."""
    in_double, in_single = compare(model, rows), compare(model, rows, "float32")
    assert (in_double.labels, in_single.labels) == (0, 0)
    assert in_double.numbers <= double
    assert in_single.numbers <= single


class Proof:
    """What test modules use of this file."""

    draw = staticmethod(draw)
    neighbours = staticmethod(neighbours)
    graph = staticmethod(graph)
    compare = staticmethod(compare)
    check = staticmethod(check)
    difference = staticmethod(difference)
