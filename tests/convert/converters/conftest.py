"""Asks an estimator and its ONNX graph the same fresh rows, as float64 and float32."""

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import skl2onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import is_classifier, is_regressor
from sklearn.datasets import make_classification, make_regression

from appliance.inference.session import INEXACT_OPTIMIZERS
from convert.converters import families, trees
from convert.model.schema import text_of_null

ROWS = 60
OPSETS = {"": 21, "ai.onnx.ml": 5}


@pytest.fixture(scope="session", autouse=True)
def _registered():
    trees.register()
    families.register()


@pytest.fixture(scope="session")
def data():
    """Small training sets by what they are for: (rows, answers)."""
    three, of_three = make_classification(
        90, 5, n_informative=4, n_redundant=0, n_classes=3, n_clusters_per_class=1, random_state=0
    )
    two, of_two = make_classification(90, 5, n_informative=3, n_redundant=0, random_state=0)
    rows, numbers = make_regression(90, 5, noise=5, random_state=0)
    unlabelled = np.where(np.arange(90) % 3, of_three, -1)
    return {
        "three": (three, np.array(["b", "a", "c"])[of_three]),
        "two": (two, np.array(["no", "yes"])[of_two]),
        "zero or one": (two, of_two),
        "numbers": (rows, numbers),
        "positive numbers": (rows, np.abs(numbers) + 1),
        "one column": (rows[:, :1], numbers),
        "two numbers": (rows, np.c_[numbers, 3 * rows[:, 0] + 1]),
        "labels": (three, np.c_[of_three == 0, of_three > 0, of_two > 0].astype(int)),
        "unlabelled": (three, unlabelled),
        "rows": (three, None),
        "positive": (np.abs(three) + 0.1, of_three),
        "few values": (np.clip(np.round(np.abs(three)), 0, 2), of_three),
        "repeated": (np.round(three), None),
        "gaps": (np.where(np.random.default_rng(0).random(three.shape) < 0.2, np.nan, three), of_three),
    }


@pytest.fixture(scope="session")
def fresh():
    """Return rows near the training rows, half of them rounded to a decimal, with as many gaps as these have."""

    def fresh(rows, seed=1):
        rng = np.random.default_rng(seed)
        filled = np.nan_to_num(rows)
        moved = filled[rng.integers(0, len(rows), ROWS)]
        if len(np.unique(filled)) > 5:
            moved = moved + rng.normal(size=moved.shape) * filled.std(0) * 0.3
        moved[ROWS // 2 :] = np.round(moved[ROWS // 2 :], 1)
        moved = np.maximum(np.abs(moved), 0.05) if (filled > 0).all() else moved
        return np.where(rng.random(moved.shape) < np.isnan(rows).mean(), np.nan, moved)

    return fresh


@pytest.fixture(scope="session")
def graph():
    """Convert a fitted model as float64 or float32, or by the columns of a table, or for texts, to a session."""

    def graph(model, sample, dtype="float64"):
        if isinstance(sample, pd.DataFrame):
            types = [(name, _column_type(values)) for name, values in sample.items()]
        elif isinstance(sample, list):
            types = [("texts", StringTensorType([None, 1]))]
        else:
            kind = DoubleTensorType if dtype == "float64" else FloatTensorType
            types = [("features", kind([None, sample.shape[1]]))]
        options = {id(model): {"zipmap": False}} if is_classifier(model) else None
        onnx = skl2onnx.convert_sklearn(model, initial_types=types, target_opset=OPSETS, options=options)
        return onnxruntime.InferenceSession(
            onnx.SerializeToString(), providers=["CPUExecutionProvider"], disabled_optimizers=INEXACT_OPTIMIZERS
        )

    return graph


@pytest.fixture(scope="session")
def ask(graph):
    """Return a graph's outputs for rows."""

    def ask(session, rows):
        if isinstance(rows, pd.DataFrame):
            feeds = {
                entry.name: _column(values)
                for entry, (_, values) in zip(session.get_inputs(), rows.items(), strict=True)
            }
        elif isinstance(rows, list):
            feeds = {"texts": np.array(rows, dtype=object).reshape(-1, 1)}
        else:
            kind = np.float64 if "double" in session.get_inputs()[0].type else np.float32
            feeds = {"features": rows.astype(kind)}
        return session.run(None, feeds)

    return ask


@pytest.fixture(scope="session")
def assert_same(graph, ask):
    """Assert that a fitted model and its graph answer alike: labels equal, numbers within 1e-5 + 1e-5 of their size."""

    def assert_same(model, rows, dtypes=("float64", "float32")):
        for dtype in dtypes:
            asked = rows.astype(dtype).astype("float64") if isinstance(rows, np.ndarray) else rows
            session = graph(model, rows, dtype)
            together, alone = ask(session, asked), ask(session, asked[:1])
            for (method, expected), found, one in zip(_expected(model, asked), together, alone, strict=False):
                _compare(model, method, expected, found)
                _compare(model, method, expected[:1], one)

    return assert_same


def _expected(model, rows):
    if not hasattr(model, "predict"):
        return [("transform", model.transform(rows))]
    answers = [("predict", model.predict(rows))]
    second = next((name for name in ("predict_proba", "decision_function") if hasattr(model, name)), None)
    return answers + ([(second, getattr(model, second)(rows))] if second else [])


def _compare(model, method, expected, found):
    expected = expected.toarray() if hasattr(expected, "toarray") else np.asarray(expected)
    found = found[:, 0] if found.ndim == 2 and expected.ndim == 1 else found
    assert found.shape == expected.shape
    if expected.dtype.kind in "OUS" or (method == "predict" and not is_regressor(model)):
        assert (expected.astype(str) == found.astype(expected.dtype).astype(str)).all()
    else:
        np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=1e-5, atol=1e-5)


def _column_type(values):
    if values.dtype == object:
        return StringTensorType([None, 1])
    return Int64TensorType([None, 1]) if values.dtype.kind in "ib" else DoubleTensorType([None, 1])


def _column(values):
    if values.dtype == object:
        texts = [text_of_null(value) if value is None or value != value else value for value in values]
        return np.array(texts, dtype=object).reshape(-1, 1)
    return values.to_numpy().reshape(-1, 1).astype("int64" if values.dtype.kind in "ib" else "float64")
